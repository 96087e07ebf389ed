"""Figures with axes, legends and titles: drawn by matplotlib, for a page or for a projector, as PNG or SVG."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_cli.outputs import DRAWN, check_suffix, write_output

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
PAGE_WIDTH, SLIDE = 10.0, (40 / 3, 7.5)  # inches
PAGE_DPI, SLIDE_DPI = 150, 144  # a slide has 1920 × 1080 pixels


class Size(StrEnum):
    """What a figure is made for."""

    page = "page"
    slide = "slide"  # 16:9, with letters that are legible from the last row


@contextmanager
def drawing(path: Path, size: Size = Size.page, *, height: float = 5.0, model: str = "") -> Iterator["Figure"]:
    """A figure to draw on, which is written to ``path`` when the block ends well.

    ``height``: of a page, in inches; a page is 10 inches wide, a slide 13.3 × 7.5. ``model``: the name of the model
    that is drawn, for the foot of the figure. Raises AlexNetError if ``path`` is neither PNG nor SVG.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_suffix(path, "a figure", SUFFIXES)
    is_slide = size is Size.slide
    # image.composite_image: joining images that overlap, Matplotlib would multiply by their opacity once more.
    with (
        rc_context({"font.size": 17 if is_slide else 9, "svg.fonttype": "path", "svg.hashsalt": "alexnet"}),
        rc_context({"image.composite_image": False}),
    ):
        figure = Figure(figsize=SLIDE if is_slide else (PAGE_WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        if model:
            figure.supxlabel(f"model: {model}", x=0.99, ha="right", fontsize="small", color="gray")
        kind = path.suffix.lower()[1:]
        with write_output(path) as temporary:
            # Without a date the same figure is the same file.
            metadata = {"Creator": DRAWN, "Date": None} if kind == "svg" else {"Software": DRAWN}
            figure.savefig(temporary, format=kind, dpi=SLIDE_DPI if is_slide else PAGE_DPI, metadata=metadata)


def show_picture(axes: "Axes", pixels: "np.ndarray", title: str = "") -> None:
    """``pixels`` (h, w, 3) or (h, w) uint8 on ``axes``, without ticks, each pixel a square."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
