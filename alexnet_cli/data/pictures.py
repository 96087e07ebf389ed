"""One picture file to the pixels everything else works with: the shorter side to 256, the central 256×256, RGB (§2)."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_cli.errors import BadPicture

PIXEL_LIMIT = 178_956_970  # a picture of more is refused before it is decoded: it would take 512 MiB as RGB
DRAFT = 2  # a JPEG is decoded at a half, quarter or eighth if that leaves this many times what is needed

# EXIF orientation (tag 0x0112) -> what makes the picture upright
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Damaged EXIF makes Pillow warn, unnamed, for every picture. Pictures are decoded in several threads, so this is said
# once here: `warnings.catch_warnings` is not safe there.
warnings.filterwarnings("ignore", module=r"PIL\..*")


def load_picture(source: Path | bytes | BinaryIO, size: int = 256) -> np.ndarray:
    """The central square of a picture at ``size`` pixels: (size, size, 3) uint8 RGB.

    Decoded by content, whatever the name; EXIF orientation applied; the first frame of an animation; what is
    transparent becomes white; 16-bit grey by its high byte. Bilinear, anti-aliased. Raises BadPicture, saying why,
    for what is no picture, is not there in full, or has more than PIXEL_LIMIT pixels.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return _pixels(image, size)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("empty file" if source == b"" else "not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {PIXEL_LIMIT:,} pixels") from None
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except IsADirectoryError:
        raise BadPicture("a folder, not a picture") from None
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadPicture(f"cannot be decoded ({lines[0]})") from None


def load_many(source: bytes, size: int = 256) -> np.ndarray:
    """`load_picture` for one of very many: a third of the time for an ordinary JPEG, once torch has been imported.

    libjpeg-turbo decodes into an array and torch resizes it; a few pixels in a thousand differ, by one grey level.
    Whatever is turned, not YCbCr or grey, damaged, or no JPEG at all, is left to `load_picture`.
    """
    import simplejpeg
    import torch

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(source)
        if colours not in ("YCbCr", "Gray") or b"Exif\0\0" in source:
            return load_picture(source, size)
        shrink = next(n for n in (8, 4, 2, 1) if n == 1 or min(height, width) // n >= DRAFT * size)  # as Pillow does
        least = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)} if shrink > 1 else {}
        pixels = simplejpeg.decode_jpeg(source, "RGB", **least)  # (H, W, 3)
    except ValueError:
        return load_picture(source, size)
    height, width = pixels.shape[:2]
    left, top, right, bottom = _centre(width, height)
    square = torch.from_numpy(pixels)[None, top:bottom, left:right].permute(0, 3, 1, 2)  # (1, 3, side, side)
    resized = torch.nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()  # (size, size, 3)


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise BadPicture(f"{width}×{height} is more than {PIXEL_LIMIT:,} pixels")
    if image.format == "JPEG":
        # libjpeg leaves out the finest frequencies while it decodes; twice the size needed is kept, which stays
        # within a grey level of decoding everything (tests/test_pictures.py) and is several times faster.
        image.draft(None, (DRAFT * size, DRAFT * size))
    image.load()
    # The central square is cut first, which is cheaper than to resize the whole.
    square = _rgb(image).crop(_centre(*image.size)).resize((size, size), Image.Resampling.BILINEAR)
    turn = UPRIGHT.get(_orientation(image))
    return np.asarray(square if turn is None else square.transpose(turn))


def _centre(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the central square, in whole pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _orientation(image: Image.Image) -> int:
    """1 to 8, after decoding (TIFF is turned, and the tag taken away, as it is decoded); 1 if EXIF is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF is no reason to refuse whole pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB."""
    if image.mode == "F":
        raise BadPicture("its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or grey.max() > 255
        return Image.fromarray(np.clip(grey >> 8 if deep else grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
