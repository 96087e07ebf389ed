"""One picture file to the pixels everything else works with: the shorter side to 256, the central 256×256, RGB (§2)."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_cli.errors import BadPicture, first_line

try:
    import cykooz_resizer as resizer
except ImportError:  # where it has no wheel
    resizer = None

RESIZER = "Pillow" if resizer is None else "cykooz-resizer"  # their pixels differ by a grey level here and there

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


def load_picture(source: Path | bytes, size: int = 256) -> np.ndarray:
    """The central square of a picture at ``size`` pixels: (size, size, 3) uint8 RGB.

    Decoded by content, whatever the name; EXIF orientation applied; the first frame of an animation; what is
    transparent becomes white; 16-bit grey by its high byte. Bilinear, anti-aliased. Raises BadPicture, saying why,
    for what is no picture, is not there in full, or has more than PIXEL_LIMIT pixels.
    """
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        pixels, orientation = ordinary_jpeg(content, size), 1  # (H, W, 3)
        if pixels is None or _may_be_turned(content):
            with Image.open(io.BytesIO(content)) as image:
                pixels = _any_picture(image, size) if pixels is None else pixels
                orientation = _orientation(image)
        square = _resized(_central(pixels), size)  # (size, size, 3); cut before it is resized, which is cheaper
        turn = UPRIGHT.get(orientation)
        return square if turn is None else np.asarray(Image.fromarray(square).transpose(turn))
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("empty file" if not content else "not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {PIXEL_LIMIT:,} pixels") from None
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except IsADirectoryError:
        raise BadPicture("a folder, not a picture") from None
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise BadPicture(f"cannot be decoded ({first_line(error)})") from None


def ordinary_jpeg(content: bytes, size: int) -> np.ndarray | None:
    """A JPEG by libjpeg-turbo, not turned: (H, W, 3). None for what Pillow must see: inks, damage, other formats."""
    if content[:2] != b"\xff\xd8":
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray") or width * height > PIXEL_LIMIT:
            return None
        # libjpeg leaves out the finest frequencies while it decodes; twice the size needed is kept, which stays
        # within a grey level and a half of decoding everything (tests/test_pictures.py) and is several times faster.
        shrink = next(n for n in (8, 4, 2, 1) if n == 1 or min(height, width) // n >= DRAFT * size)
        least = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)} if shrink > 1 else {}
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", **least)
    except ValueError:
        return None
    return pixels


def _may_be_turned(jpeg: bytes) -> bool:
    """Whether a segment before the coded pixels is APP1, where EXIF and XMP stand, or cannot be told."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1] not in (0xDA, 0xE1):
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[at : at + 2] != b"\xff\xda"


def _any_picture(image: Image.Image, size: int) -> np.ndarray:
    """What Pillow reads, not turned: (H, W, 3)."""
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise BadPicture(f"{width}×{height} is more than {PIXEL_LIMIT:,} pixels")
    if image.format == "JPEG":
        image.draft(None, (DRAFT * size, DRAFT * size))  # as above
    image.load()
    return np.asarray(_rgb(image))


def _central(pixels: np.ndarray) -> np.ndarray:
    """The central square, in whole pixels."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resized(square: np.ndarray, size: int) -> np.ndarray:
    """Bilinear and anti-aliased: (S, S, 3) to (size, size, 3)."""
    if resizer is None:
        return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
    resized = resizer.ImageData(size, size, resizer.PixelType.U8x3)
    whole = resizer.ImageData(len(square), len(square), resizer.PixelType.U8x3, square.tobytes())
    bilinear = resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)
    resizer.Resizer().resize(whole, resized, resizer.ResizeOptions(bilinear))
    return np.frombuffer(resized.get_buffer(), np.uint8).reshape(size, size, 3)


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
