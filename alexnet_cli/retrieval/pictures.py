"""The pictures an index is of: a folder, an archive or a packed dataset, each listed and loaded alike."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import File, Folder, Source, is_picture, open_source
from alexnet_cli.data.store import FILE as DATASET_FILE
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadArtefact, BadPicture, BadSource


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a collection."""

    path: str  # where a user finds it: a file, or the name within the archive or the dataset's source
    label: str | None
    file: File  # within the collection


Loaded = np.ndarray | str  # pixels (S, S, 3) uint8, or why there are none


class Pictures(Protocol):
    """A collection of pictures."""

    source: str

    def all(self) -> list[Picture]:
        """Every picture, sorted by path."""
        ...

    def load(self, wanted: Sequence[Picture], size: int) -> list[Loaded]:
        """The pixels of each, or the reason why it is refused."""
        ...


def open_pictures(source: str) -> Pictures:
    """The collection at ``source``: a dataset's folder, another folder, or an archive. Raises BadSource."""
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return Packed(Dataset.open(path))
    return Files(path, open_source(path))


class Files:
    """Pictures in a folder or an archive; a picture's label is the folder it lies in."""

    def __init__(self, path: Path, files: Source) -> None:
        self.path, self.files, self.source = path, files, str(path)
        self._pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes without Python's lock

    def all(self) -> list[Picture]:
        found = []
        for file in sorted(self.files.files(), key=lambda file: file.name):
            if is_picture(file):
                folder = PurePosixPath(file.name).parent.name
                path = str(self.path / file.name) if isinstance(self.files, Folder) else file.name
                found.append(Picture(path=path, label=folder or None, file=file))
        if not found:
            raise BadSource(f"no pictures in {self.path}")
        return found

    def load(self, wanted: Sequence[Picture], size: int) -> list[Loaded]:
        # Archives are read by one thread, decoded by all.
        return list(self._pool.map(lambda content: _decode(content, size), [self._read(one) for one in wanted]))

    def _read(self, picture: Picture) -> bytes | str:
        try:
            return self.files.read(picture.file)
        except (OSError, BadPicture) as error:
            return str(error)


class Packed:
    """The training pictures of a packed dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.source = dataset, str(dataset.path)
        self.split = dataset.split("train")
        self._positions = {name: position for position, name in enumerate(self.split.names)}

    def all(self) -> list[Picture]:
        classes = self.dataset.classes
        return [
            Picture(path=name, label=classes[label], file=File(name=name, stamp=self.dataset.fingerprint))
            for name, label in zip(self.split.names, self.split.labels, strict=True)
        ]

    def load(self, wanted: Sequence[Picture], size: int) -> list[Loaded]:
        if size != self.dataset.image_size:
            raise BadArtefact(f"the model takes pictures of {size} pixels, {self.source} has {self.dataset.image_size}")
        positions = [self._positions.get(picture.file.name) for picture in wanted]
        images = iter(self.split.read(np.array([p for p in positions if p is not None], np.int64)))
        return ["not in the dataset any more" if position is None else next(images) for position in positions]


def _decode(content: bytes | str, size: int) -> Loaded:
    if isinstance(content, str):
        return content
    try:
        return load_picture(content, size)
    except BadPicture as error:
        return str(error)


def batches(
    pictures: Pictures, wanted: list[Picture], count: int, size: int
) -> Iterator[tuple[list[Picture], list[Loaded]]]:
    """``wanted``, ``count`` at a time, loaded; one batch is read while the one before is in use."""
    parts = [wanted[start : start + count] for start in range(0, len(wanted), count)]
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(pictures.load, part, size) for part in parts[:1]]
        for i, part in enumerate(parts, 1):
            ready = ahead.pop()
            ahead += [reader.submit(pictures.load, following, size) for following in parts[i : i + 1]]
            yield part, ready.result()
