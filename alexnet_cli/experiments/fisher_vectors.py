"""Fisher vectors of dense SIFT, as in the runner-up of 2011 and 2012 (Sánchez and Perronnin, CVPR 2011).

As there: PCA to 64 dimensions, a mixture of Gaussians with diagonal covariances, one vector for the whole picture and
one for each of three horizontal stripes, power and L2 normalization of each. They had up to 1,024 Gaussians, and
averaged the scores with those of a second classifier, over Fisher vectors of colour statistics.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from alexnet_cli.experiments import dense_sift
from alexnet_cli.experiments.encoding import Descriptors, Encoder, unit

if TYPE_CHECKING:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

COMPONENTS, GAUSSIANS, STRIPES = 64, 64, 3
ITERATIONS, LEAST_VARIANCE = 50, 1e-4  # of expectation maximization; descriptors have length 1


@dataclass(frozen=True, kw_only=True, eq=False)
class FisherVectors(Encoder):
    """Dense SIFT to the Fisher vectors of a picture and of its stripes."""

    pca: "PCA"
    mixture: "GaussianMixture"

    settings = (
        f"SIFT of {dense_sift.PATCH}-pixel patches every {dense_sift.STEP} pixels at {dense_sift.SCALES} scales, PCA "
        f"to {COMPONENTS}, {GAUSSIANS} Gaussians, the whole picture and {STRIPES} stripes"
    )
    namespaces = (globals(), vars(dense_sift))
    min_descriptors = 10 * GAUSSIANS  # each Gaussian has 2 x 64 parameters of its own
    describe = staticmethod(dense_sift.dense_sift)

    @classmethod
    def fit(cls, sample: np.ndarray) -> Self:
        from skimage.feature import learn_gmm
        from sklearn.decomposition import PCA

        scaled = sample.astype(np.float64) / dense_sift.LENGTH
        pca = PCA(COMPONENTS, random_state=0).fit(scaled)
        # Flat patches are all alike: without a floor the variances of a Gaussian that takes them would be zero.
        arguments = {
            "covariance_type": "diag",
            "max_iter": ITERATIONS,
            "reg_covar": LEAST_VARIANCE,
            "random_state": 0,
        }
        return cls(pca=pca, mixture=learn_gmm(pca.transform(scaled), n_modes=GAUSSIANS, gm_args=arguments))

    def encode(self, descriptors: Descriptors) -> np.ndarray:
        """(1 + STRIPES) vectors of length 1, each of (1 + 2 · COMPONENTS) GAUSSIANS values, one after the other."""
        from skimage.feature import fisher_vector

        values = self.pca.transform(descriptors.values.astype(np.float64) / dense_sift.LENGTH)
        regions = np.zeros((1 + STRIPES, len(self.mixture.weights_) + 2 * self.mixture.means_.size))
        for region, stripe in enumerate(descriptors.cells(1, STRIPES), 1):
            if len(stripe):
                regions[region] = fisher_vector(values[stripe], self.mixture)
                # It is a mean over patches, so that of the whole picture is the mean of the stripes'.
                regions[0] += len(stripe) / len(values) * regions[region]
        return np.concatenate([unit(power(region)) for region in regions]).astype(np.float32)


def power(vector: np.ndarray) -> np.ndarray:
    """The square root of each value, with the value's sign: power normalization."""
    return np.asarray(np.sign(vector) * np.sqrt(np.abs(vector)))
