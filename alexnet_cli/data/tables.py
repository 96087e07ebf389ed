"""Of how many pieces a picture says it is: values of a TIFF, chunks of a PNG, blocks of a GIF and so on.

A small file can say that it has very many, and decoders make a list of them, or visit each.
"""

import re
import struct

from alexnet_cli.data.limits import (
    GIF_BLOCKS,
    PNG_CHUNKS,
    PNG_COMPRESSED,
    PPM_HEADER,
    TIFF_ENTRIES,
    TIFF_OVERLAP,
    TIFF_VALUES,
)
from alexnet_cli.errors import BadPicture

STRIPS, TILES = 273, 324  # TIFF tags
SIZES = (279, 325)  # tags: bytes of each strip, or of each tile
INTEGERS = {3: "H", 4: "L", 16: "Q"}  # kinds of values
BYTES = (1, 2, 7)  # kinds of values that Pillow keeps as they are: bytes, text, anything
COMMENT = re.compile(rb"#[^\r\n]*")  # in the header of a PPM
PNG = b"\x89PNG\r\n\x1a\n"
EXTENSION, IMAGE, END = ord("!"), ord(","), ord(";")  # what a block of a GIF begins with


def check_tables(content: bytes) -> None:
    """Raise BadPicture if ``content`` is a TIFF, a PNG, a GIF or a PPM of too many pieces.

    Pillow reads them when it opens a picture, before it can be asked for its size.
    """
    if content[:2] in (b"II", b"MM"):
        _check_strips(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        _check_blocks(content)
    elif content[:8] == PNG:
        _check_chunks(content)
    elif content[:1] == b"P":
        _check_ppm(content)


def _check_ppm(ppm: bytes) -> None:
    start = COMMENT.sub(b"", ppm[:PPM_HEADER])
    words = 3 if start[:2] in (b"P1", b"P4") else 4  # the kind, width and height, and of most the largest value
    if len(ppm) > PPM_HEADER and len(start.split(maxsplit=words)) < words:
        raise BadPicture(f"a PPM whose header has more than {PPM_HEADER // 1024} KiB: convert it first")


def _check_strips(tiff: bytes) -> None:
    # Offsets of 64 bits are told by the byte at which Pillow tells them, so that both read the same directory.
    order, is_big = ("<" if tiff[:2] == b"II" else ">"), tiff[2:3] == b"\x2b"
    number, entry = (order + "Q", order + "HHQQ") if is_big else (order + "H", order + "HHLL")
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), tiff, 8 if is_big else 4)
        (entries,) = struct.unpack_from(number, tiff, start)
        start += struct.calcsize(number)
        if entries > TIFF_ENTRIES:
            raise BadPicture(f"a TIFF whose directory has more than {TIFF_ENTRIES:,} entries: convert it first")
        for i in range(entries):
            at = start + i * struct.calcsize(entry)
            tag, kind, count, _ = struct.unpack_from(entry, tiff, at)
            if kind not in BYTES and count > TIFF_VALUES:
                what = "strips or tiles" if tag in (STRIPS, TILES) else f"values of tag {tag}"
                raise BadPicture(f"a TIFF of more than {TIFF_VALUES:,} {what}: convert it first")
            if tag in SIZES and kind in INTEGERS:
                values = f"{order}{count}{INTEGERS[kind]}"
                place = at + (12 if is_big else 8)
                if struct.calcsize(values) > (8 if is_big else 4):  # they do not lie in the entry itself
                    (place,) = struct.unpack_from(order + ("Q" if is_big else "L"), tiff, place)
                if sum(struct.unpack_from(values, tiff, place)) > TIFF_OVERLAP * len(tiff):
                    raise BadPicture("a TIFF whose strips or tiles are larger than its file: convert it first")
    except (struct.error, OverflowError):  # it ends before its directory does, which Pillow says
        return


def _check_chunks(content: bytes) -> None:
    """Count the chunks of a PNG, and those of them that Pillow expands at once."""
    at, compressed = len(PNG), 0
    for _ in range(PNG_CHUNKS):
        if at >= len(content):
            return
        compressed += content[at + 4 : at + 8] in (b"iCCP", b"zTXt", b"iTXt")
        if compressed > PNG_COMPRESSED:
            raise BadPicture(f"a PNG of more than {PNG_COMPRESSED} texts and colour profiles: convert it first")
        at += 12 + int.from_bytes(content[at : at + 4], "big")  # besides its data: length, kind and checksum
    raise BadPicture(f"a PNG of more than {PNG_CHUNKS:,} chunks: convert it first")


def _check_blocks(gif: bytes) -> None:
    """Count as one each extension before the first image, each part of its text, and each byte between them."""
    at = 13 + (3 << (gif[10] & 7) + 1 if len(gif) > 10 and gif[10] & 128 else 0)
    in_extension = False
    for _ in range(GIF_BLOCKS):
        if at >= len(gif):
            return
        first = gif[at]
        if in_extension:
            at, in_extension = at + 1 + first, first > 0
        elif first in (IMAGE, END):
            return
        elif first == EXTENSION:
            at, in_extension = at + 2, True
        else:
            at += 1
    raise BadPicture(f"a GIF of more than {GIF_BLOCKS:,} blocks before its image: convert it first")
