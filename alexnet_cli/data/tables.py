"""Of how many pieces a picture says it is: values of a TIFF, chunks of a PNG, blocks of a GIF and so on.

A small file can say that it has very many, and decoders make a list of them, or visit each.
"""

import re
import struct

from alexnet_cli.data.limits import (
    GIF_BLOCKS,
    ICO_ENTRIES,
    JPEG2000_BLOCKS,
    JPEG2000_PACKETS,
    JPEG2000_PARTS,
    JPEG2000_STYLES,
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
CODESTREAM = b"\xff\x4f\xff\x51"  # of a JPEG 2000: its start, and the marker of its size
HEADER_ENDS, TILE = b"\xff\x93", b"\xff\x90"  # markers, which compressed data never contain
LAYERS = re.compile(rb"\xff\x52....(..)", re.DOTALL)
# Flags, levels, exponents of the code-blocks and of the precincts: of a picture or a tile, and of a colour (of < 257)
STYLE = re.compile(rb"\xff\x52..(.)....(.)(..)..(.{0,33})", re.DOTALL)
STYLE_OF_COLOUR = re.compile(rb"\xff\x53...(.)(.)(..)..(.{0,33})", re.DOTALL)
COMMENT = re.compile(rb"#[^\r\n]*")  # in the header of a PPM
ICON = b"\0\0\1\0"
PNG = b"\x89PNG\r\n\x1a\n"
EXTENSION, IMAGE, END = ord("!"), ord(","), ord(";")  # what a block of a GIF begins with


def check_tables(content: bytes) -> None:
    """Raise BadPicture if ``content`` is a TIFF, a PNG, a GIF, a JPEG 2000 or a PPM of too many pieces.

    Pillow reads all but those of a JPEG 2000 when it opens a picture, before it can be asked for its size.
    """
    if content[:2] in (b"II", b"MM"):
        _check_strips(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        _check_blocks(content)
    elif content[:8] == PNG:
        _check_chunks(content)
    elif content[:4] == ICON:
        _check_icons(content)
    elif content[:4] == CODESTREAM or content[4:8] == b"jP  ":
        _check_packets(content)
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


def _check_icons(ico: bytes) -> None:
    """Count the pictures of an icon, and the chunks of those that are PNGs."""
    entries = int.from_bytes(ico[4:6], "little")
    if entries > ICO_ENTRIES:
        raise BadPicture(f"an icon of more than {ICO_ENTRIES:,} pictures: convert it first")
    for entry in range(entries):
        start = int.from_bytes(ico[6 + 16 * entry + 12 : 6 + 16 * entry + 16], "little")
        if ico[start : start + len(PNG)] == PNG:
            _check_chunks(ico, start)


def _check_chunks(content: bytes, start: int = 0) -> None:
    """Count the chunks of the PNG that begins at ``start``, and those of them that Pillow expands at once."""
    at, compressed = start + len(PNG), 0
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


def _check_packets(jpeg2000: bytes) -> None:
    """Every coding style counts, wherever it stands: tiles and colours may have their own (ISO/IEC 15444-1, A)."""
    start = jpeg2000.find(CODESTREAM)
    if start > 0:
        _check_boxes(jpeg2000)
    _check_markers(jpeg2000, start)
    try:
        width, height, *_, across, down, _, _, colours = struct.unpack_from(">8LH", jpeg2000, start + 8)
        tiles = -(-width // across) * -(-height // down)
    except (struct.error, ZeroDivisionError):  # damaged, which Pillow says
        return
    # The main header, and those of the tiles
    headers = b"".join(part.partition(HEADER_ENDS)[0] for part in jpeg2000[start:].split(TILE))
    layers = max((int.from_bytes(found, "big") for found in LAYERS.findall(headers)), default=1)
    styles = [*STYLE.findall(headers), *STYLE_OF_COLOUR.findall(headers)]
    if len(styles) > JPEG2000_STYLES:
        raise BadPicture(f"a JPEG 2000 of more than {JPEG2000_STYLES:,} coding styles: convert it first")
    side = (min(width, across), min(height, down))  # of a tile
    for flags, levels, block, exponents in styles:
        if width * height * colours > JPEG2000_BLOCKS << sum(block) + 4:  # a block's sides are powers of 2, from 4 on
            raise BadPicture(f"a JPEG 2000 of more than {JPEG2000_BLOCKS:,} code-blocks: convert it first")
        precincts = _precincts(side, min(levels[0], 32), exponents if flags[0] & 1 else b"")
        if tiles * colours * layers * precincts > JPEG2000_PACKETS:
            raise BadPicture(f"a JPEG 2000 of more than {JPEG2000_PACKETS:,} packets: convert it first")


def _check_boxes(jp2: bytes) -> None:
    at = 0
    for _ in range(JPEG2000_PARTS):
        length = int.from_bytes(jp2[at : at + 4], "big")
        if length == 1:  # it follows the kind of the box, in 8 bytes
            length = int.from_bytes(jp2[at + 8 : at + 16], "big")
        if length < 8 or at >= len(jp2):  # the rest of the file is one box
            return
        at += length
    raise BadPicture(f"a JPEG 2000 of more than {JPEG2000_PARTS:,} boxes: convert it first")


def _check_markers(codestream: bytes, start: int) -> None:
    """Count the markers of the main header, each of which has its own length after its name."""
    at = start + 2
    for _ in range(JPEG2000_PARTS):
        if codestream[at : at + 2] == TILE or codestream[at : at + 1] != b"\xff":
            return
        at += 2 + max(2, int.from_bytes(codestream[at + 2 : at + 4], "big"))
    raise BadPicture(f"a JPEG 2000 of more than {JPEG2000_PARTS:,} markers: convert it first")


def _precincts(side: tuple[int, int], levels: int, exponents: bytes) -> int:
    """How many precincts one colour of a tile of ``side`` pixels has, on all of its levels (annex B.6)."""
    precincts = 0
    for level in range(levels + 1):  # the smallest first
        exponent = exponents[level] if level < len(exponents) else 0xFF
        scales = (levels - level + (exponent & 15), levels - level + (exponent >> 4))
        along, down = (max(1, -(-pixels >> scale)) for pixels, scale in zip(side, scales, strict=True))
        precincts += along * down
    return precincts
