"""Top-1 and top-5 error over one or ten views (§4.1), of one model or of several whose predictions are averaged."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import BadArtefact, abbreviate
from alexnet_cli.inference.predictor import BATCH, Predictor
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import counted
from alexnet_cli.wordnet import class_names

TOP = 5  # the classes that are kept of each image, and the five of the top-5 error


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Errors as fractions, with their 95 % confidence intervals."""

    images: int
    views: int  # of each image
    top1: float
    top5: float
    top1_ci95: tuple[float, float]
    top5_ci95: tuple[float, float]

    @classmethod
    def of(cls, ranks: np.ndarray, views: int = 1) -> "Evaluation":
        """The errors of images whose `label_ranks`, over ``views`` views, are ``ranks``, (N,)."""
        total, top1, top5 = len(ranks), int((ranks >= 1).sum()), int((ranks >= TOP).sum())
        return cls(
            images=total,
            views=views,
            top1=top1 / total,
            top5=top5 / total,
            top1_ci95=interval(top1, total),
            top5_ci95=interval(top5, total),
        )

    def as_json(self) -> dict[str, Any]:
        """As `alexnet eval --json` prints it."""
        return {
            "views": self.views,
            "images": self.images,
            "top1_error": self.top1,
            "top5_error": self.top5,
            "top1_error_ci95": list(self.top1_ci95),
            "top5_error_ci95": list(self.top5_ci95),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the models say of each of the N images of a split: T most probable classes, and where its label stands.

    T is TOP, or the number of classes if that is less. Where classes are equally probable, the label stands last.
    """

    best: np.ndarray  # (N, T) int64, classes, most probable first
    probabilities: np.ndarray  # (N, T) float64, theirs
    ranks: np.ndarray  # (N,) int64, how many other classes are at least as probable as the label: 0 is right
    of_label: np.ndarray  # (N,) float64, the label's probability
    views: int  # of each image

    def evaluation(self) -> Evaluation:
        """The errors."""
        return Evaluation.of(self.ranks, self.views)


def evaluate(
    models: Sequence[Predictor],
    dataset: Dataset,
    split: str = "val",
    *,
    views: int | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """The errors of `score`."""
    return score(models, dataset, split, views=views, progress=progress, world=world).evaluation()


def score(
    models: Sequence[Predictor],
    dataset: Dataset,
    split: str = "val",
    *,
    views: int | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Scores:
    """The averaged predictions of ``models`` over ``views`` (1 or 10) views of every image of the split.

    With None they are ten (§4.1), or one if a model was trained on no mirrored images.
    Each process of the ``world`` evaluates a part of the images, and all return the scores of all images.

    Raises BadArtefact if a model's classes or image size are not the dataset's, or if the split is missing.
    """
    for model in models:
        check_fit(model, dataset)
    views = min(model.views for model in models) if views is None else views
    images, top = dataset.split(split), min(TOP, len(dataset.classes))
    rows = np.zeros((len(images), 2 * top + 2))  # float64 holds classes and ranks exactly, and ranks add them up
    for positions, probabilities in _probabilities(models, images, views, progress, world):
        labels = images.labels[positions]
        is_label = np.arange(len(dataset.classes)) == labels[:, None]
        best = np.lexsort((is_label, -probabilities))[:, :top]
        ranks = label_ranks(probabilities, labels)
        of_best, of_label = (np.take_along_axis(probabilities, i, axis=1) for i in (best, labels[:, None]))
        rows[positions] = np.column_stack([best, of_best, ranks, of_label])
    if world.size > 1:
        rows = np.array(world.all_reduce(*rows.ravel().tolist())).reshape(rows.shape)
    return Scores(
        best=rows[:, :top].astype(np.int64),
        probabilities=rows[:, top:-2],
        ranks=rows[:, -2].astype(np.int64),
        of_label=rows[:, -1],
        views=views,
    )


def check_fit(model: Predictor, dataset: Dataset) -> None:
    """Raises BadArtefact if the model's classes or image size are not the dataset's."""
    if model.classes != dataset.classes:
        raise BadArtefact(
            f"{_difference(model.classes, dataset)}: evaluate on a dataset with the model's "
            f"{counted(len(model.classes), 'class')}"
        )
    if model.image_size != dataset.image_size:
        raise BadArtefact(
            f"the model takes pictures of {model.image_size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep it with --size {model.image_size}"
        )


def _difference(classes: Sequence[str], dataset: Dataset) -> str:
    """How the ``classes`` of a model are not those of ``dataset``, in words."""
    own = set(dataset.classes)
    unknown = class_names(sorted(own - set(classes)), dataset.words)
    absent = class_names(sorted(set(classes) - own), {})
    if not unknown and not absent:
        return f"dataset {dataset.name} has the model's classes in another order"
    if not unknown:
        return f"dataset {dataset.name} does not have {abbreviate(absent)}"
    does_not_have = f", which does not have {abbreviate(absent)}" if absent else ""
    return f"the model does not know {abbreviate(unknown)} of dataset {dataset.name}{does_not_have}"


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
    for positions, probabilities in _probabilities(models, split, views, progress, world):
        ranks = label_ranks(probabilities, split.labels[positions])
        top1, top5 = top1 + int((ranks >= 1).sum()), top5 + int((ranks >= TOP).sum())
        counted += len(positions)
    all_top1, all_top5, all_counted = world.all_reduce(top1, top5, counted)
    assert all_counted == len(split)
    return int(all_top1), int(all_top5)


def _probabilities(
    models: Sequence[Predictor], split: Split, views: int, progress: Progress, world: World
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (B,) in the split and `average_probabilities` (B, classes) of this process's share, in batches."""
    wrong, mine = 0, np.arange(len(split))[world.shard(len(split))]
    for start in range(0, len(mine), BATCH):
        positions = mine[start : start + BATCH]
        probabilities = average_probabilities(models, split.read(positions), views=views)
        wrong += int((label_ranks(probabilities, split.labels[positions]) >= 1).sum())
        counted = start + len(positions)
        progress.advance("evaluating", counted, len(mine), f"top-1 error {wrong / counted:.1%}")
        yield positions, probabilities


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
