"""An index on disk: fc7 of every picture, and which picture each row is; made, brought up to date, and asked.

An update writes both files beside, takes `index.json` away, renames them into place and writes `index.json` again:
whatever happens in between, vectors and table of different updates are never taken for one index.
"""

import contextlib
import datetime
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_cli.errors import BadArtefact, BadSource, WrongModel
from alexnet_cli.files import check_format, read_json, write_json, written_whole
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.pictures import Picture, Pictures, batches
from alexnet_cli.runtime import Runtime

if TYPE_CHECKING:
    import faiss

FORMAT = 1
FILE = "index.json"  # written last: it makes an index whole
VECTORS, TABLE = "index.faiss", "images.sqlite"
BATCH = 64  # pictures embedded at a time
MEASURED = 20  # queries that recall and time are measured with
CHUNK = 1024  # vectors compared at a time


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A picture of the index near a query."""

    rank: int  # from 1
    path: str
    label: str | None
    distance: float  # Euclidean, between fc7 vectors


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` did."""

    images: int
    added: int
    kept: int
    removed: int
    refused: list[tuple[str, str]]  # path, reason
    images_per_second: float

    def as_json(self, index: str, model: str) -> dict[str, Any]:
        """As `alexnet index --json` prints it."""
        facts = asdict(self) | {"refused": len(self.refused)}
        return {"index": index, "model": model, **facts}


class Index:
    """An index, open to be asked."""

    def __init__(self, path: Path) -> None:
        """Raises BadArtefact if it is missing, half written, damaged or of a newer format."""
        import faiss

        self.path, self.facts = path, read_json(path / FILE, what="index")
        check_format(self.facts.get("format"), FORMAT, path / FILE)
        vectors, table = path / VECTORS, path / TABLE
        try:
            for file in (vectors, table):
                if not file.is_file() or file.stat().st_size != self.facts["bytes"][file.name]:
                    raise BadArtefact(f"{file} is missing or damaged: build the index again in a new folder")
            # Mapped, not read: a query touches the vectors once, and the system keeps them for the next one.
            self.vectors = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
            self.table = sqlite3.connect(f"file:{table.resolve()}?mode=ro", uri=True)
            rows = self.table.execute("SELECT COUNT(*) FROM images").fetchone()[0]
        except (KeyError, TypeError, RuntimeError, sqlite3.Error) as error:
            raise BadArtefact(f"{path} is damaged ({_first_line(error)}): build the index again") from None
        if rows != self.vectors.ntotal:
            raise BadArtefact(f"{path} is damaged: {rows} pictures, {self.vectors.ntotal} vectors; build it again")

    @property
    def source(self) -> str:
        """Where its pictures are."""
        return str(self.facts["source"])

    def check_model(self, runtime: Runtime) -> None:
        """Raises WrongModel if ``runtime`` is not the model the index was built with."""
        if runtime.fingerprint != self.facts["model_fingerprint"]:
            raise WrongModel(
                f"{self.path} was built with model {self.facts['model']} ({self.facts['model_fingerprint']}), "
                f"not with {runtime.fingerprint}: name that model, or build another index"
            )

    def neighbours(self, queries: np.ndarray, k: int) -> list[list[Neighbour]]:
        """The ``k`` nearest pictures, or all if there are fewer, of each of ``queries`` (Q, 4096) float32."""
        squares, rows = self.vectors.search(queries, min(k, self.vectors.ntotal))  # (Q, k)
        return [
            [
                Neighbour(rank=rank, path=path, label=label, distance=float(np.sqrt(max(square, 0.0))))
                for rank, (square, (path, label)) in enumerate(zip(line, map(self._picture, ids), strict=True), 1)
            ]
            for line, ids in zip(squares, rows, strict=True)
        ]

    def _picture(self, row: int) -> tuple[str, str | None]:
        found: tuple[str, str | None] = self.table.execute(
            "SELECT path, label FROM images WHERE row = ?", (int(row),)
        ).fetchone()
        return found

    def close(self) -> None:
        """Let go of the files."""
        self.table.close()


def build(pictures: Pictures, runtime: Runtime, folder: Path, *, model: str = "", progress: Progress = SILENT) -> Built:
    """Bring the index in ``folder`` up to date with ``pictures``: embed what is new or changed, drop what is gone.

    The exact flat index keeps n × 4096 × 4 bytes in memory while it is built. Raises WrongModel or BadArtefact if
    another model or source is behind the index that is there; BadSource if no picture can be embedded.
    """
    import faiss

    old = _old(folder, pictures, runtime)
    known = {} if old is None else _known(old)
    everything = pictures.all()
    fresh = [picture for picture in everything if known.get(picture.path, ("", 0))[0] != picture.file.stamp]
    kept = [picture for picture in everything if known.get(picture.path, ("", 0))[0] == picture.file.stamp]
    size = len(everything) * runtime.features * 4
    progress.note(f"{len(everything):,} pictures, {len(fresh):,} to embed; the index takes {size / 1e6:,.0f} MB")
    vectors, rows = faiss.IndexFlatL2(runtime.features), []
    if old is not None:
        for start in range(0, len(kept), BATCH):
            part = kept[start : start + BATCH]
            vectors.add(np.stack([old.vectors.reconstruct(known[picture.path][1]) for picture in part]))
            rows += part
    refused: list[tuple[str, str]] = []
    began = time.monotonic()
    for good, images in _decoded(pictures, fresh, runtime.image_size, refused):
        vectors.add(runtime.run(images)[1])
        rows += good
        progress.advance("embedding", len(rows) - len(kept) + len(refused), len(fresh))
    if not rows:
        raise BadSource(f"no picture in {pictures.source} could be embedded")
    seconds = time.monotonic() - began
    removed = len(set(known) - {picture.path for picture in everything})
    if old is not None:
        old.close()
    _write(folder, vectors, rows, _facts(pictures, runtime, model))
    added = len(rows) - len(kept)
    return Built(
        images=len(rows),
        added=added,
        kept=len(kept),
        removed=removed,
        refused=refused,
        images_per_second=added / seconds if added else 0.0,
    )


def _old(folder: Path, pictures: Pictures, runtime: Runtime) -> Index | None:
    """The index that is there to be brought up to date, if it is one of these pictures by this model."""
    if not (folder / FILE).exists():
        return None
    old = Index(folder)
    old.check_model(runtime)
    if old.source != pictures.source:
        raise BadArtefact(f"{folder} is an index of {old.source}, not of {pictures.source}: choose another --out")
    return old


def _known(index: Index) -> dict[str, tuple[str, int]]:
    """Path -> (stamp, row) of every picture in the index."""
    return {path: (stamp, row) for path, stamp, row in index.table.execute("SELECT path, stamp, row FROM images")}


def _decoded(
    pictures: Pictures, wanted: list[Picture], size: int, refused: list[tuple[str, str]]
) -> Iterator[tuple[list[Picture], np.ndarray]]:
    """Batches of pictures that could be decoded with their pixels (B, S, S, 3); the others go to ``refused``."""
    for part, loaded in batches(pictures, wanted, BATCH, size):
        refused += [(one.path, pixels) for one, pixels in zip(part, loaded, strict=True) if isinstance(pixels, str)]
        good = [(one, pixels) for one, pixels in zip(part, loaded, strict=True) if not isinstance(pixels, str)]
        if good:
            yield [one for one, _ in good], np.stack([pixels for _, pixels in good])


def _facts(pictures: Pictures, runtime: Runtime, model: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "flat",
        "metric": "euclidean",
        "model": model,
        "model_fingerprint": runtime.fingerprint,
        "precision": runtime.precision,
        "source": pictures.source,
        "built": datetime.date.today().isoformat(),
    }


def _write(folder: Path, vectors: "faiss.Index", rows: list[Picture], facts: dict[str, Any]) -> None:
    """Put vectors, table and facts in place."""
    import faiss

    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / VECTORS) as vectors_beside, written_whole(folder / TABLE) as table_beside:
        faiss.write_index(vectors, str(vectors_beside))
        with contextlib.closing(sqlite3.connect(table_beside)) as table:
            table.execute("CREATE TABLE images (row INTEGER PRIMARY KEY, path TEXT, label TEXT, stamp TEXT)")
            lines = ((row, picture.path, picture.label, picture.file.stamp) for row, picture in enumerate(rows))
            table.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", lines)
            table.commit()
        (folder / FILE).unlink(missing_ok=True)
    facts |= {
        "count": vectors.ntotal,
        "dimension": vectors.d,
        **_measured(vectors),
        "bytes": {name: (folder / name).stat().st_size for name in (VECTORS, TABLE)},
    }
    write_json(folder / FILE, facts)


def _measured(vectors: "faiss.Index") -> dict[str, float]:
    """Recall of the 10 nearest against brute force in float64, and milliseconds a query, for some of the vectors."""
    rows = np.linspace(0, vectors.ntotal - 1, min(MEASURED, vectors.ntotal)).astype(int)
    queries = np.stack([vectors.reconstruct(int(row)) for row in rows])
    k = min(10, vectors.ntotal)
    began = time.perf_counter()
    squares, _ = vectors.search(queries, k)
    milliseconds = 1000 * (time.perf_counter() - began) / len(queries)
    exact = np.concatenate(
        [_squares(queries, vectors, start) for start in range(0, vectors.ntotal, CHUNK)], axis=1
    )  # (Q, N)
    # A neighbour is right if it is no farther than the k-th nearest: of equal distances either may be given.
    farthest = np.partition(exact, k - 1, axis=1)[:, k - 1 : k]
    recall = float((squares <= farthest * (1 + 1e-5) + 1e-3).mean())
    return {"recall_at_10": recall, "milliseconds_per_query": round(milliseconds, 3)}


def _squares(queries: np.ndarray, vectors: "faiss.Index", start: int) -> np.ndarray:
    """Squared distances of ``queries`` (Q, D) to CHUNK vectors from ``start`` on: (Q, n) float64."""
    part = vectors.reconstruct_n(start, min(CHUNK, vectors.ntotal - start)).astype(np.float64)
    return np.stack([((part - query) ** 2).sum(axis=1) for query in queries.astype(np.float64)])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
