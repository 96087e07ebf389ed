"""Where pictures come from: folders and archives, read in place.

A source is a table from names to places: which bytes of which file hold a picture. Any process can read a place
without opening the archive again, and nothing is ever extracted: names are only names.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from alexnet_cli.errors import BadPicture, BadSource

BYTES_LIMIT = 2**30  # of one picture's file
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".gif",
    ".bmp",
    ".dib",
    ".webp",
    ".tif",
    ".tiff",
    ".avif",
}
SUFFIXES |= {".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".ico"}
SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}
NO_PICTURES = {"readme", "license", "licence", "copying", "notice", "authors", "makefile"}  # files without a suffix


class Place(NamedTuple):
    """Where the bytes of one member of a source are."""

    file: str
    offset: int  # in a zip: of the member's own header
    packed: int  # bytes there
    length: int  # bytes when unpacked
    stamp: str  # changes when the content does
    zipped: int | None = None  # the zip's compression method; 0 is none, 8 is deflate, -1 encrypted
    crc: int = 0  # in a zip


def read_place(place: Place) -> bytes:
    """The bytes of a member. Raises BadPicture if they are not there."""
    if place.length > BYTES_LIMIT:
        raise BadPicture(f"a file of more than {BYTES_LIMIT:,} bytes")
    try:
        with open(place.file, "rb") as file:
            file.seek(place.offset)
            content = file.read(place.packed) if place.zipped is None else _unzip(file, place)
    except (OSError, zlib.error, struct.error) as error:
        raise BadPicture(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) < place.length:
        raise BadPicture("cannot be read (the file ends within it)")
    return content


def _unzip(file: IO[bytes], place: Place) -> bytes:
    name, extra = struct.unpack("<26xHH", file.read(30))  # the lengths of what stands between header and data
    file.seek(name + extra, os.SEEK_CUR)
    content = file.read(place.packed)
    if place.zipped == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, place.length + 1)
    elif place.zipped != zipfile.ZIP_STORED:
        raise BadPicture("encrypted" if place.zipped == -1 else f"zip compression {place.zipped} is not supported")
    if zlib.crc32(content) != place.crc:
        raise BadPicture("damaged in the archive (its checksum differs)")
    return content


@dataclass(kw_only=True)
class Source:
    """Files below a folder or members of an archive."""

    path: Path
    places: dict[str, Place]
    folders: list[str] = field(default_factory=list)  # also those without pictures
    scratch: list[Any] = field(default_factory=list)  # temporary files that must live as long as the source

    def names(self) -> list[str]:
        """Of every file, pictures or not."""
        return list(self.places)

    def read(self, name: str) -> bytes:
        """Raises BadPicture if it cannot be read."""
        return read_place(self.places[name])

    def stamp(self, name: str) -> str:
        """Changes when the file does."""
        return self.places[name].stamp

    def close(self) -> None:
        """Remove temporary files."""
        for file in self.scratch:
            file.close()


def open_source(path: Path, scratch: Path | None = None) -> Source:
    """The source at ``path``; a compressed tar is unpacked into a temporary file in ``scratch``.

    Raises BadSource if there is none, or it is damaged.
    """
    try:
        if path.is_dir():
            return _folder(path)
        with open(path, "rb") as file:
            start = file.read(6)
        if zipfile.is_zipfile(path):
            return _zip(path)
        if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\x00":
            return _compressed_tar(path, start, scratch)
        if tarfile.is_tarfile(path):
            places, folders = tar_members(path)
            return Source(path=path, places=places, folders=folders)
    except FileNotFoundError:
        raise BadSource(f"no folder or archive at {path}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise BadSource(f"{path} is damaged ({error}): fetch or make it again") from None
    except PermissionError as error:
        raise BadSource(f"{error.filename or path} may not be read: {error.strerror}") from None
    raise BadSource(f"{path} is neither a folder nor a .zip nor a .tar")


def _folder(path: Path) -> Source:
    places: dict[str, Place] = {}
    folders = []

    def walk(base: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        facts = os.stat(base)
        here = (facts.st_dev, facts.st_ino)
        if here in above:  # a link to a folder that it lies in
            return
        for entry in sorted(os.scandir(base), key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.is_dir():
                folders.append(name)
                walk(entry.path, name + "/", above | {here})
            elif entry.is_file():
                facts = entry.stat()
                stamp = f"{facts.st_size} {facts.st_mtime_ns}"
                places[name] = Place(entry.path, 0, facts.st_size, facts.st_size, stamp)
            elif entry.is_symlink():  # it leads nowhere: listed, so that it is refused and not passed over
                places[name] = Place(entry.path, 0, 0, 0, "")

    walk(str(path), "", frozenset())
    return Source(path=path, places=places, folders=folders)


def _zip(path: Path) -> Source:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    places = {
        member.filename: Place(
            str(path),
            member.header_offset,
            member.compress_size,
            member.file_size,
            f"{member.file_size} {member.CRC}",
            -1 if member.flag_bits & 1 else member.compress_type,
            member.CRC,
        )
        for member in members
        if not member.is_dir()
    }
    return Source(path=path, places=places, folders=[member.filename for member in members if member.is_dir()])


def tar_members(path: Path) -> tuple[dict[str, Place], list[str]]:
    """Files and folders in an uncompressed tar; a tar in it counts as a folder of its members, as in ILSVRC."""
    with open(path, "rb") as file:
        return _tar_members(file, str(path), 0)


def _tar_members(file: IO[bytes], path: str, start: int) -> tuple[dict[str, Place], list[str]]:
    places: dict[str, Place] = {}
    folders = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all, gigabytes; stream=True is 3.13's
            offset = start + member.offset_data
            if member.isreg() and member.name.endswith(".tar"):
                inner = archive.extractfile(member)
                assert inner is not None  # it is a regular file
                name = member.name.removesuffix(".tar")
                folders.append(name)
                places |= {f"{name}/{key}": place for key, place in _tar_members(inner, path, offset)[0].items()}
            elif member.isreg():
                places[member.name] = Place(path, offset, member.size, member.size, f"{member.size} {member.mtime}")
            elif member.islnk() and member.linkname in places:
                places[member.name] = places[member.linkname]
            elif member.isdir():
                folders.append(member.name)
    return places, folders


def _compressed_tar(path: Path, start: bytes, scratch: Path | None) -> Source:
    """Reading it in place would mean to unpack everything before a picture, for every picture: it is unpacked once."""
    opened: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}[start[:2]]
    temporary = temporary_file(scratch)
    with opened(path, "rb") as packed:
        shutil.copyfileobj(packed, temporary, 2**20)
    temporary.flush()
    unpacked = Path(temporary.name)
    if not tarfile.is_tarfile(unpacked):
        raise BadSource(f"{path} is compressed, but no tar is in it")
    places, folders = tar_members(unpacked)
    return Source(path=path, places=places, folders=folders, scratch=[temporary])


def temporary_file(scratch: Path | None) -> Any:
    """A file in ``scratch`` that is gone when nobody holds it any more."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(prefix=f".source-{os.getpid()}-", dir=scratch)


def is_picture(name: str) -> bool:
    """Whether a name may be a picture's; whether it is one shows when it is decoded."""
    last = posixpath.basename(name).lower()
    suffix = posixpath.splitext(last)[1]
    return not is_hidden(name) and (suffix in SUFFIXES or (not suffix and last not in NO_PICTURES))


def is_hidden(name: str) -> bool:
    """Hidden files and folders, and what systems leave in folders and archives."""
    return any((part.startswith(".") and part not in (".", "..")) or part in SYSTEM for part in name.split("/"))


def split_path(name: str) -> tuple[str, ...]:
    """What `PurePosixPath.parts` gives for a relative name, in a third of the time: there are a million names."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def leads_outside(name: str) -> bool:
    """Whether a member's name is absolute or climbs out of its archive."""
    return name.startswith(("/", "\\")) or ".." in name.split("/")


def shown(names: Iterable[str], most: int = 3) -> str:
    """A few names, for a message."""
    some = sorted(names)
    return ", ".join(some[:most]) + (f" and {len(some) - most:,} more" if len(some) > most else "")


def held_out(names: list[str], fraction: float) -> set[str]:
    """The share of a class's pictures to validate on: those whose names hash lowest; one stays to train on."""
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())[:count])
