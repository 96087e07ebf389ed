"""Augmentation of batches (§4.1): a recipe's list of augmentations, drawn for an epoch and applied in order.

`apply_in_order` is the definition. `augment` gives the same result faster: geometry, crops, reflections and shifts of
colour at the beginning of the list are folded into one reading of the packed pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from alexnet_cli.data.augmentations import Augmentation, Parameters
from alexnet_cli.data.order import shuffled
from alexnet_cli.data.preprocess import Crops, Image, Preprocessor, centre
from alexnet_cli.data.statistics import Statistics

ORDER, DROPOUT, INITIAL = 0, 1, 2  # what a stream of random numbers is for


def stream(seed: int, purpose: int, *position: int) -> np.random.SeedSequence:
    """Random numbers as a pure function of seed, purpose and position, so that a resumed run is the same run."""
    return np.random.SeedSequence([seed, purpose, *position])


def seed_of(sequence: np.random.SeedSequence) -> int:
    """A seed for torch, in 63 bits."""
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """All that is random about an epoch's images: their order, and the parameters of every augmentation.

    Row p of each array is for the p-th image that is trained on.
    """

    order: np.ndarray  # (N,) int64, a permutation of the split
    drawn: list[tuple[Augmentation, Parameters]]  # the augmentations that are active, in order

    @classmethod
    def draw(
        cls,
        seed: int,
        epoch: int,
        images: int,
        image: Image,
        augmentations: Mapping[str, Augmentation],
        window: int = 0,
    ) -> "EpochPlan":
        """A pure function of its arguments; ``epoch`` is counted from 0. For ``window``, see `order.shuffled`."""
        random = np.random.default_rng(stream(seed, ORDER, epoch))
        order = shuffled(random, images, window)
        drawn = [(each, each.draw(random, images, image)) for each in augmentations.values()]
        return cls(order=order, drawn=[(each, values) for each, values in drawn if each.is_active(epoch + 1)])

    def rows(self, rows: slice) -> list[tuple[Augmentation, Parameters]]:
        """What was drawn for the images at positions ``rows`` of the order."""
        return [(each, {name: values[rows] for name, values in drawn.items()}) for each, drawn in self.drawn]


Drawn = Sequence[tuple[Augmentation, Parameters]]


def augment(preprocessor: Preprocessor, images: Tensor, drawn: Drawn, statistics: Statistics) -> Tensor:
    """Augmented views (B, C, crop, crop) float32 of ``images`` (B, S, S, 3) uint8 on the device."""
    image, left, crops = preprocessor.image, list(drawn), Crops.whole(len(images), preprocessor.image.size)
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
    centre if nothing has cropped, scale. Here each geometric augmentation resamples; `augment` does so once for all."""
    return _finish(preprocessor, _apply(preprocessor.centred(images), drawn, preprocessor.image, statistics))


def _apply(pixels: Tensor, drawn: Drawn, image: Image, statistics: Statistics) -> Tensor:
    for augmentation, parameters in drawn:
        pixels = augmentation.apply(pixels, parameters, image, statistics)
    return pixels


def _finish(preprocessor: Preprocessor, pixels: Tensor) -> Tensor:
    image = preprocessor.image
    height, width = (centre(extent, image.crop) for extent in pixels.shape[1:3])
    pixels = pixels[:, height, width] / preprocessor.divide_by
    return preprocessor.finish(pixels)
