"""Decode a picture file and bring it to fixed size: the shorter side to 256 pixels, then the central 256×256 (§2)."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_cli.errors import BadPicture, first_line

try:
    import cykooz_resizer as resizer
except ImportError:  # it has no wheel for this platform
    resizer = None

# The resizer in use. The results of the two differ by one grey level in some pixels.
RESIZER = "Pillow" if resizer is None else "cykooz-resizer"

PIXEL_LIMIT = 178_956_970  # of one picture, checked before decoding; as RGB they take 512 MiB
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the shorter side is then still this many times the target.
MIN_SCALE = 2

ORIENTATION = 0x0112  # EXIF tag
# Orientation -> the operation that turns the picture upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of damaged EXIF without naming the file. The filter is set once for the process, because pictures are
# decoded in several threads and `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\..*")


def load_picture(source: Path | bytes, size: int = 256) -> np.ndarray:
    """The central square of a picture, resized to ``size`` pixels: (size, size, 3) uint8 RGB.

    ``source`` is a file's path or content. Its format is told from the content, not from the name. EXIF orientation is
    applied; an animation gives its first frame; transparent pixels become white; 16-bit grey keeps its high byte.
    Resizing is bilinear with anti-aliasing.

    Raises BadPicture, with the reason, for a file that is missing, not a picture or damaged, or has more than
    PIXEL_LIMIT pixels.
    """
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        pixels, orientation = decode_jpeg(content, size), 1  # (H, W, 3)
        if pixels is None or _may_have_orientation(content):
            with Image.open(io.BytesIO(content)) as image:
                pixels = _decode_by_pillow(image, size) if pixels is None else pixels
                orientation = _orientation(image)
        square = _resize(_central_square(pixels), size)  # (size, size, 3); cropping first leaves less to resize
        operation = UPRIGHT.get(orientation)
        return square if operation is None else np.asarray(Image.fromarray(square).transpose(operation))
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
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
        raise BadPicture(f"cannot be decoded ({first_line(error)})") from None


def decode_jpeg(content: bytes, size: int) -> np.ndarray | None:
    """Decode a grey or YCbCr JPEG with libjpeg-turbo, without its orientation: (H, W, 3) uint8 RGB.

    Returns None for content that is left to Pillow: other colour spaces (CMYK), damaged files, other formats.
    """
    if content[:2] != b"\xff\xd8":
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray") or width * height > PIXEL_LIMIT:
            return None
        # At reduced scale libjpeg skips the highest frequencies, which is several times faster. With MIN_SCALE, the
        # mean difference to decoding at full size is below 1.5 grey levels (tests/test_pictures.py).
        divisor = next(n for n in (8, 4, 2, 1) if n == 1 or min(height, width) // n >= MIN_SCALE * size)
        least = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)} if divisor > 1 else {}
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", **least)
    except ValueError:
        return None
    return pixels


def _may_have_orientation(jpeg: bytes) -> bool:
    """Whether an APP1 segment (EXIF or XMP) precedes the coded pixels; True as well if the segments cannot be read."""
    offset = 2
    while jpeg[offset : offset + 1] == b"\xff" and jpeg[offset + 1] not in (0xDA, 0xE1):
        offset += 2 + int.from_bytes(jpeg[offset + 2 : offset + 4], "big")
    return jpeg[offset : offset + 2] != b"\xff\xda"


def _decode_by_pillow(image: Image.Image, size: int) -> np.ndarray:
    """Any format Pillow knows, without its orientation: (H, W, 3) uint8 RGB."""
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise BadPicture(f"{width}×{height} is more than {PIXEL_LIMIT:,} pixels")
    if image.format == "JPEG":
        image.draft(None, (MIN_SCALE * size, MIN_SCALE * size))  # the reduced scale of `decode_jpeg`
    image.load()
    return np.asarray(_to_rgb(image))


def _central_square(pixels: np.ndarray) -> np.ndarray:
    """The largest square at the centre of an image (H, W, 3), rounded to whole pixels."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    """Resize (S, S, 3) to (size, size, 3), bilinear with anti-aliasing."""
    if resizer is None:
        return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
    resized = resizer.ImageData(size, size, resizer.PixelType.U8x3)
    original = resizer.ImageData(len(square), len(square), resizer.PixelType.U8x3, square.tobytes())
    bilinear = resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)
    resizer.Resizer().resize(original, resized, resizer.ResizeOptions(bilinear))
    return np.frombuffer(resized.get_buffer(), np.uint8).reshape(size, size, 3)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of a decoded image; 1 if EXIF is damaged. Pillow itself turns TIFFs upright."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF: the pixels are still good
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB. Raises BadPicture for floating-point pixels."""
    if image.mode == "F":
        raise BadPicture("floating-point pixels of unknown range: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 or 32-bit grey, which Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or grey.max() > 255
        return Image.fromarray(np.clip(grey >> 8 if deep else grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
