"""The vectors of an index in Milvus: a file that embeds the engine here, a server, or a cluster.

The engine holds rows and vectors, in a collection of its own for each generation of the index; all else stays in the
index's folder, and distances are measured here. `milvus.json` says where the collection is. It is written before the
collection is made, and dropped after it, so that no update that was cut short leaves a collection that nobody knows.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.files import read_json, write_json
from alexnet_cli.retrieval.layout import damaged
from alexnet_cli.retrieval.vectors import CHUNK, Vectors

EMBEDDED = "milvus.db"  # in the folder of the index, if no other place is named
TOKEN = "MILVUS_TOKEN"  # of a server that asks for one: "user:password"; never on disk
MOST = 16_384  # rows in one answer, of the engine
FIELDS = ROW, VECTOR = "row", "vector"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the vectors of one generation of an index are."""

    uri: str  # http://host:port of a server; else a file, relative to the folder of the index
    collection: str

    @classmethod
    def read(cls, file: Path) -> "Place":
        """Raises BadArtefact if ``file`` is not what `write` writes."""
        facts = read_json(file, what="index")
        if not all(isinstance(facts.get(key), str) for key in ("uri", "collection")):
            raise damaged(file.parent, f"{file.name} does not say where the vectors are")
        return cls(uri=facts["uri"], collection=facts["collection"])

    def write(self, file: Path) -> None:
        write_json(file, vars(self))

    @property
    def is_server(self) -> bool:
        """Whether it is no file."""
        return "://" in self.uri


def absolute_uri(uri: str) -> str:
    """``uri`` of a server, or the absolute path of a file. Raises AlexNetError if it is neither."""
    if "://" in uri:
        return uri
    if not uri.endswith(".db"):  # the engine takes no other
        raise AlexNetError(f"--uri {uri}: name a file that ends in .db, or a server such as http://127.0.0.1:19530")
    return str(Path(uri).resolve())


def check_reachable(folder: Path, uri: str) -> None:
    """Raises AlexNetError if Milvus is not at ``uri``, or cannot be used from here."""
    _connect(folder, Place(uri=uri, collection="")).close()


@dataclass(frozen=True, kw_only=True)
class MilvusVectors(Vectors):
    """Vectors in a collection. The engine is asked when they are needed, not before."""

    place: Place

    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``first`` to ``last``: (n, D) float32, written to ``out`` if it is given.

        Raises BadArtefact if the collection has not those rows, AlexNetError if the engine does not answer.
        """
        rows = np.arange(first, min(last, self.count))
        if out is None:
            return self._fetch(rows)
        out[: len(rows)] = self._fetch(rows)
        return out[: len(rows)]

    def _take(self, rows: np.ndarray) -> np.ndarray:
        pieces = [self._fetch(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
        return np.concatenate(pieces) if pieces else np.empty((0, self.dimension), np.float32)

    def nearest(self, queries: np.ndarray, k: int) -> np.ndarray:
        """The rows (Q, k) that the engine finds nearest to ``queries`` (Q, D); -1 where it finds fewer."""
        found = np.full((len(queries), k), -1)
        with _asking(self.place):
            answers = self._client.search(
                self.place.collection,
                data=list(queries),
                limit=min(k, MOST, self.count),
                anns_field=VECTOR,
                consistency_level="Strong",
            )
        for places, answer in zip(found, answers, strict=True):
            places[: len(answer)] = [hit[ROW] for hit in answer]
        return found

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "_client" in self.__dict__:
            self._client.close()

    def _fetch(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (n,), at most CHUNK different ones: (n, D) float32."""
        with _asking(self.place):
            answer = self._client.get(self.place.collection, ids=np.unique(rows).tolist(), output_fields=list(FIELDS))
        vectors = {entity[ROW]: entity[VECTOR] for entity in answer}
        missing = next((row for row in rows.tolist() if len(vectors.get(row, ())) != self.dimension), None)
        if missing is not None:
            raise damaged(self.folder, f"{self.place.collection} in {self.place.uri} has no vector for row {missing}")
        return np.array([vectors[row] for row in rows.tolist()], np.float32).reshape(-1, self.dimension)

    @cached_property
    def _client(self) -> Any:
        client = _connect(self.folder, self.place)
        with _asking(self.place):
            if not client.has_collection(self.place.collection):
                raise damaged(self.folder, f"{self.place.uri} has no collection {self.place.collection}")
            client.load_collection(self.place.collection)
        return client


class MilvusWriter:
    """Writes vectors to a new collection as they come."""

    def __init__(self, file: Path, dimension: int, place: Place) -> None:
        self.dimension, self.count, self._place, self._digest = dimension, 0, place, xxhash.xxh3_128()
        place.write(file)
        self._client = _connect(file.parent, place)
        with _asking(place):
            self._create()

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.dimension)
        index = self._client.prepare_index_params()
        index.add_index(VECTOR, index_type="AUTOINDEX", metric_type="L2")  # whichever the engine takes by itself
        self._client.create_collection(self._place.collection, schema=schema, index_params=index)

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32. Raises AlexNetError if the engine does not take them."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        for start in range(0, len(vectors), CHUNK):
            rows = [{ROW: self.count + i, VECTOR: vector} for i, vector in enumerate(vectors[start : start + CHUNK])]
            with _asking(self._place):
                self._client.insert(self._place.collection, rows)
            self.count += len(rows)
        self._digest.update(vectors.reshape(-1).view(np.uint8).data)

    @property
    def checksum(self) -> str:
        """Of all vectors so far."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Wait until the engine has all vectors on disk, and can search them."""
        with _asking(self._place):
            self._client.flush(self._place.collection)
            self._client.load_collection(self._place.collection)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def drop(file: Path) -> bool:
    """Drop the collection that ``file`` tells of; whether it is gone. A server that is away keeps it."""
    try:
        place = Place.read(file)
        if not place.is_server and not (file.parent / place.uri).exists():
            return True
        client = _connect(file.parent, place)
        with contextlib.closing(client), _asking(place):
            client.drop_collection(place.collection)
            is_empty = not client.list_collections()
        if is_empty and place.uri == EMBEDDED:
            _remove_engine(file.parent / EMBEDDED)
    except BadArtefact:  # it tells of none
        return True
    except AlexNetError:
        return False
    return True


def _remove_engine(path: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(path.resolve()))
    shutil.rmtree(path, ignore_errors=True)


def _connect(folder: Path, place: Place) -> Any:
    """A client of the engine. Raises AlexNetError if there is none, or if it is not there."""
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise AlexNetError("an index in Milvus needs its client: pip install 'alexnet-cli[milvus]'") from None
    for name in ("pymilvus", "milvus_lite"):  # they log every error, with its stack, before raising it
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    uri = place.uri if place.is_server else str((folder / place.uri).resolve())
    if place.is_server:
        advice = f"is it there, and does it ask for {TOKEN}?"
    else:
        advice = "one process at a time can open a file of Milvus; several need a server, named with --uri"
    with _asking(place, advice):
        return MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=10)


@contextlib.contextmanager
def _asking(place: Place, advice: str = "") -> Iterator[None]:
    """The engine's errors become AlexNetError, in one line, with ``advice``."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError, OSError, ValueError) as error:
        reason = getattr(error, "message", "") or first_line(error)
        raise AlexNetError(f"Milvus at {place.uri}: {reason}{advice and f': {advice}'}") from None
