"""scikit-learn's digits, which come in its wheel: 1,797 of 8×8 pixels, the test set of UCI's optdigits."""

import numpy as np
from PIL import Image

from alexnet_cli.data.layouts.bare import BarePictures
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.sources import DIGITS, Source

SIDE = 32  # pixels of a picture; the digit has 20×20 of them, as in LeNet-5's input
CELLS, ENLARGED = 12, 30  # 8 cells with a border of 2, so that strokes at the edge fade; 2.5 pixels for each
CLASSES = [str(digit) for digit in range(10)]
# The labels show 14 blocks of some 130 digits, each of which begins 0 1 2 ... 9, three times over: what one person
# wrote. The first ten are for training, so that who wrote a validation digit did not write most others.
TRAINING = 1287
NOTE = (
    "scikit-learn's digits of 8×8 pixels, enlarged to 20×20 (bicubic) within 32×32 that are black; "
    f"the first {TRAINING:,} are for training, the others, by other writers, for validation"
)


def digits(source: Source) -> Listing | None:
    """A layout: scikit-learn's digits, enlarged. None for any other source."""
    if source.bundled != DIGITS:
        return None
    from sklearn.datasets import load_digits

    bunch = load_digits()
    held = BarePictures(source)
    for row, (values, digit) in enumerate(zip(bunch.images, bunch.target.tolist(), strict=True)):
        held.add(f"{row:04d}.pgm", "train" if row < TRAINING else "val", digit, enlarged(values))
    return held.listing("digits", CLASSES, SIDE, [NOTE])


def enlarged(values: np.ndarray) -> np.ndarray:
    """A digit (8, 8) of 0 to 16 as a picture (32, 32) uint8, white on black."""
    cells = np.pad(np.rint(values * (255 / 16)).astype(np.uint8), (CELLS - len(values)) // 2)
    pixels = Image.fromarray(cells).resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(pixels), (SIDE - ENLARGED) // 2)
