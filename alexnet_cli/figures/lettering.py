"""Text in pictures that Pillow draws."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has neither accents nor a × sign."""
    package = find_spec("matplotlib")  # found, not imported: that would take half a second
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size) if file.exists() else ImageFont.load_default(size)


def fit(text: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    """``text``, cut so that it is no wider than ``width`` pixels."""
    shown = text
    while draw.textlength(shown, font) > width and len(text) > 1:
        text = text[:-1]
        shown = text + "…"
    return shown
