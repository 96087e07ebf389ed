"""The vectors of an index on disk, in FAISS's own file of a flat index, read in pieces from any number of threads."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet_cli.errors import BadArtefact

CHUNK = 512  # vectors in memory at a time, 8 MB of fc7: they stay in the cache while they are used


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Rows of float32 in an open file. It is read, not mapped: mapped pages would count as this process's memory.

    Reads are positional, so that threads do not move each other's place in the file.
    """

    file: BinaryIO  # it stays the same file when an update takes its name
    offset: int  # bytes before the first vector
    count: int
    dimension: int

    @classmethod
    def open(cls, path: Path, count: int, dimension: int) -> "Vectors":
        """The ``count`` vectors of the flat index in ``path``."""
        offset = path.stat().st_size - 4 * count * dimension
        return cls(file=open(path, "rb", buffering=0), offset=offset, count=count, dimension=dimension)

    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, written to ``out`` if it is given.

        Raises BadArtefact if the file is cut short.
        """
        rows = min(last, self.count) - first
        vectors = np.empty((rows, self.dimension), np.float32) if out is None else out[:rows]
        content = vectors.reshape(-1).view(np.uint8).data
        start = self.offset + 4 * first * self.dimension
        while content:  # one call reads at most 2 GB
            read = os.preadv(self.file.fileno(), [content], start)
            if not read:
                raise BadArtefact(f"{self.file.name} is cut short: remove its index and build it again")
            content, start = content[read:], start + read
        return vectors

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors, CHUNK at a time, with the row of the first: (n, D) float32, overwritten by the next."""
        buffer = np.empty((CHUNK, self.dimension), np.float32)
        for first in range(0, self.count, CHUNK):
            yield first, self.read(first, first + CHUNK, buffer)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (n,): (n, D) float32."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for i, row in enumerate(rows.tolist()):
            self.read(row, row + 1, vectors[i : i + 1])
        return vectors

    def sample(self, most: int) -> np.ndarray:
        """At most ``most`` vectors, evenly spread over all rows: (n, D) float32."""
        return self.take(np.unique(np.linspace(0, self.count - 1, min(most, self.count)).astype(np.int64)))

    def brute_force(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Rows (Q, k) of the vectors nearest to ``queries`` (Q, D) float32, nearest first: every vector is compared."""
        faiss: Any = import_module("faiss")  # its type stubs lack what its Python layer adds
        best = faiss.ResultHeap(len(queries), k)
        for first, chunk in self.chunks():
            distances, rows = faiss.knn(queries, chunk, min(k, len(chunk)))
            best.add_result(distances, rows + first)
        best.finalize()
        return np.asarray(best.I)

    def rank(self, query: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` of ``rows`` (n,) nearest to ``query`` (D,), nearest first, and their Euclidean distances.

        Distances are measured here and not taken from FAISS, which for many queries computes |q|² - 2qx + |x|²: that
        cancels for vectors close to the query.
        """
        vectors = self.take(rows).astype(np.float64)  # (n, D)
        distances = np.linalg.norm(vectors - query.astype(np.float64), axis=1)  # (n,)
        order = np.argsort(distances, kind="stable")[:k]
        return rows[order], distances[order]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class VectorWriter:
    """Writes FAISS's file of a flat index as vectors come; memory never holds them all.

    The file is a header, with the number of vectors (int64 at byte 8) and of their values (int64 at its end), and then
    the vectors. A test holds FAISS to that.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        import faiss

        self.header = bytes(faiss.serialize_index(faiss.IndexFlatL2(dimension)))
        self.dimension, self.count = dimension, 0
        self.file = open(path, "wb")  # noqa: SIM115 - closed by close
        self.file.write(self.header)

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32."""
        self.file.write(np.ascontiguousarray(vectors, np.float32).data)
        self.count += len(vectors)

    def finish(self) -> None:
        """Write the counts into the header: now the file is complete."""
        values = self.count * self.dimension
        for position, number in ((8, self.count), (len(self.header) - 8, values)):
            self.file.seek(position)
            self.file.write(struct.pack("<q", number))

    def close(self) -> None:
        """Close the file."""
        self.file.close()
