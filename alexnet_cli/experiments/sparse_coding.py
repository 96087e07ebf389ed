"""Sparse coding of patches with spatial max-pooling, as in the winner of ILSVRC-2010 and the methods it came from.

Codes, a spatial pyramid of their maxima and linear classifiers are those of Yang, Yu, Gong and Huang (CVPR 2009); that
patches are normalized and whitened, and that a code is a soft threshold instead of the lasso's solution, is from Coates
and Ng (ICML 2011), who find little difference. The winner averaged six models, with codes of HOG and LBP (Lin and
others, CVPR 2011).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from alexnet_cli.errors import AlexNetError
from alexnet_cli.experiments.encoding import Descriptors, Encoder, grid, unit

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

SIDE, PATCH, STEP = 128, 8, 4  # pixels: of the picture as it is coded, of its patches, and between them
VARIANCE = 10  # is added to a patch's, in squared grey levels, so that noise in flat patches stays small
COMPONENTS, ATOMS = 64, 512
PENALTY, THRESHOLD = 0.15, 0.25  # of the lasso that learns the dictionary; of the codes. Patches have length 1
PYRAMID = (1, 2, 4)  # cells across and down


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseCoding(Encoder):
    """Patches of a picture to the maxima of their codes in the cells of a pyramid."""

    whitening: "PCA"
    dictionary: np.ndarray  # (ATOMS, COMPONENTS) float32, rows of length 1

    settings = (
        f"normalized and whitened {PATCH}-pixel patches every {STEP} pixels of {SIDE}, {ATOMS} atoms, pyramid of "
        f"{', '.join(f'{cells}x{cells}' for cells in PYRAMID)}, threshold {THRESHOLD}"
    )
    namespaces = (globals(),)
    min_descriptors = 10 * ATOMS

    @staticmethod
    def describe(image: np.ndarray) -> Descriptors:
        """The patches of an ``image`` (S, S, 3) uint8, 3 · PATCH² values of mean 0."""
        import cv2

        if len(image) < PATCH:
            raise AlexNetError(f"pictures of {len(image)} pixels are too small: prep with --size {PATCH} or more")
        side = min(SIDE, len(image))
        scaled = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        starts = grid(side, PATCH, STEP)
        windows = np.lib.stride_tricks.sliding_window_view(scaled, (PATCH, PATCH), axis=(0, 1))  # (n, n, 3, P, P)
        patches = windows[np.ix_(starts, starts)].reshape(len(starts) ** 2, -1).astype(np.float32)
        patches -= patches.mean(axis=1, keepdims=True)
        patches /= np.sqrt(patches.var(axis=1, keepdims=True) + VARIANCE)
        y, x = np.meshgrid(starts + PATCH / 2, starts + PATCH / 2, indexing="ij")
        return Descriptors(values=patches, places=np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32) / side)

    @classmethod
    def fit(cls, sample: np.ndarray) -> Self:
        from sklearn.decomposition import PCA, MiniBatchDictionaryLearning

        whitening = PCA(COMPONENTS, whiten=True, random_state=0).fit(sample)
        learner = MiniBatchDictionaryLearning(
            ATOMS, alpha=PENALTY, batch_size=256, max_iter=1, fit_algorithm="cd", random_state=0
        )
        learner.fit(directions(whitening.transform(sample)).astype(np.float64))
        return cls(whitening=whitening, dictionary=learner.components_.astype(np.float32))

    def encode(self, descriptors: Descriptors) -> np.ndarray:
        """The maxima of the positive and negative parts of all codes, cell by cell, together of length 1."""
        from sklearn.decomposition import SparseCoder

        coder = SparseCoder(
            self.dictionary, transform_algorithm="threshold", transform_alpha=THRESHOLD, split_sign=True
        )
        codes = coder.transform(directions(self.whitening.transform(descriptors.values)))  # (N, 2 · ATOMS)
        cells = [cell for cells in PYRAMID for cell in descriptors.cells(cells, cells)]
        return unit(np.concatenate([codes[cell].max(axis=0, initial=0) for cell in cells]).astype(np.float32))


def directions(vectors: np.ndarray) -> np.ndarray:
    """Each of ``vectors`` (N, D) scaled to length 1; zeros stay."""
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))
