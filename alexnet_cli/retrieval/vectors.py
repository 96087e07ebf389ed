"""The vectors of an index, read in pieces from any number of threads; on disk, in FAISS's own file of a flat index."""

import contextlib
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from alexnet_cli.retrieval.layout import damaged

CHUNK = 512  # vectors in memory at a time, 8 MB of fc7: they stay in the cache while they are used


@dataclass(frozen=True, kw_only=True)
class Vectors(ABC):
    """Rows of float32, wherever they are."""

    folder: Path  # of the index
    count: int
    dimension: int
    checksum: str | None  # of all vectors; not compared if None
    check_rows: Callable[[list[int], np.ndarray], None] | None  # raises if vectors are not those of their rows

    @abstractmethod
    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, written to ``out`` if it is given.

        Raises BadArtefact if there are fewer.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file, or the connection."""

    def _take(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (n,): (n, D) float32."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for i, row in enumerate(rows.tolist()):
            self.read(row, row + 1, vectors[i : i + 1])
        return vectors

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors, CHUNK at a time, with the row of the first: (n, D) float32, overwritten by the next.

        Raises BadArtefact after the last if they are not those that were written.
        """
        buffer, digest = np.empty((CHUNK, self.dimension), np.float32), xxhash.xxh3_128()
        for first in range(0, self.count, CHUNK):
            chunk = self.read(first, first + CHUNK, buffer)
            digest.update(chunk.reshape(-1).view(np.uint8).data)
            yield first, chunk
        if self.checksum is not None and digest.hexdigest() != self.checksum:
            raise damaged(self.folder, "the checksum of its vectors differs")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (n,): (n, D) float32. Raises BadArtefact if they are not those that were written."""
        vectors = self._take(rows)
        if self.check_rows is not None:
            self.check_rows(rows.tolist(), vectors)
        return vectors

    def sample(self, most: int) -> np.ndarray:
        """At most ``most`` vectors, evenly spread over all rows: (n, D) float32."""
        return self.take(self.sampled_rows(most))

    def sampled_rows(self, most: int) -> np.ndarray:
        """The rows of `sample`: (n,) int64."""
        return np.unique(np.linspace(0, self.count - 1, min(most, self.count)).astype(np.int64))

    def brute_force(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Rows (Q, k) of the vectors nearest to ``queries`` (Q, D) float32, nearest first: every vector is compared.

        A vector that has values that are not numbers is never near; where fewer than ``k`` are left, a row is -1.
        """
        faiss: Any = import_module("faiss")  # its type stubs lack what its Python layer adds
        # For queries of so many values FAISS computes |q|² - 2qx + |x|², which cannot tell near duplicates apart.
        most = max(1, (faiss.cvar.distance_compute_blas_threshold - 1) // self.dimension)
        blocks = [queries[start : start + most] for start in range(0, len(queries), most)]
        best = [faiss.ResultHeap(len(block), k) for block in blocks]
        for first, chunk in self.chunks():
            for block, heap in zip(blocks, best, strict=True):
                distances, rows = faiss.knn(block, chunk, min(k, len(chunk)))
                heap.add_result(distances, np.where(rows < 0, -1, rows + first))
        for heap in best:
            heap.finalize()
        return np.concatenate([np.empty((0, k), np.int64), *(heap.I for heap in best)])

    def rank(self, query: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` of ``rows`` (n,) nearest to ``query`` (D,), nearest first, and their Euclidean distances.

        Distances are measured here, in float64, and not taken from FAISS.
        """
        distances = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            some = slice(start, start + CHUNK)
            vectors = self.take(rows[some]).astype(np.float64)  # (n, D)
            distances[some] = np.linalg.norm(vectors - query.astype(np.float64), axis=1)
        order = np.argsort(distances, kind="stable")[:k]
        return rows[order], distances[order]


@dataclass(frozen=True, kw_only=True)
class VectorFile(Vectors):
    """Vectors in an open file. It is read, not mapped: mapped pages would count as this process's memory.

    Reads are positional, so that threads do not move each other's place in the file.
    """

    file: BinaryIO  # it stays the same file when an update takes its name
    offset: int  # bytes before the first vector

    @classmethod
    def open(
        cls,
        path: Path,
        count: int,
        dimension: int,
        checksum: str | None = None,
        check_rows: Callable[[list[int], np.ndarray], None] | None = None,
    ) -> "VectorFile":
        """The ``count`` vectors of the flat index in ``path``, whose ``checksum`` is that of `VectorWriter`.

        Raises BadArtefact if the file has not the size or the header of as many vectors.
        """
        start = len(_header(0, dimension))
        with contextlib.ExitStack() as on_error:
            file = on_error.enter_context(open(path, "rb", buffering=0))
            size, wanted = os.fstat(file.fileno()).st_size, start + 4 * count * dimension
            if size != wanted:
                raise damaged(
                    path.parent,
                    f"{count:,} vectors of {dimension:,} values take {wanted:,} bytes, {path.name} has {size:,}",
                )
            if file.read(start) != _header(count, dimension):
                raise damaged(path.parent, f"{path.name} is not of {count:,} vectors of {dimension:,} values")
            on_error.pop_all()
        return cls(
            folder=path.parent,
            count=count,
            dimension=dimension,
            checksum=checksum,
            check_rows=check_rows,
            file=file,
            offset=start,
        )

    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, written to ``out`` if it is given.

        Raises BadArtefact if the file is cut short.
        """
        rows = min(last, self.count) - first
        vectors = np.empty((rows, self.dimension), np.float32) if out is None else out[:rows]
        content = vectors.reshape(-1).view(np.uint8).data
        start = self.offset + 4 * first * self.dimension
        while content:  # one call reads at most 2 GB
            try:
                read = os.preadv(self.file.fileno(), [content], start)
            except OSError as error:  # which does not know the name of its file
                error.filename = self.file.name
                raise
            if not read:
                raise damaged(self.folder, f"{Path(self.file.name).name} is cut short")
            content, start = content[read:], start + read
        return vectors

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class VectorWriter:
    """Writes FAISS's file of a flat index as vectors come; memory never holds them all."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.dimension, self.count, self._digest = dimension, 0, xxhash.xxh3_128()
        self.file = open(path, "wb")  # noqa: SIM115 - closed by close
        self.file.write(_header(0, dimension))

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32."""
        content = np.ascontiguousarray(vectors, np.float32).reshape(-1).view(np.uint8).data
        self.file.write(content)
        self._digest.update(content)
        self.count += len(vectors)

    @property
    def checksum(self) -> str:
        """Of all vectors so far."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Write the counts into the header: now the file is complete."""
        self.file.seek(0)
        self.file.write(_header(self.count, self.dimension))
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _header(count: int, dimension: int) -> bytes:
    """What a file of ``count`` vectors begins with: their number at byte 8, and that of all values at its end.

    A test holds FAISS to that.
    """
    import faiss

    header = bytearray(faiss.serialize_index(faiss.IndexFlatL2(dimension)))
    struct.pack_into("<q", header, 8, count)
    struct.pack_into("<q", header, len(header) - 8, count * dimension)
    return bytes(header)
