"""Chunks: the parts in which a dataset is packed, each on its own by one process.

A chunk's images are written to disk, as `images` keeps them. Its record, a small file in the folder `packing`, is
written after them: it says that the chunk is packed. A run that was stopped resumes from the records.
"""

import json
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from alexnet_cli.data import near
from alexnet_cli.data.images import RECORDS, Encoded, Images
from alexnet_cli.data.layouts.listing import SPLITS, Entry, Listing
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import REJECTED
from alexnet_cli.errors import BadArtefact, BadPicture, visible
from alexnet_cli.files import read_tensors, write_tensors

CHUNK_SIZE = 256  # pictures: 50 MB in a worker's memory, and the most that each worker loses when the run is stopped
_of_thread = threading.local()


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some pictures to pack, which have consecutive slots in one split."""

    folder: Path  # of the dataset
    plan: str  # digest of what the dataset is packed from: records of another plan are ignored
    split: str
    start: int  # slot of the first picture
    entries: Sequence[Entry]  # its pictures
    images: Images  # of the whole split
    stop_on_bad: bool  # whether the first bad picture stops the run

    @property
    def record(self) -> Path:
        """The file that says that the chunk is packed."""
        return self.folder / RECORDS / f"{self.split}-{self.start:09d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of the n pictures of a packed chunk."""

    labels: np.ndarray  # (n,) int32; REJECTED where a picture was rejected
    checksums: np.ndarray  # (n,) uint64 of the images on disk; 0 where a picture was rejected
    lengths: np.ndarray  # (n,) uint64 of the images on disk, in bytes
    hashes: np.ndarray  # (n, 8) uint16, alike for pictures that are nearly the same
    names: bytes  # UTF-8, each ended by a zero byte
    rejected: list[tuple[str, str]]  # name and reason
    warned: int  # pictures with damaged metadata
    difference: float  # sum over images of the mean absolute difference from the pixels that were to be kept
    sums: Sums | None  # of the training split's images


def chunks_of(
    listing: Listing, folder: Path, plan: str, store: type[Images], size: int, stop_on_bad: bool
) -> list[Chunk]:
    """All chunks of the dataset ``folder``, CHUNK_SIZE pictures each."""
    chunks = []
    for split in SPLITS:
        entries = listing.entries.where(listing.entries.table["split"] == SPLITS.index(split))
        images = store(folder / split, len(entries), size)
        for start in range(0, len(entries), CHUNK_SIZE):
            chunk = Chunk(
                folder=folder,
                plan=plan,
                split=split,
                start=start,
                entries=entries[start : start + CHUNK_SIZE],
                images=images,
                stop_on_bad=stop_on_bad,
            )
            chunks.append(chunk)
    return chunks


def is_packed(chunk: Chunk) -> bool:
    """Whether the chunk is packed, by a sound record. With ``stop_on_bad``, one with bad pictures is packed again."""
    if not chunk.record.exists():
        return False
    try:
        record = read_record(chunk)
        return chunk.images.has(chunk.start, record.lengths) and not (record.rejected and chunk.stop_on_bad)
    except BadArtefact:
        return False


def pack_chunk(chunk: Chunk) -> None:
    """Decode a chunk's pictures, write the images to their slots, then the record.

    Raises BadPicture, naming the picture, with ``stop_on_bad``; OSError if the disk is full.
    """
    size = chunk.images.size
    images = _buffer(max(CHUNK_SIZE, len(chunk.entries)), size)[: len(chunk.entries)]
    labels = np.full(len(images), REJECTED, np.int32)
    rejected, warned = [], 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, entry in enumerate(chunk.entries):
            try:
                images[i] = load_picture(read_location(entry.location), size)
                labels[i] = entry.label
                warned += bool(caught)
            except BadPicture as error:
                if chunk.stop_on_bad:
                    raise BadPicture(f"{printable(entry.name)}: {error}") from None
                images[i] = 0
                rejected.append((visible(printable(entry.name)), str(error)))
            caught.clear()
    encoded = chunk.images.encode(images)
    with ThreadPoolExecutor(1) as writer:  # sums and checksums are computed while the disk is busy
        written = writer.submit(chunk.images.write, chunk.start, encoded)
        tensors = {"labels": labels, "checksums": _checksums(encoded, labels), "names": _joined(chunk.entries)}
        tensors["lengths"] = np.array([len(content) for content in encoded.contents], np.uint64)
        tensors["hashes"] = near.hashes(encoded.images)
        if chunk.split == "train":  # statistics are those of the training split; the images of rejected pictures are 0
            tensors |= Sums.from_images(encoded.images).to_tensors()
        written.result()
    facts = {"plan": chunk.plan, "rejected": json.dumps(rejected), "warned": str(warned)}
    write_tensors(chunk.record, tensors, facts | {"difference": str(encoded.difference)})


def read_record(chunk: Chunk) -> Record:
    """The record of a packed chunk. Raises BadArtefact if it is damaged or of another plan."""
    facts, tensors = read_tensors(chunk.record, what="record")
    try:
        counts = {len(tensors[key]) for key in ("labels", "checksums", "lengths")}
        if facts["plan"] != chunk.plan or counts != {len(chunk.entries)}:
            raise BadArtefact(f"{chunk.record} is of other pictures")
        labels = tensors["labels"]
        return Record(
            labels=labels,
            checksums=tensors["checksums"],
            lengths=tensors["lengths"],
            hashes=tensors["hashes"],
            names=tensors["names"].tobytes(),
            rejected=[(name, reason) for name, reason in json.loads(facts["rejected"])],
            warned=int(facts["warned"]),
            difference=float(facts["difference"]),
            sums=Sums.from_tensors(int((labels >= 0).sum()), tensors) if chunk.split == "train" else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadArtefact(f"{chunk.record} is damaged ({error})") from None


def _checksums(encoded: Encoded, labels: np.ndarray) -> np.ndarray:
    found = [xxhash.xxh3_64_intdigest(content) for content in encoded.contents]
    return np.where(labels == REJECTED, np.uint64(0), np.array(found, np.uint64))


def _joined(entries: Sequence[Entry]) -> np.ndarray:
    return np.frombuffer(b"".join(printable(entry.name).encode() + b"\0" for entry in entries), np.uint8)


def _buffer(count: int, size: int) -> np.ndarray:
    """Memory for the images of one chunk, reused by this thread's next: (count, size, size, 3) uint8."""
    kept: np.ndarray | None = getattr(_of_thread, "buffer", None)
    if kept is None or kept.shape != (count, size, size, 3):
        kept = _of_thread.buffer = np.empty((count, size, size, 3), np.uint8)
    return kept


def printable(name: str) -> str:
    """A file's name as valid text without zeros: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "\ufffd")
