"""Text in pictures that Pillow draws."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

from alexnet_cli.errors import visible
from alexnet_cli.wording import shortened

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
    """``text``, what does not print in it escaped, with an ellipsis in its middle if it is wider than ``width`` pixels.

    The end of a file's name tells as much as its beginning.
    """
    text = shown = visible(text)
    for length in range(len(text) - 1, 2, -1):
        if draw.textlength(shown, font) <= width:
            break
        shown = shortened(text, length)
    return shown
