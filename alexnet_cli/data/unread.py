"""Pictures in formats that are not read here: left out by their suffix, counted, and what to do about them."""

import posixpath
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec

from alexnet_cli.errors import BadPicture

HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
CAMERA_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
OTHER_SUFFIXES = {
    *(".eps", ".exr", ".ico", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr", ".psb", ".psd", ".svg", ".xcf"),
}
UNREAD_SUFFIXES = CAMERA_SUFFIXES | OTHER_SUFFIXES

CONVERT = "convert them first"
INSTALL = "install alexnet-cli[heic]"
HEIC = f"a HEIC picture: {INSTALL}"  # why one cannot be read
# Brands of the first box of a file of the HEIF family that is coded as HEIC
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


@cache
def reads_heic() -> bool:
    """Whether HEIC can be read: the extra `heic` is installed."""
    return find_spec("pillow_heif") is not None


@cache
def register_heic() -> None:
    """Let Pillow open HEIC. Raises BadPicture if it cannot be read."""
    if not reads_heic():
        raise BadPicture(HEIC)
    from pillow_heif import register_heif_opener

    register_heif_opener()


def is_heic(content: bytes) -> bool:
    """Whether the content of a file is HEIC, whatever its name."""
    if content[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(content[:4]), 256)
    return not HEIC_BRANDS.isdisjoint([content[8:12], *(content[i : i + 4] for i in range(16, size, 4))])


def unread_suffix(name: str) -> str | None:
    """The suffix, as it is written, of a picture whose format is not read here by its name; None for other files."""
    suffix = posixpath.splitext(name)[1]
    is_unread = suffix.lower() in UNREAD_SUFFIXES or (suffix.lower() in HEIC_SUFFIXES and not reads_heic())
    return suffix if is_unread else None


def why_unread(name: str) -> str | None:
    """Why a file that is called ``name`` cannot be read, if its name tells."""
    suffix = unread_suffix(name)
    if suffix is None:
        return None
    if suffix.lower() in HEIC_SUFFIXES:
        return HEIC
    return (
        "a camera's RAW: convert it first"
        if suffix.lower() in CAMERA_SUFFIXES
        else f"a {suffix} picture: convert it first"
    )


def advices(counts: Mapping[str, int]) -> list[str]:
    """What was left out by suffix, and what to do: ["12 .HEIC pictures: install ...", "3 .CR2: convert them first"]."""
    by_advice: dict[str, Counter[str]] = {}
    for suffix, count in sorted(counts.items()):
        advice = INSTALL if suffix.lower() in HEIC_SUFFIXES else CONVERT
        by_advice.setdefault(advice, Counter())[suffix] += count
    lines = list[str]()
    for advice in sorted(by_advice, reverse=True):
        of = by_advice[advice]
        noun = "" if lines else " picture" if of.total() == 1 else " pictures"
        counted = ", ".join(f"{count:,} {suffix}" for suffix, count in of.items())
        told = "convert it first" if advice == CONVERT and of.total() == 1 else advice
        lines.append(f"{counted}{noun}: {told}")
    return lines
