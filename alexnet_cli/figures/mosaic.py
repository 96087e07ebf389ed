"""Kernels as pictures, and many small pictures as one."""

import math

import numpy as np

ACROSS = 16  # kernels in a row


def as_colours(kernels: np.ndarray) -> np.ndarray:
    """Kernels (K, 3 or 1, h, w) as pictures (K, h, w, 3) uint8, each on its own scale; middle grey is 0."""
    scale = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    colours = np.broadcast_to(0.5 + 0.5 * kernels / scale, (len(kernels), 3, *kernels.shape[2:]))  # one channel is grey
    return np.asarray((255 * colours.transpose(0, 2, 3, 1)).round().astype(np.uint8))


def mosaic(pictures: np.ndarray, across: int, *, gap: int = 1, background: int = 255) -> np.ndarray:
    """``pictures`` (N, h, w, 3) or (N, h, w) uint8 in rows of ``across``, ``gap`` pixels apart, as one picture."""
    count, height, width, *colours = pictures.shape
    down = math.ceil(count / across)
    sheet = np.full((down * (height + gap) - gap, across * (width + gap) - gap, *colours), background, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // across * (height + gap), i % across * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def squarest(count: int, aspect: float = 1.5, slack: float = 2.0) -> int:
    """How many of ``count`` pictures to put in a row for a width of about ``aspect`` heights and few empty places.

    For fewer of these a row may be up to ``slack`` times as long.
    """
    least = max(1, math.ceil(math.sqrt(aspect * count)))
    return min(count, min(range(least, max(least + 1, math.ceil(slack * least))), key=lambda wide: -count % wide))
