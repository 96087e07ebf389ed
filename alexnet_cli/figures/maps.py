"""The maps of a layer as one picture."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

LEAST, GAP = 48, 2  # pixels: the side of a map, which is enlarged by whole steps; and between maps
BRIGHT = 99.8  # percentile of the activations that is drawn white


class Sheet(NamedTuple):
    """How maps lie on the picture of `draw_maps`."""

    across: int  # maps in a row
    times: int  # pixels of the picture for one of a map
    gap: int  # pixels between two maps


def sheet_of(kernels: int, width: int) -> Sheet:
    """How the maps of a layer lie on their picture: as few places as possible stay empty."""
    least = math.ceil(math.sqrt(1.5 * kernels))
    across = min(range(least, 2 * least), key=lambda wide: -kernels % wide)
    return Sheet(across, max(1, round(LEAST / width)), GAP)


def draw_maps(maps: np.ndarray) -> bytes:
    """A PNG of ``maps`` (kernels, h, w) float32, in rows; black is 0, and all have one scale."""
    kernels, height, width = maps.shape
    across, times, gap = sheet_of(kernels, width)
    bright = max(float(np.percentile(maps, BRIGHT)), 1e-12)
    grey = np.clip(255 * maps / bright, 0, 255).astype(np.uint8)
    grey = grey.repeat(times, axis=1).repeat(times, axis=2)
    down = math.ceil(kernels / across)
    sheet = np.full((down * (height * times + gap) - gap, across * (width * times + gap) - gap), 128, np.uint8)
    for i, one in enumerate(grey):
        top, left = i // across * (height * times + gap), i % across * (width * times + gap)
        sheet[top : top + one.shape[0], left : left + one.shape[1]] = one
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()
