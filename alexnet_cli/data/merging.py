"""Merge the records of all chunks into the files of a dataset."""

import contextlib
import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import REJECTED_FILE
from alexnet_cli.data import near
from alexnet_cli.data.arrays import save_array
from alexnet_cli.data.chunks import Chunk, Record, printable, read_record
from alexnet_cli.data.images import Images
from alexnet_cli.data.layouts.listing import SPLITS, Listing
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import CHECKSUMS, LABELS, NAMES, REJECTED, file_names
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource
from alexnet_cli.files import atomic_write, file_checksum
from alexnet_cli.progress import Progress


@dataclass(kw_only=True)
class _Totals:
    """What adds up over all chunks."""

    sums: Sums  # of the training split
    rejected: int
    warned: int = 0
    difference: float = 0.0
    bytes: int = 0  # of the images on disk
    hashes: dict[str, np.ndarray] = field(default_factory=dict)  # split -> (slots, 8) uint16


def merge(
    chunks: Sequence[Chunk], listing: Listing, folder: Path, store: type[Images], size: int, progress: Progress
) -> dict[str, Any]:
    """Write images, labels, checksums and names of every split, statistics and rejected.csv. Records stay as they are.

    Returns what dataset.json says of them. Raises BadSource if no picture of a class, or of the validation split, could
    be packed, and AlexNetError if a record is damaged, which is removed.
    """
    totals = _Totals(sums=Sums.zeros(size), rejected=len(listing.rejected))
    digest = hashlib.sha256(json.dumps(listing.classes).encode())
    labels_of, checksums_of = dict[str, np.ndarray](), dict[str, np.ndarray]()
    path = folder / REJECTED_FILE
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        write = csv.writer(file).writerows
        write([("file", "reason"), *((printable(name), reason) for name, reason in listing.rejected)])
        for split in SPLITS:
            of_split = [chunk for chunk in chunks if chunk.split == split]
            if of_split:
                labels, checksums = _merge_split(of_split, folder / split, totals, write)
                labels_of[split], checksums_of[split], packed = labels, checksums, labels != REJECTED
                for part in (split.encode(), labels[packed].astype("<i4"), checksums[packed].astype("<u8")):
                    digest.update(part)
    _check_classes(listing.classes, labels_of, path)
    if totals.warned:
        progress.note(f"{totals.warned:,} pictures have damaged EXIF or other metadata; they are packed anyway")
    images_of = {split: store(folder / split, len(labels), size) for split, labels in labels_of.items()}
    _note_near_duplicates(chunks, totals.hashes, labels_of, checksums_of, images_of, progress)
    totals.sums.statistics().save(folder)
    counts = {split: int((labels != REJECTED).sum()) for split, labels in labels_of.items()}
    for split in [split for split, count in counts.items() if not count]:  # a test split that nobody can use
        del counts[split]
        for suffix in (*store.suffixes, LABELS, CHECKSUMS, NAMES):
            (folder / f"{split}{suffix}").unlink()
    _note_encoding(totals, sum(counts.values()), size, progress)
    return {
        "counts": counts,
        "slots": {split: len(labels_of[split]) for split in counts},
        "rejected": totals.rejected,
        "fingerprint": digest.hexdigest()[:16],
        "checksums": {name: file_checksum(folder / name) for name in file_names(list(counts), store.name)},
    }


def _merge_split(
    chunks: Sequence[Chunk], base: Path, totals: _Totals, write_rejected: Callable[[list[tuple[str, str]]], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Write the files of a split, whose names begin with ``base``. Returns its labels and checksums, (slots,) each."""
    slots = chunks[-1].start + len(chunks[-1].entries)
    labels, checksums, lengths = np.empty(slots, np.int32), np.empty(slots, np.uint64), np.empty(slots, np.uint64)
    hashes = totals.hashes[chunks[0].split] = np.empty((slots, near.BANDS), np.uint16)
    with atomic_write(base.with_name(base.name + NAMES)) as temporary, open(temporary, "wb") as names:
        for chunk in chunks:
            record = _read(chunk)
            rows = slice(chunk.start, chunk.start + len(record.labels))
            labels[rows], checksums[rows], hashes[rows] = record.labels, record.checksums, record.hashes
            lengths[rows] = record.lengths
            names.write(record.names)
            write_rejected(record.rejected)
            totals.rejected += len(record.rejected)
            totals.warned += record.warned
            totals.difference += record.difference
            if record.sums is not None:
                totals.sums.add(record.sums)
    totals.bytes += int(lengths.sum())
    chunks[0].images.finish([chunk.start for chunk in chunks], lengths)
    save_array(base.with_name(base.name + LABELS), labels)
    save_array(base.with_name(base.name + CHECKSUMS), checksums)
    return labels, checksums


def _note_encoding(totals: _Totals, images: int, size: int, progress: Progress) -> None:
    """Note what images that are kept as JPEGs take, and what that has changed."""
    if totals.difference:
        progress.note(
            f"kept as JPEGs: {totals.bytes / images / 1000:.1f} kB a picture, "
            f"{totals.bytes / images / (3 * size * size):.0%} of its pixels; they differ by "
            f"{totals.difference / images:.2f} grey levels on average"
        )


def _note_near_duplicates(
    chunks: Sequence[Chunk],
    hashes: dict[str, np.ndarray],
    labels_of: dict[str, np.ndarray],
    checksums_of: dict[str, np.ndarray],
    images_of: dict[str, Images],
    progress: Progress,
) -> None:
    """Note how many validation pictures are nearly the same as a training picture."""
    if "val" not in hashes:
        return
    packed = {split: np.flatnonzero(labels_of[split] != REJECTED) for split in ("train", "val")}
    pairs = near.candidates(*(hashes[split][packed[split]] for split in ("train", "val")))[: near.MOST_PAIRS]
    found = []
    for pair in pairs:
        slots = {"train": int(packed["train"][pair.train]), "val": int(packed["val"][pair.val])}
        if near.are_near(
            *(_image(chunks, images_of[split], checksums_of[split], split, slots[split]) for split in slots)
        )[0]:
            found.append(pair)
    if found:
        least = "at least " if len(pairs) == near.MOST_PAIRS else ""
        are = "is" if len(found) == 1 else "are"
        progress.note(
            f"of {len(packed['val']):,} validation pictures, {least}{len(found):,} {are} "
            "nearly the same as a training picture: errors that are measured on them will look too good"
        )


def _image(chunks: Sequence[Chunk], images: Images, checksums: np.ndarray, split: str, slot: int) -> np.ndarray:
    """The image in ``slot`` (1, S, S, 3). If it is damaged, its chunk counts as not packed: raises AlexNetError."""
    try:
        return images.load(np.array([slot]), checksums)
    except BadArtefact as error:
        (chunk,) = (one for one in chunks if one.split == split and 0 <= slot - one.start < len(one.entries))
        chunk.record.unlink(missing_ok=True)
        reason = str(error).partition(":")[0]
        raise AlexNetError(f"{reason}: run the same command again, which packs its pictures again") from None


def _read(chunk: Chunk) -> Record:
    try:
        return read_record(chunk)
    except BadArtefact as error:
        with contextlib.suppress(FileNotFoundError):
            chunk.record.unlink()
        reason = str(error).rpartition(": ")[0] or str(error)
        raise AlexNetError(f"{reason}: run the same command again, which packs its pictures again") from None


def _check_classes(classes: Sequence[str], labels_of: dict[str, np.ndarray], rejected: Path) -> None:
    """Raise BadSource if no picture of a class, or of the validation split, could be packed."""
    trained = np.bincount(labels_of["train"][labels_of["train"] != REJECTED], minlength=len(classes))
    empty = [name for name, count in zip(classes, trained, strict=True) if not count]
    if empty:
        raise BadSource(f"no training picture of {empty[0]} could be read: {rejected} says why")
    if "val" in labels_of and (labels_of["val"] == REJECTED).all():
        raise BadSource(f"no validation picture could be read: {rejected} says why")
