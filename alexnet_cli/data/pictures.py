"""One picture file to the pixels everything else works with: the shorter side to 256, the central 256×256, RGB (§2)."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet_cli.errors import BadPicture

PIXEL_LIMIT = 178_956_970  # a picture of more is refused before it is decoded: 512 MiB of RGB


def load_picture(source: Path | bytes | BinaryIO, size: int = 256) -> np.ndarray:
    """The central square of a picture at ``size`` pixels: (size, size, 3) uint8 RGB.

    Decoded by content, whatever the name; EXIF orientation applied; the first frame of an animation; what is
    transparent becomes white. Anti-aliased bilinear, only the central square is resized, which equals resizing the
    shorter side to ``size`` and cutting the centre. Raises BadPicture, saying why, for what is no picture, is not
    there in full, or has more than PIXEL_LIMIT pixels.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # corrupt EXIF, and Pillow's own pixel limit: ours is checked below
            with Image.open(file) as image:
                return _pixels(image, size)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {PIXEL_LIMIT:,} pixels") from None
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except IsADirectoryError:
        raise BadPicture("a folder, not a picture") from None
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise BadPicture(
            f"cannot be decoded ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise BadPicture(f"{width}×{height} is more than {PIXEL_LIMIT:,} pixels")
    image.load()
    picture = _rgb(ImageOps.exif_transpose(image))
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparent on white, 16-bit grey by its high byte."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")
