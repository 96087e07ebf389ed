"""The maps of a layer as one picture."""

import io
import math

import numpy as np
from PIL import Image

LEAST, GAP = 48, 2  # pixels: the side of a map, which is enlarged by whole steps; and between maps
BRIGHT = 99.8  # percentile of the activations that is drawn white


def draw_maps(maps: np.ndarray) -> bytes:
    """A PNG of ``maps`` (kernels, h, w) float32, in rows; black is 0, and all have one scale."""
    kernels, height, width = maps.shape
    bright = max(float(np.percentile(maps, BRIGHT)), 1e-12)
    grey = np.clip(255 * maps / bright, 0, 255).astype(np.uint8)
    times = max(1, round(LEAST / width))
    grey = grey.repeat(times, axis=1).repeat(times, axis=2)
    least = math.ceil(math.sqrt(1.5 * kernels))
    across = min(range(least, 2 * least), key=lambda wide: -kernels % wide)  # that leaves the fewest places empty
    down = math.ceil(kernels / across)
    sheet = np.full((down * (height * times + GAP) - GAP, across * (width * times + GAP) - GAP), 128, np.uint8)
    for i, one in enumerate(grey):
        top, left = i // across * (height * times + GAP), i % across * (width * times + GAP)
        sheet[top : top + one.shape[0], left : left + one.shape[1]] = one
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()
