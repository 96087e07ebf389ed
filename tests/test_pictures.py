"""Picture files of every format decode to upright RGB pixels, or are refused if damaged."""

import io

import numpy as np
import pytest
from pictures import encoded, jpeg, pixels
from PIL import Image

from alexnet_cli.data import pictures as module
from alexnet_cli.data.pictures import ORIENTATION, UPRIGHT, load_picture
from alexnet_cli.errors import BadPicture


def close(found: np.ndarray, wanted: np.ndarray, most: float = 1.0) -> bool:
    return float(np.abs(found.astype(float) - wanted.astype(float)).mean()) <= most


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_formats_are_told_by_content(format: str, tmp_path) -> None:
    image = pixels(1, 32, 32)
    path = tmp_path / "wrongly named.JPEG"
    path.write_bytes(encoded(image, format))
    found = load_picture(path, 32)
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert close(found, image, 8 if format == "GIF" else 3)
    assert np.array_equal(found, load_picture(path.read_bytes(), 32))


@pytest.mark.parametrize(("width", "height"), [(120, 80), (80, 120), (100, 100), (37, 91), (20, 12)])
def test_equals_resizing_the_shorter_side_and_cutting_the_centre(width: int, height: int) -> None:
    image = Image.fromarray(pixels(2, width, height))
    scale = 32 / min(width, height)
    whole = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - 32) // 2, (whole.height - 32) // 2
    cut = np.asarray(whole.crop((left, top, left + 32, top + 32)))
    assert close(load_picture(encoded(image), 32), cut, 2.0)  # crops may differ by half a pixel


def test_is_anti_aliased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(load_picture(encoded(stripes), 32).astype(int) - 128).max() < 16


def test_large_jpegs_decoded_at_reduced_scale_stay_within_a_grey_level_and_a_half() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1024, 768), Image.Resampling.BICUBIC)
    content = encoded(image, "JPEG", quality=90)
    with Image.open(io.BytesIO(content)) as plain:
        wanted = plain.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR, box=(128, 0, 896, 768))
    assert close(load_picture(content, 64), np.asarray(wanted), 1.5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, format: str) -> None:
    upright = Image.fromarray(pixels(3, 48, 32))
    back = {None: None, **{turn: turn for turn in UPRIGHT.values()}}
    back[Image.Transpose.ROTATE_90], back[Image.Transpose.ROTATE_270] = (
        Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_90,
    )
    turn = back[UPRIGHT.get(orientation)]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    wanted = load_picture(encoded(upright), 16)
    assert close(load_picture(encoded(stored, format, exif=exif), 16), wanted, 3)


def test_pictures_with_damaged_exif_are_decoded(recwarn) -> None:
    image = pixels(4, 32, 32)
    content = encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x09\xff\xff\xff\xff" * 3)
    assert close(load_picture(content, 32), image, 4)


def test_grey_palette_and_one_bit() -> None:
    grey = pixels(5, 32, 32)[..., 0]
    assert close(load_picture(encoded(grey), 32), np.repeat(grey[..., None], 3, 2), 0)
    palette = Image.fromarray(pixels(5, 32, 32)).quantize(16)
    assert close(load_picture(encoded(palette), 32), np.asarray(palette.convert("RGB")), 0)
    bits = Image.fromarray(grey > 128)
    assert set(np.unique(load_picture(encoded(bits), 32))) <= {0, 255}


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    for format in ("PNG", "TIFF"):
        found = load_picture(encoded(deep, format), 32)
        assert np.array_equal(found, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2))
    wide = encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")
    assert np.array_equal(load_picture(wide, 32)[..., 0], (deep >> 8).astype(np.uint8))


def test_floating_point_is_refused() -> None:
    with pytest.raises(BadPicture, match="floating-point"):
        load_picture(encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), 8)


def test_cmyk_jpeg() -> None:
    cmyk = Image.new("CMYK", (32, 32), (255, 0, 0, 0))  # cyan ink
    assert close(load_picture(encoded(cmyk, "JPEG", quality=95), 32), np.full((32, 32, 3), (0, 255, 255)), 4)


def test_ycck_jpeg_as_adobe_writes_it() -> None:
    # libjpeg converts YCC to CMY as 255 - RGB, and Adobe stores inverted inks (255 is no ink): for red, the file holds
    # the YCC of cyan. The test starts from a CMYK JPEG, which Pillow also writes inverted, and sets transform 2 (YCCK)
    # in its Adobe marker.
    red, cyan = (255, 0, 0), (0, 255, 255)
    y, cb, cr = Image.new("RGB", (1, 1), cyan).convert("YCbCr").getpixel((0, 0))
    stored = Image.new("CMYK", (32, 32), tuple(255 - v for v in (y, cb, cr, 255)))
    content = bytearray(encoded(stored, "JPEG", quality=100))
    marker = content.index(b"Adobe")
    assert content[marker + 11] == 0
    content[marker + 11] = 2
    assert close(load_picture(bytes(content), 32), np.full((32, 32, 3), red), 4)


def test_transparent_becomes_white() -> None:
    glass = np.zeros((32, 32, 4), np.uint8)
    glass[:, 16:] = (10, 20, 30, 255)
    found = load_picture(encoded(glass), 32)
    assert (found[:, :15] == 255).all()
    assert (found[:, 17:] == (10, 20, 30)).all()
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (load_picture(encoded(palette, transparency=0), 32) == 255).all()
    assert (load_picture(encoded(np.zeros((8, 8, 3), np.uint8), transparency=(0, 0, 0)), 8) == 255).all()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert close(load_picture(content, 32), np.full((32, 32, 3), (255, 0, 0)), 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_truncated_is_refused(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, format)
    with pytest.raises(BadPicture):
        load_picture(content[: len(content) * 2 // 3], 32)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"just text", "not a picture"), (b"\xff\xd8\xff", "not a picture")]
)
def test_files_that_are_not_pictures_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=reason):
        load_picture(content, 32)


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(BadPicture, match="no such file"):
        load_picture(tmp_path / "none.jpg")
    with pytest.raises(BadPicture, match="a folder"):
        load_picture(tmp_path)


def by_pillow(content: bytes, size: int = 256) -> np.ndarray:
    """A JPEG decoded and resized by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (2 * size, 2 * size))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (333, 501), (256, 256), (224, 224), (40, 30), (1023, 700), (900, 1100), (2400, 1611)],
)
def test_a_jpeg_is_what_pillow_makes_of_it_within_a_grey_level(width: int, height: int, subsampling: str) -> None:
    content = jpeg(width, height, subsampling=subsampling)
    found, wanted = load_picture(content).astype(int), by_pillow(content).astype(int)
    assert found.shape == (256, 256, 3)
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(found - wanted).mean() < 0.3
    assert abs((found - wanted).mean()) < 0.01  # rounding has no bias


def test_a_grey_jpeg() -> None:
    grey = encoded(Image.open(io.BytesIO(jpeg(300, 280))).convert("L"), "JPEG")
    assert np.abs(load_picture(grey).astype(int) - by_pillow(grey)).max() <= 1


def test_without_the_fast_resizer_pillow_resizes(monkeypatch) -> None:
    content = jpeg(300, 280)
    monkeypatch.setattr(module, "resizer", None)
    assert np.array_equal(load_picture(content), by_pillow(content))


@pytest.mark.parametrize("before", [b"", b"\xff\xfe\x00\x06note", b"\xff"])  # a comment, a fill byte
def test_exif_is_found_anywhere_before_the_pixels_of_a_jpeg(before: bytes) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    turned, plain = jpeg(300, 280, exif=exif), jpeg(300, 280)
    at = turned.index(b"\xff\xe1")
    found = load_picture(turned[:at] + before + turned[at:])
    assert np.array_equal(found, load_picture(plain)[::-1, ::-1])


def test_orientation_in_xmp_is_used_if_there_is_no_exif() -> None:
    note = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="3"></x:xmpmeta>'
    segment = b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note
    content = jpeg(300, 280)
    assert np.array_equal(load_picture(content[:2] + segment + content[2:]), load_picture(content)[::-1, ::-1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I"])
def test_a_picture_is_converted_in_strips_as_it_is_as_a_whole(mode: str, monkeypatch) -> None:
    image = Image.fromarray(pixels(1, 60, 50))
    if mode.startswith("I"):
        image = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 200)
    content = encoded(
        image if mode.startswith("I") else image.convert(mode), "TIFF" if mode in ("CMYK", "I") else "PNG"
    )
    whole = load_picture(content, 32)
    monkeypatch.setattr(module, "STRIP", 7)
    assert np.array_equal(load_picture(content, 32), whole)
