"""The indexes of a workspace: opened when they are first asked for, and again when an update has replaced them."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import DATASET_FILE, INDEX_FILE
from alexnet_cli.errors import AlexNetError, BadPicture
from alexnet_cli.files import is_utf8
from alexnet_cli.inference.onnx_maps import OnnxMaps
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.opening import open_model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.collection import Collection, open_collection
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.searcher import Searcher, model_of
from alexnet_cli.serving.decoding import ENDED, Decoders
from alexnet_cli.workspace import Workspace

OPEN = 4  # indexes at a time: each may hold a model of 240 MB

LONG = 1.0  # seconds, after which a picture that was refused is remembered
REFUSED = 1000  # pictures of an index of which it is known that they cannot be shown

Identity = tuple[int, int, int]


class NotThere(AlexNetError):
    """An index or a picture that there is none of."""


class Outdated(AlexNetError):
    """A row of an index that was updated since the row was told: it may be another picture now."""


@dataclass(eq=False)
class Opened:
    """An open index with its model and its pictures. Its methods may be called from several threads at once."""

    searcher: Searcher
    model_path: Path
    identity: Identity  # of index.json when it was opened
    model_home: Path  # the workspace's folder of models
    decoders: Decoders
    users: int = 0  # requests that are using it
    is_retired: bool = False  # closed when the last of them is done
    # Of each report that was asked for: when its table was written, and its mistakes, if it has pictures of the index.
    mistakes: dict[Path, tuple[object, dict[str, Any] | None]] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)  # row and stamp of a picture -> why it cannot be shown
    _trying: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(64)])  # by row
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _collection: Collection | None = None
    _maps: OnnxMaps | None = None

    @property
    def index(self) -> Index:
        return self.searcher.index

    @property
    def model(self) -> OnnxModel:
        assert isinstance(self.searcher.model, OnnxModel)
        return self.searcher.model

    @property
    def generation(self) -> str:
        """Changes with every update of the index."""
        return str(self.index.facts["generation"])

    @cached_property
    def class_counts(self) -> dict[str | None, int]:
        """How many pictures of the index each label has."""
        return self.index.table.label_counts()

    @cached_property
    def _names(self) -> dict[str, str]:
        model = self.searcher.model
        names = dict(zip(model.classes, model.class_names, strict=True))
        names.update(self.index.facts["names"])
        return names

    def name_of(self, label: str | None) -> str | None:
        """What people read for a label of the index's or of the model's."""
        return None if label is None else self._names.get(label, label)

    def picture(self, row: int) -> tuple[str, str | None]:
        """The path within the source and the label of a row. Raises NotThere."""
        if not 0 <= row < len(self.index):
            raise NotThere(f"the index has no row {row}: its rows go from 0 to {len(self.index) - 1}")
        return self.index.table.picture(row)

    def file(self, row: int) -> Path | None:
        """The file of a picture; None if it lies in an archive or a dataset. Raises NotThere."""
        name, _ = self.picture(row)
        return self.index.file_of(name)

    def pixels(self, row: int, size: int) -> np.ndarray:
        """The central square of a picture: (S, S, 3) uint8, of ``size`` or, in a dataset, as it is packed.

        Raises NotThere if there is no such row; BadPicture if its picture is gone or damaged.
        """
        file = self.file(row)
        if file is not None:
            return self.decoded(file, row, size)
        name, _ = self.picture(row)
        collection = self.collection()
        (loaded,) = collection.load([name], self.index.facts["image_size"])
        if isinstance(loaded, str):
            raise BadPicture(loaded)
        return loaded

    def decoded(self, file: Path, row: int, size: int) -> np.ndarray:
        """The pixels of the ``file`` of a row. One that took long and was refused is not tried again.

        Raises BadPicture.
        """
        try:
            key = f"{row} {self.stamp(row)}"
        except NotThere as error:
            raise BadPicture(str(error)) from None
        with self._trying[row % len(self._trying)]:  # who asks for it meanwhile waits, and is told the same
            if key in self._refused:
                raise BadPicture(self._refused[key])
            began = time.monotonic()
            try:
                return self.decoders.load(file, size)
            except BadPicture as error:
                if time.monotonic() - began > LONG and str(error) != ENDED and len(self._refused) < REFUSED:
                    self._refused[key] = str(error)
                raise

    def stamp(self, row: int) -> str:
        """Changes when the picture may have. Raises NotThere if its file is gone."""
        file = self.file(row) or self._container
        try:
            status = os.stat(file)
        except OSError:
            raise NotThere(f"{file} is not there any more: update the index with `alexnet index`") from None
        return f"{status.st_size} {status.st_mtime_ns}"

    @property
    def _container(self) -> Path:
        """The archive, or the file that changes when the dataset does."""
        source = self.index.source
        return source / DATASET_FILE if source.is_dir() else source

    def collection(self) -> Collection:
        """The archive or dataset, opened at its first use. Raises AlexNetError if it is not there any more."""
        with self._opening:
            if self._collection is None:
                self._collection = open_collection(self.index.source, decode=self.decoders.load)
            return self._collection

    def maps(self) -> OnnxMaps:
        """The model's convolutional layers, opened at their first use. Raises AlexNetError if it does not name them."""
        with self._opening:
            if self._maps is None:
                self._maps = OnnxMaps(self.model)
            return self._maps

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()
        self.searcher.close()


class Library:
    """Every index of a workspace by its name. Its methods may be called from several threads at once."""

    def __init__(self, space: Workspace, decoders: Decoders, progress: Progress = SILENT) -> None:
        """``decoders``: what decodes the pictures of indexes."""
        self.space, self.decoders, self.progress = space, decoders, progress
        self._left_out: set[Path] = set()  # those that the terminal was told of
        self._open: dict[Path, Opened] = {}  # the one used last is the last
        self._lock = threading.Lock()  # of _open, and of each one's users
        self._opening = threading.Lock()  # one is opened at a time

    def paths(self) -> list[Path]:
        """The folders of all indexes, newest first, but those that a browser could not name."""
        try:
            found = self.space.all("index")
        except FileNotFoundError:  # one was removed meanwhile
            found = self.space.all("index")
        for path in found:
            if not is_utf8(path.name) and path not in self._left_out:
                self._left_out.add(path)
                self.progress.note(f"{path} is not on the page: its name is not UTF-8, so rename it")
        return [path for path in found if is_utf8(path.name)]

    @contextmanager
    def borrow(self, name: str | None, generation: str | None = None) -> Iterator[Opened]:
        """The index called ``name``, the newest if None, as its files are now; it stays open during the block.

        Raises NotThere if there is none, Outdated if it is not of ``generation``, BadArtefact or WrongModel if it
        cannot be opened.
        """
        opened = self._take(self._find(name))
        try:
            if generation is not None and generation != opened.generation:
                raise Outdated(f"the index {opened.index.path.name} was updated meanwhile: search again")
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                self._close_if_unused(opened)

    def close(self) -> None:
        """Close every index, those in use when they are not used any more."""
        with self._lock:
            for path in list(self._open):
                self._retire(path)

    def _find(self, name: str | None) -> Path:
        """Only by its name: a path would open any folder of this machine."""
        paths = self.paths()
        for path in paths:
            if name is None or path.name == name:
                return path
        if name is None:
            raise NotThere(f"there is no index in {self.space.home('index')} yet: make one with `alexnet index`")
        raise NotThere(f"there is no index {name!r} in {self.space.home('index')}")

    def _take(self, path: Path) -> Opened:
        if (opened := self._current(path)) is not None:
            return opened
        with self._opening:
            if (opened := self._current(path)) is not None:  # another thread has just opened it
                return opened
            opened = self._open_index(path)
            with self._lock:
                self._retire(path)
                self._open[path] = opened
                opened.users += 1
                for oldest in list(self._open)[:-OPEN]:
                    self._retire(oldest)
            return opened

    def _current(self, path: Path) -> Opened | None:
        """The open index at ``path`` for one more user; None if it is not open, or not as its files are now."""
        identity = _identity(path)
        with self._lock:
            opened = self._open.get(path)
            if opened is None or opened.identity != identity or opened.model.file.is_written_over:
                return None
            self._open[path] = self._open.pop(path)
            opened.users += 1
            return opened

    def _open_index(self, path: Path) -> Opened:
        identity, home = _identity(path), self.space.home("model")
        index = Index.open(path)
        try:
            model_path = model_of(index, self.space)
            with self._lock:
                models = [other.model for other in self._open.values() if other.model_path == model_path]
            for model in models:
                if not model.file.is_written_over and (model.fingerprint, model.precision) == (
                    index.facts["model_fingerprint"],
                    index.facts["precision"],
                ):
                    return Opened(Searcher(index, model), model_path, identity, home, self.decoders)
            datasets = self.space.all("dataset")
            opened = open_model(model_path, datasets=datasets, progress=self.progress)
            return Opened(Searcher(index, opened), model_path, identity, home, self.decoders)
        except BaseException:
            index.close()
            raise

    def _retire(self, path: Path) -> None:
        opened = self._open.pop(path, None)
        if opened is not None:
            opened.is_retired = True
            self._close_if_unused(opened)

    def _close_if_unused(self, opened: Opened) -> None:
        if opened.is_retired and not opened.users:
            opened.close()


def _identity(path: Path) -> Identity:
    """Which index.json it is, which an update replaces. Raises NotThere."""
    try:
        status = os.stat(path / INDEX_FILE)
    except OSError:
        raise NotThere(f"the index {path.name} is not there any more") from None
    return status.st_ino, status.st_mtime_ns, status.st_size
