"""The augmentations (§4.1, and beyond the paper): classes that draw their random parameters and apply them.

A recipe's `training.augmentation` lists them, in order; data/augment.py applies the list.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.preprocess import Crops, Image, centre, resample
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.settings import Registry, Settings, Width, Within, require

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

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        """What was drawn for image ``i``, for people; empty if nothing happens to it."""
        return ""


AUGMENTATIONS = Registry[Augmentation]()


@AUGMENTATIONS.register("random_crop")
@dataclass(frozen=True, kw_only=True)
class RandomCrop(Augmentation):
    """A crop of image.crop × image.crop at a random position: 33 × 33 for 224 in 256; the paper counts 32 × 32."""

    shared_by: Width = 1  # images that follow one another and are cropped alike

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        count, groups = image.size - image.crop + 1, math.ceil(images / self.shared_by)
        top, left = random.integers(count, size=groups), random.integers(count, size=groups)
        return {name: each.repeat(self.shared_by)[:images] for name, each in (("top", top), ("left", left))}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        crop = image.crop
        pairs = zip(drawn["top"].tolist(), drawn["left"].tolist(), strict=True)
        slices = [(slice(top, top + crop), slice(left, left + crop)) for top, left in pairs]
        crops = torch.stack([one[where] for one, where in zip(pixels, slices, strict=True)])
        if image.mean_crop == "central":  # here the crops were centred with the mean at their own position
            mean, middle = torch.from_numpy(statistics.mean_image).to(pixels.device), centre(image.size, crop)
            crops += torch.stack([mean[where] for where in slices]) - mean[middle, middle]
        return crops

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        along = np.arange(image.crop)
        return replace(
            crops,
            rows=np.take_along_axis(crops.rows, drawn["top"][:, None] + along, axis=1),
            columns=np.take_along_axis(crops.columns, drawn["left"][:, None] + along, axis=1),
        )

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"at {drawn['top'][i]}, {drawn['left'][i]}"


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

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return "reflected" if drawn["reflected"][i] else ""


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
        shifted = crops.shifted(colour_shift(drawn["a"], statistics))
        return None if shifted is None else replace(shifted, divide_by=self.divide_by)

    def is_active(self, epoch: int) -> bool:
        return self.deviation > 0 and not 0 < self.until <= epoch

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        red, green, blue = np.round(colour_shift(drawn["a"], statistics)[i]).astype(int)
        return f"RGB {red:+d} {green:+d} {blue:+d}"


def colour_shift(a: np.ndarray, statistics: Statistics) -> np.ndarray:
    """The colours that factors ``a`` (B, 3) add, in 0-255 units: (B, 3) float32."""
    deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
    return np.asarray((a * deviations) @ statistics.eigenvectors.T, dtype=np.float32)


@AUGMENTATIONS.register("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Augmentation):
    """The same number of grey levels, uniform in -max_delta to max_delta, is added to all of an
    image. Default: TensorFlow's."""

    max_delta: Annotated[float, Within(0, 255)] = 63.0

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"levels": random.uniform(-self.max_delta, self.max_delta, images).astype(np.float32)}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        return pixels + _each(drawn["levels"], pixels)

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        return crops.shifted(drawn["levels"][:, None].repeat(3, axis=1))

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"brightness {drawn['levels'][i]:+.0f}"

    def is_active(self, epoch: int) -> bool:
        return self.max_delta > 0


@AUGMENTATIONS.register("contrast")
@dataclass(frozen=True, kw_only=True)
class Contrast(Augmentation):
    """Red, green and blue each move away from their own mean over the image, or nearer, by a factor that is uniform in
    low to high. Default: that of TensorFlow's pipeline for CIFAR-10."""

    low: Annotated[float, Within(0, 10)] = 0.2
    high: Annotated[float, Within(0, 10)] = 1.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.low <= self.high, "low must not be more than high")

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"factor": random.uniform(self.low, self.high, images).astype(np.float32)}

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        mean = pixels.mean(dim=(1, 2), keepdim=True)  # (B, 1, 1, 3)
        return mean + _each(drawn["factor"], pixels) * (pixels - mean)

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"contrast × {drawn['factor'][i]:.2f}"

    def is_active(self, epoch: int) -> bool:
        return not self.low == self.high == 1


def _each(values: np.ndarray, pixels: Tensor) -> Tensor:
    """A number for each image, (B,), in the shape that applies it to ``pixels`` (B, h, w, 3)."""
    return torch.from_numpy(values).to(pixels.device)[:, None, None, None]


@dataclass(frozen=True, kw_only=True)
class Geometric(Augmentation):
    """A linear map of the plane about the centre of an image. `preprocess.resample` says what is beyond its edges.

    In a recipe's list these come first. So they are one matrix for each image, in the order of the list; the picture is
    resampled once, at the pixels that the crop keeps; and the crop has the picture around it to turn into view.
    """

    @abstractmethod
    def matrix(self, drawn: Parameters) -> np.ndarray:
        """Where a point (x, y), to the right and down from the centre, goes: (B, 2, 2) float64."""

    def apply(self, pixels: Tensor, drawn: Parameters, image: Image, statistics: Statistics) -> Tensor:
        whole = Crops.whole(len(pixels), pixels.shape[1])
        return resample(pixels, self.matrix(drawn), whole.rows, whole.columns)

    def fold(self, crops: Crops, drawn: Parameters, image: Image, statistics: Statistics) -> Crops | None:
        whole = Crops.whole(len(crops.rows), image.size)
        if not (np.array_equal(crops.rows, whole.rows) and np.array_equal(crops.columns, whole.columns)):
            return None  # what was cropped away or reflected is no longer about the same centre
        matrices = self.matrix(drawn)
        return replace(crops, matrices=matrices if crops.matrices is None else matrices @ crops.matrices)


@AUGMENTATIONS.register("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(Geometric):
    """Clockwise by an angle that is uniform in -degrees to degrees."""

    degrees: Annotated[float, Within(0, 180)] = 10.0

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"degrees": random.uniform(-self.degrees, self.degrees, images)}

    def matrix(self, drawn: Parameters) -> np.ndarray:
        cos, sin = (of(np.deg2rad(drawn["degrees"])) for of in (np.cos, np.sin))
        return _matrices(cos, -sin, sin, cos)

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"rotated {drawn['degrees'][i]:+.0f}°"

    def is_active(self, epoch: int) -> bool:
        return self.degrees > 0


@AUGMENTATIONS.register("shear")
@dataclass(frozen=True, kw_only=True)
class Shear(Geometric):
    """Upright lines lean to the left by an angle that is uniform in -degrees to degrees; level lines stay level."""

    degrees: Annotated[float, Within(0, 80)] = 10.0

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"degrees": random.uniform(-self.degrees, self.degrees, images)}

    def matrix(self, drawn: Parameters) -> np.ndarray:
        return _matrices(1, np.tan(np.deg2rad(drawn["degrees"])), 0, 1)

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"sheared {drawn['degrees'][i]:+.0f}°"

    def is_active(self, epoch: int) -> bool:
        return self.degrees > 0


@AUGMENTATIONS.register("stretch")
@dataclass(frozen=True, kw_only=True)
class Stretch(Geometric):
    """The ratio of width to height is multiplied by a factor, and the area is kept. The factor's logarithm is uniform,
    so that one half is as likely as two: from 1/max_ratio to max_ratio."""

    max_ratio: Annotated[float, Within(1, 10)] = 1.25

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"ratio": _log_uniform(random, self.max_ratio, images)}

    def matrix(self, drawn: Parameters) -> np.ndarray:
        root = np.sqrt(drawn["ratio"])
        return _matrices(root, 0, 0, 1 / root)

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"stretched × {drawn['ratio'][i]:.2f}"

    def is_active(self, epoch: int) -> bool:
        return self.max_ratio > 1


@AUGMENTATIONS.register("scale_jitter")
@dataclass(frozen=True, kw_only=True)
class ScaleJitter(Geometric):
    """Enlarged by a factor whose logarithm is uniform, from 1/max_factor to max_factor."""

    max_factor: Annotated[float, Within(1, 10)] = 1.25

    def draw(self, random: np.random.Generator, images: int, image: Image) -> Parameters:
        return {"factor": _log_uniform(random, self.max_factor, images)}

    def matrix(self, drawn: Parameters) -> np.ndarray:
        return _matrices(drawn["factor"], 0, 0, drawn["factor"])

    def words(self, drawn: Parameters, i: int, statistics: Statistics) -> str:
        return f"scaled × {drawn['factor'][i]:.2f}"

    def is_active(self, epoch: int) -> bool:
        return self.max_factor > 1


def _log_uniform(random: np.random.Generator, largest: float, count: int) -> np.ndarray:
    """``count`` factors from 1/``largest`` to ``largest``."""
    return np.exp(random.uniform(-math.log(largest), math.log(largest), count))


def _matrices(*entries: np.ndarray | float) -> np.ndarray:
    """(B, 2, 2) of four entries, row by row: each (B,) or a number."""
    return np.stack(np.broadcast_arrays(*entries), axis=-1).reshape(-1, 2, 2).astype(np.float64)
