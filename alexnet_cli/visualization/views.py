"""The ten views of a picture (§4.1): where they lie in it, how each votes, and what their average says."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.figures.canvas import Size, drawing
from alexnet_cli.inference.predictor import Prediction, Predictor
from alexnet_cli.inference.views import View, ten_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACES = ["top left", "top right", "bottom left", "bottom right", "centre"]  # in the order of `ten_views`
FRAMES = ["tab:blue", "tab:red", "tab:purple", "tab:brown", "tab:cyan"]  # their colours
AGREES, DIFFERS, ANSWER = "tab:green", "tab:orange", "tab:gray"  # colours: of votes, and of the average
NAME = 36  # letters of a class's name in a line
INSET = 4.0  # pixels, at a picture of 256: frames that share an edge lie side by side


@dataclass(frozen=True, kw_only=True)
class Votes:
    """What a model says of each of the ten views of a picture."""

    views: list[View]  # the corners and the centre, then their reflections in the same order
    probabilities: np.ndarray  # (10, classes) float32
    best: list[Prediction]  # of each view the most probable class
    answer: list[Prediction]  # the average's five most probable classes

    @property
    def average(self) -> np.ndarray:
        """The ten-view answer: the mean of the probabilities, (classes,) float64."""
        return np.asarray(self.probabilities.mean(axis=0, dtype=np.float64))

    @property
    def agreeing(self) -> int:
        """How many views have the most probable class of the average."""
        return sum(vote.label == self.answer[0].label for vote in self.best)


def votes_of(model: Predictor, picture: np.ndarray) -> Votes:
    """What ``model`` says of each of the ten views of ``picture`` (S, S, 3) uint8, and of all: `Predictor.average`."""
    views = ten_views(model.image_size, model.crop)
    probabilities = np.concatenate([model.run(picture[None], view)[0] for view in views])
    return Votes(
        views=views,
        probabilities=probabilities,
        best=[model.best(one, 1)[0] for one in probabilities],
        answer=model.best(probabilities.mean(axis=0, dtype=np.float64)),
    )


def draw_votes(votes: Votes, picture: np.ndarray, path: Path, size: Size = Size.page, *, model: str = "") -> None:
    """Draw the frames of the views on ``picture`` (S, S, 3) uint8, each view with its vote, and the average below."""
    is_slide = size is Size.slide
    with drawing(path, size, height=6.0, model=model) as figure:
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.7]).flat
        _show_frames(left.subplots(), votes, picture)
        axes = right.subplots()
        _show_bars(axes, votes, picture)
        title = f"the ten views: {votes.agreeing} of 10 vote for the answer, {votes.answer[0].name}"
        figure.suptitle(textwrap.fill(title, 70))
        side = f"each {len(votes.views[0].rows)} pixels wide,\ndrawn inwards so that all are seen"
        for part, told in ((left, side), (right, None)):
            part.legend(loc="outside lower center", fontsize="small" if is_slide else "medium", ncols=2, title=told)


def _show_frames(axes: "Axes", votes: Votes, picture: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(picture)
    axes.set_axis_off()
    for i, (place, colour) in enumerate(zip(PLACES, FRAMES, strict=True)):
        rows, columns = votes.views[i]
        inset = i * INSET * len(picture) / 256 / 2
        corner = (columns.min() - 0.5 + inset, rows.min() - 0.5 + inset)
        side = len(rows) - 2 * inset
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec=colour, lw=2, label=place))


def _show_bars(axes: "Axes", votes: Votes, picture: np.ndarray) -> None:
    """A row for each view: the view itself, a bar for its most probable class, its name; and one for the average."""
    from matplotlib.patheffects import withStroke

    views = len(votes.views)
    labels = [*PLACES, *(f"{place}, reflected" for place in PLACES), "average of the ten"]
    best = [*votes.best, votes.answer[0]]
    agrees = [vote.label == votes.answer[0].label for vote in votes.best]
    colours = [*(AGREES if each else DIFFERS for each in agrees), ANSWER]
    positions = [*range(views), views + 0.5]  # the average stands apart
    axes.barh(positions, [vote.probability for vote in best], height=0.8, color=colours, alpha=0.6)
    for position, vote in zip(positions, best, strict=True):
        lines = textwrap.wrap(f"{vote.probability:.0%} {vote.name}", NAME)
        text = axes.text(0.01, position, "\n".join(lines), va="center", linespacing=1.0)
        text.set_fontsize(float(text.get_fontsize()) * min(1, 1.8 / len(lines)))
        text.set_path_effects([withStroke(linewidth=3, foreground="white", alpha=0.7)])
    for i, view in enumerate(votes.views):
        small = axes.inset_axes((-0.085, i - 0.45, 0.08, 0.9), transform=axes.get_yaxis_transform())
        small.imshow(picture[np.ix_(*view)])
        small.set(xticks=[], yticks=[])
        small.spines[:].set(color=FRAMES[i % len(FRAMES)], linewidth=2)
    axes.axvline(1 / votes.probabilities.shape[1], color="black", ls="--", lw=1, label="chance")
    for colour, label in ((AGREES, "votes for the answer"), (DIFFERS, "votes for another class"), (ANSWER, "average")):
        axes.barh([0], [0], color=colour, alpha=0.6, label=label)
    axes.set(xlim=(0, 1), ylim=(views + 1.0, -0.5), xlabel="probability")
    axes.set_yticks(positions, labels)
    axes.tick_params(axis="y", length=0, pad=38)
    axes.spines[["top", "right"]].set_visible(False)
