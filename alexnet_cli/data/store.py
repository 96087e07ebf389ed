"""A packed dataset on disk: uint8 shards that are memory-mapped, with labels, names and statistics."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.data.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split, left on disk until they are asked for."""

    labels: np.ndarray  # (N,) int64
    names: list[str]  # (N,) path of each picture within the source
    shards: list[np.ndarray]  # memory maps, each (n, S, S, 3) uint8

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Images at ``positions`` (B,), any order: (B, S, S, 3) uint8."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    path: Path
    name: str
    classes: list[str]  # in label order
    image_size: int  # S
    counts: dict[str, int]  # split -> number of images
    source: dict[str, object]  # path, layout ("folders", "flat", "ilsvrc-2012", "cifar-10", ...)
    fingerprint: str  # of images, labels and classes

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Raises BadArtefact if missing, half written, damaged or of a newer format."""
        raise NotImplementedError

    def split(self, name: str) -> Split:
        """Raises BadArtefact naming the splits there are."""
        raise NotImplementedError

    def statistics(self) -> Statistics:
        raise NotImplementedError
