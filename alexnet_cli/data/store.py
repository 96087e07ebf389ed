"""A packed dataset on disk: per split its images, and a file each of labels, checksums and names; statistics.

Each picture of the source has a slot in its split. Where it was rejected, the label is REJECTED and the pixels are 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import Any, overload

import numpy as np

from alexnet_cli.artefacts import DATASET_FILE, REJECTED_FILE, STATISTICS_FILE, check_format
from alexnet_cli.data.arrays import ADVICE, check_array, map_array
from alexnet_cli.data.images import STORES, Images
from alexnet_cli.data.layouts.listing import SPLITS
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import checksum, file_checksum, read_json
from alexnet_cli.progress import SILENT, Progress

FORMAT = 3  # version of the files of a dataset
SMALLEST, LARGEST = 8, 4096  # side of the images, in pixels
LABELS, CHECKSUMS, NAMES = ".labels.npy", ".checksums.npy", ".names"  # files of a split, after its name
REJECTED = -1  # label in the slot of a picture that could not be packed
BLOCK = 1 << 20  # bytes of names looked at in one go
CHECKED = 64  # images read at a time to check them


@contextmanager
def _files() -> Iterator[None]:
    """A folder where a dataset has a file is damage: nothing of the system ends by itself there."""
    try:
        yield
    except IsADirectoryError as error:
        raise BadArtefact(f"{error.filename} is a folder where a dataset has a file: remove it, and {ADVICE}") from None


class Names(Sequence[str]):
    """The names of a split's pictures, UTF-8 in a mapped file, each ended by a zero byte; decoded when asked for.

    Raises BadArtefact when first asked if the file is damaged.
    """

    def __init__(self, path: Path, slots: int, packed: np.ndarray | None, wanted: str) -> None:
        self._path, self._slots, self._packed, self._wanted = path, slots, packed, wanted

    def __len__(self) -> int:
        return self._slots if self._packed is None else len(self._packed)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        slot = range(len(self))[position] if self._packed is None else int(self._packed[position])
        start = int(self._ends[slot - 1]) + 1 if slot else 0
        return self._content[start : int(self._ends[slot])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def _content(self) -> np.ndarray:
        """The file, (bytes,) uint8."""
        try:
            if file_checksum(self._path) == self._wanted:
                return np.asarray(np.memmap(self._path, np.uint8, "r"))
        except FileNotFoundError:
            raise BadArtefact(f"{self._path} is missing: {ADVICE}") from None
        raise BadArtefact(f"{self._path} is damaged (its checksum differs): {ADVICE}")

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where the zero byte of each slot's name is, (slots,) int64."""
        blocks = range(0, len(self._content), BLOCK)
        ends = np.concatenate([start + np.flatnonzero(self._content[start : start + BLOCK] == 0) for start in blocks])
        if len(ends) != self._slots or self._content[-1]:
            raise BadArtefact(f"{self._path} is damaged: it does not hold the names of {self._slots:,} pictures")
        return ends


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The images of one split. They stay on disk until `read` reads them."""

    images: Images  # on disk, by slot
    labels: np.ndarray  # (N,) int32
    names: Names  # N paths of the pictures within their source
    checksums: np.ndarray  # (slots,) uint64, XXH3 of each image as it is on disk
    packed: np.ndarray | None  # (N,) int64, the slot of each image; None if no slot is empty

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """S, the side of the images in pixels."""
        return self.images.size

    @property
    def image_checksums(self) -> np.ndarray:
        """XXH3 of each image, (N,) uint64."""
        return self.checksums if self.packed is None else self.checksums[self.packed]

    @property
    def bytes(self) -> int:
        """What the images take on disk."""
        return self.images.extent(0, self.images.slots - 1)[1]

    def read(self, positions: np.ndarray) -> np.ndarray:
        """The images at ``positions`` (B,), in any order: (B, S, S, 3) uint8.

        Raises IndexError for a position outside the split, and BadArtefact for an image that is damaged.
        """
        positions = np.asarray(positions, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions must be 0 to {len(self) - 1}, not {positions.min()} to {positions.max()}")
        return self.images.load(self._slots(positions), self.checksums, lambda i: self._name(int(positions[i])))

    def will_read(self, positions: np.ndarray) -> None:
        """Let the system begin to read the images at ``positions`` (B,), ascending, from disk."""
        self.images.will_read(self._slots(positions))

    def _slots(self, positions: np.ndarray) -> np.ndarray:
        return positions if self.packed is None else self.packed[positions]

    def _name(self, position: int) -> str:
        try:
            return self.names[position]
        except BadArtefact:
            return f"number {position:,}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Packed images with their classes."""

    path: Path
    name: str
    classes: list[str]  # in label order
    image_size: int  # S
    counts: dict[str, int]  # split -> number of images
    store: str  # how the images are kept: one of `images.STORES`
    source: dict[str, str]  # "path" as typed, "absolute", "layout": "folders", "flat", "ilsvrc-2012", "cifar-10"
    fingerprint: str  # changes with images, labels or classes
    plan: str  # digest of the pictures and settings it was packed from
    rejected: int  # pictures that could not be packed
    slots: dict[str, int]  # split -> number of images and of rejected pictures
    checksums: dict[str, str]  # file -> of its content; the images have theirs in a file of the split
    words: dict[str, str]  # class -> its meaning in words, if the source has that

    @classmethod
    @_files()
    def open(cls, path: Path) -> "Dataset":
        """Open a dataset's folder and check all of it except images, names and rejected.csv, which `verify` checks.

        Raises BadArtefact if it is missing, incomplete, damaged or of another format.
        """
        content = read_json(path / DATASET_FILE, what="dataset")
        check_content(content, path / DATASET_FILE)
        fields = set(cls.__dataclass_fields__) - {"path", "name"}
        dataset = cls(path=path, name=path.resolve().name, **{field: content[field] for field in fields})
        for split, slots in dataset.slots.items():
            for suffix in dataset.images(split).suffixes[1:]:
                dataset.check_file(split + suffix)
            dataset.images(split).check()
            check_array(dataset.file(split + LABELS), (slots,), np.int32)
            check_array(dataset.file(split + CHECKSUMS), (slots,), np.uint64)
            dataset.check_file(split + LABELS)
            dataset.check_file(split + CHECKSUMS)
        dataset.check_file(STATISTICS_FILE)
        return dataset

    def file(self, name: str) -> Path:
        """The path of one of the dataset's files."""
        return self.path / name

    def images(self, split: str) -> Images:
        """The images of a split on disk."""
        return STORES[self.store](self.path / split, self.slots[split], self.image_size)

    def check_file(self, name: str) -> None:
        """Raise BadArtefact if the file is missing or its checksum is not that of dataset.json."""
        try:
            found = file_checksum(self.file(name))
        except (FileNotFoundError, NotADirectoryError):
            raise BadArtefact(f"{self.file(name)} is missing: {ADVICE}") from None
        if found != self.checksums[name]:
            raise BadArtefact(f"{self.file(name)} is damaged (its checksum differs): {ADVICE}")

    def split(self, name: str) -> Split:
        """The split of that name. Raises BadArtefact if there is none, or its labels are not those of the classes."""
        if name not in self.slots:
            advice = "; prep its pictures under another name, with --val-fraction 0.1" if name == "val" else ""
            raise BadArtefact(f"dataset {self.name} has no split {name!r}: it has {' and '.join(self.counts)}{advice}")
        slots, labels_file = self.slots[name], self.file(name + LABELS)
        labels = map_array(labels_file, (slots,), np.int32)
        is_packed = labels >= 0
        packed = None if is_packed.all() else np.flatnonzero(is_packed)
        if is_packed.sum() != self.counts[name] or labels.min() < REJECTED or labels.max() >= len(self.classes):
            raise BadArtefact(f"{labels_file} is damaged (its labels are not those of dataset.json): {ADVICE}")
        return Split(
            images=self.images(name),
            labels=labels if packed is None else labels[packed],
            names=Names(self.file(name + NAMES), slots, packed, self.checksums[name + NAMES]),
            checksums=map_array(self.file(name + CHECKSUMS), (slots,), np.uint64),
            packed=packed,
        )

    def statistics(self) -> Statistics:
        """Mean image and colour PCA of the training split. Raises BadArtefact if their file is missing or damaged."""
        return Statistics.load(self.path)

    @_files()
    def verify(self, progress: Progress = SILENT) -> None:
        """Check every image, every name and rejected.csv. Raises BadArtefact that names what is damaged."""
        self.check_file(REJECTED_FILE)
        splits = [self.split(name) for name in self.counts]
        for split in splits:
            split.names[:1]  # reads and checks the whole file
        done, total = 0, sum(self.counts.values())
        for split in splits:
            for start in range(0, len(split), CHECKED):
                images = split.read(np.arange(start, min(start + CHECKED, len(split))))
                done += len(images)
                progress.advance("checking", done, total)


def file_names(splits: Sequence[str], store: str) -> list[str]:
    """The files of which dataset.json has the checksums: all but the images, each of which has its own."""
    suffixes = (LABELS, CHECKSUMS, NAMES, *STORES[store].suffixes[1:])
    return [split + suffix for split in splits for suffix in suffixes] + [STATISTICS_FILE, REJECTED_FILE]


def content_checksum(content: dict[str, Any]) -> str:
    """The checksum of everything in dataset.json but itself."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return checksum(dumps(rest, sort_keys=True).encode("utf-8", "surrogatepass"))


def check_content(content: dict[str, Any], path: Path) -> None:
    """Raise BadArtefact if dataset.json at ``path`` is of another format, lacks a value, or has one that cannot be."""
    check_format(content.get("format"), FORMAT, path, ADVICE)
    for key, is_right in CONTENT.items():
        if key not in content or not is_right(content[key]):
            found = f"its {key} cannot be {str(content[key])[:40]!r}" if key in content else f"it has no {key}"
            raise BadArtefact(f"{path} is damaged ({found}): {ADVICE}")
    slots, counts = content["slots"], content["counts"]
    if list(slots) != list(counts) or any(counts[split] > slots[split] for split in slots):
        raise BadArtefact(f"{path} is damaged (its counts and slots differ): {ADVICE}")
    is_whole = set(file_names(list(slots), content["store"])) <= set(content["checksums"])
    if not is_whole or content["checksum"] != content_checksum(content):
        raise BadArtefact(f"{path} is damaged (its checksum differs): {ADVICE}")


def _is_int(value: object, lowest: int, highest: int = 2**40) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_table(value: object) -> bool:
    """Whether it maps texts to texts."""
    return isinstance(value, dict) and _are_texts(list(value.values()))


def _is_per_split(value: object) -> bool:
    """Whether it maps some splits, "train" among them, to numbers of pictures."""
    if not isinstance(value, dict) or "train" not in value:
        return False
    return set(value) <= set(SPLITS) and all(_is_int(count, 1) for count in value.values())


CONTENT: dict[str, Callable[[Any], bool]] = {  # key of dataset.json -> whether a value can be right
    "image_size": lambda value: _is_int(value, SMALLEST, LARGEST),
    "classes": lambda value: _are_texts(value) and value != [],
    "words": _is_table,
    "counts": _is_per_split,
    "slots": _is_per_split,
    "store": lambda value: isinstance(value, str) and value in STORES,
    "source": lambda value: _is_table(value) and {"path", "layout"} <= set(value),
    "fingerprint": lambda value: isinstance(value, str),
    "plan": lambda value: isinstance(value, str),
    "rejected": lambda value: _is_int(value, 0),
    "checksums": _is_table,
    "checksum": lambda value: isinstance(value, str),
}
