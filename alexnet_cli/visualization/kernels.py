"""The kernels of the first layer (figure 3): a block for each column, how much they are waves, and how they grew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.artefacts import KERNELS
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.figures.canvas import Size, drawing, show_picture
from alexnet_cli.figures.mosaic import ACROSS, as_colours, mosaic, squarest
from alexnet_cli.model import Model
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.training.kernels import read_kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPOCHS, GROWN = 8, 6  # of the picture of their growth: how many epochs, and how many kernels of each column


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The first layer's kernels over the epochs of a run."""

    epochs: list[int]  # 0 is the random start
    kernels: list[list[np.ndarray]]  # for each of `epochs` those of each column, (K, C, h, w) float32


def kernels_of(model: Model) -> list[np.ndarray]:
    """The first layer's kernels of each column, (K, C, h, w) float32. Raises AlexNetError if it has none."""
    columns = first_weights(model.net)
    if columns[0].ndim != 4:
        first = next(iter(model.recipe.network.layers))
        raise AlexNetError(f"{first} of {model.recipe.name} is no convolution: it has no kernels to show")
    return columns


def first_weights(net: ColumnNetwork) -> list[np.ndarray]:
    """The first layer's weights of each column, float32: (K, C, h, w) of a convolution."""
    first = next(iter(net.network.layers))
    return [next(module.parameters()).detach().float().cpu().numpy() for module in net.weighted(first)]


def growth_of(folder: Path, columns: Sequence[np.ndarray]) -> Growth:
    """What the run in ``folder`` kept of its first kernels; ``columns`` are those that it ended with.

    Without epochs if it kept none, as an imported model. Raises BadArtefact if a file is damaged.
    """
    growth = Growth(epochs=[], kernels=[])
    for file in sorted((folder / KERNELS).glob("[0-9][0-9][0-9][0-9].npy")):
        kept = read_kept(file)
        if kept.shape != (sum(map(len, columns)), *columns[0].shape[1:]):
            raise BadArtefact(f"{file} holds kernels of another network")
        growth.epochs.append(int(file.stem))
        growth.kernels.append(np.split(kept.astype(np.float32), np.cumsum([*map(len, columns)])[:-1]))
    return growth


def saturation(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy (its sum of squares) that is not grey: (K, 3, h, w) to (K,), from 0 to 1.

    The grey part of a kernel has, at each position, the mean of its three colours.
    """
    energy = (kernels**2).sum(axis=(1, 2, 3))
    coloured = ((kernels - kernels.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2, 3))
    return np.asarray(coloured / np.maximum(energy, 1e-30))


def structure(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy in its strongest wave: (K, C, h, w) to (K,), from 0 to 1.

    A wave is a spatial frequency with its opposite, in any direction, phase and colours. A plain colour is none, so
    that it has 0, and its energy counts in the whole.
    """
    power = (np.abs(np.fft.fft2(kernels)) ** 2).sum(axis=1)  # (K, h, w)
    opposite = np.roll(power[:, ::-1, ::-1], (1, 1), axis=(1, 2))
    rows, across = (np.arange(side) for side in power.shape[1:])
    own = np.ix_(2 * rows % len(rows) == 0, 2 * across % len(across) == 0)  # frequencies that are their own opposite
    opposite[:, own[0], own[1]] = 0
    waves = power + opposite
    waves[:, 0, 0] = 0  # the mean of each colour
    return np.asarray(waves.max(axis=(1, 2)) / np.maximum(power.sum(axis=(1, 2)), 1e-30))


def structure_by_chance(shape: Sequence[int]) -> float:
    """The mean `structure` of random kernels of ``shape`` (C, h, w): what it is before training."""
    return float(structure(np.random.default_rng(0).standard_normal((1000, *shape))).mean())


def draw_kernels(columns: Sequence[np.ndarray], path: Path, size: Size = Size.page, *, model: str = "") -> None:
    """Draw the kernels (K, C, h, w) of each column as a block, on a page one below the other as in figure 3.

    Before each row stands the number of its first kernel; maps and units have the same numbers.
    """
    is_colour, step = columns[0].shape[1] == 3, columns[0].shape[2] + 1
    across = ACROSS if size is Size.page else min(ACROSS // 2, squarest(max(map(len, columns)), aspect=1.0))
    rows = [-(-len(kernels) // across) for kernels in columns]
    with drawing(path, size, height=0.4 * len(columns) + sum(rows) * 10 / across, model=model) as figure:
        shape = (len(columns), 1) if size is Size.page else (1, len(columns))
        blocks = zip(columns, np.ravel(figure.subplots(*shape)), rows, _firsts(columns), strict=True)
        for i, (kernels, axes, down, first) in enumerate(blocks):
            facts = [f"{len(kernels)} kernels", f"structure {structure(kernels).mean():.2f}"]
            facts += [f"saturation {saturation(kernels).mean():.2f}"] if is_colour else []
            name = f"column {i}: " if len(columns) > 1 else ""
            separator = ", " if size is Size.page else "\n"
            show_picture(axes, mosaic(as_colours(kernels), min(across, len(kernels))), name + separator.join(facts))
            for row in range(down):
                number = str(first + row * across)
                axes.text(-1.5, (row + 0.5) * step - 1, number, ha="right", va="center", color="gray")


def _firsts(columns: Sequence[np.ndarray]) -> list[int]:
    """The number of each column's first kernel."""
    return [0, *np.cumsum([len(kernels) for kernels in columns]).tolist()][:-1]


def draw_growth(growth: Growth, path: Path, size: Size = Size.page, *, model: str = "") -> None:
    """Draw some kernels of each column at some epochs, and each column's mean structure over all epochs.

    The kernels are those that have the most structure at the end; their numbers stand above them.
    """
    with drawing(path, size, height=5.2, model=model) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _show_growing(left, growth)
        for i in range(len(growth.kernels[0])):
            means = [float(structure(kernels[i]).mean()) for kernels in growth.kernels]
            right.plot(
                growth.epochs, means, marker=".", label=f"column {i}" if len(growth.kernels[0]) > 1 else "kernels"
            )
        right.axhline(
            structure_by_chance(growth.kernels[0][0].shape[1:]), color="gray", ls="--", label="random kernels"
        )
        right.set(xlabel="epoch", ylabel="mean structure", ylim=(0, None), title="energy in the strongest wave")
        right.legend()
        right.grid(alpha=0.3)


def _show_growing(axes: "Axes", growth: Growth) -> None:
    shown = np.unique(np.linspace(0, len(growth.epochs) - 1, EPOCHS).round().astype(int))
    best = [np.argsort(-structure(kernels), kind="stable")[:GROWN] for kernels in growth.kernels[-1]]
    numbers = np.concatenate([which + first for which, first in zip(best, _firsts(growth.kernels[-1]), strict=True)])
    lines = [np.concatenate(growth.kernels[epoch])[numbers] for epoch in shown]  # (kernels, C, h, w) each
    side = lines[0].shape[2]
    middles = np.arange(max(len(numbers), len(shown))) * (side + 1) + side / 2 - 0.5
    axes.imshow(mosaic(as_colours(np.concatenate(lines)), len(numbers)), interpolation="nearest")
    axes.set_yticks(middles[: len(shown)], [f"epoch {growth.epochs[i]}" for i in shown])
    starts = _firsts(best)
    halves = [(start + len(which) / 2) * (side + 1) - 1 for start, which in zip(starts, best, strict=True)]
    axes.set_xticks(halves, [f"column {i}" for i in range(len(best))] if len(best) > 1 else ["kernels"])
    axes.secondary_xaxis("top").set_xticks(middles[: len(numbers)], numbers.astype(str), color="gray")
    for each in (axes, *axes.child_axes):
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    axes.set_title("the kernels with most structure at the end")
