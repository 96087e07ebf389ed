"""Figure 4: predictions for eight test images, and the training images whose features are nearest to five others'."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.experiments.report import Report, model_sentence
from alexnet_cli.figures.canvas import Size, drawing, show_picture
from alexnet_cli.inference.evaluation import average_probabilities, check_fit
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import distances
from alexnet_cli.wordnet import class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, BEST = 8, 5  # images that are classified, and classes shown for each
QUERIES, NEAREST = 5, 6  # query images, and neighbours shown for each
SHOWN_ON_A_SLIDE, QUERIES_OF_A_SLIDE = 6, 3
WIDTH_OF_A_LETTER = 0.62  # of its height: somewhat more than the mean of DejaVu Sans
ONE_LINE = 0.75  # of the usual size: smaller letters are in two lines
FIGURES = ["figure-4-predictions.png", "figure-4-neighbours.png"]
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
    distances: list[float]  # Euclidean, of the features


def figure4(
    model: Path,
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    device: str = "cpu",
    size: Size = Size.page,
    progress: Progress = SILENT,
) -> Report:
    """Draw FIGURES: test images with their most probable classes, and queries with their nearest training images.

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
    draw_predictions(classified, folder / FIGURES[0], size)
    draw_neighbours(retrieved, network.feature_name, folder / FIGURES[1], size)
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
        f"Euclidean distance of {network.feature_name}, {', '.join(map(str, same_label))} have the label of the query.",
        command=command,
        facts={"neighbours": [{"label": r.label, "labels": r.labels, "distances": r.distances} for r in retrieved]},
        figures=FIGURES,
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
        features = network.features(train.read(part)).astype(np.float64)
        distances[:, part] = np.linalg.norm(queries[:, None] - features[None], axis=2)
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


def draw_predictions(classified: Sequence[Classified], path: Path, size: Size = Size.page) -> None:
    """Draw each image beside a bar for each of its most probable classes; the bar of the true class is orange.

    On a slide the first SHOWN_ON_A_SLIDE.
    """
    if size is Size.slide:
        classified = classified[:SHOWN_ON_A_SLIDE]
    letters = 9 if size is Size.page else 14
    with drawing(path, size, height=9.0) as figure:
        figure.suptitle("test images, their labels, and the most probable classes")
        grid = figure.subplots(-(-len(classified) // 2), 4, width_ratios=[1, 2, 1, 2], squeeze=False).reshape(-1, 2)
        for cell in grid.ravel():
            cell.set_axis_off()
        for (picture, bars), one in zip(grid, classified, strict=False):
            show_picture(picture, one.image)
            positions = range(len(one.classes))
            colours = ["tab:orange" if name == one.label else "lightsteelblue" for name in one.classes]
            bars.barh(positions, one.probabilities, color=colours)
            inches = 0.3 * figure.get_figwidth()
            for position, name, probability in zip(positions, one.classes, one.probabilities, strict=True):
                text, points = fitted(f"{name}  {100 * probability:.0f} %", inches, letters)
                bars.text(0.01, position, text, fontsize=points, va="center")
            bars.set(xlim=(0, 1), ylim=(BEST - 0.5, -0.5))
            text, points = fitted(one.label, inches, letters)
            bars.set_title(text, fontsize=points, loc="left", weight="bold")
        _explain(figure, {"the true class": "tab:orange", "another class": "lightsteelblue"})


def draw_neighbours(retrieved: Sequence[Retrieved], feature: str, path: Path, size: Size = Size.page) -> None:
    """Draw each query and, in its row, the images nearest to it in layer ``feature``.

    On a slide the first QUERIES_OF_A_SLIDE queries.
    """
    if size is Size.slide:
        retrieved = retrieved[:QUERIES_OF_A_SLIDE]
    letters = 8 if size is Size.page else 13
    with drawing(path, size, height=0.6 + 1.9 * len(retrieved)) as figure:
        figure.suptitle(f"query, and the training images nearest in {feature}, with their distances")
        cells = figure.subplots(len(retrieved), NEAREST + 1, squeeze=False)
        across = int(72 * figure.get_figwidth() / (NEAREST + 1) / (WIDTH_OF_A_LETTER * letters))
        for cell in cells.ravel():
            cell.set_axis_off()
        for row, one in zip(cells, retrieved, strict=True):
            below = ["query", *distances(one.distances)]
            shown = zip([one.image, *one.neighbours], [one.label, *one.labels], below, strict=True)
            for cell, (image, label, told) in zip(row, shown, strict=False):
                show_picture(cell, image)
                text = "\n".join([*textwrap.wrap(label, across), told])
                cell.set_title(text, fontsize=letters, color="black" if label == one.label else "tab:red")
        _explain(figure, {"the query's class": "black", "another class": "tab:red"})


def fitted(text: str, inches: float, letters: float) -> tuple[str, float]:
    """``text`` with the size of letters, ``letters`` points or less, at which it is about ``inches`` wide: whole.

    In two lines where it would be too small in one.
    """
    points = 72 * inches / (WIDTH_OF_A_LETTER * max(len(text), 1))
    if points >= ONE_LINE * letters:
        return text, min(points, letters)
    lines = textwrap.wrap(text, len(text) // 2 + 6)
    return "\n".join(lines), min(72 * inches / (WIDTH_OF_A_LETTER * max(map(len, lines))), ONE_LINE * letters)


def _explain(figure: "Figure", colours: dict[str, str]) -> None:
    """A legend: what each colour means."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=meaning) for meaning, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
