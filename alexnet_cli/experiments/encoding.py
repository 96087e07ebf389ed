"""What the runners-up have in common: descriptors of patches in, one vector for each picture out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Descriptors:
    """What N patches of a picture look like, and where they are."""

    values: np.ndarray  # (N, D) float32
    places: np.ndarray  # (N, 2) float32, the middles of the patches: x, y from 0 to 1

    def cells(self, across: int, down: int) -> list[np.ndarray]:
        """The positions (n,) of the patches in each cell of a grid over the picture, row by row."""
        x, y = (np.minimum(self.places * (across, down), (across - 1, down - 1))).astype(np.int64).T
        return [np.flatnonzero(y * across + x == cell) for cell in range(across * down)]


class Encoder(ABC):
    """Makes one vector of a picture, after it was fitted to descriptors of training pictures."""

    settings: ClassVar[str]  # in words
    namespaces: ClassVar[tuple[Mapping[str, Any], ...]]  # of the modules whose constants its vectors depend on
    min_descriptors: ClassVar[int]  # descriptors that `fit` needs

    @staticmethod
    @abstractmethod
    def describe(image: np.ndarray) -> Descriptors:
        """The descriptors of an ``image`` (S, S, 3) uint8. Raises AlexNetError if it is too small to have any."""

    @classmethod
    @abstractmethod
    def fit(cls, sample: np.ndarray) -> Self:
        """An encoder fitted to ``sample``, (M, D) descriptors of training pictures, ``min_descriptors`` or more."""

    @abstractmethod
    def encode(self, descriptors: Descriptors) -> np.ndarray:
        """The vector of a picture, (W,) float32."""


def grid(side: int, patch: int, step: int) -> np.ndarray:
    """Where patches of ``patch`` pixels start along ``side`` pixels, (n,) int64: every ``step``, in the middle."""
    return np.arange((side - patch) % step // 2, side - patch + 1, step)


def unit(vector: np.ndarray) -> np.ndarray:
    """``vector`` scaled to length 1; zeros stay."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
