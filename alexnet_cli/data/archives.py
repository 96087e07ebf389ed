"""Zips and tars: the locations of their members. Nothing is extracted, so a name cannot overwrite anything.

No limit is set to the number of members. One takes some 0.2 KB of memory, a hard link 0.7 KB, and at least 78 bytes of
a zip or 512 of a tar: memory stays in proportion to the archive.
"""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from alexnet_cli.data.limits import SUFFIXES, TAR_GLOBAL_FACTS, TAR_NAME_BYTES
from alexnet_cli.data.locations import Location, Locations, is_system_error, zip_member_name
from alexnet_cli.errors import BadSource, first_line

Files = tuple[Locations, list[str]]  # locations by name, and the names of folders

DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
COPIED = 2**20  # bytes decompressed at a time
ENDINGS = tuple(SUFFIXES)
ZIP_END_SIGNATURE = b"PK\x05\x06"
ZIP_END = struct.Struct("<4s6xH10x")  # signature, number of members
ZIP_MEMBER = 30 + 46  # bytes of a zip that each member has to itself, at least: two headers, beside two names


# Zip


class _Zip(zipfile.ZipFile):
    """A zip that keeps none of its members, which take 0.6 KB each, but gives every one to ``take``."""

    def __init__(self, path: Path, take: Callable[[zipfile.ZipInfo], None]) -> None:
        self._take = take
        super().__init__(path)

    # zipfile's constructor calls it; the types that mypy has of zipfile leave out what is not public.
    def _RealGetContents(self) -> None:
        self.filelist = _Taken(self)
        super()._RealGetContents()  # type: ignore[misc]


class _Taken(list[zipfile.ZipInfo]):
    """What zipfile appends members to."""

    def __init__(self, archive: _Zip) -> None:
        self._archive = archive

    def append(self, member: zipfile.ZipInfo) -> None:
        self._archive.NameToInfo.clear()
        self._archive._take(member)


def zip_members(path: Path) -> Files:
    """The files and folders of a zip. Raises BadSource if its directory is damaged, or its members overlap."""
    locations, folders = Locations(), list[str]()
    count = taken = 0  # members, and the bytes of the file that they have to themselves
    with open(path, "rb") as file:

        def take(member: zipfile.ZipInfo) -> None:
            nonlocal count, taken
            count += 1
            taken += member.compress_size + ZIP_MEMBER + 2 * len(member.filename)
            name = _raw_name(member)
            if not _names_picture(member.filename):  # one may have lost its name to a flipped bit
                file.seek(member.header_offset)
                if zip_member_name(file) != name:
                    raise zipfile.BadZipFile(f"{member.filename!r} has another name in its own header")
            if member.is_dir():
                folders.append(member.filename)
                return
            location = Location(
                str(path),
                member.header_offset,
                member.compress_size,
                member.file_size,
                member.CRC,
                member.compress_type,
                zlib.crc32(name),
                "encrypted" if member.flag_bits & 1 else "",
            )
            locations.add(member.filename, location)

        _Zip(path, take).close()
        _check_directory(file, count)
        if taken > file.seek(0, os.SEEK_END):
            raise BadSource(f"the members of {path!s} overlap, so it may be a bomb: refused")
    if repeated := locations.sort():
        raise zipfile.BadZipFile(f"two members are called {repeated[0]!r}")
    return locations, folders


def _check_directory(file: IO[bytes], found: int) -> None:
    """Raise BadZipFile if the zip's end does not count the ``found`` members: zipfile does not look at it."""
    file.seek(-min(ZIP_END.size + 0xFFFF, file.seek(0, os.SEEK_END)), os.SEEK_END)  # a comment may follow it
    tail = file.read()
    _, count = ZIP_END.unpack_from(tail, tail.rfind(ZIP_END_SIGNATURE))
    if count not in (found & 0xFFFF, 0xFFFF):
        raise zipfile.BadZipFile(f"it has {found:,} members, not {count:,}")


def _names_picture(name: str) -> bool:
    return _has_suffix(name) and "/." not in f"/{name}"


def _has_suffix(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _raw_name(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")


# Tar


class _Tar(NamedTuple):
    """What all levels of a tar have in common, and what they add to."""

    path: str  # of the file
    shown: str  # in messages
    size: int  # bytes of the file
    locations: Locations
    folders: list[str]
    links: list["_Link"]


class _Link(NamedTuple):
    """A hard link: another name for an earlier member."""

    name: str
    target: str
    refused: Location  # of a link to nothing


class _Member(tarfile.TarInfo):
    """A member whose sizes are sane: tarfile would read a long name of any size, and follow a negative size back."""

    # tarfile calls it for each header before it acts on it; it is not public, so mypy does not know it.
    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        holds_facts = self.type in (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        is_long = holds_facts and self.type != tarfile.GNUTYPE_SPARSE and self.size > TAR_NAME_BYTES
        if self.size < 0 or is_long or len(tar.pax_headers) > TAR_GLOBAL_FACTS:
            raise tarfile.ReadError("a size that no tar has")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def is_tar(file: IO[bytes]) -> bool:
    """Whether ``file`` begins as a tar does, or would but for some bytes."""
    block = file.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return block[257:262] == b"ustar" or (len(block) == tarfile.BLOCKSIZE and not any(block))
    return True


def tar_members(file: IO[bytes], path: Path, shown: str, locations: Locations | None = None, prefix: str = "") -> Files:
    """The files and folders of the uncompressed tar ``file``, whose bytes are those of the file at ``path``.

    A tar inside it, as in ILSVRC-2012, counts as a folder. Names begin with ``prefix``. Files are added to
    ``locations``, if they are given. Raises BadSource, naming the tar as ``shown``, if it is damaged or does not end as
    a tar ends: with a block of zeros, and nothing else after it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    tar = _Tar(str(path), shown, size, Locations() if locations is None else locations, [], [])
    _read_tar(file, tar, 0, prefix, is_inner=False)
    tar.locations.sort()
    if tar.links:
        _add_links(tar)
    return tar.locations, tar.folders


def _read_tar(file: IO[bytes], tar: _Tar, start: int, prefix: str, *, is_inner: bool) -> None:
    """Add the members of the tar ``file``, which starts at the byte ``start`` of the whole file."""
    position = 0  # of the header that is read
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                # tarfile keeps every member, gigabytes for ImageNet. Python 3.13 has stream=True for this.
                archive.members = []  # type: ignore[attr-defined]
                if archive.offset <= position or "\0" in member.name:
                    raise tarfile.ReadError("a member that leads back, or a name that no file has")
                position = archive.offset
                offset, name = start + member.offset_data, prefix + member.name
                if member.isreg() and name.endswith(".tar") and not is_inner:
                    inner = archive.extractfile(member)
                    assert inner is not None  # it is a regular file
                    tar.folders.append(name.removesuffix(".tar"))
                    _read_tar(inner, tar, offset, name.removesuffix(".tar") + "/", is_inner=True)
                elif member.isdir():
                    tar.folders.append(name)
                elif member.islnk():
                    tar.links.append(_Link(name, prefix + member.linkname, _location(member, tar.path, offset)))
                elif member.isreg() or _has_suffix(name):
                    tar.locations.add(name, _location(member, tar.path, offset))
            position = archive.offset
        _check_end(file, position)
    except Exception as error:
        if isinstance(error, BadSource) or is_system_error(error):
            raise
        at = min(start + position, tar.size)
        raise BadSource(f"{tar.shown} is damaged or cut short at byte {at:,}: download or create it again") from None


def _add_links(tar: _Tar) -> None:
    """Add the hard links as the files they stand for: in a tar, what is a file's other name has no content."""
    found: dict[str, Location] = {}
    for name, target, refused in tar.links:
        location = found.get(target) or tar.locations.get(target) or (refused if _has_suffix(name) else None)
        if location is not None:
            found[name] = location
    for name, location in found.items():
        tar.locations.add(name, location)
    tar.locations.sort()


def _location(member: tarfile.TarInfo, path: str, offset: int) -> Location:
    refusal = ""
    if not member.isreg():
        refusal = "a link or a device in a tar, not a picture"
    elif member.issparse():
        refusal = "stored as a sparse file: create the tar without --sparse"
    return Location(path, offset, member.size, member.size, member.mtime, refusal=refusal)


def _check_end(file: IO[bytes], position: int) -> None:
    """Raise ReadError unless a block of zeros and nothing but zeros follow ``position``.

    tarfile takes a damaged header, and the end of the file, for the end of the tar.
    """
    file.seek(position)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it does not end with zeros")
    while block:
        if block.count(0) < len(block):
            raise tarfile.ReadError("it ends with other bytes than zeros")
        block = file.read(COPIED)


# Compression


def decompressor(magic: bytes) -> Any:
    """The function that opens a file that begins with ``magic`` to decompress it; None if it is not compressed."""
    return next((opener for start, opener in DECOMPRESSORS.items() if magic.startswith(start)), None)


def decompress(packed: IO[bytes], file: IO[bytes], limit: int, shown: str) -> bool:
    """Decompress ``packed`` into ``file``; False, with some of it written, if that is more than ``limit`` bytes.

    Raises BadSource, naming it as ``shown``, if it is damaged.
    """
    opener, written = decompressor(packed.read(6)), 0
    packed.seek(0)
    try:
        with opener(packed) as content:
            while part := content.read(COPIED):
                written += len(part)
                if written > limit:
                    return False
                file.write(part)
    except Exception as error:
        if is_system_error(error):
            raise
        raise BadSource(f"{shown} is damaged or cut short ({first_line(error)}): download or create it again") from None
    file.flush()
    return True
