"""What excites the units of a layer: the patches of a dataset with the strongest responses. Imports no torch.

A unit is a kernel with its map. Its response at a place of the map is what it gives after its ReLU and before response
norm and pooling. `strongest.py` finds the patches and keeps them with the model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_cli.artefacts import UNITS, check_format
from alexnet_cli.data.store import Split
from alexnet_cli.errors import BadArtefact
from alexnet_cli.figures.canvas import Size, drawing
from alexnet_cli.figures.mosaic import mosaic
from alexnet_cli.files import read_tensors, sweep, write_tensors
from alexnet_cli.settings import MAX_SIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from alexnet_cli.visualization.ascent import Ascents

FORMAT = 1
PATCHES = 9  # of a unit: a square of 3 × 3
BACKGROUND = 235  # grey, where a patch lies outside the view, and where there is none
# Blocks of a figure, in a row and below each other; with ascents a block is twice as wide
GRIDS = {Size.page: (6, 4), Size.slide: (3, 2)}
GRIDS_WITH_ASCENTS = {Size.page: (3, 4), Size.slide: (2, 2)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The strongest patches of the K units of a layer, over all columns; at most one of each picture."""

    layer: str
    columns: int  # the K units are K / columns of each, column 0's first
    dataset: str  # path of its folder
    dataset_fingerprint: str
    model_fingerprint: str
    split: str
    crop: int  # side of the central view, in pixels
    field: dict[str, int]  # `size`, `stride`, `start` of the receptive fields, in pixels of the view
    rows: np.ndarray  # (K, 9) int64, pictures of the split, strongest first; -1 where fewer give more than 0
    responses: np.ndarray  # (K, 9) float32; 0 where there is no picture
    places: np.ndarray  # (K, 9, 2) int64, row and column in the map

    def column(self, unit: int) -> int:
        """The column that ``unit`` is in."""
        return unit * self.columns // len(self.rows)

    def strongest(self, count: int) -> list[int]:
        """The ``count`` units with the greatest mean response, greatest first."""
        return [int(unit) for unit in np.argsort(-self.responses.mean(axis=1), kind="stable")[:count]]

    def save(self, folder: Path) -> None:
        """Write ``folder``/units/LAYER.safetensors, of the model in ``folder``."""
        facts = {key: value for key, value in vars(self).items() if not isinstance(value, np.ndarray)}
        tensors = {"rows": self.rows, "responses": self.responses, "places": self.places}
        file = units_file(folder, self.layer)
        sweep(file.parent, of=file)
        write_tensors(file, tensors, {"format": str(FORMAT), "facts": json.dumps(facts)})


def units_file(folder: Path, layer: str) -> Path:
    """Where the model in ``folder`` keeps the patches of ``layer``."""
    return folder / UNITS / f"{layer}.safetensors"


def read_units(folder: Path, layer: str) -> Units:
    """What the model in ``folder`` keeps of ``layer``, of whatever dataset, and weights, it was found with.

    Raises BadArtefact if there is none, or if it is damaged or of a newer format.
    """
    path = units_file(folder, layer)
    metadata, tensors = read_tensors(path, what="file of units", remedy="remove it")
    try:
        check_format(metadata.get("format"), FORMAT, path)
        fields: dict[str, Any] = json.loads(metadata["facts"]) | tensors
        units = Units(**fields)
        _check(units)
        return units
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadArtefact(f"{path} is damaged ({error!r}): remove it") from None


def _check(units: Units) -> None:
    """Raises KeyError, TypeError, ValueError or AttributeError if ``units`` is not as `save` writes it."""
    shape = (len(units.rows), PATCHES)
    wanted = {"rows": (np.int64, shape), "responses": (np.float32, shape), "places": (np.int64, (*shape, 2))}
    for name, (kind, extent) in wanted.items():
        array = getattr(units, name)
        if array.dtype != kind or array.shape != extent:
            raise ValueError(f"{name} is {array.dtype} of {array.shape}")
    field = [units.field[key] for key in ("size", "stride", "start")]
    numbers = [units.columns, units.crop, *field]
    if not all(type(number) is int and abs(number) <= MAX_SIDE for number in numbers):
        raise ValueError("its sizes are no numbers, or too large")
    is_right = units.columns >= 1 and units.crop >= 1 and len(units.rows) >= 1 and isinstance(units.dataset, str)
    is_right = is_right and isinstance(units.split, str)
    is_right = is_right and field[0] >= 1 and -field[0] < field[2] < units.crop
    in_bounds = (units.rows >= -1).all() and (units.places >= 0).all() and (units.places <= MAX_SIDE).all()
    if not (is_right and in_bounds and np.isfinite(units.responses).all()):
        raise ValueError("its numbers are out of bounds")


def patches_of(units: Units, unit: int, images: Split) -> list[np.ndarray]:
    """The patches of ``unit``, strongest first: (h, w, 3) uint8 each, its receptive field in the central view.

    ``images``: the split that ``units`` were found in. At the border of the view a patch is what of the field lies
    within. Raises BadArtefact if a picture is damaged.
    """
    found = units.rows[unit] >= 0
    border = (images.size - units.crop) // 2
    patches = []
    for image, place in zip(images.read(units.rows[unit][found]), units.places[unit][found], strict=True):
        view = image[border : border + units.crop, border : border + units.crop]
        patches.append(view[tuple(field_in_view(units, int(along)) for along in place)])
    return patches


def field_in_view(units: Units, place: int) -> slice:
    """The rows, or columns, of the view that a unit sees at ``place``, a row, or column, of its map."""
    start = units.field["start"] + place * units.field["stride"]
    return slice(max(0, start), min(units.crop, start + units.field["size"]))


def shown_units(units: Units, size: Size, *, with_ascents: bool = False) -> list[int]:
    """As many of the strongest units as a figure of that ``size`` has places for."""
    across, down = (GRIDS_WITH_ASCENTS if with_ascents else GRIDS)[size]
    return units.strongest(across * down)


def draw_units(
    units: Units,
    shown: Sequence[int],
    images: Split,
    path: Path,
    size: Size = Size.page,
    ascents: "Ascents | None" = None,
    *,
    model: str = "",
) -> None:
    """Draw the patches of the ``shown`` units, a block of 3 × 3 each, with the response in the corner of a patch.

    ``images``: as in `patches_of`. ``ascents``: of the shown units, to draw beside their patches.
    """
    across = min(len(shown), (GRIDS if ascents is None else GRIDS_WITH_ASCENTS)[size][0])
    down, shape = -(-len(shown) // across), 1.18 if ascents is None else 0.6  # height of a block with its title / width
    with drawing(path, size, height=0.5 + down * shape * 10 / max(across, 3), model=model) as figure:
        side = min(units.field["size"], units.crop)
        if ascents is None:
            figure.suptitle(
                f"{units.layer}: the patches that excite a unit most, {side} × {side} pixels, and its responses\n"
                "(grey: outside the picture)"
            )
        else:
            figure.suptitle(
                f"{units.layer}: an input found by gradient ascent, and the patches that excite a unit most\n"
                f"{side} × {side} pixels, with the responses to them (grey: outside the picture)"
            )
        for axes in (all_axes := figure.subplots(down, across, squeeze=False).ravel()):
            axes.set_axis_off()
        for i, (unit, axes) in enumerate(zip(shown, all_axes, strict=False)):
            ascent = None if ascents is None else (ascents.pictures[i], float(ascents.responses[i]))
            _draw_block(axes, units, unit, images, side, ascent)


def _draw_block(
    axes: "Axes", units: Units, unit: int, images: Split, side: int, ascent: tuple[np.ndarray, float] | None
) -> None:
    """The patches of a unit as a square, and to their left as large an ``ascent``: its picture and its response."""
    gap = max(1, side // 24)
    squares = np.full((PATCHES, side, side, 3), BACKGROUND, np.uint8)
    for square, place, patch in zip(squares, units.places[unit], patches_of(units, unit, images), strict=False):
        _put(square, patch, units, place)
    block = mosaic(squares, 3, gap=gap)
    left, highest = 0, max(1.0, float(units.responses[unit, 0]), ascent[1] if ascent else 0.0)
    decimals = max(0, 2 - int(np.log10(highest)))  # three digits
    if ascent is not None:
        block, left = _beside(ascent[0], block, side), len(block) + 3 * gap
        _write(axes, 0, len(block), f"{ascent[1]:.{decimals}f}")
    axes.imshow(block, interpolation="antialiased")
    column = f", column {units.column(unit)}" if units.columns > 1 else ""
    axes.set_title(
        f"unit {unit}{column}" + ("" if units.rows[unit, 0] >= 0 else "\nnothing excites it"), fontsize="medium"
    )
    for i, (row, response) in enumerate(zip(units.rows[unit], units.responses[unit], strict=True)):
        if row >= 0:
            y, x = (side + gap) * (i // 3 + 1) - gap, left + (side + gap) * (i % 3)
            _write(axes, x, y, f"{response:.{decimals}f}")


def _beside(ascent: np.ndarray, block: np.ndarray, side: int) -> np.ndarray:
    """An ``ascent`` enlarged to the height of the ``block`` of patches, and the block to its right."""
    from PIL import Image

    square = np.full((side, side, 3), BACKGROUND, np.uint8)
    square[: len(ascent), : ascent.shape[1]] = ascent
    large = np.asarray(Image.fromarray(square).resize((len(block), len(block)), Image.Resampling.NEAREST))
    gap = np.full((len(block), 3 * max(1, side // 24), 3), 255, np.uint8)
    return np.concatenate([large, gap, block], axis=1)


def _put(square: np.ndarray, patch: np.ndarray, units: Units, place: Any) -> None:
    """Draw ``patch`` on its ``square``: what lies outside the view stays as it was."""
    starts = (units.field["start"] + int(along) * units.field["stride"] for along in place)
    y, x = (min(max(0, -start), len(square) - extent) for start, extent in zip(starts, patch.shape, strict=False))
    square[y : y + patch.shape[0], x : x + patch.shape[1]] = patch


def _write(axes: "Axes", x: float, y: float, text: str) -> None:
    """Small letters in the lower left corner of a patch, which begins at ``x`` and ends at ``y``."""
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    axes.text(x, y, text, fontsize="x-small", ha="left", va="bottom", bbox=box)
