"""How a collection differs from the index of it, and what an update is to make: which kind, and where."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.artefacts import INDEX_FILE
from alexnet_cli.data.unread import HEIC, reads_heic
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.files import free_name, real_path
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.retrieval.collection import Collection, IndexedPicture
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS, Flat, Milvus, choose_kind
from alexnet_cli.retrieval.milvus import EMBEDDED, MilvusVectors, absolute_uri
from alexnet_cli.retrieval.pieces import MOST_FILES, MOST_GONE, MOST_RANGES, Pieces, ranges


@dataclass(frozen=True, kw_only=True)
class Changes:
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


def compare(old: Index | None, pictures: list[IndexedPicture]) -> Changes:
    """How ``pictures``, all of a collection, differ from those of the ``old`` index."""
    known = {} if old is None else {name: (row, label, stamp) for row, name, label, stamp in old.table.rows()}
    refusals = {} if old is None else {name: (reason, stamp) for name, reason, stamp in old.table.refused()}
    fresh, refused, kept, same_labels = [], [], [], True
    for picture in pictures:
        row, label, stamp = known.get(picture.name, (-1, None, None))
        if stamp == picture.stamp:
            kept.append((row, picture))
            same_labels &= label == picture.label
        elif picture.name in refusals and _is_refused_still(*refusals[picture.name], picture.stamp):
            refused.append((picture, refusals[picture.name][0]))
        else:
            fresh.append(picture)
    removed = len(known.keys() - {picture.name for picture in pictures})
    kept.sort(key=lambda pair: pair[0])  # by row: the old vectors are then read from front to back
    return Changes(
        total=len(pictures), kept=kept, refused=refused, fresh=fresh, removed=removed, same_labels=same_labels
    )


def _is_refused_still(reason: str, old_stamp: str, stamp: str) -> bool:
    """Whether a picture that was refused is not worth another try: it is the same, and so is what can be read here."""
    return stamp == old_stamp and not (reason == HEIC and reads_heic())


def kind_of(named: str | None, old: Index | None, changes: Changes, model: Predictor) -> str:
    """The kind that the user named, now or before; else the old index's, if it is not flat; else by size."""
    if named is None and old is not None and old.facts["kind"] != Flat.name:
        named = old.facts["kind"]
    return choose_kind(named, len(changes.kept) + len(changes.fresh), model.feature_size)


def can_grow(old: Index, kind: str, changes: Changes) -> bool:
    """Whether the vectors of ``old`` stay where they are, and only those of what is new are written."""
    if KINDS[kind].in_engine or not isinstance(old.vectors, Pieces) or not changes.kept:
        return False
    places = old.vectors.places(np.array([row for row, _ in changes.kept]))
    is_sparse = len(places) < (1 - MOST_GONE) * old.vectors.place_count
    return not is_sparse and len(old.vectors.files) < MOST_FILES and len(ranges(places)) < MOST_RANGES


def chosen_uri(kind: str, named: str | None, old: Index | None) -> str | None:
    """Where Milvus is for an index of this ``kind``: as ``named``, or as before; None if it has none.

    Raises AlexNetError if ``named`` is no place for it.
    """
    if not KINDS[kind].in_engine:
        if named is not None:
            raise AlexNetError(f"--uri {named} is for --kind {Milvus.name}; this index is {kind}")
        return None
    if named is not None:
        return absolute_uri(named)
    return (None if old is None else uri_of(old)) or EMBEDDED


def is_made(old: Index, kind: str, uri: str | None) -> bool:
    """Whether ``old`` is of that ``kind``, and its vectors are at that ``uri``."""
    return bool(old.facts["kind"] == kind) and uri_of(old) == uri


def uri_of(old: Index) -> str | None:
    """Where Milvus is that has the vectors of ``old``; None if they are in a file of the index."""
    return old.vectors.place.uri if isinstance(old.vectors, MilvusVectors) else None


def open_old(folder: Path, collection: Collection, model: Predictor) -> Index | None:
    """The index that is to be updated. Raises WrongModel or BadArtefact if it is of another model or source."""
    if not (folder / INDEX_FILE).exists():
        return None
    old = Index.open(folder)
    try:
        old.check_model(model)
        _check_source(old, collection)
    except Exception:
        old.close()
        raise
    return old


def _check_source(old: Index, collection: Collection) -> None:
    """Raise BadArtefact unless ``old`` is an index of ``collection``, or of one that is gone and had mostly the same.

    So a folder may move, and no index is replaced because another folder has its name.
    """
    name, split = collection.source, old.facts["split"]
    is_same = old.source == real_path(name)
    if is_same and split == collection.split:
        return
    why, advice = f"{old.path} is an index of {old.source}, not of {name}", _another_name(old.path)
    if is_same:
        raise BadArtefact(f"{old.path} is an index of the split {split} of {name}, not of {collection.split}: {advice}")
    if old.source.exists():
        raise BadArtefact(f"{why}: {advice}")
    if (old.facts["are_files"], split) != (collection.are_files, collection.split):  # another kind of source: no move
        raise BadArtefact(f"{old.path} is an index of {old.source}, which is not there, not of {name}: {advice}")
    there = {picture.name for picture in collection.all()}
    found = sum(path in there for _, path, _, _ in old.table.rows())
    if 2 * found <= len(old):
        raise BadArtefact(f"{why}, where only {found:,} of its {len(old):,} pictures are: {advice}")


def _another_name(folder: Path) -> str:
    return f"name another with --out {shlex.quote(free_name(folder))}"
