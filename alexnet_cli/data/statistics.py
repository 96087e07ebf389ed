"""Mean image and colour PCA of the training split (§2, §4.1), accumulated exactly in the pass that packs the images."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.artefacts import atomic_write
from alexnet_cli.errors import BadArtefact

FILE = "statistics.safetensors"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What training and the network need to know of the training images; all in 0-255 units."""

    mean_image: np.ndarray  # (S, S, 3) float32, RGB
    mean_colour: np.ndarray  # (3,) float32, RGB
    eigenvalues: np.ndarray  # (3,) float32, of the RGB covariance over all pixels, largest first
    eigenvectors: np.ndarray  # (3, 3) float32; column i belongs to eigenvalue i

    def save(self, folder: Path) -> None:
        """Write `statistics.safetensors` into ``folder``."""
        from safetensors.numpy import save_file

        with atomic_write(folder / FILE) as temporary:
            save_file(asdict(self), temporary)

    @classmethod
    def load(cls, folder: Path) -> "Statistics":
        """Raises BadArtefact if the file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return cls(**load_file(folder / FILE))
        except (OSError, SafetensorError, TypeError) as error:
            raise BadArtefact(f"{folder / FILE} is missing or damaged ({error}): prep the dataset again") from None


@dataclass(kw_only=True)
class Sums:
    """Sums over images, exact: integers below 2^53 in float64, so that their order does not matter."""

    images: int
    pixels: np.ndarray  # (S, S, 3) float64, sum of the images
    products: np.ndarray  # (3, 3) float64, sum over all pixels of the outer products of their colours

    @classmethod
    def none(cls, size: int) -> "Sums":
        """Of no images yet, of ``size`` pixels."""
        return cls(images=0, pixels=np.zeros((size, size, 3)), products=np.zeros((3, 3)))

    @classmethod
    def of(cls, images: np.ndarray) -> "Sums":
        """Of ``images`` (N, S, S, 3) uint8."""
        size = images.shape[1]
        sums = cls.none(size)
        # Sums over a row of up to 258 pixels are integers below 2^24, exact in float32, which is three times faster.
        exact = np.float32 if size * 255**2 < 2**24 else np.float64
        for start in range(0, len(images), 256):
            pixels = np.zeros(images.shape[1:], np.uint16)  # enough for 257 images
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
        """Take in the images of ``other``."""
        self.images += other.images
        self.pixels += other.pixels
        self.products += other.products

    def flat(self) -> np.ndarray:
        """(S*S*3 + 9,) float64, to keep on disk."""
        return np.concatenate([self.pixels.ravel(), self.products.ravel()])

    @classmethod
    def from_flat(cls, images: int, flat: np.ndarray) -> "Sums":
        """What `flat` gave, of ``images`` images."""
        size = round(((len(flat) - 9) / 3) ** 0.5)
        return cls(images=images, pixels=flat[:-9].reshape(size, size, 3), products=flat[-9:].reshape(3, 3))

    def statistics(self) -> Statistics:
        """Of all images taken in."""
        count = self.images * self.pixels.shape[0] * self.pixels.shape[1]
        mean = self.pixels.sum(axis=(0, 1)) / count
        values, vectors = np.linalg.eigh(self.products / count - np.outer(mean, mean))
        values, vectors = values[::-1], vectors[:, ::-1]  # largest first
        vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)  # a sign is arbitrary: choose one
        return Statistics(
            mean_image=(self.pixels / self.images).astype(np.float32),
            mean_colour=mean.astype(np.float32),
            eigenvalues=np.maximum(values, 0).astype(np.float32),
            eigenvectors=np.ascontiguousarray(vectors, dtype=np.float32),
        )
