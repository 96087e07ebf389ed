"""Milvus beside FAISS: the time to build an index, and that of a query, of as many made-up vectors.

    python benchmarks/milvus.py models/torchvision --vectors 5000 20000 [--uri http://127.0.0.1:19530]

Each index is built by `build_index` and asked by `Index.neighbours`, which measures the distances of what was found
itself. Without --uri the engine is embedded. The vectors are normal numbers after a ReLU, without any structure.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np
from common import RESULTS
from kinds import Source
from search import MadeUp

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.index import Index

QUERIES = 20


def measure(model: Path, kind: str, count: int, uri: str | None, folder: Path) -> dict[str, float]:
    """Build an index of ``count`` vectors of that ``kind``, and ask it."""
    onnx = OnnxModel.open(model / "model.onnx")
    real = np.maximum(np.random.default_rng(0).standard_normal((1024, onnx.feature_size), np.float32), 0)
    stand_in, began = MadeUp(onnx, Source(real, 0), count), time.monotonic()
    build_index(stand_in, stand_in, folder, model_path=model, kind=kind, uri=uri)
    built = time.monotonic() - began
    queries, times = Source(real, 1).vectors(QUERIES), []
    with contextlib.closing(Index.open(folder)) as index:
        index.neighbours(queries[:1], 10)  # which opens the connection
        for query in queries:
            began = time.perf_counter()
            index.neighbours(query[None], 10)
            times.append(1000 * (time.perf_counter() - began))
        facts = index.facts
    return {
        "build_seconds": round(built, 1),
        "median_ms": round(float(np.median(times)), 1),
        "slowest_ms": round(max(times), 1),
        "recall_at_10": facts["recall_at_10"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--vectors", type=int, nargs="+", default=[20_000])
    parser.add_argument("--uri")
    given = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for count in given.vectors:
        for kind in ("flat", "milvus"):
            with tempfile.TemporaryDirectory() as scratch:
                uri = given.uri if kind == "milvus" else None
                facts = measure(given.model, kind, count, uri, Path(scratch) / "indexes" / kind)
            found.setdefault(f"{count:,}", {})[kind] = facts
            print(f"{count:,} vectors, {kind}: {facts}", flush=True)
    write_json(RESULTS / "milvus.json", {"place": given.uri or "embedded", **environment(), "found": found})


if __name__ == "__main__":
    main()
