"""An index on disk: the features of every picture, and which picture each row is."""

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import DATASET_FILE, INDEX_FILE
from alexnet_cli.data.originals import original
from alexnet_cli.data.sources import leads_outside
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact, WrongModel, first_line
from alexnet_cli.files import check_opens, free_name, real_path
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.retrieval.kinds import KINDS, Kind
from alexnet_cli.retrieval.layout import (
    CODES,
    ENGINE,
    TABLE,
    compare_checksum,
    damaged,
    file_of,
    piece_of,
    read_facts,
)
from alexnet_cli.retrieval.milvus import MilvusVectors, Place
from alexnet_cli.retrieval.pieces import Pieces, are_ranges
from alexnet_cli.retrieval.table import Table
from alexnet_cli.retrieval.vectors import VectorFile, Vectors

ATTEMPTS = 1000  # at opening an index while updates replace its files


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A picture of the index near a query."""

    rank: int  # from 1
    row: int  # in the index
    path: str  # as `Index.path_of`
    label: str | None
    name: str | None  # what people read: words where the label is a WordNet id, else the label
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

    def __init__(self, path: Path, facts: dict[str, Any], vectors: Vectors, table: Table, kind: Kind) -> None:
        self.path, self.facts, self.vectors, self.table, self.kind = path, facts, vectors, table, kind

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Open the files of one generation, whatever an update does meanwhile.

        Table and codes are read whole and compared with their checksums; of the vectors, only the header and the size
        are checked. Raises BadArtefact if the index is missing, incomplete, damaged or too new.
        """
        for _ in range(ATTEMPTS):
            facts = read_facts(path)
            try:
                index = cls._open(path, facts)
            except FileNotFoundError:  # an update has just renamed it
                continue
            except BadArtefact:
                if read_facts(path)["generation"] == facts["generation"]:
                    raise
                continue
            if read_facts(path)["generation"] == facts["generation"]:
                return index
            index.close()  # its files may be of both generations
        raise AlexNetError(f"{path} was updated {ATTEMPTS} times while it was being opened: try again")

    @classmethod
    def _open(cls, path: Path, facts: dict[str, Any]) -> "Index":
        """Raises FileNotFoundError as well, if a file was renamed meanwhile."""
        if facts["kind"] not in KINDS:
            raise damaged(path, f"there is no kind {facts['kind']!r} of index")
        count, kind = facts["count"], KINDS[facts["kind"]]()
        with contextlib.ExitStack() as opened:
            file = file_of(path, facts, TABLE)
            compare_checksum(file, facts, TABLE)
            table = Table.open(file)
            opened.callback(table.close)
            vectors = open_vectors(path, facts, table.check_vectors)
            opened.callback(vectors.close)
            if len(table) != count:
                raise damaged(path, f"{len(table):,} pictures in {TABLE}, {count:,} vectors")
            if kind.has_codes:
                file = file_of(path, facts, CODES)
                compare_checksum(file, facts, CODES)
                try:
                    kind.load(file, facts)
                except (KeyError, ValueError, RuntimeError) as error:  # RuntimeError is that of FAISS
                    check_opens(file)
                    raise damaged(path, f"{CODES} cannot be used ({first_line(error)})") from None
                if kind.shape != (count, facts["dimension"]):
                    raise damaged(path, f"{CODES} has codes of other vectors")
            opened.pop_all()
            return cls(path, facts, vectors, table, kind)

    def __len__(self) -> int:
        return self.vectors.count

    @property
    def source(self) -> Path:
        """The folder, archive or dataset with its pictures."""
        return Path(self.facts["source"])

    def verify(self, progress: Progress = SILENT) -> None:
        """Read every vector and every row of the table; opening the index has read the rest.

        Raises BadArtefact if anything is not what was written.
        """
        for first, chunk in self.vectors.chunks():  # which compares the checksum
            progress.advance("verifying", first + len(chunk), len(self))
        for expected, (row, path, _, _) in enumerate(self.table.rows()):
            if row != expected or not isinstance(path, str):
                raise damaged(self.path, f"{TABLE} has no picture in row {expected}")

    def missing(self) -> int:
        """The number of its pictures that are not where they were indexed: all of them if their folder has moved."""
        if not self.source.exists():
            return len(self)
        paths = (path for _, path, _, _ in self.table.rows())
        if self.facts["are_files"]:
            return sum(not (self.source / path).exists() for path in paths)
        with contextlib.closing(open_collection(self.source, split=self.facts["split"])) as collection:
            there = {picture.name for picture in collection.all()}
        return sum(path not in there for path in paths)

    def check_model(self, model: Predictor) -> None:
        """Raises WrongModel if ``model`` is not the one the index was built with, or not of its precision."""
        if model.fingerprint != self.facts["model_fingerprint"]:
            raise WrongModel(
                f"{self.path} was built with model {self.facts['model']} ({self.facts['model_fingerprint']}), not with "
                f"{model.name} ({model.fingerprint}): take that one with --model, or build another index with "
                f"--out {shlex.quote(free_name(self.path))}"
            )
        if model.precision != self.facts["precision"]:
            raise WrongModel(
                f"{self.path} was built with an {self.facts['precision']} file of its model, not {model.precision}: "
                f"take such a file with --model, or build another index with --out {shlex.quote(free_name(self.path))}"
            )

    def neighbours(self, queries: np.ndarray, k: int) -> list[list[Neighbour]]:
        """The ``k`` nearest pictures of each of ``queries`` (Q, D) float32, nearest first; all, if there are fewer.

        Raises AlexNetError if ``k`` is less than 1; BadArtefact if the index is damaged such that there are fewer.
        """
        if k < 1:
            raise AlexNetError(f"k is {k}: ask for 1 neighbour or more")
        candidates = self.kind.candidates(self.vectors, queries, min(k, len(self)))  # (Q, n) rows; -1 is none
        return [self._ranked(query, rows, k) for query, rows in zip(queries, candidates, strict=True)]

    def neighbours_of_row(self, row: int, k: int) -> list[Neighbour]:
        """The ``k`` pictures nearest to the one in ``row``, including itself and its exact duplicates, at distance 0.

        Raises IndexError if there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"rows from 0 to {len(self) - 1}, not {row}")
        (found,) = self.neighbours(self.vectors.take(np.array([row])), k)
        return found

    def _ranked(self, query: np.ndarray, candidates: np.ndarray, k: int) -> list[Neighbour]:
        wanted, candidates = min(k, len(self)), self._existing(candidates)
        if len(candidates) < wanted:  # the inverted lists that were probed hold fewer than k
            candidates = self._existing(self.vectors.brute_force(query[None], wanted)[0])
        rows, distances = self.vectors.rank(query, candidates, k)
        if len(rows) < wanted or not np.isfinite(distances).all():
            raise damaged(self.path, "not all values of its vectors are numbers")
        pairs = zip(rows.tolist(), distances.tolist(), strict=True)
        return [self._neighbour(rank, row, distance) for rank, (row, distance) in enumerate(pairs, 1)]

    def _existing(self, rows: np.ndarray) -> np.ndarray:
        return rows[(rows >= 0) & (rows < len(self))]

    def _neighbour(self, rank: int, row: int, distance: float) -> Neighbour:
        source_path, label = self.table.picture(row)
        name = label if label is None else self.facts["names"].get(label, label)
        path = self._reached(source_path)
        return Neighbour(
            rank=rank, row=row, path=path, label=label, name=name, distance=distance, source_path=source_path
        )

    def file_of(self, source_path: str) -> Path | None:
        """The file of a picture, as the user reaches it; None if it lies in an archive or a dataset.

        Raises BadArtefact if the path leads out of the indexed folder.
        """
        if not self.facts["are_files"]:
            return None
        if leads_outside(source_path):
            raise damaged(self.path, f"a path in {TABLE} leads out of the indexed folder")
        return self.reachable_source / source_path

    def path_of(self, row: int) -> str:
        """A file as the user reaches it, or the name within an archive, or of a file that a dataset was made from."""
        return self._reached(self.table.picture(row)[0])

    def is_gone(self, path: str) -> bool:
        """Whether the file ``path``, as of `path_of`, was deleted or renamed in a folder that is still there."""
        return self.facts["are_files"] and self.source.exists() and not Path(path).exists()

    def _reached(self, source_path: str) -> str:
        if self._dataset is None:
            return str(self.file_of(source_path) or source_path)
        file, here = original(self._dataset, source_path), Path.cwd()
        if file is None:
            return source_path
        return str(file.relative_to(here) if file.is_relative_to(here) else file)

    @cached_property
    def _dataset(self) -> Dataset | None:
        """The dataset that was indexed, if it was one and can be opened."""
        with contextlib.suppress(BadArtefact, OSError):
            return Dataset.open(self.source) if (self.source / DATASET_FILE).is_file() else None
        return None

    @cached_property
    def reachable_source(self) -> Path:
        """The source as the user named it, where that still leads there; else its absolute path."""
        named = Path(self.facts["named"])
        return named if real_path(named) == self.source else self.source

    def close(self) -> None:
        """Close the files. No thread may be searching them."""
        self.table.close()
        self.vectors.close()


def open_vectors(
    path: Path, facts: dict[str, Any], check_rows: Callable[[list[int], np.ndarray], None] | None = None
) -> Vectors:
    """The vectors of the index in ``path``, with the checksums that they were written with; ``check_rows`` as there.

    Raises BadArtefact if a file is missing or damaged.
    """
    count, dimension = facts["count"], facts["dimension"]
    if KINDS[facts["kind"]].in_engine:
        place, checksum = Place.read(file_of(path, facts, ENGINE)), facts["files"][ENGINE]["checksum"]
        return MilvusVectors(
            folder=path, count=count, dimension=dimension, checksum=checksum, check_rows=check_rows, place=place
        )
    pieces, live = facts["pieces"], facts["live"]
    if not pieces or not are_ranges(live, sum(one["count"] for one in pieces), count):
        raise damaged(path, f"{INDEX_FILE} has {count:,} vectors in other pieces")
    with contextlib.ExitStack() as opened:
        files = []
        for number, one in enumerate(pieces):
            file = piece_of(path, facts, number)
            files.append(VectorFile.open(file, one["count"], dimension, one["checksum"]))
            opened.callback(files[-1].close)
        opened.pop_all()
    return Pieces(
        folder=path, count=count, dimension=dimension, checksum=None, check_rows=check_rows, files=files, live=live
    )
