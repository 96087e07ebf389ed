"""Packed pictures to the network's input, whole batches on the device (§2): subtract the mean image, crop, scale."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_cli.settings import Settings, Side, Within, require

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs red, green and blue for grey
USUAL_DEVIATION = 58.0  # of the pixels of a photograph, in grey levels: a round figure between 50 and 75


@dataclass(frozen=True, kw_only=True)
class Image(Settings):
    """What the network sees of a packed picture (§2, §4.1)."""

    size: Side  # side of the packed pictures, in pixels
    crop: Side  # side of a view
    colour: Literal["rgb", "grey"] = "rgb"
    divide_by: Annotated[float, Within(1e-6, 1_000_000)] = 1.0  # the centred 0-255 pixels are divided by this
    mean: Literal["image", "colour"] = "image"  # what of the training split a dataset's pixels are centred with
    mean_crop: Literal["same", "central"] = "same"  # the crop of the mean image that a view is centred with
    standardize: bool = False  # each view by its own mean and deviation instead, so that divide_by has no effect

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.crop <= self.size, "crop must be between 1 and image.size")
        if self.standardize:
            require(self.mean_crop == "same", 'mean_crop = "central" has no meaning with standardize = true: drop one')

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the network gets it: (C, crop, crop)."""
        return (3 if self.colour == "rgb" else 1, self.crop, self.crop)

    @property
    def border(self) -> int:
        """Pixels above and to the left of the central view."""
        return (self.size - self.crop) // 2

    @property
    def weights(self) -> tuple[float, float, float]:
        """How much of red, green and blue is in a pixel's brightness as the network sees it."""
        return (1 / 3, 1 / 3, 1 / 3) if self.colour == "rgb" else LUMA

    @property
    def unit(self) -> float:
        """How many grey levels 1 is in the network's input; of standardized pictures, each with its own, the usual."""
        return USUAL_DEVIATION if self.standardize else self.divide_by


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Which pixels of each of B images are seen, and what is added to their colours."""

    rows: np.ndarray  # (B, h) int64, ascending without a gap
    columns: np.ndarray  # (B, w) int64, ascending without a gap, or descending: a reflection
    shift: np.ndarray | None = None  # (B, 3) float32, in 0-255 units; None: nothing
    divide_by: float = 1.0  # what the pixels are divided by after that, besides image.divide_by
    matrices: np.ndarray | None = None  # (B, 2, 2): how the images are resampled before that; None: not at all

    @classmethod
    def whole(cls, images: int, size: int) -> "Crops":
        """All ``size`` × ``size`` pixels of ``images`` images."""
        along = np.broadcast_to(np.arange(size), (images, size))
        return cls(rows=along, columns=along)

    def shifted(self, shift: np.ndarray) -> "Crops | None":
        """With ``shift`` (B, 3) added; None if the pixels are divided before that."""
        if self.divide_by != 1:
            return None
        return replace(self, shift=shift if self.shift is None else self.shift + shift)


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
        # A standardized view uses its own mean and deviation.
        self.divide_by = 1.0 if image.standardize else image.divide_by
        subtracted = torch.zeros_like(self.mean_image) if image.standardize else self.mean_image
        self._subtracted = nn.Buffer(subtracted, persistent=False)
        self._reflected = nn.Buffer(subtracted.flip(1), persistent=False)

    def forward(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The same view of every image: (B, S, S, 3) uint8 to (B, C, h, w) float32.

        ``rows`` (h,), ``columns`` (w,) int64. This is what an exported graph does.
        """
        views = images.float().index_select(1, rows).index_select(2, columns)  # (B, h, w, 3)
        if self.image.mean_crop == "central":
            rows, columns = (along - along.amin(0) + self.image.border for along in (rows, columns))
        if not self.image.standardize:
            views = (views - self.mean_image.index_select(0, rows).index_select(1, columns)) / self.divide_by
        return self.finish(views)

    def crop(self, images: Tensor, crops: Crops) -> Tensor:
        """A view of its own of each image: (B, S, S, 3) uint8 on the device to (B, C, h, w) float32, channels last.

        With mean_crop = "same" the mean image is cropped at the same place (§2: subtract, then crop), with "central" at
        the centre. It is reflected with the view.
        """
        return self.finish(self.cut(images, crops, self.divide_by))

    def centred(self, images: Tensor) -> Tensor:
        """Whole pictures (B, S, S, 3) uint8 less the mean image, in 0-255 units: float32."""
        return images.float() - self._subtracted

    def cut(self, images: Tensor, crops: Crops, divide_by: float = 1.0) -> Tensor:
        """Centred RGB of each view, with its colour shift, divided by ``divide_by`` and ``crops``': (B, h, w, 3)."""
        cut = self._cut_one_by_one if self.device.type == "cpu" else self._cut_at_once
        if crops.matrices is not None:
            cut = self._cut_resampled
        return cut(images, crops, divide_by * crops.divide_by)

    def finish(self, pixels: Tensor) -> Tensor:
        """RGB of views (B, h, w, 3) to the network's input, (B, C, h, w): its colours, standardized if they are to be.

        A view is standardized as in TensorFlow's `per_image_standardization`: by its own mean and standard deviation
        over all its N numbers. A deviation of less than 1/sqrt(N) grey levels counts as that.
        """
        pixels = self.colours(pixels)
        if self.image.standardize:
            pixels = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
            deviation = pixels.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            pixels = pixels / deviation.clamp(min=1 / math.sqrt(math.prod(pixels.shape[1:])))
        return pixels.permute(0, 3, 1, 2)

    def colours(self, pixels: Tensor) -> Tensor:
        """RGB (..., 3) to the colours the network sees, (..., C)."""
        if self.image.colour == "rgb":
            return pixels
        return (pixels * pixels.new_tensor(LUMA)).sum(dim=-1, keepdim=True)

    def _cut_resampled(self, images: Tensor, crops: Crops, divide_by: float) -> Tensor:
        """All images in a few operations, from the centred pictures between whose pixels the views' lie."""
        assert crops.matrices is not None
        pixels = resample(self.centred(images), crops.matrices, crops.rows, crops.columns)
        if crops.shift is not None:
            pixels += torch.from_numpy(crops.shift).to(self.device)[:, None, None, :]
        return pixels.div_(divide_by)

    def _cut_at_once(self, images: Tensor, crops: Crops, divide_by: float) -> Tensor:
        """All images in a few operations: fast on a GPU."""
        b = torch.arange(len(images), device=self.device)[:, None, None]
        rows, columns = crops.rows, crops.columns
        pixels = images[b, *self._index(rows, columns)].float()
        if self.image.mean_crop == "central":
            rows, columns = (along - along.min(axis=1, keepdims=True) + self.image.border for along in (rows, columns))
        pixels -= self._subtracted[self._index(rows, columns)]
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
            view, mean = image[top : top + height, left : left + width], self._subtracted
            if x[0] > x[-1]:  # right to left: the same pixels lie elsewhere in the reflected mean image
                view, mean, left = view.flip(1), self._reflected, size - width - left
            if self.image.mean_crop == "central":
                top = self.image.border
                left = top if x[0] < x[-1] else size - width - top
            pixels[i].copy_(view).sub_(mean[top : top + height, left : left + width])
            if shifts is not None:
                lines[i].add_(shifts[i])
            if divide_by != 1:
                lines[i].div_(divide_by)
        return pixels


def resample(pixels: Tensor, matrices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Views (B, h, w, 3) of ``pixels`` (B, S, T, 3) after a linear map of the plane about each picture's centre.

    ``matrices`` (B, 2, 2): where a point (x, y), to the right and down from the centre, goes. ``rows`` (B, h) and
    ``columns`` (B, w): which pixels of the mapped picture the view has, as in `Crops`. Values are interpolated linearly
    between pixels. Beyond the edges lies the picture's reflection: so there is no frame of one colour that would tell
    the network what was done to the picture, and a colour that is added to all pixels may be added before or after.
    """
    (height, width), (view_height, view_width) = pixels.shape[1:3], (rows.shape[1], columns.shape[1])
    # From the view, whose coordinates are -1 to 1 from edge to edge, to offsets from the centre in pixels, (x, y).
    direction = np.where(columns[:, 0] > columns[:, -1], -1, 1)
    extent = np.stack([direction * view_width / 2, np.full(len(rows), view_height / 2)], axis=1)  # (B, 2)
    middle = np.stack([(each[:, 0] + each[:, -1] + 1) / 2 for each in (columns, rows)], axis=1)
    back = np.linalg.inv(matrices) / np.array([[width / 2], [height / 2]])  # to the picture's coordinates, -1 to 1
    offset = back @ (middle - np.array([width / 2, height / 2]))[:, :, None]  # (B, 2, 1)
    theta = np.concatenate([back * extent[:, None, :], offset], axis=2)  # (B, 2, 3)
    # From here on there are two operations for the whole batch.
    at = torch.from_numpy(theta.astype(np.float32)).to(pixels.device)
    grid = F.affine_grid(at, [len(rows), 3, view_height, view_width], align_corners=False)
    views = F.grid_sample(pixels.permute(0, 3, 1, 2), grid, padding_mode="reflection", align_corners=False)
    return views.permute(0, 2, 3, 1).contiguous()
