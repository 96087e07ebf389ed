"""What an update of a large index costs: seconds, and bytes that it reads and writes, with and without rewriting all.

    python benchmarks/update.py --vectors 1281167 --features 256 --kind flat sq8

The index holds made-up vectors of pictures that do not exist. 1,000 pictures are added and 100 are gone; `pieces` is
what `alexnet index` does, `rewritten` is the same with one file of vectors, and codes that are learned again. Each runs
once, from the system's cache.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import RESULTS
from search import MadeUp

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.retrieval import changes
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import IndexedPicture

ADDED, GONE = 1000, 100


class Noise:
    """Vectors like fc7: not negative, half of them 0."""

    def __init__(self, features: int) -> None:
        self.random, self.features = np.random.default_rng(0), features

    def vectors(self, count: int) -> np.ndarray:
        return np.maximum(self.random.standard_normal((count, self.features), np.float32), 0)


class Changed(MadeUp):
    """The collection with ADDED pictures more, and without GONE, evenly spread."""

    def all(self) -> list[IndexedPicture]:
        self.count += ADDED
        every = super().all()
        self.count -= ADDED
        gone = set(np.linspace(0, self.count - 1, GONE).astype(int).tolist())
        return [one for i, one in enumerate(every) if i not in gone]


def traffic() -> dict[str, int]:
    """Bytes that this process has read and written so far, of the cache as well as of the disk."""
    lines = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    told = {key: int(value) for key, value in lines}
    return {"read": told["rchar"], "written": told["wchar"]}


def update(folder: Path, collection: MadeUp) -> dict[str, Any]:
    before, began = traffic(), time.perf_counter()
    built = build_index(collection, collection, folder, model_path=Path("made-up"))
    seconds, after = time.perf_counter() - began, traffic()
    megabytes = {f"megabytes_{key}": round((after[key] - before[key]) / 1e6, 1) for key in before}
    return {"pictures": built.images, "seconds": round(seconds, 1), **megabytes}


def measure(kind: str, count: int, features: int, scratch: Path) -> dict[str, Any]:
    model: Any = SimpleNamespace(feature_size=features, fingerprint="made-up", precision="fp32")
    source: Any = Noise(features)
    folder = scratch / kind
    whole, changed = MadeUp(model, source, count), Changed(model, source, count)
    build_index(whole, whole, folder, model_path=Path("made-up"), kind=kind)
    shutil.copytree(folder, scratch / "rewritten")
    found = {"kind": kind, "pieces": update(folder, changed)}
    changes.MOST_FILES, most = 0, changes.MOST_FILES
    try:
        return found | {"rewritten": update(scratch / "rewritten", changed)}
    finally:
        changes.MOST_FILES = most
        shutil.rmtree(scratch / "rewritten")
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--kind", nargs="+", default=["flat", "sq8"])
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        for kind in given.kind:
            results.append(measure(kind, given.vectors, given.features, Path(scratch)))
            print(results[-1], flush=True)
    file = RESULTS / f"update-{given.vectors}x{given.features}.json"
    write_json(file, {"vectors": given.vectors, "features": given.features, **environment(), "kinds": results})
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
