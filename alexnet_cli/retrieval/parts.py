"""fc7 of the pictures that are new to an index: in parts, each whole on disk or not there.

Until the index is written they are what was done so far: a run that was stopped goes on from them, and the processes of
a team hand their share over by them. A part's name follows from its pictures and the model, so that none is taken for
another.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.artefacts import atomic_write
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import BATCH
from alexnet_cli.retrieval.collection import Collection, Picture, batches

PICTURES = 1024  # in a part: 16 MB of vectors, and what a run that is killed loses at most
ALL = "part-*.safetensors"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the new pictures, in their order."""

    file: Path
    pictures: Sequence[Picture]

    @property
    def is_done(self) -> bool:
        return self.file.exists()

    def embed(self, pictures: Collection, runtime: OnnxModel, tell: Callable[[int], None]) -> tuple["Part", bool]:
        """Embed them and save the part; ``tell`` is told how many are done.

        Returns the part and whether KeyboardInterrupt stopped it: then it is the part that was done by then.
        """
        # vectors, and why there are none
        done = [(np.empty((0, runtime.feature_size), np.float32), list[str | None]())]
        stopped = False
        try:
            for _, loaded in batches(pictures, self.pictures, BATCH, runtime.image_size):
                good = [pixels for pixels in loaded if isinstance(pixels, np.ndarray)]
                vectors = runtime.run(np.stack(good))[1] if good else done[0][0]
                done.append((vectors, [one if isinstance(one, str) else None for one in loaded]))
                tell(sum(len(reasons) for _, reasons in done))
        except KeyboardInterrupt:
            stopped = True
        reasons = [reason for _, few in done for reason in few]
        part = part_of(self.file.parent, self.pictures[: len(reasons)], runtime)
        part.save(np.concatenate([vectors for vectors, _ in done]), reasons)
        return part, stopped

    def save(self, vectors: np.ndarray, reasons: list[str | None]) -> None:
        """``vectors`` (n, D) float32 of those pictures that have no reason to have none."""
        from safetensors.numpy import save_file

        with atomic_write(self.file) as temporary:
            save_file({"fc7": vectors}, temporary, {"reasons": json.dumps(reasons)})

    def read(self) -> tuple[list[Picture], np.ndarray, list[tuple[Picture, str]]]:
        """The pictures that have vectors, those (n, D) float32, and the other pictures with the reason."""
        from safetensors import safe_open

        with safe_open(self.file, framework="numpy") as file:
            vectors, reasons = file.get_tensor("fc7"), json.loads(file.metadata()["reasons"])
        both = list(zip(self.pictures, reasons, strict=True))
        good = [picture for picture, reason in both if reason is None]
        return good, vectors, [(picture, reason) for picture, reason in both if reason is not None]


def part_of(folder: Path, pictures: Sequence[Picture], runtime: OnnxModel) -> Part:
    """The part of ``folder`` that is ``pictures`` by the model of ``runtime``."""
    lines = [[one.name, one.stamp] for one in pictures]
    facts = [runtime.fingerprint, runtime.precision, runtime.image_size, lines]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Part(file=folder / ALL.replace("*", key), pictures=pictures)


def parts_of(folder: Path, pictures: Sequence[Picture], runtime: OnnxModel) -> list[Part]:
    """All of ``pictures``, cut into parts."""
    return [part_of(folder, pictures[start : start + PICTURES], runtime) for start in range(0, len(pictures), PICTURES)]


def clear(folder: Path) -> None:
    """Remove all parts, and what of them was half written."""
    for stale in [*folder.glob(ALL), *folder.glob(f".{ALL}")]:
        stale.unlink()
