"""Sources of pictures: folders and archives, read in place.

A source maps the names of its files to their locations: a range of bytes in a file on disk. Any process can read a
location without opening the archive again. Archives are never extracted to disk, so a member's name cannot overwrite
anything.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import posixpath
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from alexnet_cli.errors import BadPicture, BadSource

SIZE_LIMIT = 2**30  # bytes of one picture file
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
    ".jp2",
    ".j2k",
    ".tga",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".ico",
}
SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}
TEMPORARY_PREFIX = ".source-"  # of the names of temporary files; the process id follows
TEXT_FILES = {"readme", "license", "licence", "copying", "notice", "authors", "makefile"}  # often without a suffix


class Location(NamedTuple):
    """The bytes of one file or archive member."""

    file: str  # path on disk: the file itself, or the archive
    offset: int  # of the bytes in ``file``; in a zip, of the member's local header
    stored_size: int  # bytes in ``file``
    size: int  # bytes after decompression
    stamp: str  # changes when the content changes
    compression: int | None = None  # None outside a zip; in a zip its method: 0 stored, 8 deflate; -1 if encrypted
    crc: int = 0  # CRC-32 of the content; only in a zip


def read_location(location: Location) -> bytes:
    """The bytes at a location, decompressed. Raises BadPicture if they are missing, damaged or over SIZE_LIMIT."""
    if location.size > SIZE_LIMIT:
        raise BadPicture(f"a file of more than {SIZE_LIMIT:,} bytes")
    try:
        with open(location.file, "rb") as file:
            file.seek(location.offset)
            content = file.read(location.stored_size) if location.compression is None else _unzip(file, location)
    except (OSError, zlib.error, struct.error) as error:
        raise BadPicture(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) < location.size:
        raise BadPicture("cannot be read (the file is truncated)")
    return content


def _unzip(file: IO[bytes], location: Location) -> bytes:
    """The content of a zip member whose local header is at the position of ``file``."""
    name_size, extra_size = struct.unpack("<26xHH", file.read(30))  # of the two fields between header and data
    file.seek(name_size + extra_size, os.SEEK_CUR)
    content = file.read(location.stored_size)
    if location.compression == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, location.size + 1)
    elif location.compression == -1:
        raise BadPicture("encrypted")
    elif location.compression != zipfile.ZIP_STORED:
        raise BadPicture(f"zip compression {location.compression} is not supported")
    if zlib.crc32(content) != location.crc:
        raise BadPicture("damaged in the archive (its checksum differs)")
    return content


Files = tuple[dict[str, Location], list[str]]  # locations by name, and the names of folders


@dataclass(kw_only=True)
class Source:
    """The files below a folder, or the members of an archive. A name is a file's path within the source."""

    path: Path
    locations: dict[str, Location] = field(default_factory=dict)  # by name
    folders: list[str] = field(default_factory=list)  # names, including those of folders without files
    scratch: Path | None = None  # the folder of temporary files; the system's if None
    temporary_files: list[Any] = field(default_factory=list)  # deleted by `close`

    def names(self) -> list[str]:
        """The names of all files, whether pictures or not."""
        return list(self.locations)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises BadPicture if it cannot be read."""
        return read_location(self.locations[name])

    def stamp(self, name: str) -> str:
        """A string that changes when the file's content changes."""
        return self.locations[name].stamp

    def temporary_file(self) -> Any:
        """A new binary file in ``scratch`` that exists until `close`, for content that cannot be read in place."""
        if self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        prefix = f"{TEMPORARY_PREFIX}{os.getpid()}-"
        file = tempfile.NamedTemporaryFile(prefix=prefix, dir=self.scratch)  # noqa: SIM115  (`close` closes it)
        self.temporary_files.append(file)
        return file

    def close(self) -> None:
        """Delete the temporary files."""
        for file in self.temporary_files:
            file.close()


def open_source(path: Path, scratch: Path | None = None) -> Source:
    """Open the folder, zip or tar at ``path``.

    A compressed tar is decompressed into a temporary file in the folder ``scratch``, or in the system's if None.
    Raises BadSource if there is nothing at ``path``, or nothing of these kinds, or it is damaged.
    """
    source = Source(path=path, scratch=scratch)
    with contextlib.ExitStack() as on_error:
        on_error.callback(source.close)
        try:
            source.locations, source.folders = _list_files(source)
        except FileNotFoundError:
            raise BadSource(f"no folder or archive at {path}") from None
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
            raise BadSource(f"{path} is damaged ({error}): download or create it again") from None
        except PermissionError as error:
            raise BadSource(f"no permission to read {error.filename or path}: {error.strerror}") from None
        on_error.pop_all()
    return source


def _list_files(source: Source) -> Files:
    path = source.path
    if path.is_dir():
        return _folder_files(path)
    with open(path, "rb") as file:
        magic = file.read(6)
    if zipfile.is_zipfile(path):
        return _zip_members(path)
    if magic[:2] == b"\x1f\x8b" or magic[:3] == b"BZh" or magic == b"\xfd7zXZ\x00":
        return tar_members(_decompress_tar(source, magic))
    if tarfile.is_tarfile(path):
        return tar_members(path)
    raise BadSource(f"{path} is neither a folder nor a .zip nor a .tar")


def _folder_files(path: Path) -> Files:
    locations: dict[str, Location] = {}
    folders = []

    def walk(folder: str, prefix: str, parents: frozenset[tuple[int, int]]) -> None:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in parents:  # a symbolic link to a folder that contains it
            return
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.is_dir():
                folders.append(name)
                walk(entry.path, name + "/", parents | {identity})
            elif entry.is_file():
                status = entry.stat()
                stamp = f"{status.st_size} {status.st_mtime_ns}"
                locations[name] = Location(entry.path, 0, status.st_size, status.st_size, stamp)
            elif entry.is_symlink():  # a broken link: listed, so that it is reported as a bad picture
                locations[name] = Location(entry.path, 0, 0, 0, "")

    walk(str(path), "", frozenset())
    return locations, folders


def _zip_members(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    locations = {
        member.filename: Location(
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
    return locations, [member.filename for member in members if member.is_dir()]


def tar_members(path: Path) -> Files:
    """The files and folders of an uncompressed tar. A tar inside it, as in ILSVRC-2012, counts as a folder."""
    with open(path, "rb") as file:
        return _tar_members(file, str(path), 0)


def _tar_members(file: IO[bytes], path: str, start: int) -> Files:
    """The members of the tar ``file``, which starts at the byte ``start`` of the file at ``path``."""
    locations: dict[str, Location] = {}
    folders = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # tarfile keeps every member, gigabytes for ImageNet. Python 3.13 has stream=True for this.
            archive.members = []  # type: ignore[attr-defined]
            offset = start + member.offset_data
            if member.isreg() and member.name.endswith(".tar"):
                inner = archive.extractfile(member)
                assert inner is not None  # it is a regular file
                name = member.name.removesuffix(".tar")
                folders.append(name)
                inner_locations, _ = _tar_members(inner, path, offset)
                locations |= {f"{name}/{key}": location for key, location in inner_locations.items()}
            elif member.isreg():
                stamp = f"{member.size} {member.mtime}"
                locations[member.name] = Location(path, offset, member.size, member.size, stamp)
            elif member.islnk() and member.linkname in locations:
                locations[member.name] = locations[member.linkname]
            elif member.isdir():
                folders.append(member.name)
    return locations, folders


def _decompress_tar(source: Source, magic: bytes) -> Path:
    """Decompress the source's tar into a temporary file: in place, each member would need all bytes before it."""
    decompress: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}[magic[:2]]
    temporary = source.temporary_file()
    with decompress(source.path, "rb") as compressed:
        shutil.copyfileobj(compressed, temporary, 2**20)
    temporary.flush()
    if not tarfile.is_tarfile(temporary.name):
        raise BadSource(f"{source.path} is compressed, but does not contain a tar")
    return Path(temporary.name)


def default_name(path: Path) -> str:
    """The name for what is made of the source at ``path``: its own, without an archive's suffixes."""
    name = path.resolve().name
    if not path.is_dir():
        name = re.sub(r"(\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz))+$", "", name, flags=re.IGNORECASE)
    return name


def is_picture(name: str) -> bool:
    """Whether a file may be a picture by its name. Only decoding shows whether it is one."""
    file_name = posixpath.basename(name).lower()
    suffix = posixpath.splitext(file_name)[1]
    return not is_hidden(name) and (suffix in SUFFIXES or (not suffix and file_name not in TEXT_FILES))


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its path, is hidden or belongs to an operating system."""
    return any((part.startswith(".") and part not in (".", "..")) or part in SYSTEM_FILES for part in name.split("/"))


def split_path(name: str) -> tuple[str, ...]:
    """`PurePosixPath(name).parts` of a relative name in a third of the time, which counts for a million names."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def leads_outside(name: str) -> bool:
    """Whether a member's name is absolute or contains ``..``, and so leads out of its archive."""
    return name.startswith(("/", "\\")) or ".." in name.split("/")
