"""An index on disk: the features of every picture, and which picture each row is.

`index.json` makes an index complete. It names the generation its files belong to: an update writes
`index.GENERATION.faiss` and `images.GENERATION.sqlite`, then `index.json`, and only then renames them to `index.faiss`
and `images.sqlite`. Wherever that is cut short, `index.json` says which files belong together. An index that is not
flat has codes as well, `codes.faiss`.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import INDEX_FILE, check_format
from alexnet_cli.errors import BadArtefact, WrongModel, first_line
from alexnet_cli.files import read_json
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.retrieval.kinds import KINDS, Kind
from alexnet_cli.retrieval.vectors import Vectors

FORMAT = 1
VECTORS, TABLE, CODES = "index.faiss", "images.sqlite", "codes.faiss"
ATTEMPTS = 3  # at opening: an update may rename the files between one look and the next


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A picture of the index near a query."""

    rank: int  # from 1
    row: int  # in the index
    path: str  # a file as the user reaches it, or the name within the archive or the dataset's source
    label: str | None
    name: str | None  # of the class, in words; the label where they are not known
    distance: float  # Euclidean, between features
    source_path: str  # within the indexed folder, archive or dataset

    def as_json(self) -> dict[str, Any]:
        """As `alexnet search --json` prints it."""
        keys = ("rank", "path", "label", "name", "distance")
        return {key: value for key, value in asdict(self).items() if key in keys}


class Index:
    """An open index. Its methods may be called from several threads at once.

    It keeps using the files it opened, even after an update replaces them.
    """

    def __init__(
        self, path: Path, facts: dict[str, Any], vectors: Vectors, table: sqlite3.Connection, kind: Kind
    ) -> None:
        self.path, self.facts, self.vectors, self.table, self.kind = path, facts, vectors, table, kind
        # Threads share the one connection: another one would open what has the file's name by then, perhaps the next
        # generation's table.
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Open the files of one generation. Raises BadArtefact if it is missing, incomplete, damaged or too new."""
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(BadArtefact):
                return cls._open(path)
        return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> "Index":
        import faiss

        facts = read_json(path / INDEX_FILE, what="index")
        check_format(facts.get("format"), FORMAT, path / INDEX_FILE)
        with contextlib.ExitStack() as opened:
            try:
                vectors_file, table_file = (file_of(path, facts, name) for name in (VECTORS, TABLE))
                mapped = faiss.read_index(str(vectors_file), faiss.IO_FLAG_MMAP_IFC)  # the header; vectors are not read
                table = sqlite3.connect(f"{table_file.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
                opened.callback(table.close)
                rows = table.execute("SELECT COUNT(*) FROM images").fetchone()[0]
                kind = KINDS[facts["kind"]]()
                if kind.has_codes:
                    kind.load(file_of(path, facts, CODES), facts)
                vectors = Vectors.open(vectors_file, facts["count"], facts["dimension"])
                opened.callback(vectors.close)
            except (KeyError, TypeError, RuntimeError, OSError, sqlite3.Error) as error:
                raise BadArtefact(
                    f"{path} is damaged ({first_line(error)}): remove it and build the index again"
                ) from None
            if (mapped.ntotal, mapped.d) != (vectors.count, vectors.dimension) or rows != mapped.ntotal:
                raise BadArtefact(
                    f"{path} is damaged: {vectors.count} pictures by {INDEX_FILE}, {mapped.ntotal} vectors, {rows} in "
                    "the table; remove it and build the index again"
                )
            if kind.count not in (None, rows):
                raise BadArtefact(f"{path} is damaged: its codes are not of its vectors; remove it and build it again")
            if read_json(path / INDEX_FILE, what="index") != facts:
                raise BadArtefact(f"{path} was updated while it was being opened: open it again")
            opened.pop_all()
            return cls(path, facts, vectors, table, kind)

    def __len__(self) -> int:
        return self.vectors.count

    @property
    def source(self) -> Path:
        """The folder, archive or dataset with its pictures."""
        return Path(self.facts["source"])

    def check_model(self, model: Predictor) -> None:
        """Raises WrongModel if ``model`` is not the one the index was built with, or not of its precision."""
        if model.fingerprint != self.facts["model_fingerprint"]:
            raise WrongModel(
                f"{self.path} was built with model {self.facts['model']} ({self.facts['model_fingerprint']}), not with "
                f"{model.fingerprint}: take that one with --model, or build another index with --out"
            )
        if model.precision != self.facts["precision"]:
            raise WrongModel(
                f"{self.path} was built with an {self.facts['precision']} file of its model, not {model.precision}: "
                "take such a file with --model, or build another index with --out"
            )

    def neighbours(self, queries: np.ndarray, k: int) -> list[list[Neighbour]]:
        """The ``k`` nearest pictures of each of ``queries`` (Q, D) float32, nearest first; all, if there are fewer."""
        candidates = self.kind.candidates(self.vectors, queries, min(k, len(self)))  # (Q, n) rows; -1 is none
        return [self._ranked(query, rows[rows >= 0], k) for query, rows in zip(queries, candidates, strict=True)]

    def neighbours_of_row(self, row: int, k: int) -> list[Neighbour]:
        """The ``k`` pictures nearest to the picture in ``row``, at distance 0 itself and any that equal it.

        Raises IndexError if there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"rows from 0 to {len(self) - 1}, not {row}")
        (found,) = self.neighbours(self.vectors.take(np.array([row])), k)
        return found

    def _ranked(self, query: np.ndarray, candidates: np.ndarray, k: int) -> list[Neighbour]:
        if len(candidates) < min(k, len(self)):  # the inverted lists that were probed hold fewer than k
            candidates = self.vectors.brute_force(query[None], min(k, len(self)))[0]
        rows, distances = self.vectors.rank(query, candidates, k)
        pairs = zip(rows.tolist(), distances.tolist(), strict=True)
        return [self._neighbour(rank, row, distance) for rank, (row, distance) in enumerate(pairs, 1)]

    def _neighbour(self, rank: int, row: int, distance: float) -> Neighbour:
        with self._lock:
            found = self.table.execute("SELECT path, label FROM images WHERE row = ?", (row,)).fetchone()
        source_path, label = found
        path = str(self._reachable_source / source_path) if self.facts["are_files"] else source_path
        return Neighbour(
            rank=rank, row=row, path=path, label=label, name=label, distance=distance, source_path=source_path
        )

    @cached_property
    def _reachable_source(self) -> Path:
        """The source as the user named it, where that still leads there; else its absolute path."""
        named = Path(self.facts["named"])
        return named if named.resolve() == self.source else self.source

    def rows(self) -> Iterator[tuple[int, str, str | None, str]]:
        """Row, path within the source, label and stamp of every picture."""
        yield from self.table.execute("SELECT row, path, label, stamp FROM images ORDER BY row")

    def refused(self) -> Iterator[tuple[str, str, str]]:
        """Path, reason and stamp of every picture of the source that could not be embedded."""
        yield from self.table.execute("SELECT path, reason, stamp FROM refused")

    def close(self) -> None:
        """Close the files. No thread may be searching them."""
        self.table.close()
        self.vectors.close()


def file_of(folder: Path, facts: dict[str, Any], name: str) -> Path:
    """VECTORS, TABLE or CODES of the generation in ``facts``. Raises BadArtefact if it is missing or cut short."""
    not_renamed = of_generation(folder, name, facts["generation"])
    file = not_renamed if not_renamed.exists() else folder / name
    if not file.is_file():
        raise BadArtefact(f"{folder} is damaged: {name} is missing; remove it and build the index again")
    if file.stat().st_size != facts["bytes"][name]:
        raise BadArtefact(
            f"{folder} is damaged: {name} has {file.stat().st_size:,} bytes, not {facts['bytes'][name]:,}; "
            "remove it and build the index again"
        )
    return file


def of_generation(folder: Path, name: str, generation: str) -> Path:
    """Where an update writes ``name`` before it is renamed to that."""
    stem, suffix = os.path.splitext(name)
    return folder / f"{stem}.{generation}{suffix}"
