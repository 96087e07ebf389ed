"""Which parts of a picture a class depends on: a square hides one after the other (Zeiler and Fergus, 2014).

Imports no torch.
"""

from collections.abc import Sequence

import numpy as np

from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import centre_view

# 14 × 14 positions are 196 pictures: two seconds for the whole network at 100 pictures a second. In the paper's view of
# 224 pixels the square has 48, which hides a head or a wheel, and moves by 16, one position of conv5.
POSITIONS = 14  # in each direction
STEPS = 3  # the square's side


def hidden_rows(crop: int) -> list[slice]:
    """The rows of a view of ``crop`` pixels that the square hides at each position; the columns are the same.

    Its centres are ``crop / POSITIONS`` apart, the first half of that from the edge. At the edges a part of it lies
    outside of the view.
    """
    centres = (np.arange(POSITIONS) + 0.5) * crop / POSITIONS
    half = STEPS / 2 * crop / POSITIONS
    starts, stops = (np.clip(np.round(ends).astype(int), 0, crop) for ends in (centres - half, centres + half))
    return [slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def hide(
    image: np.ndarray, mean_image: np.ndarray, crop: int, standardized: Sequence[float] | None = None
) -> np.ndarray:
    """``image`` (S, S, 3) uint8 with the square at each position of its central view, row by row: (N, S, S, 3) uint8.

    The network's input in the square is 0, apart from rounding to whole grey levels. What it subtracts is the mean
    image, so the square is a piece of ``mean_image`` (S, S, 3), 0-255; or, if its views are ``standardized``, the mean
    of the view, so the square is as light as the rest of the view is on average. ``standardized``: how much of red,
    green and blue is in what that mean is of.
    """
    mean, view, rows = np.round(mean_image).astype(np.uint8), centre_view(len(image), crop), hidden_rows(crop)
    pictures = np.repeat(image[None], len(rows) ** 2, axis=0)
    for i, picture in enumerate(pictures):
        row, column = rows[i // len(rows)], rows[i % len(rows)]
        square = np.ix_(view.rows[row], view.columns[column])
        if standardized is None:
            picture[square] = mean[square]
        else:
            rest = np.ones((crop, crop), bool)
            rest[row, column] = False
            picture[square] = round(float(image[np.ix_(*view)][rest].mean(axis=0) @ standardized))
    return pictures


def occlusion(
    predictor: Predictor,
    image: np.ndarray,
    mean_image: np.ndarray,
    number: int,
    standardized: Sequence[float] | None = None,
) -> np.ndarray:
    """The probability of class ``number`` with the square at each position: (POSITIONS, POSITIONS) float32, 0 to 1.

    ``image`` (S, S, 3) uint8; ``mean_image``, ``standardized``: as in `hide`.
    """
    probabilities, _ = predictor.run(hide(image, mean_image, predictor.crop, standardized))
    return np.asarray(probabilities[:, number].reshape(POSITIONS, POSITIONS))
