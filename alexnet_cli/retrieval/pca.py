"""Principal component analysis of the vectors of an index."""

import numpy as np

from alexnet_cli.retrieval.vectors import Vectors


def principal_components(vectors: Vectors, sample: np.ndarray, most: int) -> np.ndarray:
    """The coordinates of all ``vectors`` on the first axes of ``sample`` (n, D): (N, C) float32, C at most ``most``.

    Distances between them are never longer than those between the vectors. Raises BadArtefact if these are damaged.
    """
    mean = sample.mean(axis=0)
    axes = np.linalg.svd(sample - mean, full_matrices=False)[2][:most]  # (C, D), orthonormal
    components = np.empty((vectors.count, len(axes)), np.float32)
    for first, chunk in vectors.chunks():
        np.matmul(chunk - mean, axes.T, out=components[first : first + len(chunk)])
    return components
