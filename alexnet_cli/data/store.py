"""A packed dataset on disk: memory-mapped shards of uint8 images, their labels and names, and statistics."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import DATASET_FILE, check_format
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import read_json

FORMAT = 1  # version of the files of a dataset


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split. They stay on disk until `read` reads them."""

    labels: np.ndarray  # (N,) int64
    names: list[str]  # N paths of the pictures within their source
    shards: list[np.ndarray]  # memory-mapped, each (n, S, S, 3) uint8

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(shard) for shard in self.shards)])

    def read(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The images at ``positions`` (B,), in any order: (B, S, S, 3) uint8, written to ``out`` if that is given.

        Raises IndexError for a position outside the split.
        """
        positions = np.asarray(positions, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions must be 0 to {len(self) - 1}, not {positions.min()} to {positions.max()}")
        of_shard = np.searchsorted(self._starts, positions, side="right") - 1
        within = positions - self._starts[of_shard]
        images = np.empty((len(positions), *self.shards[0].shape[1:]), np.uint8) if out is None else out
        for image, shard, row in zip(images, of_shard.tolist(), within.tolist(), strict=True):
            image[:] = self.shards[shard][row]
        return images


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Packed images with their classes."""

    path: Path
    name: str
    classes: list[str]  # in label order
    image_size: int  # S
    counts: dict[str, int]  # split -> number of images
    source: dict[str, object]  # "path" and "layout": "folders", "flat", "ilsvrc-2012", "cifar-10"
    fingerprint: str  # changes with images, labels or classes
    shards: dict[str, list[str]] = field(default_factory=dict)  # split -> names of its shards
    words: dict[str, str] = field(default_factory=dict)  # class -> its meaning in words, if the source has that

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Open a dataset's folder. Raises BadArtefact if it is missing, incomplete, damaged or of a newer format."""
        content = read_json(path / DATASET_FILE, what="dataset")
        check_format(content.get("format"), FORMAT, path / DATASET_FILE)
        try:
            needed = set(cls.__dataclass_fields__) - {"path", "name", "words"}
            known = {key: content[key] for key in needed} | {"words": content.get("words", {})}
        except KeyError as error:
            raise BadArtefact(f"{path / DATASET_FILE} is damaged (no {error}): prep the dataset again") from None
        return cls(path=path, name=path.resolve().name, **known)

    def split(self, name: str) -> Split:
        """The split of that name. Raises BadArtefact if there is none, or a shard is missing or damaged."""
        if name not in self.shards:
            raise BadArtefact(f"dataset {self.name} has no split {name!r}: it has {' and '.join(self.counts)}")
        facts = [read_shard(self.path, shard) for shard in self.shards[name]]
        labels = np.array([label for fact in facts for label in fact["labels"]], np.int64)
        names = [picture for fact in facts for picture in fact["names"]]
        maps = [self._map(shard, len(fact["labels"])) for shard, fact in zip(self.shards[name], facts, strict=True)]
        if len(labels) != self.counts[name]:
            raise BadArtefact(f"{self.path} is damaged: {name} has {len(labels)} images, not {self.counts[name]}")
        return Split(labels=labels, names=names, shards=[shard for shard in maps if len(shard)])

    def statistics(self) -> Statistics:
        """Mean image and colour PCA of the training split. Raises BadArtefact if their file is missing or damaged."""
        return Statistics.load(self.path)

    def _map(self, shard: str, images: int) -> np.ndarray:
        path = self.path / f"{shard}.npy"
        try:
            # A plain array over the mapping: indexing a numpy.memmap creates a new memmap each time, which is slow.
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise BadArtefact(f"{path} is missing or damaged ({error}): prep the dataset again") from None
        if array.shape != (images, self.image_size, self.image_size, 3) or array.dtype != np.uint8:
            raise BadArtefact(f"{path} is damaged: it does not hold its {images} images; prep the dataset again")
        return array


def read_shard(folder: Path, shard: str) -> dict[str, Any]:
    """The JSON file of a shard: "labels", "names", "rejected" and "digest". Raises BadArtefact if it is damaged."""
    facts = read_json(folder / f"{shard}.json", what="dataset")
    if not {"labels", "names", "rejected", "digest"} <= set(facts) or len(facts["labels"]) != len(facts["names"]):
        raise BadArtefact(f"{folder / shard}.json is damaged: prep the dataset again")
    return facts
