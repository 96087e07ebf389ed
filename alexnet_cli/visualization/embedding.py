"""An index in two dimensions: pictures that the network finds alike lie close together.

Features are reduced by PCA, then by t-SNE (van der Maaten and Hinton, 2008). What is near is alike; how far
apart groups lie, and how large they are, says little.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.figures.canvas import Size, drawing
from alexnet_cli.figures.sheet import load_pictures
from alexnet_cli.files import read_tensors, sweep, write_tensors
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.collection import Collection, Loaded
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.pca import principal_components
from alexnet_cli.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EMBEDDING_FILE = "embedding.safetensors"  # in the folder of the index
MOST = 10_000  # pictures; of a larger index so many, evenly spread
SAMPLE, COMPONENTS = 512, 50  # pictures that the axes are taken from; van der Maaten and Hinton reduce to 30
PERPLEXITY = 30  # about how many neighbours each picture is kept close to
GRIDS = {Size.page: (30, 30), Size.slide: (23, 15)}  # how many thumbnails fit side by side, and one above the other
THUMBNAIL = 64  # pixels
FRAME = 4  # pixels around a thumbnail
# Of a class each, the most frequent ones; of the other classes; of no class. Here and in the page.
COLOURS = ["#3b78b5", "#d9782d", "#4a9a4a", "#c74444", "#8d6bb8", "#8a6254", "#d075ae", "#4353b8", "#a8a632", "#3aa9b5"]
OTHER, NONE = "#9a958c", "#5c5850"
PAGE_HEIGHT, LETTERS = 10.5, 130  # inches; letters that fit side by side in a legend


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Where pictures of an index lie in the plane."""

    rows: np.ndarray  # (N,) int64, in the index
    coordinates: np.ndarray  # (N, 2) float32, from 0 to 1: x, y
    generation: str  # of the index


def embed(index: Index, progress: Progress = SILENT) -> Embedding:
    """Compute where the pictures of ``index`` lie, MOST of them if there are more, and keep that in its folder.

    What is kept already is used if the index has not changed. The same index gives the same coordinates on the same
    machine with as many threads. Raises AlexNetError if it has fewer than 3 pictures, BadArtefact if it is damaged.
    """
    with contextlib.suppress(BadArtefact):  # it is made again
        kept = read_embedding(index.path)
        if kept is not None and kept.generation == index.facts["generation"]:
            return kept
    if len(index) < 3:
        raise AlexNetError(f"{index.path} has {len(index)} pictures: a map needs 3 or more")
    from sklearn.manifold import TSNE

    rows = np.unique(np.linspace(0, len(index) - 1, min(len(index), MOST)).astype(np.int64))
    progress.note(f"arranging {len(rows):,} pictures by t-SNE")
    components = principal_components(index.vectors, index.vectors.sample(SAMPLE), COMPONENTS)[rows]
    components /= max(float(np.abs(components).max()), 1e-30)  # lengths differ from model to model
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    coordinates = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    coordinates = ((coordinates - low) / np.maximum(high - low, 1e-30)).astype(np.float32)
    found = Embedding(rows=rows, coordinates=coordinates, generation=index.facts["generation"])
    sweep(index.path, of=index.path / EMBEDDING_FILE)
    write_tensors(
        index.path / EMBEDDING_FILE, {"rows": rows, "coordinates": coordinates}, {"generation": found.generation}
    )
    return found


def read_embedding(folder: Path) -> Embedding | None:
    """What `embed` has kept in the ``folder`` of an index, perhaps of an earlier generation; None if nothing.

    Raises BadArtefact if it is damaged.
    """
    path = folder / EMBEDDING_FILE
    if not path.exists():
        return None
    metadata, tensors = read_tensors(path, what="map", remedy="make it again with `alexnet visualize embedding`")
    rows, coordinates = tensors.get("rows", np.empty(0)), tensors.get("coordinates", np.empty(0))
    is_right = rows.ndim == 1 and rows.dtype == np.int64 and coordinates.dtype == np.float32
    is_right = is_right and coordinates.shape == (len(rows), 2)
    if not (is_right and (rows >= 0).all() and (coordinates >= 0).all() and (coordinates <= 1).all()):  # not so of NaN
        raise BadArtefact(f"{path} is damaged: make it again with `alexnet visualize embedding`")
    return Embedding(rows=rows, coordinates=coordinates, generation=metadata.get("generation", ""))


def draw_embedding(
    embedding: Embedding,
    index: Index,
    collection: Collection | None,
    path: Path,
    size: Size = Size.page,
) -> None:
    """Draw the pictures where they lie: dots in the colours of their classes, and thumbnails over them.

    Each square of a grid that has pictures shows the one nearest to its middle. ``collection``: what was indexed, or
    None if it is not there.
    """
    pictures = [index.table.picture(int(row)) for row in embedding.rows]  # path within the source, label
    labels = [label for _, label in pictures]
    colour_of, grid = colours_of(labels), GRIDS[size]
    colours = [colour_of.get(label, OTHER) for label in labels]
    chosen = _one_a_square(embedding.coordinates, grid)
    loaded = load_pictures(collection, [pictures[i][0] for i in chosen], index.facts["image_size"])
    with drawing(path, size, height=PAGE_HEIGHT, model=index.facts["model"]) as figure:
        axes = figure.subplots()
        x, y = (embedding.coordinates * grid).T
        axes.scatter(x, y, c=colours, s=6, linewidths=0)
        thumbnails = _thumbnails(embedding.coordinates[chosen], loaded, [colours[i] for i in chosen], grid)
        axes.imshow(thumbnails, extent=(0, grid[0], 0, grid[1]), zorder=2)
        axes.set_axis_off()
        count = counted(len(embedding.rows), "picture")
        figure.suptitle(f"{index.path.name}: {len(chosen):,} of its {count}; what is near is alike", wrap=True)
        _draw_legend(axes, colour_of, labels, index.facts["names"], size)


def colours_of(labels: Sequence[str | None]) -> dict[str | None, str]:
    """A colour for each of the most frequent ``labels``, those first, and for None; none if there are no labels at all.

    All other labels have the colour OTHER.
    """
    counts = Counter(labels)
    without = counts.pop(None, 0)
    frequent = sorted(counts, key=lambda label: (-counts[label], label))
    colours: dict[str | None, str] = dict(zip(frequent, COLOURS, strict=False))
    return {**colours, None: NONE} if colours and without else colours


def _one_a_square(coordinates: np.ndarray, grid: tuple[int, int]) -> list[int]:
    """Of the pictures at ``coordinates`` (N, 2) in each square of the ``grid``, the one nearest to its middle."""
    squares = _squares(coordinates, grid)
    off = np.linalg.norm(coordinates * grid - squares - 0.5, axis=1)
    nearest: dict[tuple[int, int], int] = {}
    for i in np.argsort(off, kind="stable").tolist():
        nearest.setdefault((int(squares[i, 0]), int(squares[i, 1])), i)
    return sorted(nearest.values())


def _squares(coordinates: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The square of the ``grid`` of each of ``coordinates`` (N, 2): (N, 2) int64, column and row."""
    return np.asarray(np.minimum(np.floor(coordinates * grid), np.subtract(grid, 1)), np.int64)


def _thumbnails(
    coordinates: np.ndarray, loaded: Sequence[Loaded], colours: Sequence[str], grid: tuple[int, int]
) -> np.ndarray:
    """Framed thumbnails on their squares, transparent elsewhere: (height, width, 4) uint8; y grows upwards."""
    from matplotlib.colors import to_rgb

    columns, rows = grid
    sheet = np.zeros((rows * THUMBNAIL, columns * THUMBNAIL, 4), np.uint8)
    inner = THUMBNAIL - 2 * FRAME
    for (column, row), pixels, colour in zip(_squares(coordinates, grid), loaded, colours, strict=True):
        if isinstance(pixels, str):  # a picture that is not there any more stays a dot
            continue
        top, left = (rows - 1 - row) * THUMBNAIL, column * THUMBNAIL
        square = sheet[top : top + THUMBNAIL, left : left + THUMBNAIL]
        square[...] = *(round(255 * part) for part in to_rgb(colour)), 255
        small = Image.fromarray(pixels).resize((inner, inner), Image.Resampling.LANCZOS)
        square[FRAME:-FRAME, FRAME:-FRAME, :3] = np.asarray(small)
    return sheet


def _draw_legend(
    axes: "Axes",
    colour_of: dict[str | None, str],
    labels: Sequence[str | None],
    names: Mapping[str, str],
    size: Size,
) -> None:
    """What each colour stands for: below the picture on a page, beside it on a slide."""
    from matplotlib.lines import Line2D

    if not colour_of:
        return
    keys = [("no class" if label is None else names.get(label, label), colour) for label, colour in colour_of.items()]
    if others := len(set(labels) - set(colour_of)):
        keys.append((counted(others, "other class"), OTHER))
    handles = [Line2D([], [], marker="s", linestyle="", color=colour, label=name) for name, colour in keys]
    if size is Size.slide:
        place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "handletextpad": 0}
    else:
        ncols = max(1, min(6, LETTERS // (max(len(name) for name, _ in keys) + 4)))
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": ncols}
    axes.legend(handles=handles, frameon=False, **place)
