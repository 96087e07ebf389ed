"""The pictures an export needs: a few to check it on, and more to calibrate int8."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import MODEL_FILE, check_format, model_header
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.model import FORMAT

CHECKED_BATCHES = (1, 5)  # a graph with a fixed batch size fails at one of them
CALIBRATED_ON = 128  # training pictures that the ranges of int8 activations are taken from
CHECKED_ON = 64  # other pictures that int8 is checked on


def pictures_to_check(datasets: Iterable[Path], folder: Path) -> np.ndarray | None:
    """A few real pictures of the size the model in ``folder`` takes, from the first of ``datasets`` that has them."""
    size, _ = _image_size_and_classes(folder)
    for dataset in _readable(datasets):
        split = "val" if "val" in dataset.counts else "train"
        with suppress(BadArtefact):  # a damaged dataset does not keep others from being used
            if dataset.image_size == size:
                return _spread(dataset, split, np.arange(dataset.counts[split]), max(CHECKED_BATCHES))
    return None


def pictures_to_calibrate(datasets: Iterable[Path], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training pictures to calibrate the model in ``folder`` on, and other pictures to check it on: those of the
    validation split, or other training pictures.

    From the first of ``datasets`` that has the model's classes and size. Raises AlexNetError if none has.
    """
    wanted = _image_size_and_classes(folder)
    for dataset in _readable(datasets):
        if (dataset.image_size, dataset.classes) == wanted:
            rows, split = np.arange(dataset.counts["train"]), "val" if "val" in dataset.counts else "train"
            others = np.arange(dataset.counts["val"]) if split == "val" else rows[1::2]
            calibration = _spread(dataset, "train", rows[::2], CALIBRATED_ON)
            return calibration, _spread(dataset, split, others, CHECKED_ON)
    raise AlexNetError(
        f"int8 takes its ranges from training pictures, and no dataset here has the classes of {folder}: "
        "`alexnet prep` the pictures it was trained on"
    )


def synthetic_pictures(size: int) -> np.ndarray:
    """Smooth coloured noise, the same every time: enough for a check, (5, size, size, 3) uint8."""
    small = torch.rand(max(CHECKED_BATCHES), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1)
    return np.ascontiguousarray((255 * large).byte().permute(0, 2, 3, 1).numpy())


def _image_size_and_classes(folder: Path) -> tuple[int, list[str]]:
    """Of the model in ``folder``. Raises BadArtefact."""
    header = model_header(folder)
    check_format(header.get("alexnet_format"), FORMAT, folder / MODEL_FILE)
    try:
        return recipes.loads(header["recipe"]).image.size, json.loads(header["classes"])
    except (AlexNetError, KeyError, ValueError) as error:
        path = folder / MODEL_FILE
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): train or fetch it again") from None


def _readable(datasets: Iterable[Path]) -> Iterator[Dataset]:
    """Those that can be opened."""
    for path in datasets:
        with suppress(BadArtefact):
            yield Dataset.open(path)


def _spread(dataset: Dataset, split: str, rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` pictures (count, S, S, 3) uint8, spread evenly over ``rows`` of the split; if need be some twice."""
    return dataset.split(split).read(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
