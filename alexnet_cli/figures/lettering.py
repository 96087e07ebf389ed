"""Text in pictures that Pillow draws."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

from alexnet_cli.errors import visible

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """DejaVu Sans, from matplotlib's files: Pillow's default font has neither accents nor a × sign."""
    package = find_spec("matplotlib")  # not imported: the import would take half a second
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size) if file.exists() else ImageFont.load_default(size)


def fit(text: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    """``text``, what does not print in it escaped, truncated with an ellipsis to at most ``width`` pixels."""
    shown = text = visible(text)
    while draw.textlength(shown, font) > width and len(text) > 1:
        text = text[:-1]
        shown = text + "…"
    return shown
