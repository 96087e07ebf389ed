"""Index kinds: how an index finds candidates, the few vectors whose distances to a query are measured exactly.

Every kind leaves the vectors on disk. A flat index compares a query with all of them. The other kinds keep a small code
of each vector in memory and compare a query with the codes; then the vectors of the best candidates are read and
measured. So distances are always exact, but a neighbour that is not among the candidates is missed. How many are missed
is measured against brute force when the index is built.

To add a kind, write a class and register it in KINDS.
"""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alexnet_cli.errors import AlexNetError
from alexnet_cli.retrieval.autoencoder import learn_encoder
from alexnet_cli.retrieval.layout import is_count
from alexnet_cli.retrieval.milvus import MilvusVectors
from alexnet_cli.retrieval.vectors import CHUNK, Vectors

FLAT_UP_TO = 1 << 31  # bytes of vectors: up to here an index is flat unless a kind is named
WANTED_RECALL = 0.95  # of the candidates, for choosing how many there are
QUERIES = 64  # for choosing, and as many for measuring
TIMED, TIMED_SECONDS = 20, 2.0  # a flat index is timed with at most so many queries, for about so long
TRAINED_ON, A_LIST = 50_000, 64  # vectors, evenly spread over all; of `ivfpq`, so many for each list if that is more
COMPONENTS = 256  # of PCA, before product quantization and in the graph
BITS = 256  # of an auto-encoder's code, or as many as there are features
CANDIDATE_COUNTS = (50, 100, 200, 400)  # tried
PARAMETER_VALUES = (4, 8, 16, 32, 64, 128, 256, 512)  # tried for nprobe and ef_search
MOST = 1 << 20  # candidates, and values of a parameter, in an index that is opened
LEAST_LIMIT = (
    1 << 28
)  # bytes: FAISS makes tables when it reads a file, for `ivfpq` of 128 KB times the root of the count

_reading = threading.Lock()  # FAISS has one set of limits for the whole process


class Kind(ABC):
    """Finds candidates among the vectors of an index. Safe to use from several threads once it is built or loaded."""

    name: ClassVar[str]
    has_codes: ClassVar[bool] = True  # a file of its own, which `save` writes and `load` reads
    in_engine: ClassVar[bool] = False  # whether the vectors are in an engine instead of a file

    @abstractmethod
    def train(self, vectors: Vectors) -> None:
        """Learn from a sample of ``vectors``, all of which will be added."""

    @abstractmethod
    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32."""

    @abstractmethod
    def forget(self, rows: np.ndarray) -> bool:
        """Remove the codes of ``rows`` (n,), so that those after them move up; False if this kind cannot do that."""

    @abstractmethod
    def candidates(self, vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
        """Rows (Q, n) int64 to measure for ``queries`` (Q, D) float32: at least ``k``, or all; -1 is none."""

    @abstractmethod
    def tune(self, vectors: Vectors) -> dict[str, Any]:
        """Choose the search parameters; returns them with `recall_at_10` and `milliseconds_per_query` as measured."""

    @abstractmethod
    def save(self, file: Path) -> None:
        """Write the codes to ``file``."""

    @abstractmethod
    def load(self, file: Path, facts: dict[str, Any]) -> None:
        """Read the codes from ``file``; ``facts`` are those of `tune`.

        Raises RuntimeError, KeyError or ValueError if they are not as they were written.
        """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int] | None:
        """How many vectors have codes, and their dimension; None for a kind without codes."""


class Codeless(Kind):
    """A kind that compares the vectors themselves."""

    has_codes = False
    shape = None

    def train(self, vectors: Vectors) -> None:
        raise AssertionError("there are no codes")

    def add(self, vectors: np.ndarray) -> None:
        raise AssertionError("there are no codes")

    def forget(self, rows: np.ndarray) -> bool:
        return True

    def save(self, file: Path) -> None:
        raise AssertionError("there are no codes")

    def load(self, file: Path, facts: dict[str, Any]) -> None:
        raise AssertionError("there are no codes")


class Flat(Codeless):
    """Every vector is compared: exact."""

    name = "flat"

    def candidates(self, vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
        return vectors.brute_force(queries, k)

    def tune(self, vectors: Vectors) -> dict[str, Any]:
        """Recall is 1.0 by construction, so only the time per query is measured."""
        times: list[float] = []
        for query in vectors.sample(TIMED):
            began = time.perf_counter()
            vectors.brute_force(query[None], min(10, vectors.count))
            times.append(time.perf_counter() - began)
            if sum(times) > TIMED_SECONDS:
                break
        return {"recall_at_10": 1.0, "milliseconds_per_query": round(1000 * float(np.median(times)), 3)}


class Milvus(Codeless):
    """The vectors are in Milvus, which finds their neighbours in its own way."""

    name, in_engine = "milvus", True

    def candidates(self, vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
        assert isinstance(vectors, MilvusVectors)
        return vectors.nearest(queries, k)

    def tune(self, vectors: Vectors) -> dict[str, Any]:
        """There is nothing to choose: the engine's own index is measured."""
        queries, k = vectors.sample(QUERIES), min(10, vectors.count - 1)
        nearest = vectors.brute_force(queries, k + 1)[:, 1:]  # the first is the query itself
        return _measured(self, vectors, queries, nearest, k + 1)


class Coded(Kind):
    """A kind whose codes are an index of FAISS."""

    parameter: ClassVar[str | None] = None  # the search parameter that trades recall for time, if there is one

    def __init__(self) -> None:
        self.index: Any = None  # of FAISS; its type stubs lack what its Python layer adds
        self.candidate_count = CANDIDATE_COUNTS[-1]  # vectors that are measured for each query
        self.value = PARAMETER_VALUES[-1]  # of the search parameter

    @abstractmethod
    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        """An untrained index of FAISS for ``count`` vectors."""

    def search_parameters(self, faiss: Any) -> Any:
        """FAISS's search parameters with the search parameter at `self.value`."""
        return None

    def train(self, vectors: Vectors) -> None:
        self.index = self.create(import_module("faiss"), vectors.dimension, vectors.count)
        self.index.train(vectors.sample(TRAINED_ON))

    def add(self, vectors: np.ndarray) -> None:
        self.index.add(vectors)

    def forget(self, rows: np.ndarray) -> bool:
        self.index.remove_ids(rows)
        return True

    def candidates(self, vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
        wanted = min(max(self.candidate_count, k), self.index.ntotal)
        _, rows = self.index.search(queries, wanted, params=self.search_parameters(import_module("faiss")))
        return np.asarray(rows)

    def tune(self, vectors: Vectors) -> dict[str, Any]:
        """Take the fewest candidates and the smallest search parameter that reach WANTED_RECALL, or else the largest.

        Half of the queries choose, and the other half measure, so that the measured recall is not biased by the choice.
        """
        queries, k = vectors.sample(2 * QUERIES), min(10, vectors.count - 1)
        nearest = vectors.brute_force(queries, k + 1)[:, 1:]  # the first is the query itself, which nothing misses
        values = PARAMETER_VALUES if self.parameter else (0,)
        for self.candidate_count, self.value in itertools.product(CANDIDATE_COUNTS, values):
            if recall(self.candidates(vectors, queries[::2], k), nearest[::2]) >= WANTED_RECALL:
                break
        facts: dict[str, Any] = {"candidates": self.candidate_count}
        if self.parameter:
            facts[self.parameter] = self.value
        return facts | _measured(self, vectors, queries[1::2], nearest[1::2], k)

    def save(self, file: Path) -> None:
        faiss, failures = import_module("faiss"), list[OSError]()

        def write(part: bytes) -> None:
            try:
                stream.write(part)
            except OSError as error:  # raised here, it would come out of FAISS as another error, without the reason
                failures.append(error)

        with open(file, "wb") as stream:
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(write))
            if failures:
                raise failures[0]

    def load(self, file: Path, facts: dict[str, Any]) -> None:
        self.candidate_count = facts["candidates"]
        self.value = facts[self.parameter] if self.parameter else 0
        if not is_count(self.candidate_count, least=1, most=MOST) or not is_count(self.value, most=MOST):
            raise ValueError(f"{self.candidate_count} candidates, {self.parameter} {self.value}")
        self.index = _read_index(file)

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.index.ntotal), int(self.index.d)


class ScalarQuantizer(Coded):
    """One byte per feature; every code is compared."""

    name = "sq8"

    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        return faiss.index_factory(dimension, "SQ8")


class InvertedFilePQ(Coded):
    """64 bytes per vector; the codes in the nearest inverted lists are compared."""

    name, parameter = "ivfpq", "nprobe"

    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        components = _components(dimension, count)
        parts = next(parts for parts in (64, 32, 16, 8, 4, 2, 1) if components % parts == 0)
        bits = min(8, max(1, int(np.log2(max(2, count / 40)))))  # k-means wants some 40 vectors for each centre
        lists = max(1, min(round(2 * count**0.5), count // 40))
        index = faiss.index_factory(dimension, f"PCAR{components},IVF{lists},PQ{parts}x{bits}")
        inner = faiss.downcast_index(index.index)
        inner.cp.min_points_per_centroid = inner.pq.cp.min_points_per_centroid = 1  # no warnings about few vectors
        return index

    def train(self, vectors: Vectors) -> None:
        """Learn the components from TRAINED_ON vectors, then the lists and codes from the components of more.

        Memory would not hold so many vectors of all their features.
        """
        faiss = import_module("faiss")
        self.index = self.create(faiss, vectors.dimension, vectors.count)
        components = faiss.downcast_VectorTransform(self.index.chain.at(0))
        components.train(vectors.sample(TRAINED_ON))
        inner = faiss.downcast_index(self.index.index)
        rows = vectors.sampled_rows(max(TRAINED_ON, A_LIST * inner.nlist))
        pieces = [components.apply(vectors.take(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)]
        inner.train(np.concatenate(pieces))
        self.index.is_trained = True

    def forget(self, rows: np.ndarray) -> bool:
        """FAISS leaves the numbers of the others as they are: they are made anew here."""
        super().forget(rows)
        faiss = import_module("faiss")
        lists = faiss.downcast_index(self.index.index).invlists
        for i in range(lists.nlist):
            numbers = faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i))  # a view of FAISS's memory
            numbers -= np.searchsorted(rows, numbers)
        return True

    def search_parameters(self, faiss: Any) -> Any:
        nprobe = min(self.value, faiss.downcast_index(self.index.index).nlist)
        return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=nprobe))


class Graph(Coded):
    """One byte for each of 256 principal components, in a graph of neighbours (HNSW)."""

    name, parameter = "hnsw", "ef_search"

    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        return faiss.index_factory(dimension, f"PCA{_components(dimension, count)},HNSW32_SQ8")

    def forget(self, rows: np.ndarray) -> bool:
        return not len(rows)  # others are found by way of them

    def search_parameters(self, faiss: Any) -> Any:
        parameters = faiss.SearchParametersHNSW(efSearch=max(self.value, self.candidate_count))
        return faiss.SearchParametersPreTransform(index_params=parameters)


class Binary(Coded):
    """One bit per feature, as §6.1 suggests; every code is compared.

    A bit says whether a feature is above its mean. Its median, which FAISS would take, is 0 after a ReLU.
    """

    name = "binary"

    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        bits = faiss.IndexLSH(dimension, dimension, False, False)
        return faiss.IndexPreTransform(faiss.CenteringTransform(dimension), bits)


class AutoEncoder(Coded):
    """256 bits, from which an auto-encoder can make the vector again, as §6.1 suggests; every code is compared.

    The encoder is part of FAISS's file.
    """

    name = "autoencoder"

    def create(self, faiss: Any, dimension: int, count: int) -> Any:
        bits = min(BITS, dimension)
        return faiss.IndexPreTransform(
            faiss.LinearTransform(dimension, bits, True), faiss.IndexLSH(bits, bits, False, False)
        )

    def train(self, vectors: Vectors) -> None:
        faiss = import_module("faiss")
        self.index = self.create(faiss, vectors.dimension, vectors.count)
        encoder = faiss.downcast_VectorTransform(self.index.chain.at(0))
        weights, biases = learn_encoder(vectors.sample(TRAINED_ON), encoder.d_out)
        faiss.copy_array_to_vector(weights.ravel(), encoder.A)
        faiss.copy_array_to_vector(biases, encoder.b)
        encoder.is_trained = self.index.is_trained = True


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Flat, ScalarQuantizer, InvertedFilePQ, Graph, Binary, AutoEncoder, Milvus)
}


def choose_kind(named: str | None, count: int, dimension: int) -> str:
    """``named``, or the kind for ``count`` vectors if it is None. Raises AlexNetError for an unknown kind."""
    if named is None:
        return Flat.name if 4 * count * dimension <= FLAT_UP_TO else InvertedFilePQ.name
    check_kind(named)
    return named


def check_kind(name: str) -> None:
    """Raises AlexNetError for an unknown kind."""
    if name not in KINDS:
        raise AlexNetError(f"no kind {name!r} of index: there are {', '.join(KINDS)}")


def _measured(kind: Kind, vectors: Vectors, queries: np.ndarray, nearest: np.ndarray, k: int) -> dict[str, Any]:
    """How many of the ``nearest`` (Q, k) rows to ``queries`` (Q, D) are candidates, and the time of a query."""
    began, found = time.perf_counter(), []
    for query in queries:  # one at a time, as users ask
        rows = kind.candidates(vectors, query[None], k)[0]
        vectors.rank(query, rows[rows >= 0], k)
        found.append(rows)
    milliseconds = 1000 * (time.perf_counter() - began) / max(1, len(found))
    return {
        "recall_at_10": recall(np.stack(found), nearest) if nearest.size else 1.0,
        "milliseconds_per_query": round(milliseconds, 3),
    }


def recall(found: np.ndarray, nearest: np.ndarray) -> float:
    """The share of the ``nearest`` (Q, k) rows that are among those ``found`` (Q, n)."""
    hits = [len(set(got.tolist()) & set(right.tolist())) for got, right in zip(found, nearest, strict=True)]
    return float(sum(hits) / max(1, nearest.size))


def _components(dimension: int, count: int) -> int:
    return min(COMPONENTS, dimension, max(1, count // 2))


def _read_index(file: Path) -> Any:
    """The index of FAISS in ``file``; no size in it makes FAISS take more memory than it needs.

    Raises RuntimeError if it is damaged.
    """
    faiss, limit = import_module("faiss"), max(LEAST_LIMIT, file.stat().st_size)
    with _reading:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(limit)
        faiss.set_deserialization_loop_limit(limit)
        try:
            return faiss.read_index(str(file))
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])
