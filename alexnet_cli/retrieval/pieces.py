"""The vectors of an index that has grown: each update adds a file of what is new, and rewrites none of the others.

Pictures that are gone leave their vectors behind; `index.json` says which rows of the files are live. Once too many are
not, or there are too many files, the next update writes all live vectors into one new file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alexnet_cli.retrieval.layout import is_count
from alexnet_cli.retrieval.vectors import VectorFile, Vectors

Ranges = Sequence[Sequence[int]]  # of rows, counted through all files: first, and one after the last
MOST_FILES, MOST_RANGES = 32, 1000
MOST_GONE = 0.25  # of the rows of all files


@dataclass(frozen=True, kw_only=True)
class Pieces(Vectors):
    """Vectors in several files, of which only the rows in ``live`` count."""

    files: Sequence[VectorFile]
    live: Ranges  # ascending, without overlaps

    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, written to ``out`` if it is given.

        Raises BadArtefact if a file is cut short.
        """
        count, done = min(last, self.count) - first, 0
        vectors = np.empty((count, self.dimension), np.float32) if out is None else out[:count]
        while done < count:
            row = first + done
            part = np.searchsorted(self._rows, row, "right") - 1
            place, left = self._starts[part] + row - self._rows[part], self._rows[part + 1] - row
            file = np.searchsorted(self._places, place, "right") - 1
            some = int(min(count - done, left, self._places[file + 1] - place))
            within = int(place - self._places[file])
            self.files[file].read(within, within + some, vectors[done : done + some])
            done += some
        return vectors

    def _take(self, rows: np.ndarray) -> np.ndarray:
        vectors, places = np.empty((len(rows), self.dimension), np.float32), self.places(rows)
        files = np.searchsorted(self._places, places, "right") - 1
        for i, (file, within) in enumerate(zip(files.tolist(), (places - self._places[files]).tolist(), strict=True)):
            self.files[file].read(within, within + 1, vectors[i : i + 1])
        return vectors

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """As that of `Vectors`; also rows that are not live are read, because the checksums are of whole files."""
        row = 0
        for file, start in zip(self.files, self._places.tolist(), strict=False):
            for first, chunk in file.chunks():
                is_live = self._is_live(start + first, start + first + len(chunk))
                count = int(is_live.sum())
                if count:
                    yield row, chunk if count == len(chunk) else chunk[is_live]
                row += count

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where ``rows`` (n,) are, counted through all files: (n,) int64."""
        parts = np.searchsorted(self._rows, rows, "right") - 1
        return np.asarray(self._starts[parts] + rows - self._rows[parts])

    @property
    def place_count(self) -> int:
        """The number of rows of all files."""
        return int(self._places[-1])

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()

    def _is_live(self, first: int, last: int) -> np.ndarray:
        """Which of the places ``first`` to ``last`` are live: (n,) bool."""
        places = np.arange(first, last)
        parts = np.searchsorted(self._starts, places, "right") - 1  # -1 is before all
        return np.asarray((parts >= 0) & (places < self._ends[parts]))

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first place of each range."""
        return np.array([first for first, _ in self.live], np.int64)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.array([last for _, last in self.live], np.int64)

    @cached_property
    def _rows(self) -> np.ndarray:
        """The first row of each range, and the number of all rows."""
        return np.concatenate([[0], np.cumsum(self._ends - self._starts)])

    @cached_property
    def _places(self) -> np.ndarray:
        """The first place of each file, and the number of all places."""
        return np.cumsum([0, *(file.count for file in self.files)])


def ranges(places: np.ndarray) -> list[list[int]]:
    """The ranges of ascending ``places`` (n,)."""
    if not len(places):
        return []
    ends = np.flatnonzero(np.diff(places) != 1)
    firsts, lasts = places[[0, *(ends + 1)]], places[[*ends, -1]] + 1
    return [[int(first), int(last)] for first, last in zip(firsts, lasts, strict=True)]


def are_ranges(values: Sequence[Any], places: int, count: int) -> bool:
    """Whether ``values``, each of any type, are ranges of so many ``places`` that hold ``count`` rows."""
    last, rows = 0, 0
    for value in values:
        if not (isinstance(value, list) and len(value) == 2 and is_count(value[0]) and is_count(value[1])):
            return False
        first, end = value
        if not last <= first < end <= places:
            return False
        last, rows = end, rows + end - first
    return rows == count
