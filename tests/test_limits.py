"""What is let in: raster formats and nothing else, and within limits."""

import errno
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, jpeg, pixels
from PIL import Image, TiffImagePlugin
from test_pictures import close

from alexnet_cli.data.jpeg import read_header
from alexnet_cli.data.limits import FILE_BYTES, HEAVY_PIXELS, PIXELS
from alexnet_cli.data.pictures import ORIENTATION, load_picture
from alexnet_cli.errors import BadPicture


def png(width: int, height: int, packed: bytes, depth: int = 8, colours: int = 2) -> bytes:
    """A PNG of pixels (of RGB, 8 bits each), which are ``packed`` by zlib."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    return png(width, height, zlib.compress(b"\0" * 1000))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (PIXELS // 1000 + 1, 1000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(BadPicture, match=f"more than {PIXELS:,} pixels"):
        load_picture(bomb(width, height), 32)


def dib(width: int, height: int) -> bytes:
    """A run-length bitmap, of which every row has one pixel."""
    runs = b"\1\5\0\0" * height + b"\0\1"
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024) + runs


def bmp(width: int, height: int) -> bytes:
    content = dib(width, height)
    return b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 14 + 40 + 1024) + content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"P3\n2\n2\n255\n" + b"#\n" * 1001 + b"1 " * 12, "a plain-text PPM of more than 1,000 comments"),
        (b"P3\n2\n2\n255\n" + b"1 " * 2**21, "a plain-text PPM of more than 4,194,304 pixels or 4 MiB"),
        (b"P1\n2049\n2049\n" + b"1" * 9, "a plain-text PPM of more than 4,194,304 pixels or 4 MiB"),
        (b"P6\n2049\n2049\n254\n" + b"1" * 9, "a PPM whose largest value is not 255 of more than 4,194,304 pixels or"),
        (bmp(8192, 8191), "a run-length BMP of more than 4,194,304 pixels or 4 MiB"),
        (b"P6" + b" " * 2**16 + b"1 1 255\nabc", "a PPM whose header has more than 64 KiB"),
        (b"P5 1 " + b"#c\n" * 2**15 + b"1 255\na", "a PPM whose header has more than 64 KiB"),
        (b"P4 1 #" + b"c" * 2**16 + b"\n1\na", "a PPM whose header has more than 64 KiB"),
        (b"Pf 1 1" + b"\n" * 2**16 + b"1\nabcd", "a PPM whose header has more than 64 KiB"),
    ],
    ids=["comments", "plain", "plain bits", "scaled", "run-length", "blanks", "lines", "comment", "floats"],
)
def test_what_would_be_decoded_in_python_for_long_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=f"^{re.escape(reason)}.*: convert it first$"):
        load_picture(content, 32)


def test_what_is_decoded_in_python_is_read_where_it_is_small() -> None:
    assert load_picture(b"P6 #a\n" + b" " * 60_000 + b"1 1 255\n" + b"\x07" * 3 + b"more" * 2**15, 4).max() == 7
    assert load_picture(b"P4\n1 1\n\x80" + b"more" * 2**15, 4).max() == 0
    plain = b"P3 #of three\n4 4\n255\n" + b"#\n" * 900 + b"255 0 0\n" * 16
    for content in (plain, b"P6\n4 4\n51\n" + b"\x33\0\0" * 16):
        assert (load_picture(content, 4) == [255, 0, 0]).all()
    assert (load_picture(bmp(9, 9), 9) == 0).all()


@pytest.mark.parametrize("format", ["EPS", "PDF", "PCX", "SGI", "MSP"])
def test_formats_that_are_not_in_the_list_are_not_opened(format: str) -> None:
    image = Image.fromarray(pixels(1, 32, 32)).convert("1" if format == "MSP" else "RGB")
    with pytest.raises(BadPicture, match=r"^not a picture that can be read$"):
        load_picture(encoded(image, format), 32)


def test_an_eps_starts_no_program(tmp_path, monkeypatch) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels(1, 32, 32)), "EPS"))
    with pytest.raises(BadPicture, match=r"^not a picture that can be read$"):
        load_picture(path, 32)
    assert not (tmp_path / "ran").exists()


def test_the_first_picture_of_an_mpo() -> None:
    frames = [Image.fromarray(pixels(i, 64, 64)) for i in range(2)]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert close(load_picture(content, 32), load_picture(encoded(frames[0]), 32), 2)


def tiff(tags: dict[int, int], compression: str | None = None, **options: object) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    return encoded(pixels(9, 64, 64), "TIFF", tiffinfo=info, compression=compression, **options)


def dng() -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[50706], info[50706] = 1, bytes([1, 4, 0, 0])  # DNGVersion
    return encoded(pixels(9, 64, 64), "TIFF", tiffinfo=info)


def cr2() -> bytes:
    """A TIFF with Canon's mark between its header and its first directory, as a CR2 has it."""
    plain = tiff({})
    directory, moved = int.from_bytes(plain[4:8], "little"), bytearray(plain)
    at = len(moved) + len(moved) % 2
    count = int.from_bytes(moved[directory : directory + 2], "little")
    moved = moved.ljust(at, b"\0") + moved[directory : directory + 2 + 12 * count + 4]
    moved[4:8] = at.to_bytes(4, "little")
    moved[8:12] = b"CR\x02\0"
    return bytes(moved)


@pytest.mark.parametrize(
    "content", [tiff({254: 1}), tiff({255: 2}), dng(), cr2()], ids=["preview", "old preview", "DNG", "CR2"]
)
def test_a_cameras_raw_file_is_not_taken_for_its_preview(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "TIFF"  # so that Pillow would read the preview
    with pytest.raises(BadPicture, match=r"^a camera's RAW file, of which only .*: convert it to JPEG first$"):
        load_picture(content, 32)


def tiled_tiff(side: int = 64, tile: int = 16, orientation: int = 1) -> bytes:
    """A TIFF in tiles, which Pillow reads but does not write."""
    image = pixels(9, side, side)
    tiles = [image[y : y + tile, x : x + tile].tobytes() for y in range(0, side, tile) for x in range(0, side, tile)]
    entries = [
        (256, 3, 1, side),
        (257, 3, 1, side),
        (258, 3, 3, None),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (274, 3, 1, orientation),
        (277, 3, 1, 3),
        (322, 3, 1, tile),
        (323, 3, 1, tile),
        (324, 4, len(tiles), None),
        (325, 4, len(tiles), None),
    ]
    start = 8 + 2 + 12 * len(entries) + 4
    bits, offsets = start, start + 6
    sizes = offsets + 4 * len(tiles)
    data = sizes + 4 * len(tiles)
    at = {258: bits, 324: offsets, 325: sizes}
    directory = b"".join(struct.pack("<HHII", tag, kind, n, at.get(tag, value)) for tag, kind, n, value in entries)
    content = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + struct.pack("<3H", 8, 8, 8)
    content += b"".join(struct.pack("<I", data + i * len(tiles[0])) for i in range(len(tiles)))
    return content + struct.pack("<I", len(tiles[0])) * len(tiles) + b"".join(tiles)


def test_ordinary_tiffs_are_read() -> None:
    image = pixels(9, 64, 64)
    wanted = load_picture(encoded(image), 32)
    smaller = Image.fromarray(image).resize((32, 32))
    reduced = TiffImagePlugin.ImageFileDirectory_v2()
    reduced[254] = 1
    smaller.encoderinfo = {"tiffinfo": reduced}
    pyramid = encoded(Image.fromarray(image), "TIFF", save_all=True, append_images=[smaller])
    assert pyramid.count(b"\xfe\x00\x04\x00\x01\x00\x00\x00\x01") == 1  # the reduced image says what it is
    pages = tiff({254: 2}, save_all=True, append_images=[Image.fromarray(pixels(1, 64, 64))])
    for content in (tiff({}), tiff({254: 0}), tiled_tiff(), pyramid, pages, tiff({}, "tiff_lzw"), tiff({}, "jpeg")):
        assert close(load_picture(content, 32), wanted, 2)


# Limits


def chunks(count: int, kind: bytes = b"aaAa") -> bytes:
    """A PNG with so many empty chunks before its pixels."""
    png = encoded(pixels(9, 8, 8))
    empty = struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))
    return png[:33] + empty * count + png[33:]


def strips(count: int, size: int) -> bytes:
    """A TIFF of ``count`` strips of one row, each of which says it has ``size`` bytes, all at one place."""
    row = bytes([7, *range(8)])  # PackBits: 8 bytes as they are
    start = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, 8), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 32773), (262, 3, 1, 1), (266, 3, 1, 2)]
    tags += [(273, 4, count, start), (278, 3, 1, 1), (279, 4, count, start + 4 * count)]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    offsets = struct.pack("<I", start + 8 * count) * count
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + bytes(4) + offsets
    return content + struct.pack("<I", size) * count + row * 1000


def exif(count: int) -> bytes:
    """EXIF whose orientation is so many fractions of 6."""
    entry = struct.pack("<HHHII", 1, 274, 5, count, 26)
    return struct.pack("<2sHI", b"II", 42, 8) + entry + bytes(4) + struct.pack("<II", 6, 1) * count


def resolutions(count: int) -> bytes:
    """A TIFF whose horizontal resolution is so many fractions."""
    content = encoded(Image.fromarray(pixels(9, 8, 8)), "TIFF", dpi=(72, 72))
    one, many = (struct.pack("<HHI", 282, 5, n) for n in (1, count))
    assert content.count(one) == 1
    return content.replace(one, many) + bytes(8 * count)


def remarks(count: int) -> bytes:
    """A TIFF with so many bytes of XMP."""
    return tiff({700: b"x" * count})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (chunks(2**17), "a PNG of more than 131,072 chunks"),
        (chunks(2**17, b"IDAT"), "a PNG of more than 131,072 chunks"),
        (chunks(101, b"iCCP"), "a PNG of more than 100 texts and colour profiles"),
        (chunks(101, b"zTXt"), "a PNG of more than 100 texts and colour profiles"),
        (strips(64, 1_000_000), "a TIFF whose strips or tiles are larger than its file"),
        (resolutions(2**17 + 1), "a TIFF of more than 131,072 values of tag 282"),
    ],
    ids=[
        "chunks",
        "parts",
        "profiles",
        "texts",
        "strips",
        "values",
    ],
)
def test_pictures_of_too_many_pieces_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=f"^{reason}: convert it first$"):
        load_picture(content, 32)


def test_exif_that_is_far_too_long_is_not_read() -> None:
    image, long = pixels(9, 8, 4), exif(2**15 + 1)
    upright = load_picture(encoded(image), 4)
    assert np.array_equal(load_picture(encoded(image, "PNG", exif=long), 4), upright)
    assert not np.array_equal(load_picture(encoded(image, "PNG", exif=exif(1)), 4), upright)
    jpeg, parts = encoded(image, "JPEG"), [long[start : start + 2**15] for start in range(0, len(long), 2**15)]
    segments = b"".join(struct.pack(">HH", 0xFFE1, 8 + len(part)) + b"Exif\0\0" + part for part in parts)
    with pytest.raises(BadPicture, match=r"^EXIF of more than 256 KiB: convert it first$"):
        load_picture(jpeg[:2] + segments + jpeg[2:], 4)


def test_pictures_of_many_pieces_are_read() -> None:
    wanted = load_picture(encoded(pixels(9, 8, 8)), 32)
    for content in (
        chunks(1000),
        resolutions(2**16),
        remarks(2**18),
    ):
        assert close(load_picture(content, 32), wanted, 2)


@pytest.mark.parametrize("orientation", [1, 6])  # 6: Pillow tells the size of the picture after it is turned
def test_tiles_that_are_larger_than_the_picture_in_all_are_refused(orientation: int) -> None:
    content = tiled_tiff(64, 64, orientation)
    for tag, size in ((257, 65_535), (322, 60_000), (323, 1000)):
        content = content.replace(struct.pack("<HHII", tag, 3, 1, 64), struct.pack("<HHII", tag, 3, 1, size))
    with pytest.raises(BadPicture, match=r"^tiles of more than 268,435,456 pixels$"):
        load_picture(content, 32)


ARITHMETIC = r"^an arithmetic-coded JPEG( in a TIFF)?: convert it first$"


@pytest.mark.parametrize("frame", [0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_an_arithmetic_coded_jpeg_is_refused(frame: int) -> None:
    """Its decoder makes up what is missing: 63 s for 0.2 MB that said they were 268 megapixels."""
    content = jpeg(64, 64)
    assert content.count(b"\xff\xc0\0\x11\x08") == 1
    with pytest.raises(BadPicture, match=ARITHMETIC):
        load_picture(content.replace(b"\xff\xc0\0\x11", bytes([0xFF, frame]) + b"\0\x11"), 32)
    image = Image.fromarray(pixels(9, 64, 64))
    inside = encoded(image, "TIFF", compression="jpeg")
    assert close(load_picture(inside, 32), load_picture(encoded(image), 32), 8)
    with pytest.raises(BadPicture, match=ARITHMETIC):
        load_picture(inside.replace(b"\xff\xc0\0\x11", bytes([0xFF, frame]) + b"\0\x11"), 32)


@pytest.mark.parametrize("format", ["JPEG2000", "ICO", "DIB"])
def test_formats_that_are_rare_and_hard_to_bound_are_not_read(format: str, tmp_path) -> None:
    path = tmp_path / f"a.{'jp2' if format == 'JPEG2000' else format.lower()}"
    path.write_bytes(encoded(Image.fromarray(pixels(1, 32, 32)), format))
    with pytest.raises(BadPicture, match=r"^not a picture that can be read$"):
        load_picture(path.read_bytes(), 32)
    told = "not a picture that can be read" if format == "DIB" else f"a {path.suffix} picture: convert it first"
    with pytest.raises(BadPicture, match=f"^{re.escape(told)}$"):
        load_picture(path, 32)


def test_a_tile_larger_than_a_picture_is_refused() -> None:
    content = tiled_tiff(64, 64)
    wide = struct.pack("<HHII", 322, 4, 1, 20_480) + struct.pack("<HHII", 323, 4, 1, 20_480)
    content = content.replace(struct.pack("<HHII", 322, 3, 1, 64) + struct.pack("<HHII", 323, 3, 1, 64), wide)
    with pytest.raises(BadPicture, match=r"^a tile of more than 67,108,864 pixels$"):
        load_picture(content, 32)


def test_only_regular_files_are_opened(tmp_path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    for path in (tmp_path / "photo.jpg", Path("/dev/zero")):  # a FIFO without a writer would block
        with pytest.raises(BadPicture, match=r"^not a regular file$"):
            load_picture(path)


def test_a_file_over_the_limit_is_not_read(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    path.touch()
    os.truncate(path, FILE_BYTES + 1)
    with pytest.raises(BadPicture, match=r"^a file of more than 268,435,456 bytes$"):
        load_picture(path)


def test_an_error_of_the_system_is_not_one_of_the_picture(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(pixels(1)))
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(tmp_path, os.O_RDONLY)  # the lowest number that is free
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            load_picture(tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.errno == errno.EMFILE


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = re.search(rb"\xff[\xc0-\xc2]\x00\x11\x08", jpeg).end()
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def test_jpegs_over_a_limit_are_refused_by_their_header() -> None:
    plain, progressive = jpeg(64, 64), jpeg(64, 64, progressive=True)
    with pytest.raises(BadPicture, match=r"^more than 268,435,456 pixels$"):
        load_picture(with_size(plain, 20_000, 20_000))
    with pytest.raises(BadPicture, match=r"^more than 67,108,864 pixels$"):  # its coefficients are kept in memory
        load_picture(with_size(progressive, 9_000, 9_000))
    with pytest.raises(BadPicture, match=r"^more than 67,108,864 pixels when decoded at 1/1 of its size$"):
        load_picture(with_size(plain, 20_000, 4_000), 4096)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    content = jpeg(64, 64, progressive=True)
    last = content.rindex(b"\xff\xda")
    assert close(load_picture(content, 32), load_picture(jpeg(64, 64), 32), 2)
    scan = content[last:-2]
    with pytest.raises(BadPicture, match=r"^a JPEG of more than 100 scans$"):
        load_picture(content[:-2] + 100 * scan + content[-2:], 32)
    scans = read_header(content).scans
    large = with_size(content[:-2] + (16 - scans) * scan, 8192, 8192)
    read_header(large + content[-2:]).check(1)
    frame = content.index(b"\xff\xc2")
    small = content[frame : frame + 2 + int.from_bytes(content[frame + 2 : frame + 4], "big")]
    with pytest.raises(BadPicture, match=r"^a JPEG of two frames$"):
        load_picture(large + 80 * scan + small + content[-2:])
    with pytest.raises(BadPicture, match=r"^a JPEG of 17 scans of 67,108,864 pixels: save it with fewer$"):
        load_picture(large + scan + content[-2:])
    with pytest.raises(BadPicture, match=r"^a JPEG of more than 10,000 segments$"):
        load_picture(content[:2] + 10_001 * b"\xff\xfe\x00\x02" + content[2:], 32)


@pytest.mark.parametrize("byte", [b"\xff", b"\x01"])
def test_a_jpeg_of_very_many_bytes_between_its_segments_is_refused(byte: bytes) -> None:
    content = jpeg(64, 64)
    few = content[:2] + 1000 * b"\xff" + content[2:]
    assert np.array_equal(load_picture(few, 32), load_picture(content, 32))
    with pytest.raises(BadPicture, match=r"^a JPEG of more than 1,048,576 bytes between its segments$"):
        load_picture(content[:2] + (2**20 + 1) * byte + content[2:], 32)


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("tag", [273, 324])
def test_a_tiff_of_very_many_strips_is_refused_before_it_is_opened(order: str, is_big: bool, tag: int) -> None:
    def header(count: int) -> bytes:
        mark = b"II" if order == "<" else b"MM"
        if is_big:
            return mark + struct.pack(f"{order}HHHQQHHQQ", 43, 8, 0, 16, 1, tag, 4, count, 0)
        return mark + struct.pack(f"{order}HLHHHLL", 42, 8, 1, tag, 4, count, 0)

    with pytest.raises(BadPicture, match=r"^a TIFF of more than 131,072 strips or tiles: convert it first$"):
        load_picture(header(2**17 + 1), 32)
    for content in (header(2**17), header(2**17 + 1)[:-1], header(1)[:6]):
        with pytest.raises(BadPicture, match=r"^(not a picture that can be read|cannot be decoded .*)$"):
            load_picture(content, 32)


def test_a_tiff_of_a_very_long_directory_is_refused_before_it_is_opened() -> None:
    header = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 2**16) + 20 * 2**16 * b"\1"
    with pytest.raises(BadPicture, match=r"^a TIFF whose directory has more than 65,535 entries: convert it first$"):
        load_picture(header, 32)


@pytest.mark.parametrize(
    "block",
    [b"!\xfe\1a\0", b"!\xff\1a\0", b"\1", b"!\xfe" + 2**16 * b"\1a" + b"\0"],
    ids=["comment", "facts", "junk", "text"],
)
def test_a_gif_of_very_many_blocks_is_refused(block: bytes) -> None:
    image = Image.fromarray(pixels(1, 32, 32)).quantize(16)
    content = encoded(image, "GIF")
    start = 13 + (3 << (content[10] & 7) + 1)
    with pytest.raises(BadPicture, match=r"^a GIF of more than 65,536 blocks before its image: convert it first$"):
        load_picture(content[:start] + (1 if len(block) > 5 else 2**16) * block + content[start:], 32)
    few = content[:start] + (100 if len(block) <= 5 else 0) * block + content[start:]
    assert np.array_equal(load_picture(few, 32), load_picture(content, 32))


def test_bytes_after_a_jpeg_are_not_counted_as_its_scans() -> None:
    content = jpeg(64, 64)  # some telephones write a film behind the picture
    assert np.array_equal(load_picture(content + 200 * b"\xff\xda\x00\x02", 32), load_picture(content, 32))


def test_a_telephones_200_megapixels_are_read() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(Image.new("L", (16_320, 12_240), 100), "JPEG", quality=30, exif=exif)
    assert np.abs(load_picture(content).astype(int) - 100).max() <= 1


MEASURE = """
import re, sys
from pathlib import Path
from typing import Any
from alexnet_cli.data.pictures import load_picture
def peak(path):
    load_picture(Path(path))
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(-peak(sys.argv[1]) + peak(sys.argv[2]))
"""


def memory_of(path: Path) -> int:
    """Bytes that loading a picture takes at most, in a process that has loaded a small one of its format before."""
    small = path.with_name(f"small{path.suffix}")
    Image.new("RGBA" if path.suffix != ".bmp" else "RGB", (32, 32)).save(small)
    done = subprocess.run([sys.executable, "-c", MEASURE, small, path], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of one program's memory is in Linux's /proc")
def test_the_largest_png_takes_less_than_600_mb(tmp_path) -> None:
    # 2.5 s, most of them to decode 67 million pixels; at 169 million this took 2.2 GB.
    side, packer = int(PIXELS**0.5), zlib.compressobj(1)
    row = b"\0" + bytes(3 * side)
    packed = b"".join(packer.compress(row * 64) for _ in range(side // 64)) + packer.flush()
    path = tmp_path / "large.png"
    path.write_bytes(png(side, side, packed))
    assert memory_of(path) < 600e6 * 1.1


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of one program's memory is in Linux's /proc")
@pytest.mark.parametrize("suffix", [".webp", ".tif", ".bmp", ".avif", ".tga"])
def test_the_largest_picture_of_any_format_takes_less_than_1_gb(suffix: str, tmp_path) -> None:
    """By measuring a smaller one: memory grows with the pixels."""
    limit = HEAVY_PIXELS if suffix == ".webp" else PIXELS
    image = Image.new("RGB" if suffix == ".bmp" else "RGBA", (2048, 2048), (90, 10, 200))
    image.save(path := tmp_path / f"large{suffix}")
    assert memory_of(path) / 2048**2 * limit < 1e9


def test_webp_has_a_limit_of_its_own() -> None:
    content = encoded(Image.new("RGB", (64, 64)), "WEBP", lossless=True)
    start = content.index(b"VP8L") + 8  # one byte, then 14 bits each of width and height, less 1
    size = struct.pack("<I", 8191 | 8191 << 14)
    with pytest.raises(BadPicture, match=r"^more than 33,554,432 pixels$"):
        load_picture(content[: start + 1] + size + content[start + 5 :], 32)
