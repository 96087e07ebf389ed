"""Collections of pictures to index: a folder, an archive or a packed dataset, listed and loaded in the same way."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.data.layouts.splits import split_of
from alexnet_cli.data.originals import original
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import (
    Source,
    count_unread,
    is_picture,
    leads_outside,
    no_pictures,
    open_source,
    split_path,
)
from alexnet_cli.data.store import Dataset
from alexnet_cli.data.unread import advices
from alexnet_cli.distributed import available_cores
from alexnet_cli.errors import BadArtefact, BadPicture, BadSource
from alexnet_cli.files import is_utf8
from alexnet_cli.prefetch import prefetch

ALL = "all"  # every split of a dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPicture:
    """One picture of a collection."""

    name: str  # its path within the folder, the archive or the dataset's source
    label: str | None
    stamp: str  # changes when the picture changes


Decode = Callable[[Path | bytes, int], np.ndarray]  # as `load_picture`
Loaded = np.ndarray | str  # pixels (S, S, 3) uint8, or why there are none


class Collection(Protocol):
    """A collection of pictures."""

    source: Path
    split: str | None  # of a dataset, the split whose pictures these are, or ALL
    are_files: bool  # so that source / name is a file a user can open
    words: Mapping[str, str]  # label -> its meaning, if the source of a dataset has that

    def all(self) -> list[IndexedPicture]:
        """Every picture: those of a folder or an archive sorted by name, those of a dataset in its own order.

        Raises BadSource if there is none.
        """
        ...

    def left_out(self) -> list[str]:
        """Counts of pictures that `all` leaves out, each with what to do about them."""
        ...

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        """The pixels of each, or the reason why there are none."""
        ...

    def file(self, name: str) -> Path | None:
        """The file of a picture; None if it is not there, or lies in an archive."""
        ...

    def close(self) -> None:
        """Close its files. Nothing may be loading from it."""
        ...


def open_collection(
    path: Path, scratch: Path | None = None, split: str | None = None, decode: Decode = load_picture
) -> Collection:
    """The collection at ``path``: a dataset's folder, another folder, or an archive.

    A compressed tar is decompressed into a temporary file in the folder ``scratch``, or in the system's if None. Of a
    dataset, ``split`` is one of its splits, or ALL; "train" if None. Raises BadArtefact for a damaged dataset or one
    without that split, BadSource if what is no dataset should have a split.
    """
    if (path / DATASET_FILE).is_file():
        return PackedCollection(Dataset.open(path), split or "train")
    if split is not None:
        raise BadSource(f"{path} is not a dataset: only a dataset has splits to choose from with --split")
    return FileCollection(path, scratch, decode)


class FileCollection:
    """Pictures in a folder or an archive. Its methods raise BadSource if that is missing or damaged."""

    def __init__(self, path: Path, scratch: Path | None = None, decode: Decode = load_picture) -> None:
        self.decode = decode
        self.source, self.are_files, self.scratch = path, path.is_dir(), scratch
        self.words: Mapping[str, str] = {}
        self.split: str | None = None
        self._not_utf8: set[str] = set()  # names as `all` gives them
        self._pool = ThreadPoolExecutor(available_cores())  # decoding takes no lock of Python's
        self._opening = threading.Lock()
        self._files: Source | None = None

    @property
    def files(self) -> Source:
        """The source, opened at the first use: an index's folder, the scratch, is swept before that."""
        with self._opening:  # the first use may be that of several threads
            if self._files is None:
                self._files = open_source(self.source, self.scratch)
            return self._files

    def all(self) -> list[IndexedPicture]:
        names = sorted(filter(is_picture, self.files.locations))
        if not names:
            raise BadSource(no_pictures(self.files, "name a folder, a .zip or a .tar that has some"))
        return [
            IndexedPicture(name=self._utf8(name), label=label, stamp=self.files.stamp(name))
            for name, label in zip(names, labels([self._utf8(name) for name in names]), strict=True)
        ]

    def left_out(self) -> list[str]:
        return advices(count_unread(self.files.locations))

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        return list(self._pool.map(lambda name: self._load(name, size), names))

    def _utf8(self, name: str) -> str:
        """``name``, if it is UTF-8; else with escapes, which `load` refuses: no table or JSON could hold it."""
        if is_utf8(name):
            return name
        escaped = name.encode("utf-8", "backslashreplace").decode()
        self._not_utf8.add(escaped)
        return escaped

    def _load(self, name: str, size: int) -> Loaded:
        if name in self._not_utf8:
            return "its name is not UTF-8: rename it"
        try:
            return self.decode(self.files.read(name), size)
        except KeyError:
            return "not there any more"
        except BadPicture as error:
            return str(error)

    def file(self, name: str) -> Path | None:
        path = self.source / name
        return path if self.are_files and not leads_outside(name) and path.is_file() else None

    def close(self) -> None:
        self._pool.shutdown()
        if self._files is not None:
            self._files.close()


class PackedCollection:
    """The pictures of one split of a packed dataset, or of all splits. Whatever the split, `load` finds any picture."""

    def __init__(self, dataset: Dataset, split: str = "train") -> None:
        """Raises BadArtefact if there is no such split."""
        self.dataset, self.source, self.are_files = dataset, dataset.path, False
        self.words: Mapping[str, str] = dataset.words
        self.split: str | None = split
        self._splits = [dataset.split(name) for name in dataset.counts]
        self._chosen = self._splits if split == ALL else [dataset.split(split)]
        self._starts = [0, *accumulate(map(len, self._splits))]  # positions of the first picture of each split
        # Sorted hashes of the names: a dictionary of 15 million names would take gigabytes.
        names = chain.from_iterable(one.names for one in self._splits)
        hashes = np.fromiter(map(_hash, names), np.uint64, self._starts[-1])
        self._positions = np.argsort(hashes)
        self._hashes = hashes[self._positions]

    def all(self) -> list[IndexedPicture]:
        return [
            IndexedPicture(name=name, label=self.dataset.classes[label], stamp=f"{checksum:016x}")
            for split in self._chosen
            for name, label, checksum in zip(split.names, split.labels, split.image_checksums, strict=True)
        ]

    def left_out(self) -> list[str]:
        others = [(name, n) for name, n in self.dataset.counts.items() if self.split not in (name, ALL)]
        return [f"{n:,} {name} pictures: --split {ALL} takes them" for name, n in others]

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        """Raises BadArtefact if the dataset's pictures are not of ``size``."""
        if size != self.dataset.image_size:
            raise BadArtefact(
                f"the model takes pictures of {size} pixels, dataset {self.dataset.name} has "
                f"{self.dataset.image_size}: prep it with --size {size}"
            )
        return [self._read(name) for name in names]

    def file(self, name: str) -> Path | None:
        return original(self.dataset, name)

    def close(self) -> None:
        pass

    def _read(self, name: str) -> Loaded:
        wanted = np.uint64(_hash(name))
        for i in range(int(np.searchsorted(self._hashes, wanted)), len(self._hashes)):
            if self._hashes[i] != wanted:
                break
            position = int(self._positions[i])
            number = bisect_right(self._starts, position) - 1
            split, row = self._splits[number], position - self._starts[number]
            if split.names[row] == name:
                image: np.ndarray = split.read(np.array([row]))[0]
                return image
        return "not in the dataset any more"


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def labels(names: Sequence[str]) -> list[str | None]:
    """The first folder of each path; None for pictures that lie in none.

    A folder that wraps every class folder is no label, nor are splits.
    """
    folders = [split_path(name)[:-1] for name in names]
    while inner := [part for part in folders if part]:
        is_wrapped = len({part[0] for part in inner}) == 1 or all(split_of(part[0]) for part in inner)
        if not is_wrapped or any(len(part) == 1 for part in inner):
            break
        folders = [part[1:] for part in folders]
    return [part[0] if part else None for part in folders]


def loaded_batches(
    collection: Collection, pictures: Sequence[IndexedPicture], count: int, size: int
) -> Iterator[tuple[Sequence[IndexedPicture], list[Loaded]]]:
    """``pictures``, ``count`` at a time, with their pixels; the next batch is loaded while one is in use."""
    parts = [pictures[start : start + count] for start in range(0, len(pictures), count)]

    def read(part: Sequence[IndexedPicture]) -> list[Loaded]:
        return collection.load([picture.name for picture in part], size)

    yield from zip(parts, prefetch(read, parts), strict=True)
