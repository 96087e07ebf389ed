"""Shards: the parts of a packed dataset, each packed on its own by one process.

The shard ``train-00000`` has the files `train-00000.npy`, its images; `train-00000.sums.npy`, their sums, until the
dataset is complete; and `train-00000.json`, its labels, names, rejected pictures and digest. The last is written last:
its presence marks a complete shard.
"""

import errno
import hashlib
import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.data.layouts.listing import SPLITS, Entry, Listing
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import read_shard
from alexnet_cli.errors import BadArtefact, BadPicture
from alexnet_cli.files import write_json

SHARD_SIZE = 256  # pictures: 50 MB in a worker's memory, and the most that each worker loses when the run is stopped
WRITE_SIZE = 4 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """A shard to pack."""

    folder: Path  # of the dataset
    name: str  # "train-00000"
    entries: list[Entry]  # its pictures
    size: int  # of the images, in pixels
    stop_on_bad: bool  # whether the first bad picture stops the run

    @property
    def split(self) -> str:
        return self.name.split("-")[0]

    @property
    def array_suffixes(self) -> tuple[str, ...]:
        """Of the shard's files of arrays. Statistics are those of the training split, so only that has sums."""
        return (".npy", ".sums.npy") if self.split == "train" else (".npy",)

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    def temporary_file(self, suffix: str) -> Path:
        return self.folder / f".{self.name}.part{suffix}"


def shard_jobs(listing: Listing, folder: Path, size: int, stop_on_bad: bool) -> list[ShardJob]:
    """All shards of the dataset ``folder``, SHARD_SIZE pictures each."""
    jobs = []
    for split in SPLITS:
        entries = [entry for entry in listing.entries if entry.split == split]
        for number, start in enumerate(range(0, len(entries), SHARD_SIZE)):
            job = ShardJob(
                folder=folder,
                name=f"{split}-{number:05d}",
                entries=entries[start : start + SHARD_SIZE],
                size=size,
                stop_on_bad=stop_on_bad,
            )
            jobs.append(job)
    return jobs


def is_packed(job: ShardJob) -> bool:
    """Whether all files of a shard are there. With ``stop_on_bad``, a shard with bad pictures is packed again."""
    if not all(job.file(suffix).exists() for suffix in (".json", *job.array_suffixes)):
        return False
    try:
        return not (job.stop_on_bad and read_shard(job.folder, job.name)["rejected"])
    except BadArtefact:
        return False


def pack_shard(job: ShardJob) -> dict[str, Any]:
    """Decode the pictures of a shard and write its arrays under temporary names. Returns the content of its JSON file.

    Raises BadPicture, naming the picture, with ``stop_on_bad``.
    """
    images = _shared_buffer(max(SHARD_SIZE, len(job.entries)), job.size)
    packed: list[Entry] = []
    rejected, warned = [], 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for entry in job.entries:
            try:
                images[len(packed)] = load_picture(read_location(entry.location), job.size)
                packed.append(entry)
                warned += bool(caught)
            except BadPicture as error:
                if job.stop_on_bad:
                    raise BadPicture(f"{printable(entry.name)}: {error}") from None
                rejected.append((entry.name, str(error)))
            caught.clear()
    images = images[: len(packed)]
    with ThreadPoolExecutor(1) as writer:  # sums and digest are computed while the disk is busy
        written = writer.submit(save_array, job.temporary_file(".npy"), images)
        if job.split == "train":
            save_array(job.temporary_file(".sums.npy"), Sums.from_images(images).to_vector())
        digest = hashlib.sha256(images.data).hexdigest()
        written.result()
    return {
        "labels": [entry.label for entry in packed],
        "names": [printable(entry.name) for entry in packed],
        "rejected": [[printable(name), reason] for name, reason in rejected],
        "warned": warned,
        "digest": digest,
    }


def publish_shard(job: ShardJob, content: dict[str, Any]) -> None:
    """Rename a packed shard's arrays from their temporary names, then write ``content``, its JSON file."""
    for suffix in job.array_suffixes:
        os.replace(job.temporary_file(suffix), job.file(suffix))
    write_json(job.file(".json"), content)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write the file that np.save writes, WRITE_SIZE bytes at a time. Raises OSError if the disk is full.

    Each part is synced and dropped from the page cache before the next is written: a dataset larger than memory does
    not evict everything else from the cache. Reusing the same few pages is also up to five times as fast on machines
    where new pages are slow, as on virtual ones.
    """
    content = array.reshape(-1).view(np.uint8)
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    with open(path, "wb", buffering=0) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        parts = [np.frombuffer(header.getvalue(), np.uint8)]
        for part in parts + [content[start : start + WRITE_SIZE] for start in range(0, len(content), WRITE_SIZE)]:
            if file.write(part.data) != len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@lru_cache(1)
def _shared_buffer(count: int, size: int) -> np.ndarray:
    """Memory for the images of one shard, reused by the next: (count, size, size, 3) uint8."""
    return np.empty((count, size, size, 3), np.uint8)


def printable(name: str) -> str:
    """A file's name as valid text: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
