"""CIFAR-10's own archive, `cifar-10-python.tar.gz`, read without letting its pickles run anything."""

import io
import pickle
from typing import Any

import numpy as np

from alexnet_cli.data.sources import Entry, File, Listing, Tar, with_validation
from alexnet_cli.errors import BadSource

SIDE = 32
BATCHES = {f"data_batch_{i}": "train" for i in range(1, 6)} | {"test_batch": "val"}
# All that pickled arrays of bytes need; anything else in a pickle is refused.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain types only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise BadSource(f"the archive's pickles ask for {module}.{name}: this is not CIFAR-10, and is not loaded")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def is_cifar10(tar: Tar) -> bool:
    """Whether the archive is CIFAR-10's."""
    return any(name.endswith("cifar-10-batches-py/data_batch_1") for name in tar.members)


class Cifar10:
    """CIFAR-10's images; a file's offset is its row in its batch."""

    def __init__(self, tar: Tar) -> None:
        self.tar = tar
        self._batches: dict[str, dict[bytes, Any]] = {}

    def files(self) -> list[File]:
        return [entry.file for entry in self.listing(0.0).entries]

    def folders(self) -> list[str]:
        return []

    def listing(self, val_fraction: float | None) -> Listing:
        classes = [word.decode() for word in self._load("batches.meta")[b"label_names"]]
        entries = []
        for batch, split in BATCHES.items():
            content = self._load(batch)
            for row, (label, name) in enumerate(zip(content[b"labels"], content[b"filenames"], strict=True)):
                file = File(name=f"{batch}/{classes[label]}/{name.decode()}", stamp="", offset=row)
                entries.append(Entry(split=split, label=int(label), file=file))
        return Listing(layout="cifar-10", classes=classes, entries=with_validation(entries, val_fraction))

    def read(self, file: File) -> bytes:
        """The image as a PPM: its pixels, unchanged, behind a header."""
        planes: np.ndarray = self._load(file.name.split("/")[0])[b"data"][file.offset]  # (3072,) uint8
        pixels = planes.reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels.tobytes()

    def _load(self, batch: str) -> dict[bytes, Any]:
        if batch not in self._batches:
            member = next((m for name, m in self.tar.members.items() if name.endswith(f"/{batch}")), None)
            content = self.tar.archive.extractfile(member) if member is not None else None
            if content is None:
                raise BadSource(f"the CIFAR-10 archive has no {batch}: fetch it again")
            try:
                self._batches[batch] = _Unpickler(io.BytesIO(content.read()), encoding="bytes").load()
            except (pickle.UnpicklingError, EOFError, OSError, ValueError, AttributeError) as error:
                raise BadSource(f"{batch} of the CIFAR-10 archive is damaged ({error}): fetch it again") from None
        return self._batches[batch]
