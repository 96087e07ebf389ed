"""What each layer makes of a picture: every map of every column, and what each step of a layer does to its maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alexnet_cli.errors import NoSuchLayer
from alexnet_cli.figures.canvas import SLIDE, Size, drawing
from alexnet_cli.figures.mosaic import as_colours, mosaic, squarest
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.views import centre_view
from alexnet_cli.visualization.kernels import first_weights
from alexnet_cli.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

BRIGHT = 99.8  # percentile of a layer's activations at which its colours end: one unit must not darken all others
SLACK = 1.3  # a block may be as many times as wide as there is room for, so that fewer of its places are empty
LEAST = 48  # pixels: maps are enlarged by whole steps to about this
FOLLOWED = {Size.page: 4, Size.slide: 3}  # how many maps are shown after each step
ABREAST = 9  # layers, and the picture, in a line of a slide: more have no room for their names
BAR, EDGE = "tab:blue", "tab:orange"  # colours: of a unit's bar, of the frame around what the network sees


@dataclass(frozen=True, kw_only=True)
class Step:
    """The activations of a layer after one of its steps."""

    operation: str  # its name in the recipe; empty: the weighted sums
    columns: list[np.ndarray]  # of each column (C, H, W) or (units,), float32

    @property
    def name(self) -> str:
        """What people read."""
        return self.operation.replace("_", " ") or "weighted sum"


@dataclass(frozen=True, kw_only=True)
class Activations:
    """A picture, and what a network makes of its centre view, in testing."""

    picture: np.ndarray  # (S, S, 3) uint8
    view: np.ndarray  # (crop, crop, 3) uint8, as the network gets it, where middle grey is 0
    standardized: bool = False  # the view is less its own mean, and not less the mean image
    layers: dict[str, list[Step]]  # the hidden layers and their steps, in order
    kernels: np.ndarray | None = None  # the first layer's (K, C, h, w), if it is a convolution

    def leaving(self, layer: str) -> list[np.ndarray]:
        """What leaves ``layer`` in each column, after all its steps, dropout's factor too: (C, H, W) or (units,)."""
        return self.layers[layer][-1].columns

    def check(self, layer: str) -> None:
        """Raises NoSuchLayer if there is no hidden ``layer``."""
        if layer not in self.layers:
            raise NoSuchLayer(f"this network has no hidden layer {layer!r}: it has {', '.join(self.layers)}")


@torch.inference_mode()
def activations_of(model: NetworkModel, picture: np.ndarray) -> Activations:
    """What each step of ``model`` makes of the centre view of ``picture`` (S, S, 3) uint8."""
    device, image = model.preprocessor.device, model.preprocessor.image
    rows, columns = (torch.from_numpy(along).to(device) for along in centre_view(image.size, image.crop))
    inputs = model.preprocessor(torch.from_numpy(picture[None].copy()).to(device), rows, columns)  # (1, C, crop, crop)
    layers: dict[str, list[Step]] = {name: [] for name in model.net.hidden}
    for layer, operation, parts in model.net.steps(inputs):
        if layer in layers:
            each = [part[0].float().cpu().numpy() for part in parts]
            layers[layer].append(Step(operation=operation, columns=each))
    centred = inputs[0].permute(1, 2, 0).float().cpu().numpy() * image.unit  # in 0-255 units
    view = np.clip(127.5 + centred, 0, 255).round().astype(np.uint8)
    view = np.broadcast_to(view, (*view.shape[:2], 3))
    weights = np.concatenate(first_weights(model.net))
    kernels = weights if weights.ndim == 4 else None
    return Activations(picture=picture, view=view, layers=layers, standardized=image.standardize, kernels=kernels)


def mean_activation(maps: np.ndarray) -> np.ndarray:
    """The mean activation of each map, without its sign: (C, H, W) or (units,) to (C,)."""
    return np.asarray(np.abs(maps).mean(axis=tuple(range(1, maps.ndim))))


def strongest_first(maps: np.ndarray) -> np.ndarray:
    """``maps`` in descending order of `mean_activation`."""
    return np.asarray(maps[np.argsort(-mean_activation(maps), kind="stable")])


def draw_overview(
    seen: Activations, path: Path, size: Size = Size.page, *, strongest: bool = False, model: str = ""
) -> None:
    """Draw what leaves every hidden layer: all maps, and a square for each unit of a dense layer.

    The columns stand side by side on a page, and one below the other on a slide, as in figure 2. Each layer has its own
    scale. ``strongest``: each column's maps are in the order of `mean_activation`.
    """
    is_slide, count = size is Size.slide, len(seen.layers)
    blocks = {layer: seen.leaving(layer) for layer in seen.layers}
    columns = len(next(iter(blocks.values())))
    # Width by height of a column's block. On a page its height follows from its maps.
    lines = -(-(count + 1) // ABREAST)  # of a slide
    abreast = -(-(count + 1) // lines)
    aspect = SLIDE[0] / abreast / (0.72 * SLIDE[1] / lines / columns) if is_slide else 6 / columns
    across = {layer: squarest(len(maps[0]), aspect, SLACK) for layer, maps in blocks.items()}
    heights = [2.3, *(0.55 + 9 / columns * _height(maps[0], across[layer]) for layer, maps in blocks.items())]
    with drawing(path, size, height=sum(heights), model=model) as figure:
        if is_slide:
            first, *others = figure.subfigures(lines, abreast, squeeze=False).flat[: count + 1]
        else:
            first, *others = figure.subfigures(count + 1, 1, squeeze=False, height_ratios=heights).flat
        _show_input(first.subplots(*((2, 1) if is_slide else (1, 2))), seen, is_wide=not is_slide)
        for part, (layer, maps) in zip(others, blocks.items(), strict=True):
            panels = np.ravel(part.subplots(*((columns, 1) if is_slide else (1, columns))))
            title = f"{layer}\n{_shape(maps)}" if is_slide else _title(layer, seen, strongest)
            part.suptitle(title, fontsize="medium" if is_slide else "large")
            scale = _scale(maps)
            for i, axes in enumerate(panels):
                _show_block(axes, strongest_first(maps[i]) if strongest else maps[i], scale, across[layer])
                if columns > 1 and (not is_slide or part is others[0]):
                    (axes.set_ylabel if is_slide else axes.set_title)(f"column {i}")
            _colour_bar(part, scale, panels, "bottom" if is_slide else "right")


def draw_layer(
    seen: Activations, layer: str, path: Path, size: Size = Size.page, *, strongest: bool = False, model: str = ""
) -> None:
    """Draw what leaves ``layer``: every map on one scale, a block for each column; of a dense layer, a bar a unit.

    ``strongest``: as in `draw_overview`. Raises NoSuchLayer if there is no such hidden layer.
    """
    seen.check(layer)
    maps, is_slide = seen.leaving(layer), size is Size.slide
    columns, is_dense = len(maps), maps[0].ndim == 1
    across = squarest(len(maps[0]), 10.5 / columns / 6.0, 1.0) if is_slide else squarest(len(maps[0]), 3, SLACK)
    height = 0.7 + columns * (2.0 if is_dense else 0.3 + 7.5 * _height(maps[0], across))
    with drawing(path, size, height=max(height, 4.5), model=model) as figure:
        figure.suptitle(_title(layer, seen, strongest))
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 6 if is_slide else 4]).flat
        _show_input(left.subplots(2, 1), seen)
        shape = (1, columns) if is_slide and not is_dense else (columns, 1)
        panels, scale = np.ravel(right.subplots(*shape, sharey=is_dense)), _scale(maps)
        for i, axes in enumerate(panels):
            shown, first = strongest_first(maps[i]) if strongest else maps[i], i * len(maps[0])
            if is_dense:
                _show_bars(axes, shown, 0 if strongest else first)
            else:
                _show_block(axes, shown, scale, across, None if strongest else first)
            if columns > 1:
                axes.set_title(f"column {i}")
        if is_dense:
            panels[-1].set_xlabel("rank" if strongest else "unit")
        else:
            _colour_bar(right, scale, panels, "right")


def draw_steps(seen: Activations, layer: str, path: Path, size: Size = Size.page, *, model: str = "") -> None:
    """Draw what each step of ``layer`` makes of the strongest of its maps, or of all units of a dense layer.

    Each step has its own scale; the largest activation and the mean of each map stand above it. The first layer's
    kernels stand before their maps. Raises NoSuchLayer if there is no such hidden layer.
    """
    seen.check(layer)
    steps, width = seen.layers[layer], len(seen.leaving(layer)[0])
    is_dense = seen.leaving(layer)[0].ndim == 1
    activations = np.concatenate([mean_activation(maps) for maps in seen.leaving(layer)])
    followed = np.argsort(-activations, kind="stable")[: FOLLOWED[size]]
    lines = len(steps[0].columns) if is_dense else len(followed)
    kernels = seen.kernels if layer == next(iter(seen.layers)) else None
    height = 1.2 + lines * (2.0 if is_dense else 8.5 / max(len(steps), 4))
    with drawing(path, size, height=height, model=model) as figure:
        figure.suptitle(f"{layer}, step by step" + ("" if is_dense else ": the maps that are strongest at the end"))
        ratios = [*([] if kernels is None else [0.5]), *([1] * len(steps))]
        panels = figure.subplots(lines, len(ratios), sharey=is_dense, squeeze=False, width_ratios=ratios)
        if kernels is not None:
            _show_kernels(panels[:, 0], kernels[followed])
        for step, upright in zip(steps, panels.T[-len(steps) :], strict=True):
            if is_dense:
                for i, (axes, units) in enumerate(zip(upright, step.columns, strict=True)):
                    _show_bars(axes, units, i * width)
                    axes.set_title(_numbers(units), fontsize="medium")
            else:
                shown = np.stack([step.columns[i // width][i % width] for i in followed])  # (followed, H, W)
                scale = _scale([shown])
                for axes, one in zip(upright, shown, strict=True):
                    _show_block(axes, one[None], scale, 1)
                    axes.set_title(_numbers(one), fontsize="medium")
                _colour_bar(figure, scale, upright, "bottom")
            share = np.mean([np.mean(maps == 0) for maps in step.columns])
            head = f"{step.name}\n{_shape(step.columns)}, {share:.0%} are 0\n\n"
            upright[0].set_title(head + upright[0].get_title(), fontsize="medium")
            upright[-1].set_xlabel("unit" if is_dense else "")
        for i, axes in enumerate(panels[:, 0]):
            number = i if is_dense else int(followed[i])
            axes.set_ylabel(f"column {number}" if is_dense else f"map {number}")


def _show_input(panels: Sequence["Axes"], seen: Activations, *, is_wide: bool = False) -> None:
    """The picture with a frame around its centre view, and that as the network gets it."""
    from matplotlib.patches import Rectangle

    side, crop = len(seen.picture), len(seen.view)
    border = (side - crop) // 2
    panels[0].imshow(seen.picture)
    panels[0].add_patch(Rectangle((border - 0.5, border - 0.5), crop, crop, fill=False, ec=EDGE, lw=1.5))
    panels[1].imshow(seen.view)
    panels[0].set_title(
        f"the picture, and the {crop} × {crop} that the network sees" if is_wide else "picture\nand crop"
    )
    mean = "its own mean" if seen.standardized else "the mean image"
    panels[1].set_title(f"less {mean}: grey is 0" if is_wide else "less mean")
    for axes in panels:
        axes.set_axis_off()


def _show_kernels(panels: np.ndarray, kernels: np.ndarray) -> None:
    """``kernels`` (n, C, h, w) on ``panels`` (n,), each on its own scale."""
    for axes, kernel in zip(panels, as_colours(kernels), strict=True):
        axes.imshow(kernel, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    panels[0].set_title("kernel")


def _show_block(axes: "Axes", maps: np.ndarray, scale: "ScalarMappable", across: int, first: int | None = None) -> None:
    """``maps`` (C, H, W), or units (C,) as squares, in rows of ``across``; each row with the number of its first map,
    if that of the ``first`` is given."""
    squares = maps.reshape(len(maps), 1, 1) if maps.ndim == 1 else maps
    times, gap = (1, 0) if maps.ndim == 1 else (max(1, round(LEAST / maps.shape[2])), 2)
    coloured = np.asarray(scale.cmap(scale.norm(squares), bytes=True))[..., :3]
    sheet = mosaic(coloured.repeat(times, axis=1).repeat(times, axis=2), across, gap=gap)
    axes.imshow(sheet, interpolation="antialiased")
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    numbers = [] if first is None else range(first, first + len(maps), across)
    height = coloured.shape[1] * times + gap
    axes.set_yticks([row * height + height / 2 for row in range(len(numbers))], [str(number) for number in numbers])
    axes.tick_params(length=0)


def _show_bars(axes: "Axes", units: np.ndarray, first: int) -> None:
    """A bar for each of ``units`` (units,), the first of which has the number ``first``."""
    axes.stairs(units, np.arange(first, first + len(units) + 1) - 0.5, fill=True, color=BAR)
    axes.margins(x=0)
    axes.grid(axis="y", alpha=0.3)


def _scale(columns: Sequence[np.ndarray]) -> "ScalarMappable":
    """The colours of a layer's activations: from 0 up, or about 0 if some are negative."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = np.concatenate([maps.ravel() for maps in columns])
    most = float(np.percentile(np.abs(values), BRIGHT)) or float(np.abs(values).max()) or 1.0
    is_signed = bool((values < 0).any())
    return ScalarMappable(Normalize(-most if is_signed else 0, most), "coolwarm" if is_signed else "magma")


def _colour_bar(figure: Any, scale: "ScalarMappable", panels: Any, location: str) -> None:
    """A colour bar for ``panels``, with the ends of its scale, beyond which colours do not change."""
    ends = [*scale.get_clim()]
    ticks = ends if ends[0] == 0 else [ends[0], 0, ends[1]]
    extend = "max" if ends[0] == 0 else "both"
    bar = figure.colorbar(scale, ax=list(panels), location=location, extend=extend, ticks=ticks, aspect=16, shrink=0.8)
    bar.set_ticks(ticks, labels=[_number(tick) for tick in ticks])


def _height(maps: np.ndarray, across: int) -> float:
    """Of the block of ``maps`` (C, H, W) or units (C,), by its width."""
    height, width = maps.shape[1:] if maps.ndim == 3 else (1, 1)
    return float(-(-len(maps) // across) * height / (across * width))


def _shape(columns: Sequence[np.ndarray]) -> str:
    """The size of a map, or the number of units of all ``columns``."""
    return " × ".join(map(str, columns[0].shape[1:])) or counted(sum(map(len, columns)), "unit")


def _title(layer: str, seen: Activations, strongest: bool) -> str:
    maps, steps = seen.leaving(layer), [step.name for step in seen.layers[layer][1:]]
    what = f"{counted(sum(map(len, maps)), 'map')} of {_shape(maps)}" if maps[0].ndim == 3 else _shape(maps)
    after = f", after {', '.join(steps)}" if steps else ""
    return f"{layer}: {what}{after}" + (", strongest first" if strongest else "")


def _numbers(activations: np.ndarray) -> str:
    return f"max {_number(activations.max())}, mean {_number(activations.mean())}"


def _number(value: float) -> str:
    """To two or three digits: 0.0031, 0.86, 12.4, 1,234."""
    size = abs(value)
    decimals = (
        0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 0.1 else 1 - math.floor(math.log10(size))
    )
    return f"{value:,.{decimals}f}".replace("-", "−")
