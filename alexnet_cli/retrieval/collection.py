"""Collections of pictures to index: a folder, an archive or a packed dataset, listed and loaded in the same way."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.data.layouts.splits import split_of
from alexnet_cli.data.originals import original
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import Source, is_picture, leads_outside, open_source, split_path
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import available_cores
from alexnet_cli.errors import BadArtefact, BadPicture, BadSource
from alexnet_cli.prefetch import prefetch


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPicture:
    """One picture of a collection."""

    name: str  # its path within the folder, the archive or the dataset's source
    label: str | None
    stamp: str  # changes when the picture changes


Loaded = np.ndarray | str  # pixels (S, S, 3) uint8, or why there are none


class Collection(Protocol):
    """A collection of pictures."""

    source: Path
    are_files: bool  # so that source / name is a file a user can open
    words: Mapping[str, str]  # label -> its meaning, if the source of a dataset has that

    def all(self) -> list[IndexedPicture]:
        """Every picture: those of a folder or an archive sorted by name, those of a dataset in its own order.

        Raises BadSource if there is none.
        """
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


def open_collection(path: Path, scratch: Path | None = None) -> Collection:
    """The collection at ``path``: a dataset's folder, another folder, or an archive. Raises BadArtefact.

    A compressed tar is decompressed into a temporary file in the folder ``scratch``, or in the system's if None.
    """
    if (path / DATASET_FILE).is_file():
        return PackedCollection(Dataset.open(path))
    return FileCollection(path, scratch)


class FileCollection:
    """Pictures in a folder or an archive. Its methods raise BadSource if that is missing or damaged."""

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self.source, self.are_files, self.scratch = path, path.is_dir(), scratch
        self.words: Mapping[str, str] = {}
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
            raise BadSource(f"no pictures in {self.source}: name a folder, a .zip or a .tar that has some")
        return [
            IndexedPicture(name=self._utf8(name), label=label, stamp=self.files.stamp(name))
            for name, label in zip(names, labels([self._utf8(name) for name in names]), strict=True)
        ]

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        return list(self._pool.map(lambda name: self._load(name, size), names))

    def _utf8(self, name: str) -> str:
        """``name``, if it is UTF-8; else with escapes, which `load` refuses: no table or JSON could hold it."""
        if name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name):
            return name
        escaped = name.encode("utf-8", "backslashreplace").decode()
        self._not_utf8.add(escaped)
        return escaped

    def _load(self, name: str, size: int) -> Loaded:
        if name in self._not_utf8:
            return "its name is not UTF-8: rename it"
        try:
            return load_picture(self.files.read(name), size)
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
    """The training pictures of a packed dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.source, self.are_files = dataset, dataset.path, False
        self.words: Mapping[str, str] = dataset.words
        self.split = dataset.split("train")
        # Sorted hashes of the names: a dictionary of 15 million names would take gigabytes.
        hashes = np.fromiter(map(_hash, self.split.names), np.uint64, len(self.split))
        self._positions = np.argsort(hashes)
        self._hashes = hashes[self._positions]

    def all(self) -> list[IndexedPicture]:
        classes, stamp = self.dataset.classes, self.dataset.fingerprint
        return [
            IndexedPicture(name=name, label=classes[label], stamp=stamp)
            for name, label in zip(self.split.names, self.split.labels, strict=True)
        ]

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        """Raises BadArtefact if the dataset's pictures are not of ``size``."""
        if size != self.dataset.image_size:
            raise BadArtefact(
                f"the model takes pictures of {size} pixels, dataset {self.dataset.name} has "
                f"{self.dataset.image_size}: prep it with --size {size}"
            )
        positions = [self._position(name) for name in names]
        images = iter(self.split.read(np.array([p for p in positions if p is not None], np.int64)))
        return ["not in the dataset any more" if position is None else next(images) for position in positions]

    def file(self, name: str) -> Path | None:
        return original(self.dataset, name)

    def close(self) -> None:
        pass

    def _position(self, name: str) -> int | None:
        """Where the split has the picture; None if it has not."""
        wanted = np.uint64(_hash(name))
        for i in range(int(np.searchsorted(self._hashes, wanted)), len(self._hashes)):
            position = int(self._positions[i])
            if self._hashes[i] != wanted:
                break
            if self.split.names[position] == name:
                return position
        return None


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
