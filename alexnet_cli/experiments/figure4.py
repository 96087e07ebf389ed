"""Figure 4: predictions for eight test images, and the training images nearest to five others in fc7."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.artefacts import atomic_write
from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.experiments.report import Report, model_sentence
from alexnet_cli.inference.evaluation import average_probabilities, check_fit
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress

SHOWN, BEST, QUERIES, NEAREST = 8, 5, 5, 6
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Classified:
    """A test image and the most probable classes."""

    image: np.ndarray  # (S, S, 3) uint8
    label: str
    classes: list[str]  # most probable first
    probabilities: list[float]


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """A query and the training images nearest to it."""

    image: np.ndarray
    label: str
    near: list[np.ndarray]
    labels: list[str]
    distances: list[float]  # Euclidean, of fc7


def figure4(
    model: Path, dataset: Dataset, folder: Path, command: str, *, device: str = "cpu", progress: Progress = SILENT
) -> Report:
    """Draw `figure-4.png`: test images with their five bars, and queries with their nearest training images.

    The images are spread evenly over the validation split, which is not chosen by what the network makes of them.
    Probabilities are over ten views. Raises BadArtefact if model and dataset do not fit together.
    """
    loaded = Model.load(model)
    network = NetworkModel.of(loaded, device)
    check_fit(network, dataset)
    test, train = dataset.split("val"), dataset.split("train")
    words = [dataset.words.get(label, label) for label in dataset.classes]
    classified_images = classify(network, test, words)
    found = retrieve(network, test, train, words, progress)
    _draw(classified_images, found, folder / "figure-4.png")
    rows = [
        [one.label, "right" if one.classes[0] == one.label else "wrong"]
        + [f"{name} {100 * share:.0f} %" for name, share in zip(one.classes, one.probabilities, strict=True)]
        for one in classified_images
    ]
    shares = [sum(label == one.label for label in one.labels) for one in found]
    report = Report(
        name="figure-4",
        title="Figure 4: predictions and neighbours",
        columns=["true label", "", *(f"{i}." for i in range(1, len(classified_images[0].classes) + 1))],
        rows=rows,
        note=f"{model_sentence(loaded, model)} The images are spread evenly over the {len(test):,} validation images "
        f"of dataset {dataset.name}; ten views. Of the {NEAREST} nearest of {len(train):,} training images, by "
        f"Euclidean distance of fc7, {', '.join(map(str, shares))} have the label of the query.",
        command=command,
        facts={"neighbours": [{"label": f.label, "labels": f.labels, "distances": f.distances} for f in found]},
        figures=["figure-4.png"],
    )
    report.write(folder, {loaded.recipe.name: loaded.recipe})
    return report


def classify(network: Predictor, test: Split, words: list[str]) -> list[Classified]:
    """The predictions of ``network`` for SHOWN images spread over ``test``."""
    positions = spread(len(test), SHOWN)
    images = test.read(positions)
    probabilities = average_probabilities([network], images, views=10)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
    return [
        Classified(
            image=image,
            label=words[test.labels[position]],
            classes=[words[i] for i in best],
            probabilities=[float(row[i]) for i in best],
        )
        for image, position, row, best in zip(images, positions, probabilities, order, strict=True)
    ]


def retrieve(
    network: Predictor, test: Split, train: Split, words: list[str], progress: Progress = SILENT
) -> list[Retrieved]:
    """QUERIES images spread over ``test``, other ones than are classified, and the NEAREST of ``train`` to each."""
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
            label=words[test.labels[position]],
            near=list(train.read(near)),
            labels=[words[train.labels[i]] for i in near],
            distances=[float(row[i]) for i in near],
        )
        for image, position, row, near in zip(test.read(positions), positions, distances, order, strict=True)
    ]


def spread(count: int, wanted: int, shift: int = 0) -> np.ndarray:
    """The middles of ``wanted`` equal parts of ``count`` positions (all, if there are fewer), shifted cyclically."""
    wanted = min(wanted, count)
    return ((np.arange(wanted) + 0.5) * count / wanted + shift).astype(np.int64) % count


def _draw(classified_images: list[Classified], found: list[Retrieved], path: Path) -> None:
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
        if i < len(classified_images):
            picture.imshow(classified_images[i].image)
            picture.set_title(classified_images[i].label, fontsize=9)
            _bars(bars, classified_images[i])
    right.suptitle("query, and the training images nearest in fc7")
    cells = right.subplots(len(found), NEAREST + 1, squeeze=False)
    for row, one in zip(cells, found, strict=True):
        shown = zip(
            [one.image, *one.near], [one.label, *one.labels], ["", *(f"  {d:.1f}" for d in one.distances)], strict=True
        )
        for cell in row:
            cell.axis("off")
        for cell, (image, label, distance) in zip(row, shown, strict=False):
            cell.imshow(image)
            colour = "black" if label == one.label else "tab:red"
            cell.set_title(f"{label[:14]}{distance}", fontsize=7, color=colour)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _bars(axes: object, one: Classified) -> None:
    """Five bars, the right class in another colour, with the classes' names on them."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    places = range(len(one.classes))
    colours = ["tab:red" if name == one.label else "lightsteelblue" for name in one.classes]
    axes.barh(places, one.probabilities, color=colours)
    for place, name in zip(places, one.classes, strict=True):
        axes.text(0.02, place, name[:22], fontsize=7, va="center")
    axes.set(xlim=(0, 1), ylim=(BEST - 0.4, -0.6))
