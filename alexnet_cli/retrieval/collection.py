"""Collections of pictures to index: a folder, an archive or a packed dataset, listed and loaded in the same way."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import Source, is_picture, open_source, split_path
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

    def all(self) -> list[IndexedPicture]:
        """Every picture, sorted by name. Raises BadSource if there is none."""
        ...

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        """The pixels of each, or the reason why there are none."""
        ...


def open_collection(path: Path) -> Collection:
    """The collection at ``path``: a dataset's folder, another folder, or an archive. Raises BadSource, BadArtefact."""
    if (path / DATASET_FILE).is_file():
        return PackedCollection(Dataset.open(path))
    return FileCollection(path, open_source(path))


class FileCollection:
    """Pictures in a folder or an archive."""

    def __init__(self, path: Path, files: Source) -> None:
        self.files, self.source, self.are_files = files, path, path.is_dir()
        self._pool = ThreadPoolExecutor(available_cores())  # decoding takes no lock of Python's

    def all(self) -> list[IndexedPicture]:
        names = sorted({name for name in self.files.names() if is_picture(name)})
        if not names:
            raise BadSource(f"no pictures in {self.source}: name a folder, a .zip or a .tar that has some")
        for name in names:
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise BadSource(f"the name {name!a} in {self.source} is not UTF-8: rename it")
        return [
            IndexedPicture(name=name, label=label, stamp=self.files.stamp(name))
            for name, label in zip(names, labels(names), strict=True)
        ]

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        return list(self._pool.map(lambda name: self._load(name, size), names))

    def _load(self, name: str, size: int) -> Loaded:
        try:
            return load_picture(self.files.read(name), size)
        except KeyError:
            return "not in the archive any more"
        except BadPicture as error:
            return str(error)


class PackedCollection:
    """The training pictures of a packed dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.source, self.are_files = dataset, dataset.path, False
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

    A folder that wraps every class folder is no label, nor are `train` and `val`.
    """
    folders = [split_path(name)[:-1] for name in names]
    while all(len(part) > 1 for part in folders) and (
        len({part[0] for part in folders}) == 1 or {part[0] for part in folders} <= {"train", "val"}
    ):
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
