"""Mean image and colour PCA of the training split (§2, §4.1), accumulated exactly in one pass."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What training and the network need to know of the training images; all in 0-255 units."""

    mean_image: np.ndarray  # (S, S, 3) float32, RGB
    mean_colour: np.ndarray  # (3,) float32, RGB
    eigenvalues: np.ndarray  # (3,) float32, of the RGB covariance over all pixels, largest first
    eigenvectors: np.ndarray  # (3, 3) float32; column i belongs to eigenvalue i
