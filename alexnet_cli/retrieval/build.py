"""From pictures to an index, made or brought up to date; whatever its size, memory holds a few batches of it."""

import contextlib
import datetime
import os
import secrets
import shutil
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import atomic_write, model_name, write_json
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource, Interrupted
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.codes import Vectors, chosen, make
from alexnet_cli.retrieval.collection import Collection, Picture
from alexnet_cli.retrieval.index import CODES, FILE, FORMAT, TABLE, VECTORS, Index, of_generation
from alexnet_cli.retrieval.parts import PICTURES, Part, clear, parts_of

MEASURED = 20  # queries that recall and time are measured with
CHUNK = 1024  # vectors copied at a time


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` did."""

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


def build(
    pictures: Collection,
    runtime: OnnxModel,
    folder: Path,
    *,
    model: Path,
    kind: str | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Built:
    """Bring the index in ``folder`` up to date with ``pictures``: embed what is new or changed, drop what is gone.

    ``model``: the folder or ONNX file of ``runtime``; ``kind``: one of `codes.KINDS`, by size if None. Until
    the new index is whole the old one stays as it was. Stopped by KeyboardInterrupt while it embeds, what is embedded
    by then becomes the index, marked as unfinished, and Interrupted is raised. The processes of a ``world`` share the
    embedding, and the first writes the index; what the others return has only the speed. Raises WrongModel or
    BadArtefact if another model or source is behind the index that is there; BadSource if no picture can be embedded;
    AlexNetError for an unknown ``kind``, a full disk, or if another process updates it.
    """
    chosen(kind, 0, 0)  # an unknown kind is refused before the work
    with contextlib.ExitStack() as stack:
        if world.is_main:
            stack.enter_context(_alone(folder))
        world.barrier()
        old = _old(folder, pictures, runtime)
        if old is not None:
            stack.callback(old.close)
        if world.is_main:
            _sweep(folder, keep=None if old is None else old.facts["generation"])
        plan = _plan(old, pictures.all())
        if kind is None and old is not None and old.facts["kind"] != "flat":
            kind = old.facts["kind"]  # it was named, or the index has outgrown a flat one
        kind = chosen(kind, len(plan.kept) + len(plan.fresh), runtime.feature_size)
        if old is not None and plan.nothing_to_do and old.facts["kind"] == kind:
            progress.note(f"all {len(old):,} pictures are in {folder} already")
            refused = [(picture.name, reason) for picture, reason in plan.refused]
            return Built(images=len(old), added=0, kept=len(old), removed=0, refused=refused, images_per_second=0.0)
        _announce(plan, runtime.feature_size, folder, progress)
        work = _Work(pictures=pictures, runtime=runtime, folder=folder, progress=progress, world=world)
        embedded = _embed(plan, work)
        with world.main_first():
            if world.is_main:
                return _write(old, plan, embedded, work, model, kind)
        return Built(images=0, added=0, kept=0, removed=0, refused=[], images_per_second=embedded.images_per_second)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    everything: int
    kept: list[tuple[int, Picture]]  # row in the old index
    refused: list[tuple[Picture, str]]  # before, for a reason, and unchanged since
    fresh: list[Picture]  # new or changed
    removed: int
    same_labels: bool

    @property
    def nothing_to_do(self) -> bool:
        return not self.fresh and not self.removed and self.same_labels


def _plan(old: Index | None, everything: list[Picture]) -> _Plan:
    """What of ``everything`` is in ``old`` as it is now, and what is not."""
    known = {} if old is None else {name: (row, label, stamp) for row, name, label, stamp in old.rows()}
    refusals = {} if old is None else {name: (reason, stamp) for name, reason, stamp in old.refused()}
    fresh, refused, kept, same_labels = [], [], [], True
    for picture in everything:
        row, label, stamp = known.get(picture.name, (-1, None, None))
        if stamp == picture.stamp:
            kept.append((row, picture))
            same_labels &= label == picture.label
        elif refusals.get(picture.name, ("", None))[1] == picture.stamp:
            refused.append((picture, refusals[picture.name][0]))
        else:
            fresh.append(picture)
    removed = len(known.keys() - {picture.name for picture in everything})
    # By row, so that the old vectors are read in one go from front to back.
    kept.sort(key=lambda pair: pair[0])
    return _Plan(
        everything=len(everything), kept=kept, refused=refused, fresh=fresh, removed=removed, same_labels=same_labels
    )


def _announce(plan: _Plan, features: int, folder: Path, progress: Progress) -> None:
    """Say what the index will take, before the work. Raises AlexNetError if the disk has no room for it."""
    size, free = plan.everything * features * 4, shutil.disk_usage(folder).free
    parts = len(plan.fresh) * features * 4  # until the index is whole
    progress.note(
        f"{plan.everything:,} pictures, {len(plan.fresh):,} to embed: {features:,} features of 4 bytes each "
        f"make an index of {size / 1e6:,.0f} MB on disk"
    )
    if size + parts > free:
        raise AlexNetError(
            f"the index takes {(size + parts) / 1e9:,.1f} GB while it is made, beside the old one, "
            f"{folder} has {free / 1e9:,.1f} GB free: free some, or use --workspace on another disk"
        )


@dataclass(frozen=True, kw_only=True)
class _Work:
    pictures: Collection
    runtime: OnnxModel
    folder: Path
    progress: Progress
    world: World


@dataclass(frozen=True, kw_only=True)
class _Embedded:
    parts: list[Part]  # that are done
    stopped: bool  # by KeyboardInterrupt
    images_per_second: float


def _embed(plan: _Plan, work: _Work) -> _Embedded:
    """Embed what is fresh, but for what an earlier run has done, each process of the team its share."""
    parts = parts_of(work.folder, plan.fresh, work.runtime)
    left = [part for part in parts if not part.is_done]
    if len(left) < len(parts):
        there = len(plan.fresh) - sum(len(part.pictures) for part in left)
        work.progress.note(f"going on: {there:,} of {len(plan.fresh):,} are embedded already")
    work.world.barrier()  # all know what is left before it becomes less
    mine, began, fresh = left[work.world.rank :: work.world.size], time.monotonic(), 0
    total = sum(len(part.pictures) for part in mine)
    for part in mine:
        tell = partial(_tell, work.progress, fresh, total)
        done, stopped = part.embed(work.pictures, work.runtime, tell)
        fresh += len(done.pictures)
        if stopped and work.world.size == 1:
            parts[parts.index(part)] = done
            speed = fresh / (time.monotonic() - began)
            return _Embedded(parts=[one for one in parts if one.is_done], stopped=True, images_per_second=speed)
        if stopped:
            raise Interrupted(f"stopped; every {PICTURES:,} pictures embedded are kept: the same command goes on")
    (everywhere,) = work.world.all_reduce(fresh)
    speed = everywhere / (time.monotonic() - began)
    return _Embedded(parts=parts, stopped=False, images_per_second=speed)


def _tell(progress: Progress, before: int, total: int, count: int) -> None:
    progress.advance("embedding", before + count, total)


def _write(old: Index | None, plan: _Plan, embedded: _Embedded, work: _Work, model: Path, kind: str) -> Built:
    """Write the next generation, and let it take the place of the old one."""
    folder, generation = work.folder, secrets.token_hex(4)
    files = {name: of_generation(folder, name, generation) for name in (VECTORS, TABLE)}
    rows = _write_rows(old, plan, embedded, work, files)
    left = plan.everything - rows.count - len(rows.refused)
    facts = _facts(work.pictures, work.runtime, model) | {"kind": kind, "unfinished": left, "generation": generation}
    facts |= {"count": rows.count, "dimension": work.runtime.feature_size}
    whole = Vectors.of(files[VECTORS], rows.count, work.runtime.feature_size)
    with contextlib.closing(whole.file):
        if kind == "flat":
            facts |= _measured(whole)
        else:
            files[CODES] = of_generation(folder, CODES, generation)
            facts |= make(kind, whole, files[CODES], work.progress)
    facts["bytes"] = {name: file.stat().st_size for name, file in files.items()}
    write_json(folder / FILE, facts)  # from here on the new generation is the index
    _settle(folder, files)
    if embedded.stopped:
        raise Interrupted(
            f"stopped; {rows.count:,} pictures are in the index, {left:,} are left: the same command goes on"
        )
    return Built(
        images=rows.count,
        added=rows.count - len(plan.kept),
        kept=len(plan.kept),
        removed=plan.removed,
        refused=rows.refused,
        images_per_second=embedded.images_per_second,
    )


def _write_rows(old: Index | None, plan: _Plan, embedded: _Embedded, work: _Work, files: dict[str, Path]) -> "_Rows":
    """Vectors and table of what is kept, refused and embedded. Raises Interrupted or BadSource if that is nothing."""
    with (
        atomic_write(files[VECTORS]) as vectors,
        atomic_write(files[TABLE]) as table,
        contextlib.closing(_Rows(vectors, table, work.runtime.feature_size)) as rows,
    ):
        if old is not None:
            _copy(old, plan.kept, rows)
        for picture, reason in plan.refused:
            rows.refuse(picture, reason)
        for part in embedded.parts:
            rows.take(part)
        if not rows.count:
            clear(work.folder)
            raise Interrupted("stopped before the first pictures were embedded") if embedded.stopped else _nothing(rows)
        rows.finish()
    return rows


class Flat:
    """A flat index of FAISS, written as vectors come and never held in memory.

    On disk it is a header, with the number of vectors (int64 at byte 8) and of their values (int64 at its end), and
    then the vectors. A test holds FAISS to that.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        import faiss

        self.header = bytes(faiss.serialize_index(faiss.IndexFlatL2(dimension)))
        self.dimension, self.count = dimension, 0
        self.file = open(path, "wb")  # noqa: SIM115 - closed by close
        self.file.write(self.header)

    def add(self, vectors: np.ndarray) -> None:
        """``vectors`` (n, D) float32."""
        self.file.write(np.ascontiguousarray(vectors, np.float32).data)
        self.count += len(vectors)

    def finish(self) -> None:
        """Make it whole."""
        values = self.count * self.dimension
        for place, number in ((8, self.count), (len(self.header) - 8, values)):
            self.file.seek(place)
            self.file.write(struct.pack("<q", number))

    def close(self) -> None:
        self.file.close()


class _Rows:
    """Vectors and the table of their pictures, written side by side."""

    def __init__(self, vectors: Path, table: Path, dimension: int) -> None:
        self.flat = Flat(vectors, dimension)
        self.refused: list[tuple[str, str]] = []  # name, reason
        self.table = sqlite3.connect(table)
        self.table.execute("PRAGMA journal_mode = OFF")  # it is renamed when whole, or thrown away
        self.table.execute("CREATE TABLE images (row INTEGER PRIMARY KEY, path TEXT, label TEXT, stamp TEXT)")
        self.table.execute("CREATE TABLE refused (path TEXT, reason TEXT, stamp TEXT)")

    @property
    def count(self) -> int:
        return self.flat.count

    def add(self, pictures: Sequence[Picture], vectors: np.ndarray) -> None:
        """``vectors`` (n, D) float32 of ``pictures`` (n,)."""
        lines = [(self.count + i, one.name, one.label, one.stamp) for i, one in enumerate(pictures)]
        self.table.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", lines)
        self.flat.add(vectors)

    def take(self, part: Part) -> None:
        """What came of a part."""
        good, vectors, refused = part.read()
        self.add(good, vectors)
        for picture, reason in refused:
            self.refuse(picture, reason)

    def refuse(self, picture: Picture, reason: str) -> None:
        """Note that ``picture`` cannot be embedded; it is tried again when it has changed."""
        self.table.execute("INSERT INTO refused VALUES (?, ?, ?)", (picture.name, reason, picture.stamp))
        self.refused.append((picture.name, reason))

    def finish(self) -> None:
        """Make both files whole."""
        self.flat.finish()
        self.table.commit()

    def close(self) -> None:
        self.flat.close()
        self.table.close()


def _copy(old: Index, kept: list[tuple[int, Picture]], rows: _Rows) -> None:
    for start in range(0, len(kept), CHUNK):
        part = kept[start : start + CHUNK]
        vectors = old.vectors.take(np.array([row for row, _ in part], np.int64))
        rows.add([picture for _, picture in part], vectors)


def _nothing(rows: _Rows) -> BadSource:
    name, reason = rows.refused[0]
    return BadSource(f"none of {len(rows.refused):,} pictures could be embedded ({name}: {reason})")


def _old(folder: Path, pictures: Collection, runtime: OnnxModel) -> Index | None:
    """The index that is there to be brought up to date, if it is one of these pictures by this model."""
    if not (folder / FILE).exists():
        return None
    old = Index.open(folder)
    try:
        old.check_model(runtime)
        if old.source != pictures.source.resolve():
            raise BadArtefact(
                f"{folder} is an index of {old.source}, not of {pictures.source}: choose another name with --out"
            )
    except Exception:
        old.close()
        raise
    return old


def _facts(pictures: Collection, runtime: OnnxModel, model: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "metric": "euclidean",
        "model": model_name(model),
        "model_path": str(model.resolve()),
        "model_fingerprint": runtime.fingerprint,
        "precision": runtime.precision,
        "image_size": runtime.image_size,
        "source": str(pictures.source.resolve()),
        "named": str(pictures.source),
        "are_files": pictures.are_files,
        "built": datetime.date.today().isoformat(),
    }


def _measured(vectors: Vectors) -> dict[str, float]:
    """Recall of the 10 nearest against brute force in float64, and milliseconds a query, for some of the vectors."""
    queries, k = vectors.spread(MEASURED), min(10, vectors.count)
    began = time.perf_counter()
    found = np.concatenate([vectors.nearest(query[None], k) for query in queries])  # (Q, k), one by one as asked
    milliseconds = 1000 * (time.perf_counter() - began) / len(queries)
    exact = np.concatenate([_squares(queries, part) for _, part in vectors.chunks()], axis=1)
    # A neighbour is right if it is no farther than the k-th nearest: of equal distances either may be given.
    farthest = np.partition(exact, k - 1, axis=1)[:, k - 1 : k]
    recall = (np.take_along_axis(exact, found, axis=1) <= farthest * (1 + 1e-5) + 1e-6).mean()
    return {"recall_at_10": float(recall), "milliseconds_per_query": round(milliseconds, 3)}


def _squares(queries: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Squared distances of ``queries`` (Q, D) to ``part`` (n, D): (Q, n) float64."""
    asked, others = queries.astype(np.float64), part.astype(np.float64)
    squares = (asked**2).sum(axis=1)[:, None] - 2 * asked @ others.T + (others**2).sum(axis=1)
    return np.asarray(np.maximum(squares, 0))


def _settle(folder: Path, files: dict[str, Path]) -> None:
    """The new generation takes the plain names, and its parts go."""
    clear(folder)
    if CODES not in files:
        (folder / CODES).unlink(missing_ok=True)  # of an index that was of another kind
    for name, file in files.items():
        os.replace(file, folder / name)
    _sweep(folder, keep=None)


def _sweep(folder: Path, keep: str | None) -> None:
    """Remove what updates that were cut short left behind: files of every generation but the one to ``keep``."""
    for name in (VECTORS, TABLE, CODES):
        stem, suffix = os.path.splitext(name)
        for stale in [*folder.glob(f"{stem}.*{suffix}"), *folder.glob(f".{stem}.*.part*")]:
            if keep is None or stale != of_generation(folder, name, keep):
                stale.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time updates an index; SQLite's lock ends with its process. Raises AlexNetError."""
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
            folder.rmdir()  # if it made nothing
