"""The neocognitron of 1980 on digits, beside LeNet-5: what its planes learn, its error, and that of shifted digits."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.preprocess import LUMA
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import available_cores
from alexnet_cli.experiments.planes import draw_planes
from alexnet_cli.experiments.report import Report
from alexnet_cli.figures.canvas import SUFFIXES, Size, drawing
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.nets.neocognitron import SCLayer, Weights, run, self_organize, untrained
from alexnet_cli.nets.network import parameter_count
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options
from alexnet_cli.wording import counted, duration

LAYERS = (
    SCLayer(planes=16, kernel=5, selectivity=4.0, column=5, region=4, stride=2),
    SCLayer(planes=32, kernel=5, selectivity=1.5, column=5, region=3, stride=2),
)
RANDOM_SELECTIVITY = 0.7  # random planes are less like the pictures: at 4 they would be silent
LEARN_FROM = 250  # pictures, at random; the read-out has all
ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of ridge regression, a picture; leave-one-out chooses
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # rows, columns
LARGEST_SHIFT = 4  # pixels
LEARNED, COPIED, RANDOM, PIXELS = "neocognitron", "copied planes", "random planes", "raw pixels"
LENET = "LeNet-5"
YEARS = {LEARNED: "1980", LENET: "1998"}


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """What is compared: a function from pictures (N, S, S, 3) uint8 to classes (N,), and what it cost."""

    predict: Callable[[np.ndarray], np.ndarray]
    parameters: int
    seconds: float  # of training
    weights: Sequence[Weights] = ()  # of its planes


def neocognitron(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    command: str,
    *,
    seeds: int = 3,
    options: Options = Options(),
    size: Size = Size.page,
    progress: Progress = SILENT,
) -> Report:
    """Measure the errors of validation pictures, shifted by 0 to LARGEST_SHIFT pixels; draw what the planes learned.

    ``recipe`` is that of LeNet-5, which is trained into ``folder`` with each seed, once. Planes and read-outs learn
    from training pictures only. Raises what `train` raises, and BadArtefact if there are no validation pictures.
    """
    train_split, split = dataset.split("train"), dataset.split("val")
    pictures, images = train_split.read(np.arange(len(train_split))), split.read(np.arange(len(split)))
    errors: dict[str, list[np.ndarray]] = {name: [] for name in (LEARNED, COPIED, RANDOM, PIXELS, LENET)}
    classifiers: dict[str, Classifier] = {}
    planes, shifts = ([f"{stem}{suffix}" for suffix in SUFFIXES] for stem in ("planes", "shifts"))
    for seed in range(seeds):  # seed by seed, so that a run that is stopped leaves a complete table of fewer seeds
        for name in errors:
            if name == PIXELS and seed > 0:  # nothing is random there
                continue
            progress.note(f"{name}, seed {seed}")
            if name == LENET:
                run_folder = folder / "runs" / f"{recipe.name}-{seed}"
                classifiers[name] = _network(dataset, recipe, run_folder, seed, options, progress)
            else:
                classifiers[name] = _linear(name, pictures, train_split.labels, seed)
            if name == LEARNED and seed == 0:
                for file in planes:
                    draw_planes(_learning_from(pictures, 0), LAYERS, classifiers[name].weights, folder / file, size)
            errors[name].append(shifted_errors(classifiers[name].predict, images, split.labels))
        for file in shifts:
            draw_shifts(errors, f"Shifted pictures of {dataset.name}", folder / file, size)
        report = _report(errors, classifiers, dataset, recipe, command, [*planes, *shifts])
        report.write(folder, {recipe.name: recipe})
    return report


def grey(images: np.ndarray) -> Tensor:
    """Pictures (N, S, S, 3) uint8 as (N, 1, S, S) float32, 0 to 1."""
    return torch.from_numpy((images @ np.array(LUMA, np.float32) / 255)[:, None])


def shifted(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """``images`` (N, S, S, 3) moved down by ``rows`` and right by ``columns``; what moves in is black."""
    moved = np.roll(images, (rows, columns), (1, 2))
    for axis, by in ((1, rows), (2, columns)):
        came_in = slice(0, by) if by >= 0 else slice(by, None)
        moved[(slice(None),) * axis + (came_in,)] = 0
    return moved


def shifted_errors(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The error (directions, 0 to LARGEST_SHIFT pixels) of ``predict`` for shifted ``images`` (N, S, S, 3)."""
    unshifted = float((predict(images) != labels).mean())
    errors = np.full((len(DIRECTIONS), LARGEST_SHIFT + 1), unshifted)
    for row, (down, right) in enumerate(DIRECTIONS.values()):
        for by in range(1, LARGEST_SHIFT + 1):
            errors[row, by] = (predict(shifted(images, by * down, by * right)) != labels).mean()
    return errors


def random_planes(layers: Sequence[SCLayer], seed: int) -> list[Weights]:
    """Planes of the same shapes that have "learned" random patterns, each weight uniform."""
    generator, channels, weights = torch.Generator().manual_seed(seed), 1, []
    for layer in layers:
        weights.append(_of_patterns(untrained(layer, channels, generator).excitation))
        channels = layer.planes
    return weights


def copied_planes(pictures: Tensor, layers: Sequence[SCLayer], seed: int) -> list[Weights]:
    """Planes that have each learned one random place, not empty, of ``pictures`` (N, 1, H, W): without competition."""
    generator, z, weights = torch.Generator().manual_seed(seed), pictures, []
    for layer in layers:
        seen = z.unfold(2, layer.kernel, 1).unfold(3, layer.kernel, 1)  # (N, C, h, w, k, k)
        places = seen.square().sum((1, 4, 5)).gt(1).nonzero()  # (places, 3)
        chosen = places[torch.randperm(len(places), generator=generator)[: layer.planes]]
        weights.append(_of_patterns(seen[chosen[:, 0], :, chosen[:, 1], chosen[:, 2]]))
        z = run(z, [layer], weights[-1:])
    return weights


def _of_patterns(patterns: Tensor) -> Weights:
    """The weights of planes that have learned ``patterns`` (planes, C, k, k), one each."""
    large = 1e4 / patterns.flatten(1).norm(dim=1)
    return Weights(excitation=patterns * large[:, None, None, None], inhibition=torch.full((len(patterns),), 1e4 / 2))


def _learning_from(pictures: np.ndarray, seed: int) -> Tensor:
    """The pictures that planes learn from, (LEARN_FROM, 1, S, S)."""
    return grey(pictures[np.random.default_rng(seed).permutation(len(pictures))[:LEARN_FROM]])


def _linear(name: str, pictures: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    """A linear read-out of the planes called ``name``, or of the pixels."""
    started, some, layers = time.perf_counter(), _learning_from(pictures, seed), list(LAYERS)
    if name == LEARNED:
        weights = self_organize(some, layers, seed)
    elif name == COPIED:
        weights = copied_planes(some, layers, seed)
    elif name == RANDOM:
        layers = [SCLayer(**vars(layer) | {"selectivity": RANDOM_SELECTIVITY}) for layer in layers]
        weights = random_planes(layers, seed)
    else:
        layers, weights = [], []

    def features(images: np.ndarray) -> np.ndarray:
        return run(grey(images), layers, weights).flatten(1).numpy()

    predict, parameters = read_out(features, pictures, labels)
    parameters += sum(each.excitation.numel() + each.inhibition.numel() for each in weights)
    seconds = time.perf_counter() - started
    return Classifier(predict=predict, parameters=parameters, seconds=seconds, weights=weights)


def read_out(
    features: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, labels: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Ridge regression to the classes of ``pictures``: a function from pictures to classes, and its parameters."""
    from sklearn.linear_model import RidgeClassifierCV

    x = features(pictures)
    scale = max(float(x.std()), 1e-12)  # one number for all: no feature gains by being rare
    linear = RidgeClassifierCV(alphas=[len(x) * alpha for alpha in ALPHAS]).fit(x / scale, labels)
    return lambda images: np.asarray(linear.predict(features(images) / scale)), linear.coef_.size + np.size(
        linear.intercept_
    )


def _network(
    dataset: Dataset, recipe: Recipe, folder: Path, seed: int, options: Options, progress: Progress
) -> Classifier:
    """LeNet-5, trained into ``folder``; a run that is there is not repeated."""
    model = train(dataset, recipe, folder, seed=seed, options=options, progress=progress)
    network = NetworkModel.of(model, options.devices[0])
    return Classifier(
        predict=lambda images: network.run(images)[0].argmax(axis=1),
        parameters=parameter_count(model.net),
        seconds=sum(row["seconds"] for row in checkpoint.read_state(folder).history),
    )


def _mean(values: Sequence[float]) -> str:
    """In percent, with the standard error over seeds."""
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def _report(
    errors: dict[str, list[np.ndarray]],
    classifiers: dict[str, Classifier],
    dataset: Dataset,
    recipe: Recipe,
    command: str,
    figures: list[str],
) -> Report:
    rows, facts = [], {}
    for name, measured in errors.items():
        means = [[float(each[:, by].mean()) for each in measured] for by in range(LARGEST_SHIFT + 1)]
        one = classifiers[name]
        rows.append([name, YEARS.get(name, ""), f"{one.parameters:,}", duration(one.seconds), *map(_mean, means)])
        facts[name] = _facts(measured, one)
    seeds = len(errors[LEARNED])
    note = (
        f"The error of {counted(dataset.counts['val'], 'validation picture')} of dataset {dataset.name}, as they are "
        f"and shifted by 1 to {LARGEST_SHIFT} pixels (the mean of up, down, left and right; what moves in is black), "
        f"after learning from {dataset.counts['train']:,} training pictures, none of which was shifted. "
        f"{counted(seeds, 'seed')}{'' if seeds == 1 else ', with standard errors'}. All but LeNet-5 have the same "
        "linear read-out, ridge regression; all planes have the same shapes: "
        f"{' and '.join(str(layer.planes) for layer in LAYERS)} S-planes in two layers. The planes of the neocognitron "
        f"learn without labels from {min(LEARN_FROM, dataset.counts['train'])} of the pictures, each seen once; copied "
        "planes are as many random places of the same pictures, without competition; random planes are random. LeNet-5 "
        f"is the recipe {recipe.name}, trained for {counted(recipe.training.epochs, 'epoch')}. Shapes and "
        "selectivities were chosen on held-out training pictures. Time is that of one seed, on "
        f"{counted(available_cores(), 'core')}."
    )
    return Report(
        name="neocognitron",
        title=f"The neocognitron on {dataset.name}",
        columns=[
            "network",
            "year",
            "parameters",
            "time to learn",
            "error, %",
            *(f"shifted by {by}" for by in range(1, LARGEST_SHIFT + 1)),
        ],
        rows=rows,
        note=note,
        command=command,
        facts=facts,
        figures=figures,
    )


def _facts(measured: Sequence[np.ndarray], classifier: Classifier) -> dict[str, Any]:
    of_direction = {way: [each[i].tolist() for each in measured] for i, way in enumerate(DIRECTIONS)}
    return {"errors": of_direction, "parameters": classifier.parameters, "training_seconds": classifier.seconds}


def draw_shifts(errors: dict[str, list[np.ndarray]], title: str, path: Path, size: Size = Size.page) -> None:
    """Draw each network's error, mean and standard error over seeds, against the shift: a panel for each direction."""
    shifts = np.arange(LARGEST_SHIFT + 1)
    with drawing(path, size, height=4) as figure:
        panels = figure.subplots(1, len(DIRECTIONS), sharey=True)
        for i, (axes, way) in enumerate(zip(panels, DIRECTIONS, strict=True)):
            for name, measured in errors.items():
                of_way = 100 * np.array([each[i] for each in measured])  # (seeds, shifts)
                spread = of_way.std(axis=0, ddof=1) / len(of_way) ** 0.5 if len(of_way) > 1 else None
                label = name if i == 0 else None
                axes.errorbar(shifts, of_way.mean(axis=0), spread, marker="o", capsize=3, label=label)
            axes.set_title(way)
            axes.set_xlabel("shift, pixels")
            axes.set_xticks(shifts)
            axes.grid(alpha=0.3)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("error, %")
        figure.suptitle(title)
        figure.legend(loc="outside lower center", ncols=len(errors) if size is Size.page else 3)
