"""From pictures to an index, made or brought up to date. Memory holds a few batches, whatever the size of the index."""

import collections
import contextlib
import datetime
import itertools
import math
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import model_name
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource, Interrupted
from alexnet_cli.files import atomic_write, file_checksum, is_utf8, one_writer, real_path
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.changes import Changes, can_grow, chosen_uri, compare, is_made, kind_of, open_old
from alexnet_cli.retrieval.coding import Before, build_kind
from alexnet_cli.retrieval.collection import Collection, IndexedPicture
from alexnet_cli.retrieval.embedding import Embedded, Part, embed, embed_again, parts_of, remove_parts
from alexnet_cli.retrieval.index import Index, open_vectors
from alexnet_cli.retrieval.kinds import check_kind
from alexnet_cli.retrieval.layout import CODES, ENGINE, FORMAT, TABLE, VECTORS, of_generation, piece, tidy, write_facts
from alexnet_cli.retrieval.milvus import MilvusWriter, Place, check_reachable
from alexnet_cli.retrieval.pieces import Pieces, ranges
from alexnet_cli.retrieval.table import TableWriter, row_checksums
from alexnet_cli.retrieval.vectors import CHUNK, VectorWriter
from alexnet_cli.wording import counted
from alexnet_cli.wordnet import class_names


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build_index` did."""

    images: int  # in the index now
    added: int  # new or changed
    kept: int
    removed: int  # gone from the source
    refused: list[tuple[str, str]]  # name, reason
    left_out: list[str]  # how many pictures of the source were not tried, each with what to do about them
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
            "left_out": self.left_out,
            "images_per_second": round(self.images_per_second, 1),
        }


def build_index(
    collection: Collection,
    model: Predictor,
    folder: Path,
    *,
    model_path: Path,
    kind: str | None = None,
    uri: str | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Built:
    """Bring the index in ``folder`` up to date with ``collection``: embed what is new or changed, drop what is gone.

    ``model_path``: the folder or ONNX file of ``model``. ``kind``: one of `kinds.KINDS`; by size if None. ``uri``: for
    kind milvus, its server or file; where the vectors are, or a file in ``folder``, if None. The old index stays as it
    is until the new one is complete. KeyboardInterrupt during the embedding makes an index of what is embedded by then,
    marked as unfinished, and raises Interrupted. The ranks of ``world`` share the embedding, and
    rank 0 writes the index; what the others return has only the speed. Raises WrongModel or BadArtefact if the index in
    ``folder`` is of another model or source; BadSource if no picture can be embedded; AlexNetError for an unknown
    ``kind``, for a name that is not UTF-8, for a full disk, or if another process updates the index.
    """
    if kind is not None:
        check_kind(kind)  # before the work
    if not is_utf8(folder.name):  # nobody could name it in a browser, nor paste its name from the terminal
        raise AlexNetError(
            f"an index cannot be called {folder.name!r}, which is not UTF-8: give it another name with --out"
        )
    with contextlib.ExitStack() as stack:
        if world.is_main:
            stack.enter_context(one_writer(folder, "index"))
            tidy(folder)
            stack.callback(tidy, folder)  # also after a full disk
        world.barrier()
        old = open_old(folder, collection, model)
        if old is not None:
            stack.callback(old.close)
        changes = compare(old, collection.all())
        named_kind = kind or (None if old is None else old.facts["named_kind"])
        kind = kind_of(named_kind, old, changes, model)
        uri = chosen_uri(kind, uri, old)
        parts = parts_of(changes.fresh, model, folder)
        if world.is_main:
            remove_parts(folder, keep=parts)  # those of pictures that have changed since
        if old is not None and changes.none and not old.facts["unfinished"] and is_made(old, kind, uri):
            progress.note(f"all {len(old):,} pictures are in {folder} already")
            facts = old.facts | _source_facts(collection) | {"named_kind": named_kind}
            if world.is_main and facts != old.facts:
                write_facts(folder, facts)
            refused = [(picture.name, reason) for picture, reason in changes.refused]
            counts = {"images": len(old), "added": 0, "kept": len(old), "removed": 0}
            return Built(**counts, refused=refused, left_out=collection.left_out(), images_per_second=0.0)
        if uri is not None and world.is_main:
            check_reachable(folder, uri)  # before the work
        base = old if old is not None and can_grow(old, kind, changes) else None
        written = changes.total if base is None else len(changes.fresh)
        _check_disk_space(changes.total, written, parts, model.feature_size, folder, progress)
        embedded = embed(parts, collection, model, progress=progress, world=world)
        with world.main_first():
            if world.is_main:
                writer = _Writer(collection, model, folder, model_path, kind, named_kind, uri, base, progress)
                return writer.write(old, changes, embedded)
        counts = {"images": 0, "added": 0, "kept": 0, "removed": 0}
        return Built(**counts, refused=[], left_out=[], images_per_second=embedded.images_per_second)


def _source_facts(collection: Collection) -> dict[str, Any]:
    return {
        "source": str(real_path(collection.source)),
        "named": str(collection.source),
        "split": collection.split,
        "are_files": collection.are_files,
    }


def _check_disk_space(
    total: int, written: int, parts: Sequence[Part], features: int, folder: Path, progress: Progress
) -> None:
    """Note the size of an index of ``total`` pictures before the work, which writes the vectors of ``written`` of them.

    Raises AlexNetError if the disk has no room for them.
    """
    free = shutil.disk_usage(folder).free
    pending = sum(len(part.pictures) for part in parts if not part.is_complete)  # parts stay until the index is there
    needed = (written + pending) * features * 4
    fresh = sum(len(part.pictures) for part in parts)
    progress.note(
        f"{counted(total, 'picture')}, {fresh:,} to embed: {features:,} features of 4 bytes each "
        f"make an index of {math.ceil(total * features * 4 / 1e6):,} MB on disk"
    )
    if needed > free:
        raise AlexNetError(
            f"building the index takes {math.ceil(needed / 1e6):,} MB in addition to the old one, and "
            f"{folder} has {free // 10**6:,} MB free: free some, or use --workspace on another disk"
        )


# Writing


class _Writer:
    """Writes the next generation of an index; once it is written, it is the index."""

    def __init__(
        self,
        collection: Collection,
        model: Predictor,
        folder: Path,
        model_path: Path,
        kind: str,
        named_kind: str | None,
        uri: str | None,
        base: Index | None,
        progress: Progress,
    ) -> None:
        """``base``: the index of before if its vectors stay where they are."""
        self.collection, self.model, self.folder, self.model_path = collection, model, folder, model_path
        self.kind, self.named_kind, self.progress, self.generation = kind, named_kind, progress, secrets.token_hex(4)
        self.place = None if uri is None else Place(uri=uri, collection=f"alexnet_{self.generation}")
        self.base = base
        files = {name: of_generation(folder, name, self.generation) for name in (VECTORS, TABLE, CODES, ENGINE)}
        self.vectors = files[VECTORS] if base is None else piece(folder, len(base.facts["pieces"]))
        self.table, self.codes, self.engine = files[TABLE], files[CODES], files[ENGINE]

    def write(self, old: Index | None, changes: Changes, embedded: Embedded) -> Built:
        """Raises Interrupted if the embedding was stopped, once what was embedded is in the index."""
        rows = self._write_rows(old, changes, embedded)
        unfinished = changes.total - rows.count - len(rows.refused)
        facts = self._facts() | {"unfinished": unfinished, "count": rows.count, "names": self._names(rows.labels)}
        facts |= self._vector_facts(rows, changes)
        before = None if self.base is None else _before(self.base, changes)
        with contextlib.closing(open_vectors(self.folder, facts)) as vectors:
            facts |= build_kind(self.kind, vectors, self.codes, before, self.progress)
        if self.codes.exists():
            facts["files"][CODES] = _file_facts(self.codes)
        write_facts(self.folder, facts)
        remove_parts(self.folder)
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
            left_out=self.collection.left_out(),
            images_per_second=embedded.images_per_second,
        )

    def _write_rows(self, old: Index | None, changes: Changes, embedded: Embedded) -> "_Rows":
        """Vectors and table of what is kept, refused and embedded. Raises Interrupted or BadSource if that is empty."""
        with (
            self._vector_writer() as vectors,
            atomic_write(self.table) as table,
            contextlib.closing(_Rows(vectors, table)) as rows,
        ):
            if self.base is not None:
                _keep(self.base, changes.kept, rows)
            elif old is not None:
                _copy(old, changes.kept, rows)
            for picture, reason in changes.refused:
                rows.refuse(picture, reason)
            for part in embedded.parts:
                self._add_part(part, rows)
            if not rows.count:
                remove_parts(self.folder)
                if embedded.stopped:
                    raise Interrupted("stopped before the first pictures were embedded")
                name, reason = rows.refused[0]
                raise BadSource(f"none of {len(rows.refused):,} pictures could be embedded ({name}: {reason})")
            rows.finish()
        return rows

    @contextlib.contextmanager
    def _vector_writer(self) -> Iterator[VectorWriter | MilvusWriter]:
        if self.place is not None:
            with contextlib.closing(MilvusWriter(self.engine, self.model.feature_size, self.place)) as writer:
                yield writer
            return
        with (
            atomic_write(self.vectors) as file,
            contextlib.closing(VectorWriter(file, self.model.feature_size)) as writer,
        ):
            yield writer

    def _vector_facts(self, rows: "_Rows", changes: Changes) -> dict[str, Any]:
        """Where the vectors are, and the other files of this generation but the codes."""
        facts: dict[str, Any] = {"dimension": self.model.feature_size, "files": {TABLE: _file_facts(self.table)}}
        count, checksum = rows.vectors.count, rows.vectors.checksum
        if self.place is not None:
            engine = {"bytes": self.engine.stat().st_size, "checksum": checksum}  # that of the vectors
            return facts | {"files": {**facts["files"], ENGINE: engine}, "pieces": [], "live": [[0, count]]}
        pieces = [{"count": count, "checksum": checksum}] if count else []
        if self.base is None:
            return facts | {"pieces": pieces, "live": [[0, count]]}
        assert isinstance(self.base.vectors, Pieces)
        places, last = self.base.vectors.places(_kept_rows(changes)), self.base.vectors.place_count
        live = ranges(np.concatenate([places, np.arange(last, last + count)]))
        return facts | {"pieces": self.base.facts["pieces"] + pieces, "live": live}

    def _add_part(self, part: Part, rows: "_Rows") -> None:
        try:
            content = part.read()
        except BadArtefact:
            content = embed_again(part, self.collection, self.model, self.progress).read()
        embedded, features, refused = content
        rows.add(embedded, features)
        for picture, reason in refused:
            rows.refuse(picture, reason)

    def _facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "metric": "euclidean",
            "model": model_name(self.model_path),
            "model_path": str(self.model_path.resolve()),
            "model_fingerprint": self.model.fingerprint,
            "precision": self.model.precision,
            "image_size": self.model.image_size,
            **_source_facts(self.collection),
            "built": datetime.date.today().isoformat(),
            "kind": self.kind,
            "named_kind": self.named_kind,  # by the user; None: chosen by size
            "generation": self.generation,
        }

    def _names(self, labels: set[str]) -> dict[str, str]:
        """What people read for each of ``labels`` that they do not read as it is."""
        ordered = sorted(labels)
        names = zip(ordered, class_names(ordered, self.collection.words), strict=True)
        return {label: name for label, name in names if name != label}


def _file_facts(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "checksum": file_checksum(file)}


class _Rows:
    """The table of the pictures, row by row, and the vectors that are written."""

    def __init__(self, vectors: VectorWriter | MilvusWriter, table: Path) -> None:
        self.vectors, self.table, self.count = vectors, TableWriter(table), 0
        self.refused: list[tuple[str, str]] = []  # name, reason
        self.labels: set[str] = set()

    def add(self, pictures: Sequence[IndexedPicture], vectors: np.ndarray) -> None:
        """Append ``vectors`` (n, D) float32 of ``pictures`` (n,)."""
        self.keep(pictures, row_checksums(vectors))
        self.vectors.add(vectors)

    def keep(self, pictures: Sequence[IndexedPicture], checksums: Sequence[int]) -> None:
        """Append ``pictures`` (n,) whose vectors, of these ``checksums`` (n,), are there already."""
        self.table.add([(self.count + i, one.name, one.label, one.stamp) for i, one in enumerate(pictures)], checksums)
        self.count += len(pictures)
        self.labels |= {one.label for one in pictures if one.label is not None}

    def refuse(self, picture: IndexedPicture, reason: str) -> None:
        """Note that ``picture`` cannot be embedded; it is tried again once it has changed."""
        self.table.refuse(picture.name, reason, picture.stamp)
        self.refused.append((picture.name, reason))

    def finish(self) -> None:
        """Complete both files."""
        self.vectors.finish()
        self.table.finish()

    def close(self) -> None:
        self.table.close()


def _copy(old: Index, kept: list[tuple[int, IndexedPicture]], rows: _Rows) -> None:
    """Append what is ``kept`` of ``old``, by row. Raises BadArtefact at the end if the old vectors are damaged."""
    remaining = collections.deque(kept)
    for first, chunk in old.vectors.chunks():  # also those that are not kept: the checksum is of all
        some = []
        while remaining and remaining[0][0] < first + len(chunk):
            some.append(remaining.popleft())
        rows.add([picture for _, picture in some], chunk[[row - first for row, _ in some]])


def _keep(base: Index, kept: list[tuple[int, IndexedPicture]], rows: _Rows) -> None:
    """Append what is ``kept`` of ``base``, by row, whose vectors stay where they are."""
    checksums, last = base.table.checksums(), -1
    for start in range(0, len(kept), CHUNK):
        some, found = kept[start : start + CHUNK], list[int]()
        for row, _ in some:
            found.append(next(itertools.islice(checksums, row - last - 1, None)))
            last = row
        rows.keep([picture for _, picture in some], found)


def _before(base: Index, changes: Changes) -> Before:
    """What is known of the codes of ``base``, and which of its rows are gone."""
    gone = np.setdiff1d(np.arange(len(base)), _kept_rows(changes))
    return Before(kind=base.kind, facts=base.facts, gone=gone)


def _kept_rows(changes: Changes) -> np.ndarray:
    """In the old index: (n,) int64."""
    return np.array([row for row, _ in changes.kept], np.int64)
