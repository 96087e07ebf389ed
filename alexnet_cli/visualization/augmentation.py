"""What training makes of a picture (§4.1): some of its random views, drawn and applied as the recipe says."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from alexnet_cli.data.augment import Drawn, EpochPlan, augment
from alexnet_cli.data.augmentations import ColourNoise, Geometric, RandomCrop, Reflection, colour_shift
from alexnet_cli.data.preprocess import Image, Preprocessor
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size, drawing
from alexnet_cli.model import Model

VIEWS = {Size.page: 8, Size.slide: 6}  # how many are drawn
LINE, SMALL_LINE = 20, 26  # letters in a line above a view, and in the smaller ones if the paper's two do not do


@dataclass(frozen=True, kw_only=True)
class TrainingViews:
    """Random views of one picture, as a training of the model would see it in different epochs."""

    inputs: np.ndarray  # (N, C, crop, crop) float32, what the network gets
    pixels: np.ndarray  # (N, crop, crop, C) uint8: these with the dataset's mean colour added back, as people see them
    corners: list[tuple[int, int]]  # row and column of the picture at which each begins
    reflected: list[bool]
    shifts: np.ndarray  # (N, 3), what colour noise adds to red, green and blue, in 0-255 units
    words: list[list[str]]  # what each augmentation of the recipe's list did
    outlines: np.ndarray  # (N, 4, 2): where in the picture the corners of each come from, (x, y) from its upper left


def training_views(
    model: Model, statistics: Statistics, picture: np.ndarray, count: int = 8, seed: int = 0
) -> TrainingViews:
    """``count`` random training views of ``picture`` (S, S, 3) uint8, a pure function of ``seed``.

    ``statistics``: of the dataset that the model was trained on; its colours' principal components are what colour
    noise is made of. Raises AlexNetError if the recipe of ``model`` has no augmentation.
    """
    recipe = model.recipe
    if not recipe.augmentations:
        raise AlexNetError(f"the recipe {recipe.name} of this model has no augmentation: it trains on the centre view")
    shared = max(getattr(each, "shared_by", 1) for each in recipe.augmentations.values())
    plan = EpochPlan.draw(seed, 0, count * shared, recipe.image, recipe.augmentations)
    drawn = plan.rows(slice(None, None, shared))  # one of each group of images that are cropped alike
    statistics = replace(statistics, mean_image=model.mean_image)
    images = torch.from_numpy(np.repeat(picture[None], count, axis=0))
    inputs = augment(Preprocessor(recipe.image, model.mean_image, "cpu"), images, drawn, statistics).numpy()
    # People see the view as it was before it was standardized: the colours of one that was are its own.
    plain = replace(recipe.image, standardize=False)
    seen = augment(Preprocessor(plain, model.mean_image, "cpu"), images, drawn, statistics).numpy()
    mean = model.mean_image.mean(axis=(0, 1)) if len(inputs[0]) == 3 else model.mean_image.mean()
    seen = seen.transpose(0, 2, 3, 1) * plain.divide_by + mean
    corners, reflected, shifts = _facts(drawn, count, recipe.image.border, statistics)
    return TrainingViews(
        inputs=inputs,
        pixels=np.clip(seen, 0, 255).round().astype(np.uint8),
        corners=corners,
        reflected=reflected,
        shifts=shifts,
        words=[[each.words(values, i, statistics) for each, values in drawn] for i in range(count)],
        outlines=_outlines(drawn, count, recipe.image),
    )


def _facts(
    drawn: Drawn, count: int, border: int, statistics: Statistics
) -> tuple[list[tuple[int, int]], list[bool], np.ndarray]:
    """Where ``count`` views begin, which are reflected, and what is added to their colours (count, 3)."""
    corners, reflected, shifts = [(border, border)] * count, [False] * count, np.zeros((count, 3))
    for augmentation, values in drawn:
        if isinstance(augmentation, RandomCrop):
            corners = list(zip(values["top"].tolist(), values["left"].tolist(), strict=True))
        elif isinstance(augmentation, Reflection):
            reflected = values["reflected"].tolist()
        elif isinstance(augmentation, ColourNoise):
            shifts = shifts + colour_shift(values["a"], statistics)
    return corners, reflected, shifts


def _outlines(drawn: Drawn, count: int, image: Image) -> np.ndarray:
    """Where in the picture the corners of ``count`` views come from: (count, 4, 2)."""
    crop = next((values for each, values in drawn if isinstance(each, RandomCrop)), None)
    first = np.full((count, 2), image.border) if crop is None else np.stack([crop["left"], crop["top"]], axis=1)
    corners = first[:, None] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * image.crop - image.size / 2
    for each, values in reversed(drawn):  # all that moves about the centre is before the crop
        if isinstance(each, Geometric):
            corners = corners @ np.linalg.inv(each.matrix(values)).transpose(0, 2, 1)
    return np.asarray(corners + image.size / 2)


def draw_training_views(
    views: TrainingViews, picture: np.ndarray, path: Path, size: Size = Size.page, *, model: str = ""
) -> None:
    """Draw ``picture`` (S, S, 3) uint8 with a frame around each view, and the views in frames of the same colours.

    Above each stands what was drawn for it, in the order of the recipe's list.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Polygon

    count, crop = len(views.pixels), views.pixels.shape[1]
    titles = [_title(words, LINE) for words in views.words]
    is_long = any(title.count("\n") > 1 for title in titles)
    if is_long:
        titles = [_title(words, SMALL_LINE) for words in views.words]
    with drawing(path, size, height=6.0 if is_long else 5.4, model=model) as figure:
        figure.suptitle(f"{count} random training views, framed on the picture, and what was drawn for each")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 2.2]).flat
        whole, panels = left.subplots(), right.subplots(2, -(-count // 2), squeeze=False).ravel()
        whole.imshow(picture)
        whole.set_title(f"picture, {len(picture)} × {len(picture)}\nviews {crop} × {crop}")
        whole.set_axis_off()
        for i, axes in enumerate(panels):
            if i >= count:
                axes.set_visible(False)
                continue
            colour = colormaps["tab10"](i % 10)
            whole.add_patch(Polygon(views.outlines[i] - 0.5, fill=False, ec=colour, lw=1.5))
            axes.imshow(views.pixels[i], cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=colour, linewidth=3)
            axes.set_title(titles[i], fontsize="small" if is_long else "medium")


def _title(words: list[str], letters: int) -> str:
    """What was drawn for a view, several to a line of at most so many ``letters`` if they fit."""
    lines = [""]
    for each in filter(None, words):
        joined = f"{lines[-1]}, {each}" if lines[-1] else each
        lines = [*lines[:-1], joined] if len(joined) <= letters else [*lines, each]
    return "\n".join(lines).strip().replace("-", "−")
