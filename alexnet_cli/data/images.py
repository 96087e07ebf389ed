"""How a dataset keeps the images of a split: as pixels, or as JPEGs of them, which take a sixth of the space.

`Images` is what the rest of the program knows of it. An image has a slot, and a checksum of what is on disk.
"""

import os
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import xxhash

from alexnet_cli.data.arrays import ADVICE, HEADER_SIZE, check_array, create_array, map_array, save_array, write_rows
from alexnet_cli.distributed import available_cores
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import atomic_write

# Chosen on 127 photographs of ImageNet (`benchmarks/jpeg.py`): 17 % of the bytes, 1.7 grey levels from the pixels.
QUALITY, SUBSAMPLING = 94, "444"
LARGEST_SHARE = 0.2  # of the bytes of the pixels: what is reckoned with before the JPEGs are there
PIXELS, JPEGS, ENDS = ".npy", ".jpegs", ".ends.npy"  # files of a split, after its name
RECORDS = "packing"  # the folder of what is packed so far


class Encoded(NamedTuple):
    """Images as they are kept."""

    images: np.ndarray  # (n, S, S, 3) uint8, as they will be read again
    contents: Sequence[bytes | memoryview]  # of each image, on disk
    difference: float  # sum over images of the mean absolute difference from their pixels, in grey levels


class Images(ABC):
    """The images of one split on disk, by slot."""

    name: ClassVar[str]
    settings: ClassVar[tuple[str | int, ...]]  # what decides the bytes on disk
    suffixes: ClassVar[tuple[str, ...]]  # of its files; of the first, dataset.json has no checksum

    def __init__(self, base: Path, slots: int, size: int) -> None:
        """``base``: the path of the split's files, without suffixes; ``size``: S, the side in pixels."""
        self.base, self.slots, self.size = base, slots, size

    def file(self, suffix: str) -> Path:
        """One of the files."""
        return self.base.with_name(self.base.name + suffix)

    @property
    def path(self) -> Path:
        """The file with the images."""
        return self.file(self.suffixes[0])

    @cached_property
    def _file(self) -> int:
        """Descriptor of the images' file, which is closed with this object.

        An error of the disk stays an error here; at a page of a mapped file it would be a signal that ends the process.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    # Reading

    @abstractmethod
    def check(self) -> None:
        """Raise BadArtefact unless the files are there and have their sizes."""

    @abstractmethod
    def read(self, slots: Sequence[int], checksums: Sequence[int], images: np.ndarray) -> int | None:
        """Fill ``images`` (B, S, S, 3). Returns the number within ``slots`` of one that is damaged, if any is."""

    def load(self, slots: np.ndarray, checksums: np.ndarray, name: Callable[[int], str] = str) -> np.ndarray:
        """The images of ``slots`` (B,), in any order: (B, S, S, 3) uint8. ``checksums``: of all slots.

        Raises BadArtefact if one is damaged, with what ``name`` makes of its place in ``slots``, and OSError.
        """
        images = np.empty((len(slots), self.size, self.size, 3), np.uint8)
        try:
            damaged = self.read(slots.tolist(), checksums[slots].tolist(), images)
        except OSError as error:
            error.filename = str(self.path)
            raise
        if damaged is not None:
            raise BadArtefact(f"{self.path} is damaged: the picture {name(damaged)} differs: {ADVICE}")
        return images

    @abstractmethod
    def extent(self, first: int, last: int) -> tuple[int, int]:
        """Where the images of slots ``first`` to ``last`` are in the file: the first byte, and how many."""

    def will_read(self, slots: np.ndarray) -> None:
        """Let the system begin to read ``slots`` (B,), ascending. Does nothing where it cannot."""
        if not hasattr(os, "posix_fadvise"):
            return
        for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1):
            os.posix_fadvise(self._file, *self.extent(int(run[0]), int(run[-1])), os.POSIX_FADV_WILLNEED)

    # Packing

    @classmethod
    @abstractmethod
    def encode(cls, images: np.ndarray) -> Encoded:
        """``images`` (n, S, S, 3) uint8 as they are kept."""

    @classmethod
    @abstractmethod
    def most_bytes(cls, slots: int, size: int) -> int:
        """What packing so many images takes on disk, at most."""

    @abstractmethod
    def begin(self) -> bool:
        """Make the files ready to be packed into. Returns whether they were."""

    @abstractmethod
    def write(self, start: int, encoded: Encoded) -> None:
        """Write a chunk of images, from slot ``start`` on. Raises OSError if the disk is full."""

    @abstractmethod
    def has(self, start: int, lengths: np.ndarray) -> bool:
        """Whether the chunk was written whose first slot is ``start``; ``lengths`` (n,) are those of its contents."""

    @abstractmethod
    def finish(self, starts: Sequence[int], lengths: np.ndarray) -> None:
        """Complete the files from all chunks, which begin at slots ``starts``; ``lengths`` (slots,)."""


class Pixels(Images):
    """Raw pixels: one array (slots, S, S, 3), which any program can read."""

    name = "raw"
    settings = ("raw",)
    suffixes = (PIXELS,)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.slots, self.size, self.size, 3

    @property
    def _bytes(self) -> int:
        return self.size * self.size * 3

    def check(self) -> None:
        check_array(self.path, self._shape, np.uint8)

    def extent(self, first: int, last: int) -> tuple[int, int]:
        return HEADER_SIZE + first * self._bytes, (last + 1 - first) * self._bytes

    def read(self, slots: Sequence[int], checksums: Sequence[int], images: np.ndarray) -> int | None:
        for i, (slot, known, image) in enumerate(zip(slots, checksums, images, strict=True)):
            done = os.preadv(self._file, [image.data], HEADER_SIZE + slot * self._bytes)
            if done != self._bytes or xxhash.xxh3_64_intdigest(image.data) != known:
                return i
        return None

    @classmethod
    def encode(cls, images: np.ndarray) -> Encoded:
        return Encoded(images, [image.data for image in images], 0.0)

    @classmethod
    def most_bytes(cls, slots: int, size: int) -> int:
        return slots * size * size * 3

    def begin(self) -> bool:
        try:
            self.check()
        except BadArtefact:
            create_array(self.path, self._shape, np.uint8)
            return False
        return True

    def write(self, start: int, encoded: Encoded) -> None:
        write_rows(self.path, start, encoded.images)

    def has(self, start: int, lengths: np.ndarray) -> bool:
        return True  # its slots are in the file, and the record is written after them

    def finish(self, starts: Sequence[int], lengths: np.ndarray) -> None:
        pass


class Jpegs(Images):
    """JPEGs one after the other in one file, decoded whenever they are read, on all cores."""

    name = "jpeg"
    settings = ("jpeg", QUALITY, SUBSAMPLING)
    suffixes = (JPEGS, ENDS)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where each slot's JPEG ends in the file, (slots,) uint64."""
        return map_array(self.file(ENDS), (self.slots,), np.uint64)

    @cached_property
    def _decoders(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(available_cores())

    def check(self) -> None:
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise BadArtefact(f"{self.path} is missing: {ADVICE}") from None
        if size != int(self._ends[-1]) or (self._ends[1:] < self._ends[:-1]).any():
            raise BadArtefact(f"{self.path} is damaged (it has {size:,} bytes, not {int(self._ends[-1]):,}): {ADVICE}")

    def extent(self, first: int, last: int) -> tuple[int, int]:
        start = int(self._ends[first - 1]) if first else 0
        return start, int(self._ends[last]) - start

    def read(self, slots: Sequence[int], checksums: Sequence[int], images: np.ndarray) -> int | None:
        whole = self._decoders.map(self._read, slots, checksums, images)
        return next((i for i, is_sound in enumerate(whole) if not is_sound), None)

    def _read(self, slot: int, known: int, image: np.ndarray) -> bool:
        import simplejpeg

        start, length = self.extent(slot, slot)
        content = os.pread(self._file, length, start)
        if len(content) != length or xxhash.xxh3_64_intdigest(content) != known:
            return False
        try:
            if simplejpeg.decode_jpeg_header(content)[:2] != image.shape[:2]:
                return False
            image[:] = simplejpeg.decode_jpeg(content, "RGB")
        except ValueError:
            return False
        return True

    @classmethod
    def encode(cls, images: np.ndarray) -> Encoded:
        import simplejpeg

        contents = [simplejpeg.encode_jpeg(image, QUALITY, "RGB", SUBSAMPLING) for image in images]
        again = np.stack([simplejpeg.decode_jpeg(content, "RGB") for content in contents])
        higher, lower = np.maximum(images, again), np.minimum(images, again)
        return Encoded(again, contents, float((higher - lower).mean(axis=(1, 2, 3), dtype=np.float64).sum()))

    @classmethod
    def most_bytes(cls, slots: int, size: int) -> int:
        return int(2 * LARGEST_SHARE * slots * size * size * 3)  # the chunks, and the file that is made of them

    def begin(self) -> bool:
        return True  # each chunk is a file of its own until the last is there: nobody knows its place before

    def write(self, start: int, encoded: Encoded) -> None:
        with atomic_write(self._chunk(start)) as temporary:
            temporary.write_bytes(b"".join(encoded.contents))

    def has(self, start: int, lengths: np.ndarray) -> bool:
        chunk = self._chunk(start)
        return chunk.exists() and chunk.stat().st_size == lengths.sum()

    def finish(self, starts: Sequence[int], lengths: np.ndarray) -> None:
        with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
            for start in starts:
                with open(self._chunk(start), "rb") as chunk:
                    shutil.copyfileobj(chunk, file, 4 << 20)
        save_array(self.file(ENDS), np.cumsum(lengths, dtype=np.uint64))

    def _chunk(self, start: int) -> Path:
        return self.base.parent / RECORDS / f"{self.base.name}-{start:09d}{JPEGS}"


STORES: dict[str, type[Images]] = {store.name: store for store in (Pixels, Jpegs)}
