"""Groups of pictures of an index that are nearly the same: their features are very close.

Every pair of pictures is compared, whatever the kind of the index: on a few principal components first, on which no two
pictures are further apart than in fact, so that none is missed. Of the pairs that are close there, the vectors are read
from disk and measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.pca import principal_components
from alexnet_cli.retrieval.vectors import CHUNK, Vectors

FRACTION = 0.25  # of the median distance between two pictures: the threshold by default; docs/duplicates.md says why
ALIKE = 0.25  # of the median length: if the median distance is less, the pictures are of one scene, or most are copies
SAMPLE = 512  # pictures that the median and the components are taken from
COMPONENTS = 128  # of PCA
BLOCK = 256  # pictures that are compared with all others at a time
ROUNDING = 1e-5  # of squared lengths in fp32, relative


@dataclass(frozen=True, kw_only=True)
class Group:
    """Pictures that are nearly the same: each is near one of the others, though not always near all."""

    rows: list[int]  # in the index
    paths: list[str]  # as of `Neighbour`
    distances: list[float]  # Euclidean, between the features of each picture and of the first


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What `find_duplicates` found."""

    groups: list[Group]  # by their first rows
    threshold: float  # the largest distance of two pictures that are nearly the same
    median: float  # distance of two pictures of the index
    gone: int  # pictures that were in groups and are left out, since they were deleted or renamed
    are_alike: bool  # most of its pictures, so that their distances do not tell copies from others

    def is_chain(self, group: Group) -> bool:
        """Whether a picture of ``group`` is nearly the same as the first only by way of others."""
        return max(group.distances) > self.threshold


def find_duplicates(index: Index, max_distance: float | None = None, progress: Progress = SILENT) -> Duplicates:
    """Groups of pictures of ``index`` that are at most ``max_distance`` apart.

    By default that is FRACTION of the median distance between two pictures, because distances differ from model to
    model. Raises BadArtefact if the index is damaged.
    """
    vectors = index.vectors
    sample = vectors.sample(SAMPLE)
    median = _median_distance(sample)
    threshold = FRACTION * median if max_distance is None else max_distance
    groups = _Components(len(index))
    for pairs in _close_pairs(vectors, sample, threshold, progress):
        for start in range(0, len(pairs), CHUNK):
            some = groups.not_joined(pairs[start : start + CHUNK])
            groups.join(some[_distances(vectors, some) <= threshold])
    # Who deletes one of two copies must not be told of two.
    still = [[row for row in rows if not index.is_gone(index.path_of(row))] for rows in groups.of_several()]
    found = [_group(index, rows) for rows in still if len(rows) > 1]
    are_alike = len(index) > 1 and median < ALIKE * float(np.median(np.linalg.norm(sample, axis=1)))
    gone = sum(map(len, groups.of_several())) - sum(map(len, still))
    return Duplicates(groups=found, threshold=threshold, median=median, gone=gone, are_alike=are_alike)


def _median_distance(sample: np.ndarray) -> float:
    """The median of the distances between any two of ``sample`` (n, D); 0 if there is only one."""
    one, other = np.triu_indices(len(sample), 1)
    lengths = np.einsum("nd,nd->n", sample, sample, dtype=np.float64)
    products = sample.astype(np.float64) @ sample.T.astype(np.float64)
    squares = lengths[one] + lengths[other] - 2 * products[one, other]
    return float(np.sqrt(max(0.0, np.median(squares)))) if len(squares) else 0.0


def _close_pairs(vectors: Vectors, sample: np.ndarray, threshold: float, progress: Progress) -> Iterator[np.ndarray]:
    """All pairs of rows (n, 2), the lower first, that may be within ``threshold``."""
    faiss: Any = import_module("faiss")  # its type stubs lack what its Python layer adds
    components = principal_components(vectors, sample, COMPONENTS)  # (N, C)
    index = faiss.IndexFlatL2(components.shape[1])
    index.add(components)
    longest = float(np.einsum("nc,nc->n", components, components).max())
    limit = threshold**2 * (1 + ROUNDING) + ROUNDING * longest + np.finfo(np.float32).tiny
    for first in range(0, len(components), BLOCK):
        block = components[first : first + BLOCK]
        ends, _, others = index.range_search(block, limit)
        rows = np.repeat(np.arange(first, first + len(block)), np.diff(ends.astype(np.int64)))
        yield np.stack([rows, others], axis=1)[rows < others]
        progress.advance("comparing", first + len(block), len(components))


def _distances(vectors: Vectors, pairs: np.ndarray) -> np.ndarray:
    """The distances of ``pairs`` (n, 2) of rows: (n,) float64."""
    rows, places = np.unique(pairs, return_inverse=True)
    found = vectors.take(rows).astype(np.float64)
    one, other = places.reshape(-1, 2).T
    return np.asarray(np.linalg.norm(found[one] - found[other], axis=1))


def _group(index: Index, rows: list[int]) -> Group:
    first, distances = index.vectors.take(np.array(rows[:1])).astype(np.float64), list[float]()
    for start in range(0, len(rows), CHUNK):
        some = index.vectors.take(np.array(rows[start : start + CHUNK])).astype(np.float64)
        distances.extend(np.linalg.norm(some - first, axis=1).tolist())
    return Group(rows=rows, paths=[index.path_of(row) for row in rows], distances=distances)


class _Components:
    """Connected components of a graph over rows, by union and find. The root of a component is its lowest row."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def root(self, row: int) -> int:
        while self.parents[row] != row:
            self.parents[row] = self.parents[self.parents[row]]  # halves the way for the next
            row = self.parents[row]
        return row

    def join(self, pairs: np.ndarray) -> None:
        """Join both rows of each of ``pairs`` (n, 2)."""
        for one, other in pairs.tolist():
            low, high = sorted((self.root(one), self.root(other)))
            self.parents[high] = low

    def not_joined(self, pairs: np.ndarray) -> np.ndarray:
        """Those of ``pairs`` (n, 2) whose rows are in two components."""
        return pairs[[self.root(one) != self.root(other) for one, other in pairs.tolist()]]

    def of_several(self) -> list[list[int]]:
        """The components of two rows and more, by their first rows."""
        components: dict[int, list[int]] = {}
        for row in range(len(self.parents)):
            components.setdefault(self.root(row), []).append(row)
        return [rows for rows in components.values() if len(rows) > 1]
