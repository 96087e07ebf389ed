"""Augmentation (§4.1): an ordered list of classes, each of which draws its random parameters and applies them.

`apply_in_order` is the definition. `augment` gives the same result faster: crops, reflections and colour shifts at the
beginning of the list are folded into one reading of the packed pixels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.preprocess import Crops, Image, Preprocessor, centre
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.settings import Registry, Settings, Width, Within

ORDER, DROPOUT, INITIAL = 0, 1, 2  # what a stream of random numbers is for


def stream(seed: int, purpose: int, *position: int) -> np.random.SeedSequence:
    """Random numbers as a pure function of seed, purpose and position, so that a resumed run is the same run."""
    return np.random.SeedSequence([seed, purpose, *position])


def seed_of(sequence: np.random.SeedSequence) -> int:
    """A seed for torch, in 63 bits."""
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


Parameters = dict[str, np.ndarray]  # what one augmentation draws: name -> (N, ...)


@dataclass(frozen=True, kw_only=True)
class Augmentation(Settings, ABC):
    """One step of augmentation."""

    @abstractmethod
    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        """The random parameters of ``images`` images, one a row."""

    @abstractmethod
    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        """``pixels`` (B, h, w, 3): centred RGB in 0-255 units, to the same of any height and width.

        With image.mean_crop = "central" the crop must come first: it puts right what was subtracted.
        """

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        """The same as `apply`, as a change of which pixels are read and what is added; None if it is more than that."""
        return None

    def is_active(self, epoch: int) -> bool:
        """Whether it is applied in ``epoch``, counted from 1."""
        return True


AUGMENTATIONS = Registry[Augmentation]()


@AUGMENTATIONS.register("random_crop")
@dataclass(frozen=True, kw_only=True)
class RandomCrop(Augmentation):
    """A crop of image.crop × image.crop at a random place: 33 × 33 places for 224 in 256; the paper counts 32 × 32."""

    shared_by: Width = 1  # images that follow one another and are cropped alike

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        places, groups = image.size - image.crop + 1, math.ceil(images / self.shared_by)
        top, left = random.integers(places, size=groups), random.integers(places, size=groups)
        return {name: each.repeat(self.shared_by)[:images] for name, each in (("top", top), ("left", left))}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        crop = image.crop
        pairs = zip(drawn["top"].tolist(), drawn["left"].tolist(), strict=True)
        places = [(slice(top, top + crop), slice(left, left + crop)) for top, left in pairs]
        crops = torch.stack([one[place] for one, place in zip(pixels, places, strict=True)])
        if image.mean_crop == "central":  # here the crops were centred with the mean at their own place
            mean, middle = torch.from_numpy(statistics.mean_image).to(pixels.device), centre(image.size, crop)
            crops += torch.stack([mean[place] for place in places]) - mean[middle, middle]
        return crops

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        along = np.arange(image.crop)
        return replace(
            crops,
            rows=np.take_along_axis(crops.rows, drawn["top"][:, None] + along, axis=1),
            columns=np.take_along_axis(crops.columns, drawn["left"][:, None] + along, axis=1),
        )


@AUGMENTATIONS.register("reflection")
@dataclass(frozen=True, kw_only=True)
class Reflection(Augmentation):
    """Half of the images are reflected, left to right."""

    shared_by: Width = 1  # images that follow one another and are reflected alike

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        groups = math.ceil(images / self.shared_by)
        return {"reflected": (random.random(groups) < 0.5).repeat(self.shared_by)[:images]}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        pairs = zip(pixels, drawn["reflected"].tolist(), strict=True)
        return torch.stack([one.flip(1) if reflected else one for one, reflected in pairs])

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        columns = np.where(drawn["reflected"][:, None], crops.columns[:, ::-1], crops.columns)
        return replace(crops, columns=columns)


@AUGMENTATIONS.register("colour_noise")
@dataclass(frozen=True, kw_only=True)
class ColourNoise(Augmentation):
    """To every pixel of an image the same colour is added: sum over i of p_i a_i s_i, with a_i ~ N(0, deviation²).

    p_i are the eigenvectors of the RGB covariance over all training pixels. s_i is the standard deviation along p_i,
    the root of the eigenvalue, as in the original code: with the eigenvalue itself, which the paper writes, the noise
    would be hundreds of grey levels.
    """

    deviation: Annotated[float, Within(0, 1000)]
    divide_by: Annotated[float, Within(1e-6, 1_000_000)] = 1.0  # the image with its noise is divided by this
    until: Annotated[int, Within(0, 1_000_000)] = 0  # the epoch from which on there is none; 0: to the end

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"a": (self.deviation * random.standard_normal((images, 3))).astype(np.float32)}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        shift = torch.from_numpy(colour_shift(drawn["a"], statistics)).to(pixels.device)
        return (pixels + shift[:, None, None, :]) / self.divide_by

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        if crops.divide_by != 1:
            return None  # what is added after a division cannot be added before it
        shift = colour_shift(drawn["a"], statistics)
        shift = shift if crops.shift is None else crops.shift + shift
        return replace(crops, shift=shift, divide_by=self.divide_by)

    def is_active(self, epoch: int) -> bool:
        return self.deviation > 0 and not 0 < self.until <= epoch


def colour_shift(a: np.ndarray, statistics: Statistics) -> np.ndarray:
    """The colours that factors ``a`` (B, 3) add, in 0-255 units: (B, 3) float32."""
    deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
    return np.asarray((a * deviations) @ statistics.eigenvectors.T, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """All that is random about an epoch's images: their order, and the parameters of every augmentation.

    Row p of each array is for the p-th image that is trained on.
    """

    order: np.ndarray  # (N,) int64, a permutation of the split
    drawn: list[tuple[Augmentation, Parameters]]  # the augmentations that are active, in order

    @classmethod
    def draw(
        cls, seed: int, epoch: int, images: int, image: Image, augmentations: Mapping[str, Augmentation]
    ) -> "EpochPlan":
        """A pure function of its arguments; ``epoch`` is counted from 0."""
        random = np.random.default_rng(stream(seed, ORDER, epoch))
        order = random.permutation(images)
        drawn = [(each, each.draw(random, images, image)) for each in augmentations.values()]
        return cls(order=order, drawn=[(each, values) for each, values in drawn if each.is_active(epoch + 1)])

    def rows(self, rows: slice) -> list[tuple[Augmentation, Parameters]]:
        """What was drawn for the images at positions ``rows`` of the order."""
        return [(each, {name: values[rows] for name, values in drawn.items()}) for each, drawn in self.drawn]


Drawn = Sequence[tuple[Augmentation, Parameters]]


def augment(preprocessor: Preprocessor, images: Tensor, drawn: Drawn, statistics: Statistics) -> Tensor:
    """Augmented views (B, C, crop, crop) float32 of ``images`` (B, S, S, 3) uint8 on the device."""
    image, left = preprocessor.image, list(drawn)
    whole = np.broadcast_to(np.arange(image.size), (len(images), image.size))
    crops = Crops(rows=whole, columns=whole)
    while left:
        folded = left[0][0].fold(crops, left[0][1], image, statistics)
        if folded is None:
            pixels = preprocessor.cut(images, crops)  # (B, h, w, 3)
            return _finish(preprocessor, _apply(pixels, left, image, statistics))
        crops, left = folded, left[1:]
    height, width = (centre(rows.shape[1], image.crop) for rows in (crops.rows, crops.columns))
    return preprocessor.crop(images, replace(crops, rows=crops.rows[:, height], columns=crops.columns[:, width]))


def apply_in_order(preprocessor: Preprocessor, images: Tensor, drawn: Drawn, statistics: Statistics) -> Tensor:
    """What `augment` computes, step by step: subtract the mean image, apply one augmentation after the other, take the
    centre if nothing has cropped, scale."""
    return _finish(
        preprocessor, _apply(images.float() - preprocessor.mean_image, drawn, preprocessor.image, statistics)
    )


def _apply(pixels: Tensor, drawn: Drawn, image: Image, statistics: Statistics) -> Tensor:
    for augmentation, parameters in drawn:
        pixels = augmentation.apply(pixels, parameters, image, statistics)
    return pixels


def _finish(preprocessor: Preprocessor, pixels: Tensor) -> Tensor:
    image = preprocessor.image
    height, width = (centre(extent, image.crop) for extent in pixels.shape[1:3])
    pixels = pixels[:, height, width] / image.divide_by
    return preprocessor.finish(pixels).permute(0, 3, 1, 2)
