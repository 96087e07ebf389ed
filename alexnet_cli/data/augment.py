"""Packed pictures to what the network sees, on the device (§2, §4.1): mean image, crop, reflection, colour noise."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.statistics import Statistics
from alexnet_cli.recipe import Image

ORDER, DROPOUT, INITIAL = 0, 1, 2  # what a stream of random numbers is for


def stream(seed: int, purpose: int, *position: int) -> np.random.SeedSequence:
    """Random numbers as a pure function of the seed, their purpose and a position: a resumed run is the same run."""
    return np.random.SeedSequence([seed, purpose, *position])


def seed_of(sequence: np.random.SeedSequence) -> int:
    """A seed for torch, in 63 bits."""
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """All that is random in an epoch's images; row p is for the p-th image that is trained on."""

    order: np.ndarray  # (N,) int64, a permutation of the split
    top: np.ndarray  # (N,) int64, 0 ... size - crop
    left: np.ndarray  # (N,) int64
    reflected: np.ndarray  # (N,) bool
    colour: np.ndarray  # (N, 3) float32, a_i ~ N(0, colour_noise)

    @classmethod
    def of_epoch(cls, seed: int, epoch: int, images: int, image: Image) -> "Draws":
        random = np.random.default_rng(stream(seed, ORDER, epoch))
        offsets = image.size - image.crop + 1  # 33: every position; the paper counts 32
        return cls(
            order=random.permutation(images),
            top=random.integers(offsets, size=images),
            left=random.integers(offsets, size=images),
            reflected=(random.random(images) < 0.5) & image.reflect,
            colour=(image.colour_noise * random.standard_normal((images, 3))).astype(np.float32),
        )


def view(crop: int, top: np.ndarray, left: np.ndarray, reflected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel rows and columns (B, crop) int64 of views at ``top``, ``left`` (B,); reflected ones run right to left."""
    along = np.arange(crop)
    rows = top[:, None] + along
    columns = left[:, None] + np.where(reflected[:, None], along[::-1], along)
    return rows, columns


class Eye:
    """Turns batches of packed pictures into the network's input on one device."""

    def __init__(self, image: Image, mean_image: np.ndarray, device: torch.device) -> None:
        self.image, self.device = image, device
        self.mean_image = torch.from_numpy(mean_image).to(device)  # (S, S, 3)
        self._reflected_mean = self.mean_image.flip(1)

    def see(self, images: Tensor, rows: np.ndarray, columns: np.ndarray, colour: np.ndarray | None = None) -> Tensor:
        """Views (B, 3, crop, crop) float32, channels last, of ``images`` (B, S, S, 3) uint8 on the device.

        ``rows``, ``columns`` (B, crop): which pixels, as `view` gives them; the mean image is cut at the same place
        (the paper's order: subtract, then crop). ``colour`` (B, 3): added to every pixel, in 0-255 units.
        """
        shift = torch.zeros(len(images), 3) if colour is None else torch.from_numpy(colour)
        shift = shift.to(self.device)
        look = self._one_by_one if self.device.type == "cpu" else self._at_once
        return look(images, rows, columns, shift).permute(0, 3, 1, 2)

    def _at_once(self, images: Tensor, rows: np.ndarray, columns: np.ndarray, shift: Tensor) -> Tensor:
        """All pictures in one go, (B, crop, crop, 3): the way of a GPU."""
        y = torch.tensor(rows, device=self.device)[:, :, None]
        x = torch.tensor(columns, device=self.device)[:, None, :]
        b = torch.arange(len(images), device=self.device)[:, None, None]
        pixels = (images.float() - self.mean_image)[b, y, x]
        return pixels.add_(shift[:, None, None, :]).div_(self.image.divide_by)

    def _one_by_one(self, images: Tensor, rows: np.ndarray, columns: np.ndarray, shift: Tensor) -> Tensor:
        """The same on a CPU, where each picture's view stays in the cache until it is done."""
        size, crop = self.image.size, self.image.crop
        seen = torch.empty(len(images), crop, crop, 3)
        lines = seen.view(len(images), crop, crop * 3)  # whole lines of pixels are quicker to go through than threes
        colours = shift.repeat(1, crop)  # (B, crop * 3)
        for pixels, line, picture, y, x, colour in zip(seen, lines, images, rows, columns, colours, strict=True):
            top, left = int(y[0]), int(min(x[0], x[-1]))
            view, mean = picture[top : top + crop, left : left + crop], self.mean_image
            if x[0] > x[-1]:  # right to left: the same place lies elsewhere in the reflected mean image
                view, mean, left = view.flip(1), self._reflected_mean, size - crop - left
            pixels.copy_(view).sub_(mean[top : top + crop, left : left + crop])
            line.add_(colour)
            if self.image.divide_by != 1:
                line.div_(self.image.divide_by)
        return seen


def colour_shift(a: np.ndarray, statistics: Statistics) -> np.ndarray:
    """What §4.1 adds to each image's pixels: sum over i of p_i a_i s_i, for draws ``a`` (B, 3): (B, 3) float32.

    s_i is the standard deviation along p_i, the root of the eigenvalue, as in the original code: with the eigenvalue
    itself, which the paper writes, the noise would be hundreds of grey levels.
    """
    deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
    return np.asarray((a * deviations) @ statistics.eigenvectors.T, dtype=np.float32)
