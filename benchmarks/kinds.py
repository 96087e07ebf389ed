"""Indexes larger than memory: build time, search time, memory and recall of each kind.

    python benchmarks/kinds.py indexes/imagenette --vectors 1000000 --kinds ivfpq binary

The vectors are made up, with the spectrum of covariance and the sparsity of the fc7 vectors of a real index, and
streamed to disk. Each kind is built from them in a process of its own. The reported peak memory is that of the process,
without the system's cache of files. The queries are new vectors, and recall is measured against brute force.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from common import RESULTS

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.retrieval.coding import build_kind
from alexnet_cli.retrieval.kinds import KINDS, recall
from alexnet_cli.retrieval.vectors import VectorFile, VectorWriter

QUERIES, COMPONENTS, CHUNK = 100, 256, 4096


class Source:
    """Random vectors like those of a real index: its principal components with noise, and zeros as after a ReLU."""

    def __init__(self, real: np.ndarray, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.mean, self.spread = real.mean(0), real.std(0) + 1e-6
        standard = (real - self.mean) / self.spread
        values, vectors = np.linalg.eigh(standard.T @ standard / len(real))
        self.roots, self.axes = (
            np.sqrt(np.maximum(values[-COMPONENTS:], 0)),
            vectors[:, -COMPONENTS:].astype(np.float32),
        )
        self.scores = (standard @ self.axes).astype(np.float32)  # (N, COMPONENTS)
        self.rest = np.sqrt(np.maximum(1 - (self.axes**2) @ self.roots**2, 0)).astype(np.float32)  # of each feature
        self.floor = np.zeros(real.shape[1], np.float32)
        drawn = self.draw(CHUNK)  # the quantile at which each feature gets its real share of zeros
        zeros = (real <= 0).mean(0)
        self.floor = np.array([np.quantile(drawn[:, j], zeros[j]) for j in range(real.shape[1])], np.float32)
        self.floor[zeros == 0] = 0

    def draw(self, count: int) -> np.ndarray:
        """Vectors (count, D) float32 before the floor is subtracted."""
        picked = self.scores[self.random.integers(len(self.scores), size=count)]
        noise = self.random.standard_normal((count, COMPONENTS), np.float32) * self.roots.astype(np.float32)
        latent = np.sqrt(0.7, dtype=np.float32) * picked + np.sqrt(0.3, dtype=np.float32) * noise
        own = self.random.standard_normal((count, len(self.mean)), np.float32) * self.rest
        drawn: np.ndarray = (latent @ self.axes.T + own) * self.spread + self.mean
        return drawn

    def vectors(self, count: int) -> np.ndarray:
        """(count, D) float32, not negative."""
        return np.maximum(self.draw(count) - self.floor, 0).astype(np.float32)


def write(real: np.ndarray, count: int, folder: Path) -> dict[str, float]:
    """``count`` vectors to `flat`, and QUERIES others to `queries.npy`; returns how they compare with real ones."""
    source, began = Source(real, 0), time.monotonic()
    flat = VectorWriter(folder / "flat", real.shape[1])
    for start in range(0, count, CHUNK):
        flat.add(source.vectors(min(CHUNK, count - start)))
    flat.finish()
    flat.close()
    sample = source.vectors(len(real))
    np.save(folder / "queries.npy", source.vectors(QUERIES))

    def largest(vectors: np.ndarray) -> float:
        values = np.linalg.eigvalsh(np.cov(vectors[:, ::8].T))
        return float(values[-32:].sum() / values.sum())

    return {
        "zeros": float((sample == 0).mean()),
        "zeros_of_real": float((real == 0).mean()),
        "variance_in_32_components": largest(sample),
        "variance_in_32_components_of_real": largest(real),
        "write_seconds": time.monotonic() - began,
    }


def build_and_measure(name: str, folder: Path, count: int, dimension: int) -> None:
    """Build one kind in this process, measure it, and print the result."""
    vectors, queries = VectorFile.open(folder / "flat", count, dimension), np.load(folder / "queries.npy")
    file, kind = folder / f"{name}.faiss", KINDS[name]()
    facts = build_kind(name, vectors, file)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    kind.load(file, facts)
    nearest = vectors.brute_force(queries, 10)
    times, found = [], []
    for _ in range(2):  # the second time, the vectors are in the system's cache
        times, found = [], []
        for query in queries:
            began = time.perf_counter()
            candidates = kind.candidates(vectors, query[None], 10)[0]
            found.append(vectors.rank(query, candidates[candidates >= 0], 10)[0])
            times.append(1000 * (time.perf_counter() - began))
    print(json.dumps(facts | {"peak_gigabytes": peak, "recall": recall(np.stack(found), nearest), "ms": times}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--kinds", nargs="+", default=["ivfpq", "hnsw", "sq8", "binary", "autoencoder"])
    parser.add_argument("--scratch", type=Path, help="a folder with free space for the vectors")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        kind, folder, dimension = given.build.split("|")
        build_and_measure(kind, Path(folder), given.vectors, int(dimension))
        return
    real_index = faiss.read_index(str(given.index / "index.faiss"))
    real = real_index.reconstruct_n(0, real_index.ntotal)
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        likeness = write(real, given.vectors, Path(scratch))
        print({key: round(value, 3) for key, value in likeness.items()}, flush=True)
        results = {}
        for kind in given.kinds:
            command = [sys.executable, __file__, str(given.index), "--vectors", str(given.vectors)]
            command += ["--build", f"{kind}|{scratch}|{real.shape[1]}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            facts = json.loads(done.stdout.splitlines()[-1])
            times = sorted(facts.pop("ms"))
            facts |= {"median_ms": times[len(times) // 2], "slowest_ms": times[-1]}
            results[kind] = facts
            print(
                f"{kind}: recall@10 {facts['recall']:.3f}, {facts['median_ms']:.1f} ms per query "
                f"(slowest {facts['slowest_ms']:.1f}), {facts['code_bytes_per_vector']:.0f} bytes per vector, "
                f"built in {facts['build_seconds']:.0f} s with at most {facts['peak_gigabytes']:.1f} GB",
                flush=True,
            )
    file = RESULTS / f"kinds-{given.vectors}.json"
    write_json(file, {"vectors": given.vectors, "likeness": likeness, **environment(), "kinds": results})


if __name__ == "__main__":
    main()
