"""Mean image (§2) and colour PCA (§4.1) of the training split, from exact sums made while the images are packed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from alexnet_cli.artefacts import STATISTICS_FILE
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import read_tensors, write_tensors


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of the training images, in units of pixel values (0 to 255)."""

    mean_image: np.ndarray  # (S, S, 3) float32, RGB
    mean_colour: np.ndarray  # (3,) float32, RGB
    eigenvalues: np.ndarray  # (3,) float32, of the covariance of RGB over all pixels, in descending order
    eigenvectors: np.ndarray  # (3, 3) float32; column i belongs to eigenvalue i

    def mean(self, of: Literal["image", "colour"]) -> np.ndarray:
        """What is subtracted from a picture: the mean image (§2), or one of its size in the mean colour. (S, S, 3)."""
        return self.mean_image if of == "image" else np.tile(self.mean_colour, (*self.mean_image.shape[:2], 1))

    def save(self, folder: Path) -> None:
        """Write the statistics file of the dataset in ``folder``."""
        write_tensors(folder / STATISTICS_FILE, asdict(self), {})

    @classmethod
    def load(cls, folder: Path) -> "Statistics":
        """Read the statistics file of the dataset in ``folder``. Raises BadArtefact if it is missing or damaged."""
        _, tensors = read_tensors(folder / STATISTICS_FILE, what="dataset")
        try:
            return cls(**tensors)
        except TypeError as error:
            raise BadArtefact(f"{folder / STATISTICS_FILE} is damaged ({error}): prep the dataset again") from None


@dataclass(kw_only=True)
class Sums:
    """Sums over images. They are exact, integers below 2^53 in float64, so the order of addition does not matter."""

    images: int
    pixels: np.ndarray  # (S, S, 3) float64, sum of the images
    products: np.ndarray  # (3, 3) float64, sum over all pixels of the outer products of their colours

    @classmethod
    def zeros(cls, size: int) -> "Sums":
        """The sums of no images, for images of ``size`` × ``size`` pixels."""
        return cls(images=0, pixels=np.zeros((size, size, 3)), products=np.zeros((3, 3)))

    @classmethod
    def from_images(cls, images: np.ndarray) -> "Sums":
        """The sums of ``images`` (N, S, S, 3) uint8."""
        size = images.shape[1]
        sums = cls.zeros(size)
        # Up to 258 pixels wide, the sum over a row is below 2^24 and so exact in float32, which is three times faster.
        exact = np.float32 if size * 255**2 < 2**24 else np.float64
        for start in range(0, len(images), 256):
            pixels = np.zeros(images.shape[1:], np.uint16)  # holds the sum of up to 257 images
            for image in images[start : start + 256]:
                pixels += image
                planes = image.reshape(-1, 3).T.astype(exact, order="C").reshape(3, size, size)
                for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
                    sums.products[i, j] += np.einsum("rc,rc->r", planes[i], planes[j]).sum(dtype=np.float64)
            sums.pixels += pixels
        sums.products = np.triu(sums.products) + np.triu(sums.products, 1).T
        sums.images = len(images)
        return sums

    def add(self, other: "Sums") -> None:
        """Add the sums of other images to these."""
        self.images += other.images
        self.pixels += other.pixels
        self.products += other.products

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Pixels and products as arrays for a file. Only for up to 257 images, whose sum fits 16 bits."""
        return {"pixels": self.pixels.astype(np.uint16), "products": self.products}

    @classmethod
    def from_tensors(cls, images: int, tensors: Mapping[str, np.ndarray]) -> "Sums":
        """The sums of ``images`` images from their `to_tensors`."""
        return cls(images=images, pixels=tensors["pixels"].astype(np.float64), products=tensors["products"])

    def statistics(self) -> Statistics:
        """The statistics of the images summed up."""
        count = self.images * self.pixels.shape[0] * self.pixels.shape[1]
        mean = self.pixels.sum(axis=(0, 1)) / count
        values, vectors = np.linalg.eigh(self.products / count - np.outer(mean, mean))
        values, vectors = values[::-1], vectors[:, ::-1]  # in descending order
        vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)  # their signs are arbitrary
        return Statistics(
            mean_image=(self.pixels / self.images).astype(np.float32),
            mean_colour=mean.astype(np.float32),
            eigenvalues=np.maximum(values, 0).astype(np.float32),
            eigenvectors=np.ascontiguousarray(vectors, dtype=np.float32),
        )
