"""Packed pictures to the network's input, whole batches on the device (§2): subtract the mean image, crop, scale."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from alexnet_cli.settings import Settings, Side, Within, require

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs red, green and blue for grey


@dataclass(frozen=True, kw_only=True)
class Image(Settings):
    """What the network sees of a packed picture (§2, §4.1)."""

    size: Side  # side of the packed pictures, in pixels
    crop: Side  # side of a view
    colour: Literal["rgb", "grey"] = "rgb"
    divide_by: Annotated[float, Within(1e-6, 1_000_000)] = 1.0  # the centred 0-255 pixels are divided by this
    mean: Literal["image", "colour"] = "image"  # what of the training split a dataset's pixels are centred with
    mean_crop: Literal["same", "central"] = "same"  # the crop of the mean image that a view is centred with

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.crop <= self.size, "crop must be between 1 and image.size")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the network gets it: (C, crop, crop)."""
        return (3 if self.colour == "rgb" else 1, self.crop, self.crop)

    @property
    def border(self) -> int:
        """Pixels above and to the left of the central view."""
        return (self.size - self.crop) // 2


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Which pixels of each of B images are seen, and what is added to their colours."""

    rows: np.ndarray  # (B, h) int64, ascending without a gap
    columns: np.ndarray  # (B, w) int64, ascending without a gap, or descending: a reflection
    shift: np.ndarray | None = None  # (B, 3) float32, in 0-255 units; None: nothing
    divide_by: float = 1.0  # what the pixels are divided by after that, besides image.divide_by


def centre(size: int, crop: int) -> slice:
    """The central ``crop`` of ``size`` pixels."""
    first = (size - crop) // 2
    return slice(first, first + crop)


class Preprocessor(nn.Module):
    """Turns batches of packed pictures into the network's input, on one device."""

    mean_image: Tensor  # (S, S, 3) float32

    def __init__(self, image: Image, mean_image: np.ndarray, device: torch.device | str) -> None:
        super().__init__()
        self.image, self.device = image, torch.device(device)
        self.mean_image = nn.Buffer(torch.from_numpy(mean_image).to(self.device))
        self._reflected_mean = nn.Buffer(self.mean_image.flip(1), persistent=False)

    def forward(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The same view of every image: (B, S, S, 3) uint8 to (B, C, h, w) float32.

        ``rows`` (h,), ``columns`` (w,) int64. This is what an exported graph does.
        """
        views = images.float().index_select(1, rows).index_select(2, columns)  # (B, h, w, 3)
        if self.image.mean_crop == "central":
            rows, columns = (along - along.amin(0) + self.image.border for along in (rows, columns))
        mean = self.mean_image.index_select(0, rows).index_select(1, columns)
        return self.finish((views - mean) / self.image.divide_by).permute(0, 3, 1, 2)

    def crop(self, images: Tensor, crops: Crops) -> Tensor:
        """A view of its own of each image: (B, S, S, 3) uint8 on the device to (B, C, h, w) float32, channels last.

        With mean_crop = "same" the mean image is cropped at the same place (§2: subtract, then crop), with "central" at
        the centre. It is reflected with the view.
        """
        return self.finish(self.cut(images, crops, self.image.divide_by)).permute(0, 3, 1, 2)

    def cut(self, images: Tensor, crops: Crops, divide_by: float = 1.0) -> Tensor:
        """Centred RGB of each view, with its colour shift, divided by ``divide_by`` and ``crops``': (B, h, w, 3)."""
        cut = self._cut_one_by_one if self.device.type == "cpu" else self._cut_at_once
        return cut(images, crops, divide_by * crops.divide_by)

    def finish(self, pixels: Tensor) -> Tensor:
        """RGB (B, h, w, 3) to the colours the network sees, (B, h, w, C)."""
        if self.image.colour == "rgb":
            return pixels
        return (pixels * pixels.new_tensor(LUMA)).sum(dim=3, keepdim=True)

    def _cut_at_once(self, images: Tensor, crops: Crops, divide_by: float) -> Tensor:
        """All images in a few operations: fast on a GPU."""
        b = torch.arange(len(images), device=self.device)[:, None, None]
        rows, columns = crops.rows, crops.columns
        pixels = images[b, *self._index(rows, columns)].float()
        if self.image.mean_crop == "central":
            rows, columns = (along - along.min(axis=1, keepdims=True) + self.image.border for along in (rows, columns))
        pixels -= self.mean_image[self._index(rows, columns)]
        if crops.shift is not None:
            pixels += torch.from_numpy(crops.shift).to(self.device)[:, None, None, :]
        return pixels.div_(divide_by)

    def _index(self, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, Tensor]:
        """(B, h, 1) and (B, 1, w), which index the pixels of each view."""
        return torch.tensor(rows, device=self.device)[:, :, None], torch.tensor(columns, device=self.device)[:, None, :]

    def _cut_one_by_one(self, images: Tensor, crops: Crops, divide_by: float) -> Tensor:
        """Image by image: fast on a CPU, where a view stays in the cache until it is done."""
        (count, height), width, size = crops.rows.shape, crops.columns.shape[1], self.image.size
        pixels = torch.empty(count, height, width, 3)
        lines = pixels.view(count, height, width * 3)  # to add to whole lines is faster than to add to threes
        shifts = None if crops.shift is None else torch.from_numpy(crops.shift).repeat(1, width)  # (B, w * 3)
        for i, (image, y, x) in enumerate(zip(images, crops.rows, crops.columns, strict=True)):
            top, left = int(y[0]), int(min(x[0], x[-1]))
            view, mean = image[top : top + height, left : left + width], self.mean_image
            if x[0] > x[-1]:  # right to left: the same pixels lie elsewhere in the reflected mean image
                view, mean, left = view.flip(1), self._reflected_mean, size - width - left
            if self.image.mean_crop == "central":
                top = self.image.border
                left = top if x[0] < x[-1] else size - width - top
            pixels[i].copy_(view).sub_(mean[top : top + height, left : left + width])
            if shifts is not None:
                lines[i].add_(shifts[i])
            if divide_by != 1:
                lines[i].div_(divide_by)
        return pixels
