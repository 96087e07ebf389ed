"""Codes: a small stand-in for every vector, by which a large index finds the few that are worth measuring exactly.

The vectors themselves stay on disk, as in a flat index. A query is compared with the codes first; the rows that come
out nearest are read and measured, so that distances are exact and only a neighbour that was not on the shortlist is
missed. How many are missed is measured when the codes are made, against all vectors.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import atomic_write
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.progress import SILENT, Progress

KINDS = {
    "flat": "every vector is measured: exact",
    "sq8": "a byte a feature; every code is compared",
    "ivfpq": "64 bytes a vector; the codes of the nearest lists are compared",
    "hnsw": "a byte for each of 256 components, in a graph of neighbours",
    "binary": "a bit a feature, as §6.1 suggests; every code is compared",
}
FLAT_UP_TO = 1 << 31  # bytes of vectors: what is smaller is measured in full unless a kind is named
WANTED_RECALL = 0.95  # of the shortlist, when it is chosen how far to look
QUERIES = 64  # vectors that are asked for, to choose and to measure
CHUNK = 512  # vectors in memory at a time, 8 MB of fc7: they stay in the cache while they are used
TRAINED_ON = 50_000  # vectors, spread over all
COMPONENTS = 256  # of PCA, before product quantization and in the graph
SHORTLISTS = (50, 100, 200, 400)
EFFORTS = (4, 8, 16, 32, 64, 128, 256, 512)  # lists looked into, or nodes of the graph kept in view


def chosen(kind: str | None, count: int, dimension: int) -> str:
    """``kind``, or if none is named the one for ``count`` vectors. Raises AlexNetError for an unknown one."""
    if kind is None:
        return "flat" if 4 * count * dimension <= FLAT_UP_TO else "ivfpq"
    if kind not in KINDS:
        raise AlexNetError(f"no kind {kind!r} of index: there are {', '.join(KINDS)}")
    return kind


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The vectors of a flat index on disk, read in pieces: what is mapped would count as this process's memory."""

    file: io.FileIO  # open, so that they stay these vectors if an update takes their name
    begins: int  # bytes before the first vector
    count: int
    dimension: int

    @classmethod
    def of(cls, path: Path, count: int, dimension: int) -> "Vectors":
        begins = path.stat().st_size - 4 * count * dimension
        return cls(file=io.FileIO(path), begins=begins, count=count, dimension=dimension)

    def read(self, first: int, last: int, room: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, put into ``room`` if some is given."""
        rows = min(last, self.count) - first
        vectors = np.empty((rows, self.dimension), np.float32) if room is None else room[:rows]
        self.file.seek(self.begins + 4 * first * self.dimension)
        if self.file.readinto(vectors.data) != vectors.nbytes:
            raise BadArtefact(f"{self.file.name} is cut short: remove its index and build it again")
        return vectors

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors, CHUNK at a time, with the row of the first: (n, D) float32, overwritten by the next."""
        room = np.empty((CHUNK, self.dimension), np.float32)
        for first in range(0, self.count, CHUNK):
            yield first, self.read(first, first + CHUNK, room)

    def nearest(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Rows (Q, k) of the vectors nearest to ``queries`` (Q, D) float32, nearest first, by comparing all."""
        faiss: Any = import_module("faiss")
        best = faiss.ResultHeap(len(queries), k)
        for first, part in self.chunks():
            distances, rows = faiss.knn(queries, part, min(k, len(part)))
            best.add_result(distances, rows + first)
        best.finalize()
        return np.asarray(best.I)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (n,): (n, D) float32."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for i, row in enumerate(rows.tolist()):
            self.read(row, row + 1, vectors[i : i + 1])
        return vectors

    def spread(self, wanted: int) -> np.ndarray:
        """At most ``wanted`` rows from all over: (n, D) float32."""
        return self.take(np.unique(np.linspace(0, self.count - 1, min(wanted, self.count)).astype(np.int64)))


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes of an index, in memory."""

    index: Any  # FAISS's; its type stubs know nothing of what Python adds to it
    shortlist: int  # rows that are measured exactly
    effort: int  # lists or nodes looked at; 0 where every code is compared

    def rows(self, queries: np.ndarray, k: int) -> np.ndarray:
        """The rows to measure for ``queries`` (Q, D) float32: (Q, n) int64, at least ``k`` if there are; -1 is none."""
        faiss: Any = import_module("faiss")
        options = None
        if self.effort:
            inner = faiss.downcast_index(self.index.index)
            if isinstance(inner, faiss.IndexIVF):
                options = faiss.SearchParametersPreTransform(
                    index_params=faiss.SearchParametersIVF(nprobe=min(self.effort, inner.nlist))
                )
            else:
                options = faiss.SearchParametersPreTransform(
                    index_params=faiss.SearchParametersHNSW(efSearch=max(self.effort, self.shortlist))
                )
        wanted = min(max(self.shortlist, k), self.index.ntotal)
        _, found = self.index.search(queries, wanted, params=options)
        return np.asarray(found)


def make(kind: str, vectors: Vectors, file: Path, progress: Progress = SILENT) -> dict[str, Any]:
    """Write the codes of ``vectors`` to ``file``. Returns what `load` needs to know, and what was measured.

    Memory holds the codes, a sample of the vectors to learn them from, and a chunk.
    """
    import faiss

    began = time.monotonic()
    progress.note(f"learning {kind} codes from {min(TRAINED_ON, vectors.count):,} vectors")
    index = _untrained(kind, vectors.count, vectors.dimension)
    index.train(vectors.spread(TRAINED_ON))
    for first, part in vectors.chunks():
        index.add(part)
        progress.advance("coding", first + len(part), vectors.count)
    with atomic_write(file) as temporary:
        faiss.write_index(index, str(temporary))
    facts = _choose(kind, index, vectors, progress)
    bytes_each = round(file.stat().st_size / vectors.count, 1)
    return facts | {"code_bytes_per_vector": bytes_each, "build_seconds": round(time.monotonic() - began, 1)}


def load(file: Path, facts: dict[str, Any]) -> Codes:
    """The codes in ``file``. Raises RuntimeError if it is damaged, KeyError if ``facts`` are not those of `make`."""
    import faiss

    return Codes(index=faiss.read_index(str(file)), shortlist=facts["shortlist"], effort=facts["effort"])


def _untrained(kind: str, count: int, dimension: int) -> Any:
    faiss: Any = import_module("faiss")

    components = min(COMPONENTS, dimension, max(1, count // 2))
    if kind == "sq8":
        return faiss.index_factory(dimension, "SQ8")
    if kind == "hnsw":
        return faiss.index_factory(dimension, f"PCA{components},HNSW32_SQ8")
    if kind == "ivfpq":
        parts = next(parts for parts in (64, 32, 16, 8, 4, 2, 1) if components % parts == 0)
        bits = min(8, max(1, int(np.log2(max(2, count / 40)))))  # k-means wants some 40 vectors for each centre
        lists = max(1, min(round(2 * count**0.5), count // 40))
        index = faiss.index_factory(dimension, f"PCAR{components},IVF{lists},PQ{parts}x{bits}")
        inner = faiss.downcast_index(index.index)
        inner.cp.min_points_per_centroid = inner.pq.cp.min_points_per_centroid = 1  # a handful: no warnings
        return index
    # A bit says whether a feature is above its mean. (Its median, which FAISS would take, is 0 after a ReLU.)
    bits = faiss.IndexLSH(dimension, dimension, False, False)
    return faiss.IndexPreTransform(faiss.CenteringTransform(dimension), bits)


def _choose(kind: str, index: Any, vectors: Vectors, progress: Progress) -> dict[str, Any]:
    """The shortest shortlist and the least effort with which WANTED_RECALL is reached, or the most there is.

    Half of the queries choose, the others measure: nothing is measured on what it was chosen by.
    """
    queries = vectors.spread(2 * QUERIES)
    k = min(10, vectors.count - 1)
    progress.note("measuring recall against all vectors")
    nearest = exact(vectors, queries, k + 1)[:, 1:]  # the first is the query itself, which nothing misses
    efforts = EFFORTS if kind in ("ivfpq", "hnsw") else (0,)
    codes = Codes(index=index, shortlist=SHORTLISTS[-1], effort=efforts[-1])
    for codes in (Codes(index=index, shortlist=n, effort=effort) for n in SHORTLISTS for effort in efforts):
        if recall(codes.rows(queries[::2], k), nearest[::2]) >= WANTED_RECALL:
            break
    began, found = time.perf_counter(), []
    for query in queries[1::2]:  # one by one, as they are asked
        rows = codes.rows(query[None], k)[0]
        np.linalg.norm(vectors.take(rows[rows >= 0]) - query, axis=1)
        found.append(rows)
    milliseconds = 1000 * (time.perf_counter() - began) / max(1, len(found))
    return {
        "shortlist": codes.shortlist,
        "effort": codes.effort,
        "recall_at_10": recall(np.stack(found), nearest[1::2]) if k else 1.0,
        "milliseconds_per_query": round(milliseconds, 3),
    }


def exact(vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows (Q, k) of the nearest of all vectors, nearest first, by brute force, a chunk at a time."""
    asked = queries.astype(np.float64)
    best = np.full((len(queries), k), np.inf)
    rows = np.full((len(queries), k), -1, np.int64)
    for first, part in vectors.chunks():
        squares = (asked**2).sum(1)[:, None] - 2.0 * (queries @ part.T) + np.einsum("nd,nd->n", part, part)
        both = np.concatenate([best, squares], axis=1)
        here = np.concatenate([rows, np.broadcast_to(np.arange(first, first + len(part)), squares.shape)], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(both, order, 1), np.take_along_axis(here, order, 1)
    return rows


def recall(found: np.ndarray, nearest: np.ndarray) -> float:
    """Share of the ``nearest`` (Q, k) rows that are among those ``found`` (Q, n)."""
    hits = [len(set(got.tolist()) & set(right.tolist())) for got, right in zip(found, nearest, strict=True)]
    return float(sum(hits) / max(1, nearest.size))
