"""Top-1 and top-5 error over one or ten views (§4.1), of one model or of several whose predictions are averaged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import BadArtefact
from alexnet_cli.inference.predictor import BATCH, Predictor
from alexnet_cli.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Errors as fractions, with their 95 % confidence intervals."""

    images: int
    top1: float
    top5: float
    top1_ci95: tuple[float, float]
    top5_ci95: tuple[float, float]


def evaluate(
    models: Sequence[Predictor],
    dataset: Dataset,
    split: str = "val",
    *,
    views: int = 10,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """Errors of the averaged probabilities of ``models`` over ``views`` (1 or 10) views of every image of the split.

    Each process of the ``world`` evaluates a part of the images, and all return the errors over all images.

    Raises BadArtefact if a model's classes or image size are not the dataset's, or if the split is missing.
    """
    for model in models:
        check_fit(model, dataset)
    images = dataset.split(split)
    top1, top5 = count_errors(models, images, views=views, progress=progress, world=world)
    total = len(images)
    return Evaluation(
        images=total,
        top1=top1 / total,
        top5=top5 / total,
        top1_ci95=interval(top1, total),
        top5_ci95=interval(top5, total),
    )


def check_fit(model: Predictor, dataset: Dataset) -> None:
    """Raises BadArtefact if the model's classes or image size are not the dataset's."""
    if model.classes != dataset.classes:
        raise BadArtefact(
            f"the model knows {len(model.classes)} classes ({', '.join(model.classes[:3])} ...), "
            f"dataset {dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])} ...): "
            "evaluate on a dataset with the model's classes"
        )
    if model.image_size != dataset.image_size:
        raise BadArtefact(
            f"the model takes pictures of {model.image_size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep it with --size {model.image_size}"
        )


def count_errors(
    models: Sequence[Predictor],
    split: Split,
    *,
    views: int,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> tuple[int, int]:
    """In how many images the label is not the most probable class, and in how many it is not among the five most
    probable. Every image counts once, whatever the number of processes."""
    top1 = top5 = counted = 0
    mine = np.arange(len(split))[world.shard(len(split))]
    for start in range(0, len(mine), BATCH):
        positions = mine[start : start + BATCH]
        probabilities = average_probabilities(models, split.read(positions), views=views)
        ranks = label_ranks(probabilities, split.labels[positions])
        top1, top5 = top1 + int((ranks >= 1).sum()), top5 + int((ranks >= 5).sum())
        counted += len(positions)
        progress.advance("evaluating", counted, len(mine), f"top-1 error {top1 / counted:.1%}")
    all_top1, all_top5, all_counted = world.all_reduce(top1, top5, counted)
    assert all_counted == len(split)
    return int(all_top1), int(all_top5)


def average_probabilities(models: Sequence[Predictor], images: np.ndarray, *, views: int) -> np.ndarray:
    """Mean over ``views`` (1 or 10) views and all ``models``: images (B, S, S, 3) uint8 to (B, classes) float64."""
    return np.asarray(np.mean([model.average(images, views) for model in models], axis=0, dtype=np.float64))


def label_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many other classes are at least as probable as the label: (B, classes), (B,) to (B,); 0 is right."""
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return np.asarray((probabilities >= of_label).sum(axis=1) - 1)


def interval(errors: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of the proportion ``errors`` / ``total``, as fractions."""
    z, p = 1.959963984540054, errors / total
    middle, spread = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    return (max(0.0, (middle - spread) / (1 + z * z / total)), min(1.0, (middle + spread) / (1 + z * z / total)))
