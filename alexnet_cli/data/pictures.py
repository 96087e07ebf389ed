"""Decode a picture file and bring it to fixed size: the shorter side to 256 pixels, then the central 256×256 (§2)."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from alexnet_cli.data.jpeg import ARITHMETIC_FRAME, read_header
from alexnet_cli.data.limits import (
    EXIF_BYTES,
    FORMATS,
    HEAVY_FORMATS,
    HEAVY_PIXELS,
    JPEG_SCANNED,
    PIXELS,
    PLAIN_COMMENTS,
    SLOW_BYTES,
    SLOW_PIXELS,
    TIFF_TILED,
)
from alexnet_cli.data.locations import is_system_error, read_file
from alexnet_cli.data.tables import check_tables
from alexnet_cli.data.unread import is_heic, register_heic, why_unread
from alexnet_cli.errors import BadPicture, first_line

try:
    import cykooz_resizer as resizer
except ImportError:  # it has no wheel for this platform
    resizer = None

# The resizer in use. The results of the two differ by one grey level in some pixels.
RESIZER = "Pillow" if resizer is None else "cykooz-resizer"

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the shorter side is then still this many times the target.
MIN_SCALE = 2
STRIP = 256  # rows converted to RGB at a time: another whole copy of the picture would take as much memory as it does

JPEG_START = b"\xff\xd8"
ORIENTATION = 0x0112  # EXIF tag
# TIFF tags
NEW_SUBFILE_TYPE, SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, COMPRESSION = 254, 255, 256, 257, 259
TILE_WIDTH, TILE_LENGTH, DNG_VERSION = 322, 323, 50706
ROWS_PER_STRIP = 278
JPEG_COMPRESSIONS = (6, 7)
START_OF_SCAN = b"\xff\xda"
# Pillow's decoders that are written in Python, of these formats -> what they decode
SLOW = {"ppm_plain": "plain-text PPM", "ppm": "PPM whose largest value is not 255", "bmp_rle": "run-length BMP"}
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
    Resizing is bilinear with anti-aliasing. HEIC needs the extra `heic`.

    Raises BadPicture, with the reason, for a file that is missing, not a regular file, not a picture, damaged, a
    camera's RAW file or over one of `limits`; OSError or MemoryError if the system has no files or memory left.
    """
    content = read_file(source) if isinstance(source, Path) else source
    try:
        if content.startswith(JPEG_START):
            square, orientation = _load_jpeg(content, size)
        else:
            square, orientation = _load_other(content)
        square = _resize(square, size)
        operation = UPRIGHT.get(orientation)
        return square if operation is None else np.asarray(Image.fromarray(square).transpose(operation))
    except (BadPicture, MemoryError):
        raise
    except (UnidentifiedImageError, SyntaxError):
        told = why_unread(source.name) if isinstance(source, Path) else None
        raise BadPicture((told or "not a picture that can be read") if content else "empty file") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
        if is_system_error(error):
            raise
        raise BadPicture(f"cannot be decoded ({first_line(error)})") from None


def _load_jpeg(content: bytes, size: int) -> tuple[np.ndarray, int]:
    """The central square of a JPEG (S, S, 3), decoded at a scale that suits ``size``, and its orientation."""
    header = read_header(content)
    header.check(_divisor(header.width, header.height, size))
    pixels, orientation = decode_jpeg(content, size), 1
    if pixels is not None and not header.may_have_orientation:
        return _central_square(pixels), orientation
    if not header.width:  # Pillow would search for a frame byte by byte, in minutes
        raise BadPicture("not a picture that can be read: a JPEG without pixels")
    # Not by Image.open, whose limit of pixels is lower.
    with JpegImagePlugin.JpegImageFile(io.BytesIO(content)) as image:
        if pixels is not None:
            return _central_square(pixels), _orientation(image)
        header.check(_divisor(*image.size, size))
        image.draft(None, (MIN_SCALE * size, MIN_SCALE * size))  # the reduced scale of `decode_jpeg`
        return _square_of(image), _orientation(image)


def _divisor(width: int, height: int, size: int) -> int:
    """A JPEG is decoded at 1/8, 1/4, 1/2 or 1/1 of its size."""
    return next(n for n in (8, 4, 2, 1) if n == 1 or min(height, width) // n >= MIN_SCALE * size)


def decode_jpeg(content: bytes, size: int) -> np.ndarray | None:
    """Decode a grey or YCbCr JPEG with libjpeg-turbo, without its orientation: (H, W, 3) uint8 RGB.

    Returns None for content that is left to Pillow: other colour spaces (CMYK) and damaged files.
    """
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray"):
            return None
        # At reduced scale libjpeg skips the highest frequencies, which is several times faster. With MIN_SCALE, the
        # mean difference to decoding at full size is below 1.5 grey levels (tests/test_pictures.py).
        divisor = _divisor(width, height, size)
        least = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)} if divisor > 1 else {}
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", **least)
    except ValueError:
        return None
    return pixels


def formats_of(content: bytes) -> tuple[str, ...]:
    """The formats of Pillow's that a picture that begins with ``content`` may have."""
    if not is_heic(content):
        return tuple(FORMATS)
    register_heic()
    return ("HEIF",)


def _load_other(content: bytes) -> tuple[np.ndarray, int]:
    """The central square (S, S, 3) of a picture that is no JPEG, and its orientation."""
    check_tables(content)
    with Image.open(io.BytesIO(content), formats=formats_of(content)) as image:
        width, height = image.size
        limit = HEAVY_PIXELS if image.format in HEAVY_FORMATS else PIXELS
        if width * height > limit:
            raise BadPicture(f"more than {limit:,} pixels")
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image, content)
        _check_slow(image, content)
        square = _square_of(image)
        return square, _orientation(image)


def _check_slow(image: ImageFile.ImageFile, content: bytes) -> None:
    """Raise BadPicture for what Pillow would decode in Python for longer than a few seconds."""
    decoder = image.tile[0].codec_name if image.tile else ""
    if decoder not in SLOW:
        return
    if len(content) > SLOW_BYTES or image.width * image.height > SLOW_PIXELS:
        raise BadPicture(
            f"a {SLOW[decoder]} of more than {SLOW_PIXELS:,} pixels or {SLOW_BYTES // 2**20} MiB: convert it first"
        )
    if decoder == "ppm_plain" and content.count(b"#") > PLAIN_COMMENTS:
        raise BadPicture(f"a {SLOW[decoder]} of more than {PLAIN_COMMENTS:,} comments: convert it first")


def _check_tiff(image: TiffImagePlugin.TiffImageFile, content: bytes) -> None:
    """Raise BadPicture for a camera's RAW file, and for tiles that are larger than a picture may be.

    The first image of a RAW file is a preview, and says so, except in Canon's.
    """
    tags = image.tag_v2
    is_preview = bool(tags.get(NEW_SUBFILE_TYPE, 0) & 1) or tags.get(SUBFILE_TYPE) == 2
    if is_preview or content[8:10] == b"CR" or DNG_VERSION in tags:
        raise BadPicture("a camera's RAW file, of which only a preview can be read: convert it to JPEG first")
    # As they lie in the file: the size of `image` is that after its orientation.
    across, down, width, length = (
        int(tags.get(tag, 0)) for tag in (IMAGE_WIDTH, IMAGE_LENGTH, TILE_WIDTH, TILE_LENGTH)
    )
    if width * length > PIXELS:
        raise BadPicture(f"a tile of more than {PIXELS:,} pixels")
    if width * length and -(-across // width) * -(-down // length) * width * length > TIFF_TILED:
        raise BadPicture(f"tiles of more than {TIFF_TILED:,} pixels")
    if tags.get(COMPRESSION) in JPEG_COMPRESSIONS:
        if ARITHMETIC_FRAME.search(content):
            raise BadPicture("an arithmetic-coded JPEG in a TIFF: convert it first")
        part = width * length or across * min(down, int(tags.get(ROWS_PER_STRIP, down)))  # of a tile, or of a strip
        if content.count(START_OF_SCAN) * part > JPEG_SCANNED:
            raise BadPicture("a TIFF whose JPEGs have too many scans: convert it first")


def _square_of(image: Image.Image) -> np.ndarray:
    """The largest square at the centre of ``image``, not turned: (S, S, 3) uint8 RGB."""
    image.load()
    left, top, side = _centre(*image.size)
    highest = image.getextrema()[1] if image.mode == "I" else 0
    is_deep = isinstance(highest, int | float) and highest > 255
    square = np.empty((side, side, 3), np.uint8)
    for start in range(0, side, STRIP):
        end = min(start + STRIP, side)
        strip = image.crop((left, top + start, left + side, top + end))
        square[start:end] = np.asarray(_to_rgb(strip, is_deep))
    return square


def _central_square(pixels: np.ndarray) -> np.ndarray:
    """The largest square at the centre of an image (H, W, 3), rounded to whole pixels."""
    left, top, side = _centre(pixels.shape[1], pixels.shape[0])
    return pixels[top : top + side, left : left + side]


def _centre(width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the largest square at the centre."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


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
    """The EXIF orientation, 1 to 8, of a decoded image; 1 if EXIF is damaged or far too long to be a camera's.

    Pillow itself turns TIFFs upright.
    """
    if any(len(image.info.get(key) or "") > EXIF_BYTES for key in ("exif", "Raw profile type exif")):
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF: the pixels are still good
        return 1


def _to_rgb(image: Image.Image, is_deep: bool) -> Image.Image:
    """Convert an image of any mode to RGB. ``is_deep``: of 32-bit grey, whether it uses more than 8 of its bits.

    Raises BadPicture for floating-point pixels.
    """
    if image.mode == "F":
        raise BadPicture("floating-point pixels of unknown range: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 or 32-bit grey, which Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or is_deep
        return Image.fromarray(np.clip(grey >> 8 if deep else grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
