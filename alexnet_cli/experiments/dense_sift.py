"""Dense SIFT: descriptors of square patches on a grid, at several scales (Sánchez and Perronnin, CVPR 2011)."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.errors import AlexNetError
from alexnet_cli.experiments.encoding import Descriptors, grid

if TYPE_CHECKING:
    from cv2 import KeyPoint

PATCH, STEP, SCALES = 24, 8, 5  # pixels, pixels, and images: each has half the area of the one before
KEYPOINT = PATCH / 6  # OpenCV describes 4 x 4 cells, each 1.5 times as wide as the keypoint
LENGTH = 512  # L2 norm of a descriptor; flat patches give zeros


def dense_sift(image: np.ndarray) -> Descriptors:
    """SIFT of the grey ``image`` (S, S, 3) uint8, upright, of patches that lie wholly inside: 128 values, 0 to 255.

    Raises AlexNetError if there is no such patch.
    """
    import cv2

    grey, sift = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.SIFT.create()
    if len(grey) < PATCH:
        raise AlexNetError(f"pictures of {len(grey)} pixels are too small for dense SIFT: prep with --size {PATCH}")
    values, places = [], []
    for side in (side for side in sides(len(grey)) if side >= PATCH):
        scaled = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
        values.append(sift.compute(scaled, keypoints(side))[1])
        places.append(np.array([point.pt for point in keypoints(side)], np.float32) / side)
    return Descriptors(values=np.concatenate(values), places=np.concatenate(places))


def sides(size: int) -> list[int]:
    """The sides, in pixels, of a picture of ``size`` pixels at all scales."""
    return [round(size * 2 ** (-i / 2)) for i in range(SCALES)]


@functools.cache
def keypoints(side: int) -> "list[KeyPoint]":
    """The patches of an image of ``side`` pixels, row by row."""
    from cv2 import KeyPoint

    middles = (grid(side, PATCH, STEP) + PATCH / 2).tolist()
    return [KeyPoint(x, y, KEYPOINT, 0) for y in middles for x in middles]
