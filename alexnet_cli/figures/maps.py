"""The maps of a layer as one picture."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from alexnet_cli.figures.mosaic import mosaic

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


def zero_of(maps: np.ndarray) -> int:
    """The grey of 0 on the picture of `draw_maps`: black, or middle grey if some of ``maps`` are negative."""
    return 128 if (maps < 0).any() else 0


def draw_maps(maps: np.ndarray) -> bytes:
    """A PNG of ``maps`` (kernels, h, w) float32, in rows, all on one scale: 0 is `zero_of`, the strongest are white."""
    kernels, _, width = maps.shape
    across, times, gap = sheet_of(kernels, width)
    bright, zero = max(float(np.percentile(np.abs(maps), BRIGHT)), 1e-12), zero_of(maps)
    grey = np.clip(zero + (255 - zero) * maps / bright, 0, 255).astype(np.uint8)
    sheet = mosaic(grey.repeat(times, axis=1).repeat(times, axis=2), across, gap=gap, background=128)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()
