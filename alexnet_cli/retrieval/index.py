"""An index on disk: fc7 of every picture, and which picture each row is; asked for the neighbours of a query.

`index.json` makes an index whole. It names the generation its files belong to: an update writes
`index.GENERATION.faiss` and `images.GENERATION.sqlite`, then `index.json`, and only then lets them replace
`index.faiss` and `images.sqlite`. Whenever that is cut short, `index.json` says which belong together. An index that is
not flat has codes as well, `codes.faiss`.
"""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import check_format, read_json
from alexnet_cli.errors import BadArtefact, WrongModel, first_line
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.codes import Codes, Vectors, load

FORMAT = 1
FILE = "index.json"  # written last: it makes an index whole
VECTORS, TABLE, CODES = "index.faiss", "images.sqlite", "codes.faiss"


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A picture of the index near a query."""

    rank: int  # from 1
    path: str  # a file as the user reaches it, or the name within the archive or the dataset's source
    label: str | None
    distance: float  # Euclidean, between fc7 vectors
    name: str  # within the source

    def as_json(self) -> dict[str, Any]:
        """As `alexnet search --json` prints it."""
        return {"rank": self.rank, "path": self.path, "label": self.label, "distance": self.distance}


class Index:
    """An index, open to be asked."""

    def __init__(
        self,
        path: Path,
        facts: dict[str, Any],
        vectors: Vectors,
        table: sqlite3.Connection,
        codes: Codes | None = None,
    ) -> None:
        self.path, self.facts, self.vectors, self.table, self.codes = path, facts, vectors, table, codes

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Raises BadArtefact if it is missing, half written, damaged or of a newer format."""
        import faiss

        facts = read_json(path / FILE, what="index")
        check_format(facts.get("format"), FORMAT, path / FILE)
        try:
            vectors_file, table_file = (file_of(path, facts, name) for name in (VECTORS, TABLE))
            mapped = faiss.read_index(str(vectors_file), faiss.IO_FLAG_MMAP_IFC)  # not read
            table = sqlite3.connect(f"{table_file.resolve().as_uri()}?mode=ro", uri=True)
            rows = table.execute("SELECT COUNT(*) FROM images").fetchone()[0]
            codes = None if facts["kind"] == "flat" else load(file_of(path, facts, CODES), facts)
            expected = facts["count"], facts["dimension"]
        except (KeyError, TypeError, RuntimeError, sqlite3.Error) as error:
            raise BadArtefact(f"{path} is damaged ({first_line(error)}): remove it and build the index again") from None
        if (mapped.ntotal, mapped.d) != expected or rows != mapped.ntotal:
            raise BadArtefact(
                f"{path} is damaged: {expected[0]} pictures by {FILE}, {mapped.ntotal} vectors, {rows} in the table; "
                "remove it and build the index again"
            )
        if codes is not None and codes.index.ntotal != rows:
            raise BadArtefact(f"{path} is damaged: its codes are not of its vectors; remove it and build it again")
        return cls(path, facts, Vectors.of(vectors_file, *expected), table, codes)

    def __len__(self) -> int:
        return self.vectors.count

    @property
    def source(self) -> Path:
        """Where its pictures are."""
        return Path(self.facts["source"])

    def check_model(self, runtime: OnnxModel) -> None:
        """Raises WrongModel if ``runtime`` is not the model the index was built with, or not of its precision."""
        if runtime.fingerprint != self.facts["model_fingerprint"]:
            raise WrongModel(
                f"{self.path} was built with model {self.facts['model']} ({self.facts['model_fingerprint']}), not with "
                f"{runtime.fingerprint}: take that one with --model, or build another index with --out"
            )
        if runtime.precision != self.facts["precision"]:
            raise WrongModel(
                f"{self.path} was built with an {self.facts['precision']} file of its model, not {runtime.precision}: "
                "take such a file with --model, or build another index with --out"
            )

    def neighbours(self, queries: np.ndarray, k: int) -> list[list[Neighbour]]:
        """The ``k`` nearest pictures, nearest first, or all there are, of each of ``queries`` (Q, D) float32."""
        search = self.vectors.nearest if self.codes is None else self.codes.rows
        found = search(queries, min(k, len(self)))  # (Q, n) rows
        return [self._ranked(query, rows[rows >= 0], k) for query, rows in zip(queries, found, strict=True)]

    def _ranked(self, query: np.ndarray, rows: np.ndarray, k: int) -> list[Neighbour]:
        # What codes found is measured here; and for many queries FAISS takes |q|² - 2qx + |x|², which cancels for near
        # ones.
        vectors = self.vectors.take(rows).astype(np.float64)  # (k, D)
        distances = np.linalg.norm(vectors - query.astype(np.float64), axis=1)  # (k,)
        return [
            self._neighbour(rank, int(rows[i]), float(distances[i]))
            for rank, i in enumerate(np.argsort(distances, kind="stable")[:k], 1)
        ]

    def _neighbour(self, rank: int, row: int, distance: float) -> Neighbour:
        name, label = self.table.execute("SELECT path, label FROM images WHERE row = ?", (row,)).fetchone()
        path = str(self._reached / name) if self.facts["are_files"] else name
        return Neighbour(rank=rank, path=path, label=label, distance=distance, name=name)

    @cached_property
    def _reached(self) -> Path:
        """The folder as the user named it, where that still leads there; else in full."""
        named = Path(self.facts["named"])
        return named if named.resolve() == self.source else self.source

    def rows(self) -> Iterator[tuple[int, str, str | None, str]]:
        """Row, name, label and stamp of every picture."""
        yield from self.table.execute("SELECT row, path, label, stamp FROM images ORDER BY row")

    def refused(self) -> Iterator[tuple[str, str, str]]:
        """Name, reason and stamp of every picture of the source that could not be embedded."""
        yield from self.table.execute("SELECT path, reason, stamp FROM refused")

    def close(self) -> None:
        """Let go of the files."""
        self.table.close()
        self.vectors.file.close()


def file_of(folder: Path, facts: dict[str, Any], name: str) -> Path:
    """VECTORS, TABLE or CODES of the generation in ``facts``. Raises BadArtefact if it is missing or cut short."""
    temporary = of_generation(folder, name, facts["generation"])
    file = temporary if temporary.exists() else folder / name
    if not file.is_file():
        raise BadArtefact(f"{folder} is damaged: {name} is missing; remove it and build the index again")
    if file.stat().st_size != facts["bytes"][name]:
        raise BadArtefact(
            f"{folder} is damaged: {name} has {file.stat().st_size:,} bytes, not {facts['bytes'][name]:,}; "
            "remove it and build the index again"
        )
    return file


def of_generation(folder: Path, name: str, generation: str) -> Path:
    """Where an update writes ``name`` before it takes the place of the old one."""
    stem, suffix = os.path.splitext(name)
    return folder / f"{stem}.{generation}{suffix}"
