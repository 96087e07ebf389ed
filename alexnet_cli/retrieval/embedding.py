"""Features of the pictures that are new to an index, in parts that are either complete on disk or not there.

Until the index is written, the parts are what has been done: a run that was stopped resumes from them, and each rank
hands over its share in them. A part's name is a digest of its pictures and the model, so no part is taken for another.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_cli.distributed import World
from alexnet_cli.errors import Interrupted
from alexnet_cli.files import read_tensors, write_tensors
from alexnet_cli.inference.predictor import BATCH, Predictor
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval.collection import Collection, IndexedPicture, loaded_batches

PICTURES = 1024  # in a part: 16 MB of fc7; a killed run loses at most this much
PARTS = "part-*.safetensors"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the new pictures, in order."""

    file: Path
    pictures: Sequence[IndexedPicture]

    @property
    def is_complete(self) -> bool:
        """Whether its features are on disk."""
        return self.file.exists()

    def save(self, features: np.ndarray, reasons: list[str | None]) -> None:
        """Write ``features`` (n, D) float32 of the pictures that have no entry in ``reasons``; the others have none."""
        write_tensors(self.file, {"features": features}, {"reasons": json.dumps(reasons)})

    def read(self) -> tuple[list[IndexedPicture], np.ndarray, list[tuple[IndexedPicture, str]]]:
        """The pictures that have features, these (n, D) float32, and the other pictures, each with the reason.

        Raises BadArtefact if the file is damaged.
        """
        metadata, tensors = read_tensors(self.file, what="part of an index")
        features, reasons = tensors["features"], json.loads(metadata["reasons"])
        pairs = list(zip(self.pictures, reasons, strict=True))
        embedded = [picture for picture, reason in pairs if reason is None]
        return embedded, features, [(picture, reason) for picture, reason in pairs if reason is not None]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What `embed` has done."""

    parts: list[Part]  # those that are complete
    stopped: bool  # by KeyboardInterrupt
    images_per_second: float  # of all ranks


def parts_of(pictures: Sequence[IndexedPicture], model: Predictor, folder: Path) -> list[Part]:
    """``pictures`` in parts, whose files are in ``folder`` if they are complete."""
    return [_part(folder, pictures[start : start + PICTURES], model) for start in range(0, len(pictures), PICTURES)]


def embed(
    parts: Sequence[Part],
    collection: Collection,
    model: Predictor,
    *,
    progress: Progress,
    world: World,
) -> Embedded:
    """Embed the pictures of ``parts``, except the parts that an earlier run has completed; each rank its share.

    A single process that is stopped by KeyboardInterrupt returns what it has; a rank among others raises Interrupted.
    """
    parts = list(parts)
    pending = [part for part in parts if not part.is_complete]
    if len(pending) < len(parts):
        total = sum(len(part.pictures) for part in parts)
        done = total - sum(len(part.pictures) for part in pending)
        progress.note(f"resuming: {done:,} of {total:,} pictures are already embedded")
    world.barrier()  # every rank lists the work before any rank starts
    mine, began, count = pending[world.rank :: world.size], time.monotonic(), 0
    total, stopped = sum(len(part.pictures) for part in mine), False
    for part in mine:
        saved, stopped = _embed_part(part, collection, model, partial(_report, progress, count, total))
        count += len(saved.pictures)
        if stopped and world.size > 1:
            raise Interrupted(
                f"stopped; the features of every {PICTURES:,} pictures are saved: run the same command to resume"
            )
        if stopped:
            parts[parts.index(part)] = saved
            break
    (everywhere,) = world.all_reduce(count)
    return Embedded(
        parts=[part for part in parts if part.is_complete],
        stopped=stopped,
        images_per_second=everywhere / max(time.monotonic() - began, 1e-9),
    )


def embed_again(part: Part, collection: Collection, model: Predictor, progress: Progress) -> Part:
    """Embed ``part``, whose file is damaged, once more. Raises Interrupted if KeyboardInterrupt stops it."""
    progress.note(f"{part.file.name} is damaged: embedding its {len(part.pictures):,} pictures again")
    part.file.unlink()
    saved, stopped = _embed_part(part, collection, model, lambda count: None)
    if stopped:
        raise Interrupted("stopped; run the same command to resume")
    return saved


def remove_parts(folder: Path, keep: Sequence[Part] = ()) -> None:
    """Remove all parts but those to ``keep``."""
    kept = {part.file for part in keep}
    for file in folder.glob(PARTS):
        if file not in kept:
            file.unlink()


def _report(progress: Progress, before: int, total: int, count: int) -> None:
    progress.advance("embedding", before + count, total)


def _embed_part(
    part: Part, collection: Collection, model: Predictor, report: Callable[[int], None]
) -> tuple[Part, bool]:
    """Embed and save a part. If KeyboardInterrupt stops it, it saves and returns the part that was done by then.

    ``report`` gets the number of pictures done. Returns the part, and whether it was stopped.
    """
    done = [(np.empty((0, model.feature_size), np.float32), list[str | None]())]  # features, and reasons for none
    stopped = False
    try:
        for _, loaded in loaded_batches(collection, part.pictures, BATCH, model.image_size):
            images = [pixels for pixels in loaded if isinstance(pixels, np.ndarray)]
            features = model.run(np.stack(images))[1] if images else done[0][0]
            done.append((features, [one if isinstance(one, str) else None for one in loaded]))
            report(sum(len(reasons) for _, reasons in done))
    except KeyboardInterrupt:
        stopped = True
    reasons = [reason for _, some in done for reason in some]
    saved = _part(part.file.parent, part.pictures[: len(reasons)], model)
    saved.save(np.concatenate([features for features, _ in done]), reasons)
    return saved, stopped


def _part(folder: Path, pictures: Sequence[IndexedPicture], model: Predictor) -> Part:
    """The part of ``pictures`` by ``model``."""
    lines = [[picture.name, picture.stamp] for picture in pictures]
    facts = [model.fingerprint, model.precision, model.image_size, lines]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Part(file=folder / PARTS.replace("*", digest), pictures=pictures)
