"""From pictures to an index, made or brought up to date. Memory holds a few batches, whatever the size of the index."""

import contextlib
import datetime
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import INDEX_FILE, model_name
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource, Interrupted
from alexnet_cli.files import atomic_write, write_json
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.collection import Collection, IndexedPicture
from alexnet_cli.retrieval.embedding import Embedded, Part, embed, remove_parts
from alexnet_cli.retrieval.index import CODES, FORMAT, TABLE, VECTORS, Index, of_generation
from alexnet_cli.retrieval.kinds import KINDS, Flat, build_kind, check_kind, choose_kind
from alexnet_cli.retrieval.vectors import Vectors, VectorWriter

COPIED = 1024  # vectors copied from the old index at a time


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build_index` did."""

    images: int  # in the index now
    added: int  # new or changed
    kept: int
    removed: int  # gone from the source
    refused: list[tuple[str, str]]  # name, reason
    images_per_second: float

    def as_json(self, index: str, model: str) -> dict[str, Any]:
        """As `alexnet index --json` prints it."""
        return {
            "index": index,
            "model": model,
            "images": self.images,
            "added": self.added,
            "kept": self.kept,
            "removed": self.removed,
            "refused": len(self.refused),
            "images_per_second": round(self.images_per_second, 1),
        }


def build_index(
    collection: Collection,
    model: Predictor,
    folder: Path,
    *,
    model_path: Path,
    kind: str | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Built:
    """Bring the index in ``folder`` up to date with ``collection``: embed what is new or changed, drop what is gone.

    ``model_path``: the folder or ONNX file of ``model``. ``kind``: one of `kinds.KINDS`; by size if None. The old index
    stays as it is until the new one is complete. KeyboardInterrupt during the embedding makes an index of what is
    embedded by then, marked as unfinished, and raises Interrupted. The ranks of ``world`` share the embedding, and
    rank 0 writes the index; what the others return has only the speed. Raises WrongModel or BadArtefact if the index in
    ``folder`` is of another model or source; BadSource if no picture can be embedded; AlexNetError for an unknown
    ``kind``, for a full disk, or if another process updates the index.
    """
    if kind is not None:
        check_kind(kind)  # before the work
    with contextlib.ExitStack() as stack:
        if world.is_main:
            stack.enter_context(_exclusive_lock(folder))
        world.barrier()
        old = _open_old(folder, collection, model)
        if old is not None:
            stack.callback(old.close)
        if world.is_main:
            _remove_leftovers(folder, keep=None if old is None else old.facts["generation"])
        changes = _compare(old, collection.all())
        named_kind = kind or (None if old is None else old.facts["named_kind"])
        kind = _kind_of(named_kind, old, changes, model)
        if old is not None and changes.none and not old.facts["unfinished"] and old.facts["kind"] == kind:
            progress.note(f"all {len(old):,} pictures are in {folder} already")
            refused = [(picture.name, reason) for picture, reason in changes.refused]
            return Built(images=len(old), added=0, kept=len(old), removed=0, refused=refused, images_per_second=0.0)
        _check_disk_space(changes, model.feature_size, folder, progress)
        embedded = embed(changes.fresh, collection, model, folder, progress=progress, world=world)
        with world.main_first():
            if world.is_main:
                writer = _Writer(collection, model, folder, model_path, kind, named_kind, progress)
                return writer.write(old, changes, embedded)
        return Built(images=0, added=0, kept=0, removed=0, refused=[], images_per_second=embedded.images_per_second)


# What has changed


@dataclass(frozen=True, kw_only=True)
class _Changes:
    """How a collection differs from the old index."""

    total: int  # pictures in the collection
    kept: list[tuple[int, IndexedPicture]]  # row in the old index
    refused: list[tuple[IndexedPicture, str]]  # by the old index, for a reason, and unchanged since
    fresh: list[IndexedPicture]  # new or changed
    removed: int
    same_labels: bool

    @property
    def none(self) -> bool:
        """Whether the old index is up to date."""
        return not self.fresh and not self.removed and self.same_labels


def _compare(old: Index | None, pictures: list[IndexedPicture]) -> _Changes:
    known = {} if old is None else {name: (row, label, stamp) for row, name, label, stamp in old.rows()}
    refusals = {} if old is None else {name: (reason, stamp) for name, reason, stamp in old.refused()}
    fresh, refused, kept, same_labels = [], [], [], True
    for picture in pictures:
        row, label, stamp = known.get(picture.name, (-1, None, None))
        if stamp == picture.stamp:
            kept.append((row, picture))
            same_labels &= label == picture.label
        elif refusals.get(picture.name, ("", None))[1] == picture.stamp:
            refused.append((picture, refusals[picture.name][0]))
        else:
            fresh.append(picture)
    removed = len(known.keys() - {picture.name for picture in pictures})
    kept.sort(key=lambda pair: pair[0])  # by row: the old vectors are then read from front to back
    return _Changes(
        total=len(pictures), kept=kept, refused=refused, fresh=fresh, removed=removed, same_labels=same_labels
    )


def _kind_of(named: str | None, old: Index | None, changes: _Changes, model: Predictor) -> str:
    """The kind that the user named, now or before; else the old index's, if it is not flat; else by size."""
    if named is None and old is not None and old.facts["kind"] != Flat.name:
        named = old.facts["kind"]
    return choose_kind(named, len(changes.kept) + len(changes.fresh), model.feature_size)


def _open_old(folder: Path, collection: Collection, model: Predictor) -> Index | None:
    """The index that is to be updated. Raises WrongModel or BadArtefact if it is of another model or source."""
    if not (folder / INDEX_FILE).exists():
        return None
    old = Index.open(folder)
    try:
        old.check_model(model)
        if old.source != collection.source.resolve():
            raise BadArtefact(
                f"{folder} is an index of {old.source}, not of {collection.source}: choose another name with --out"
            )
    except Exception:
        old.close()
        raise
    return old


def _check_disk_space(changes: _Changes, features: int, folder: Path, progress: Progress) -> None:
    """Note the size of the index before the work. Raises AlexNetError if the disk has no room for it."""
    size, free = changes.total * features * 4, shutil.disk_usage(folder).free
    parts = len(changes.fresh) * features * 4  # until the index is complete
    progress.note(
        f"{changes.total:,} pictures, {len(changes.fresh):,} to embed: {features:,} features of 4 bytes each "
        f"make an index of {size / 1e6:,.0f} MB on disk"
    )
    if size + parts > free:
        raise AlexNetError(
            f"building the index takes {(size + parts) / 1e9:,.1f} GB in addition to the old one, and "
            f"{folder} has {free / 1e9:,.1f} GB free: free some, or use --workspace on another disk"
        )


# Writing


class _Writer:
    """Writes the next generation of an index and puts it in the place of the old one."""

    def __init__(
        self,
        collection: Collection,
        model: Predictor,
        folder: Path,
        model_path: Path,
        kind: str,
        named_kind: str | None,
        progress: Progress,
    ) -> None:
        self.collection, self.model, self.folder, self.model_path = collection, model, folder, model_path
        self.kind, self.named_kind, self.progress, self.generation = kind, named_kind, progress, secrets.token_hex(4)
        names = (VECTORS, TABLE, CODES) if KINDS[kind].has_codes else (VECTORS, TABLE)
        self.files = {name: of_generation(folder, name, self.generation) for name in names}

    def write(self, old: Index | None, changes: _Changes, embedded: Embedded) -> Built:
        """Raises Interrupted if the embedding was stopped, once what was embedded is in the index."""
        rows = self._write_rows(old, changes, embedded)
        unfinished = changes.total - rows.count - len(rows.refused)
        vectors = Vectors.open(self.files[VECTORS], rows.count, self.model.feature_size)
        with contextlib.closing(vectors):
            facts = self._facts() | build_kind(self.kind, vectors, self.files.get(CODES, Path()), self.progress)
        facts |= {"unfinished": unfinished, "count": rows.count, "dimension": self.model.feature_size}
        facts["bytes"] = {name: file.stat().st_size for name, file in self.files.items()}
        write_json(self.folder / INDEX_FILE, facts)  # from here on the new generation is the index
        self._rename()
        if embedded.stopped:
            raise Interrupted(
                f"stopped; {rows.count:,} pictures are in the index, {unfinished:,} are not yet: "
                "run the same command to resume"
            )
        return Built(
            images=rows.count,
            added=rows.count - len(changes.kept),
            kept=len(changes.kept),
            removed=changes.removed,
            refused=rows.refused,
            images_per_second=embedded.images_per_second,
        )

    def _write_rows(self, old: Index | None, changes: _Changes, embedded: Embedded) -> "_Rows":
        """Vectors and table of what is kept, refused and embedded. Raises Interrupted or BadSource if that is empty."""
        with (
            atomic_write(self.files[VECTORS]) as vectors,
            atomic_write(self.files[TABLE]) as table,
            contextlib.closing(_Rows(vectors, table, self.model.feature_size)) as rows,
        ):
            if old is not None:
                _copy(old, changes.kept, rows)
            for picture, reason in changes.refused:
                rows.refuse(picture, reason)
            for part in embedded.parts:
                rows.add_part(part)
            if not rows.count:
                remove_parts(self.folder)
                if embedded.stopped:
                    raise Interrupted("stopped before the first pictures were embedded")
                name, reason = rows.refused[0]
                raise BadSource(f"none of {len(rows.refused):,} pictures could be embedded ({name}: {reason})")
            rows.finish()
        return rows

    def _facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "metric": "euclidean",
            "model": model_name(self.model_path),
            "model_path": str(self.model_path.resolve()),
            "model_fingerprint": self.model.fingerprint,
            "precision": self.model.precision,
            "image_size": self.model.image_size,
            "source": str(self.collection.source.resolve()),
            "named": str(self.collection.source),
            "are_files": self.collection.are_files,
            "built": datetime.date.today().isoformat(),
            "kind": self.kind,
            "named_kind": self.named_kind,  # by the user; None: chosen by size
            "generation": self.generation,
        }

    def _rename(self) -> None:
        """Give the files of the new generation their plain names, and remove the parts."""
        remove_parts(self.folder)
        if CODES not in self.files:
            (self.folder / CODES).unlink(missing_ok=True)  # of an index that was of another kind
        for name, file in self.files.items():
            os.replace(file, self.folder / name)
        _remove_leftovers(self.folder, keep=None)


class _Rows:
    """The vectors and the table of their pictures, row by row."""

    def __init__(self, vectors: Path, table: Path, dimension: int) -> None:
        self.vectors = VectorWriter(vectors, dimension)
        self.refused: list[tuple[str, str]] = []  # name, reason
        self.table = sqlite3.connect(table)
        self.table.execute("PRAGMA journal_mode = OFF")  # an incomplete table is thrown away
        self.table.execute("CREATE TABLE images (row INTEGER PRIMARY KEY, path TEXT, label TEXT, stamp TEXT)")
        self.table.execute("CREATE TABLE refused (path TEXT, reason TEXT, stamp TEXT)")

    @property
    def count(self) -> int:
        return self.vectors.count

    def add(self, pictures: Sequence[IndexedPicture], vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32 of ``pictures`` (n,)."""
        lines = [(self.count + i, one.name, one.label, one.stamp) for i, one in enumerate(pictures)]
        self.table.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", lines)
        self.vectors.add(vectors)

    def add_part(self, part: Part) -> None:
        """Append the pictures of a part."""
        embedded, features, refused = part.read()
        self.add(embedded, features)
        for picture, reason in refused:
            self.refuse(picture, reason)

    def refuse(self, picture: IndexedPicture, reason: str) -> None:
        """Note that ``picture`` cannot be embedded; it is tried again once it has changed."""
        self.table.execute("INSERT INTO refused VALUES (?, ?, ?)", (picture.name, reason, picture.stamp))
        self.refused.append((picture.name, reason))

    def finish(self) -> None:
        """Complete both files."""
        self.vectors.finish()
        self.table.commit()

    def close(self) -> None:
        self.vectors.close()
        self.table.close()


def _copy(old: Index, kept: list[tuple[int, IndexedPicture]], rows: _Rows) -> None:
    for start in range(0, len(kept), COPIED):
        some = kept[start : start + COPIED]
        vectors = old.vectors.take(np.array([row for row, _ in some], np.int64))
        rows.add([picture for _, picture in some], vectors)


# The folder


def _remove_leftovers(folder: Path, keep: str | None) -> None:
    """Remove what updates that were cut short left behind: files of every generation but the one to ``keep``."""
    for name in (VECTORS, TABLE, CODES):
        stem, suffix = os.path.splitext(name)
        for file in [*folder.glob(f"{stem}.*{suffix}"), *folder.glob(f".{stem}.*.part*")]:
            if keep is None or file != of_generation(folder, name, keep):
                file.unlink()


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Only one process updates an index at a time; SQLite's lock ends with its process. Raises AlexNetError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    connection = sqlite3.connect(lock, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        connection.close()
        raise AlexNetError(f"another process is updating {folder}: wait for it to end") from None
    try:
        yield
    finally:
        connection.close()
        lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty
