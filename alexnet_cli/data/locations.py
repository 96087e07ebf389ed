"""Locations: the bytes of one file or archive member, which any process can read without opening the archive again."""

import errno
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from alexnet_cli.data.limits import EXPANSION, FILE_BYTES, MEMBER_BYTES
from alexnet_cli.errors import BadPicture, first_line

ZIP_SIGNATURE = b"PK\x03\x04"
ZIP_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, then the sizes of its name and of an extra field


class Location(NamedTuple):
    """The bytes of one file or archive member."""

    file: str  # path on disk: the file itself, or the archive
    offset: int  # of the bytes in ``file``; in a zip, of the member's local header
    stored_size: int  # bytes in ``file``
    size: int  # bytes after decompression
    stamp: str  # changes when the content changes
    compression: int | None = None  # None outside a zip; in a zip its method: 0 stored, 8 deflate
    crc: int = 0  # CRC-32 of the content; only in a zip
    name_crc: int = 0  # CRC-32 of the member's name; only in a zip
    refusal: str = ""  # why it cannot be read, if its archive says so


def read_location(location: Location) -> bytes:
    """The bytes at a location, decompressed.

    Raises BadPicture if they are missing, damaged, over a limit or not in a regular file, and OSError if the system
    has no files or memory left.
    """
    if location.refusal:
        raise BadPicture(location.refusal)
    _check_size(max(location.size, location.stored_size))
    if location.size > max(MEMBER_BYTES, EXPANSION * location.stored_size):
        raise BadPicture(f"expands more than {EXPANSION}-fold: it may be a bomb")
    try:
        with _open_regular(location.file) as file:
            file.seek(location.offset)
            content = file.read(location.stored_size) if location.compression is None else _unzip(file, location)
    except OSError as error:
        raise _bad_picture(error) from None
    except (zlib.error, struct.error) as error:
        raise BadPicture(f"cannot be read ({first_line(error)})") from None
    if len(content) < location.size:
        raise BadPicture("cannot be read (the file is truncated)")
    return content


def read_file(path: Path) -> bytes:
    """The content of a picture file. Raises as `read_location`."""
    try:
        with _open_regular(path) as file:
            _check_size(os.fstat(file.fileno()).st_size)
            return file.read(FILE_BYTES)
    except OSError as error:
        raise _bad_picture(error) from None


def is_system_error(error: BaseException) -> bool:
    """Whether an error tells of the system (memory, open files, permissions), rather than of damaged bytes.

    gzip and bz2 raise OSErrors without a number for damage, and a negative offset is EINVAL.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno is not None and error.errno != errno.EINVAL
    )


def _check_size(size: int) -> None:
    if size > FILE_BYTES:
        raise BadPicture(f"a file of more than {FILE_BYTES:,} bytes")


def _open_regular(path: str | Path) -> IO[bytes]:
    """Open a file. Raises BadPicture for a FIFO, a device or a socket, which is not opened: reading it could block."""
    if stat.S_ISREG(os.stat(path).st_mode) or os.path.isdir(path):
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - for the caller, who closes it
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()  # replaced since the first look
    raise BadPicture("not a regular file")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _bad_picture(error: OSError) -> BadPicture:
    """What to tell of a picture whose file cannot be read; raises ``error`` if it is not about the file."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error
    if isinstance(error, FileNotFoundError):
        return BadPicture("no such file")
    if isinstance(error, IsADirectoryError):
        return BadPicture("a folder, not a picture")
    return BadPicture(f"cannot be read ({error.strerror or first_line(error)})")


def zip_member_name(file: IO[bytes]) -> bytes:
    """The name in the local header at the position of ``file``, which is then at the member's data.

    Raises struct.error if there is no such header.
    """
    signature, name_size, extra_size = ZIP_HEADER.unpack(file.read(ZIP_HEADER.size))
    if signature != ZIP_SIGNATURE:
        raise struct.error("no file begins here")
    name = file.read(name_size)
    file.seek(extra_size, os.SEEK_CUR)
    return name


def _unzip(file: IO[bytes], location: Location) -> bytes:
    """The content of a zip member whose local header is at the position of ``file``."""
    if zlib.crc32(zip_member_name(file)) != location.name_crc:
        raise BadPicture("damaged in the archive (it has two names)")
    content = file.read(location.stored_size)
    if location.compression == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, location.size + 1)
    elif location.compression != zipfile.ZIP_STORED:
        raise BadPicture(f"zip compression {location.compression} is not supported")
    if zlib.crc32(content) != location.crc:
        raise BadPicture("damaged in the archive (its checksum differs)")
    return content
