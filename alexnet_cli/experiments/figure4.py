"""Figure 4: predictions for eight test images, and the training images nearest to five others in fc7."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.experiments.report import Report, model_sentence
from alexnet_cli.files import atomic_write
from alexnet_cli.inference.evaluation import average_probabilities, check_fit
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import distances, shortened
from alexnet_cli.wordnet import class_names

SHOWN, BEST = 8, 5  # images that are classified, and classes shown for each
QUERIES, NEAREST = 5, 6  # query images, and neighbours shown for each
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Classified:
    """A test image and its most probable classes."""

    image: np.ndarray  # (S, S, 3) uint8
    label: str
    classes: list[str]  # most probable first
    probabilities: list[float]


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """A query and the training images nearest to it."""

    image: np.ndarray  # (S, S, 3) uint8
    label: str
    neighbours: list[np.ndarray]  # (S, S, 3) uint8 each, nearest first
    labels: list[str]  # of the neighbours
    distances: list[float]  # Euclidean, of fc7


def figure4(
    model: Path, dataset: Dataset, folder: Path, command: str, *, device: str = "cpu", progress: Progress = SILENT
) -> Report:
    """Draw `figure-4.png`: test images with their most probable classes, queries with their nearest training images.

    The images are spread evenly over the validation split, so they do not depend on the network's predictions.
    Probabilities are averaged over ten views. Raises BadArtefact if the dataset does not have the model's classes.
    """
    loaded = Model.load(model)
    network = NetworkModel.of(loaded, device)
    check_fit(network, dataset)
    test, train = dataset.split("val"), dataset.split("train")
    names = class_names(dataset.classes, dataset.words)
    classified = classify(network, test, names)
    retrieved = retrieve(network, test, train, names, progress)
    _draw(classified, retrieved, folder / "figure-4.png")
    rows = [
        [one.label, "right" if one.classes[0] == one.label else "wrong"]
        + [f"{name} {100 * p:.0f} %" for name, p in zip(one.classes, one.probabilities, strict=True)]
        for one in classified
    ]
    same_label = [sum(label == one.label for label in one.labels) for one in retrieved]
    report = Report(
        name="figure-4",
        title="Figure 4: predictions and neighbours",
        columns=["true label", "", *(f"{i}." for i in range(1, len(classified[0].classes) + 1))],
        rows=rows,
        note=f"{model_sentence(loaded, model)} The images are spread evenly over the {len(test):,} validation images "
        f"of dataset {dataset.name}; ten views. Of the {NEAREST} nearest of {len(train):,} training images, by "
        f"Euclidean distance of fc7, {', '.join(map(str, same_label))} have the label of the query.",
        command=command,
        facts={"neighbours": [{"label": r.label, "labels": r.labels, "distances": r.distances} for r in retrieved]},
        figures=["figure-4.png"],
    )
    report.write(folder, {loaded.recipe.name: loaded.recipe})
    return report


def classify(network: Predictor, test: Split, names: list[str]) -> list[Classified]:
    """The predictions of ``network`` for SHOWN images, spread evenly over ``test``."""
    positions = spread(len(test), SHOWN)
    images = test.read(positions)
    probabilities = average_probabilities([network], images, views=10)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
    return [
        Classified(
            image=image,
            label=names[test.labels[position]],
            classes=[names[i] for i in best],
            probabilities=[float(row[i]) for i in best],
        )
        for image, position, row, best in zip(images, positions, probabilities, order, strict=True)
    ]


def retrieve(
    network: Predictor, test: Split, train: Split, names: list[str], progress: Progress = SILENT
) -> list[Retrieved]:
    """QUERIES images of ``test``, other than those `classify` takes, and the NEAREST images of ``train`` to each."""
    positions = spread(len(test), QUERIES, shift=len(test) // (4 * SHOWN))
    queries = network.features(test.read(positions)).astype(np.float64)  # (Q, D)
    distances = np.empty((len(positions), len(train)))
    for start in range(0, len(train), BATCH):
        part = np.arange(start, min(start + BATCH, len(train)))
        fc7 = network.features(train.read(part)).astype(np.float64)
        distances[:, part] = np.linalg.norm(queries[:, None] - fc7[None], axis=2)
        progress.advance("embedding the training images", part[-1] + 1, len(train))
    order = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
    return [
        Retrieved(
            image=image,
            label=names[test.labels[position]],
            neighbours=list(train.read(nearest)),
            labels=[names[train.labels[i]] for i in nearest],
            distances=[float(row[i]) for i in nearest],
        )
        for image, position, row, nearest in zip(test.read(positions), positions, distances, order, strict=True)
    ]


def spread(count: int, wanted: int, shift: int = 0) -> np.ndarray:
    """``wanted`` of ``count`` positions, or all if there are fewer: the middles of equal parts, shifted cyclically."""
    wanted = min(wanted, count)
    return ((np.arange(wanted) + 0.5) * count / wanted + shift).astype(np.int64) % count


def _draw(classified: list[Classified], retrieved: list[Retrieved], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=[1, 1.15])).tolist()
    left.suptitle("test images, their labels, and the most probable classes")
    grid = left.subplots(4, 4, gridspec_kw={"height_ratios": [3, 1.25] * 2})
    for i in range(SHOWN):
        picture, bars = grid[2 * (i // 4), i % 4], grid[2 * (i // 4) + 1, i % 4]
        picture.axis("off")
        bars.axis("off")
        if i < len(classified):
            picture.imshow(classified[i].image)
            picture.set_title(_wrapped(classified[i].label, 21), fontsize=10)
            _draw_bars(bars, classified[i])
    right.suptitle("query, and the training images nearest in fc7")
    cells = right.subplots(len(retrieved), NEAREST + 1, squeeze=False)
    for row, one in zip(cells, retrieved, strict=True):
        shown = zip(
            [one.image, *one.neighbours],
            [one.label, *one.labels],
            ["", *(f"\n{shown}" for shown in distances(one.distances))],
            strict=True,
        )
        for cell in row:
            cell.axis("off")
        for cell, (image, label, distance) in zip(row, shown, strict=False):
            cell.imshow(image)
            colour = "black" if label == one.label else "tab:red"
            cell.set_title(f"{_wrapped(label, 15)}{distance}", fontsize=9, color=colour)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _wrapped(label: str, width: int) -> str:
    """``label`` in two lines of ``width`` letters at most, with an ellipsis in its middle if it is longer."""
    for length in range(len(label), 0, -1):
        lines = textwrap.wrap(shortened(label, length), width)
        if len(lines) <= 2:
            return "\n".join(lines)
    return label


def _draw_bars(axes: object, one: Classified) -> None:
    """One bar per class with the class's name on it; the bar of the true label is red."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    positions = range(len(one.classes))
    colours = ["tab:red" if name == one.label else "lightsteelblue" for name in one.classes]
    axes.barh(positions, one.probabilities, color=colours)
    for position, name in zip(positions, one.classes, strict=True):
        axes.text(0.02, position, shortened(name, 26), fontsize=8, va="center")
    axes.set(xlim=(0, 1), ylim=(BEST - 0.4, -0.6))
