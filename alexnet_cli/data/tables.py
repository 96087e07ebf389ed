"""What Pillow reads in Python, piece by piece, before a picture's pixels: the strips of a TIFF, the blocks of a GIF."""

import struct

from alexnet_cli.data.limits import GIF_BLOCKS, TIFF_STRIPS
from alexnet_cli.errors import BadPicture

STRIPS, TILES = 273, 324  # TIFF tags
EXTENSION, IMAGE, END = ord("!"), ord(","), ord(";")  # what a block of a GIF begins with


def check_tables(content: bytes) -> None:
    """Raise BadPicture if ``content`` is a TIFF of too many strips or tiles, or a GIF of too many blocks.

    Pillow reads the tables of both when it opens a picture, before it can be asked for its size.
    """
    if content[:2] in (b"II", b"MM"):
        _check_strips(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        _check_blocks(content)


def _check_strips(tiff: bytes) -> None:
    # Offsets of 64 bits are told by the byte at which Pillow tells them, so that both read the same directory.
    order, is_big = ("<" if tiff[:2] == b"II" else ">"), tiff[2:3] == b"\x2b"
    number, entry = (order + "Q", order + "HHQQ") if is_big else (order + "H", order + "HHLL")
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), tiff, 8 if is_big else 4)
        (entries,) = struct.unpack_from(number, tiff, start)
        start += struct.calcsize(number)
        for i in range(min(entries, 2**16)):
            tag, _, count, _ = struct.unpack_from(entry, tiff, start + i * struct.calcsize(entry))
            if tag in (STRIPS, TILES) and count > TIFF_STRIPS:
                raise BadPicture(f"a TIFF of more than {TIFF_STRIPS:,} strips or tiles: convert it first")
    except (struct.error, OverflowError):  # it ends before its directory does, which Pillow says
        return


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
