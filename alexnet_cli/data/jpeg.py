"""What a JPEG says of itself before it is decoded: its size, its scans, and whether it may have an orientation."""

import re
from dataclasses import dataclass

from alexnet_cli.data.limits import EXIF_BYTES, JPEG_FILL, JPEG_PIXELS, JPEG_SCANNED, JPEG_SCANS, JPEG_SEGMENTS, PIXELS
from alexnet_cli.errors import BadPicture

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not of the coded pixels: there, 0 or a restart follows 255
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, APP1 = 0xD8, 0xD9, 0xDA, 0xE1
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # a frame has the size; three other markers lie between them
ONE_PASS = {0xC0, 0xC1}  # frames that are not progressive
# Frames of an arithmetic coder, which no camera writes and no browser reads. Where its data end early, a decoder makes
# up the other pixels, hundreds of times as slowly as it decodes usual ones.
ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
ARITHMETIC_FRAME = re.compile(rb"\xff[\xc9-\xcb\xcd-\xcf]\0.[\x08\x0c]", re.DOTALL)  # of 8 or 12 bits


@dataclass
class JpegHeader:
    """The facts of a JPEG that decide whether and how it is decoded."""

    width: int = 0
    height: int = 0
    has_frame: bool = False
    components: int = 0
    scans: int = 0
    is_held: bool = False  # in memory as coefficients while it is decoded: it is progressive, or has several scans
    exif: int = 0  # bytes, before the first scan
    may_have_orientation: bool = False  # an APP1 segment (EXIF or XMP) precedes the first scan

    def check(self, divisor: int) -> None:
        """Raise BadPicture if it is over a limit when it is decoded at 1/``divisor`` of its size."""
        if self.scans > JPEG_SCANS:
            raise BadPicture(f"a JPEG of more than {JPEG_SCANS} scans")
        limit = PIXELS if self.is_held else JPEG_PIXELS
        if self.width * self.height > limit:
            raise BadPicture(f"more than {limit:,} pixels")
        if self.is_held and self.scans * self.width * self.height > JPEG_SCANNED:
            raise BadPicture(f"a JPEG of {self.scans} scans of {self.width * self.height:,} pixels: save it with fewer")
        if self.width * self.height > PIXELS * divisor**2:
            raise BadPicture(f"more than {PIXELS:,} pixels when decoded at 1/{divisor} of its size")


def read_header(jpeg: bytes) -> JpegHeader:
    """The header of a JPEG, with the scans that are decoded.

    Raises BadPicture for more than JPEG_SEGMENTS segments, or more than JPEG_FILL bytes between them.
    """
    header = JpegHeader()
    offset, fill = 2, 0
    for _ in range(JPEG_SEGMENTS):
        found = MARKER.search(jpeg, offset)
        if not header.scans:
            fill += (found.start() if found else len(jpeg)) - offset
            if fill > JPEG_FILL:  # Pillow reads them one by one
                raise BadPicture(f"a JPEG of more than {JPEG_FILL:,} bytes between its segments")
        if found is None:
            return header
        marker, start = jpeg[found.end() - 1], found.end()
        if marker == END_OF_IMAGE:
            return header
        if marker == START_OF_IMAGE or marker == 0x01:  # no length follows
            offset = start
            continue
        _note(header, marker, jpeg[start : start + 8])
        if header.scans > JPEG_SCANS or (header.scans and not header.is_held):
            return header  # refused; or libjpeg reads no further scan
        offset = start + max(2, int.from_bytes(jpeg[start : start + 2], "big"))
    raise BadPicture(f"a JPEG of more than {JPEG_SEGMENTS:,} segments")


def _note(header: JpegHeader, marker: int, segment: bytes) -> None:
    """Note in ``header`` what a ``segment``, which begins with its length, tells."""
    if marker in ARITHMETIC:
        raise BadPicture("an arithmetic-coded JPEG: convert it first")
    if marker in FRAMES and len(segment) == 8:
        if header.has_frame:  # libjpeg decodes all scans by the first before it calls the second an error
            raise BadPicture("a JPEG of two frames")
        header.has_frame = True
        header.height, header.width = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big")
        header.components, header.is_held = segment[7], marker not in ONE_PASS
    elif marker == START_OF_SCAN:
        header.scans += 1
        header.is_held |= segment[2:3] != bytes([header.components])
    elif marker == APP1:
        header.may_have_orientation |= header.scans == 0
        header.exif += int.from_bytes(segment[:2], "big") if segment[2:6] == b"Exif" else 0
        if header.exif > EXIF_BYTES:  # Pillow joins them, and reads them all
            raise BadPicture(f"EXIF of more than {EXIF_BYTES // 1024} KiB: convert it first")
