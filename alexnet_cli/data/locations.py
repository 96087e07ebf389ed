"""Locations: the bytes of one file or archive member, which any process can read without opening the archive again.

A source may have 15 million of them: `Locations` holds them by name in some 140 bytes each.
"""

import errno
import os
import stat
import struct
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise
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
    mark: float  # changes with the content: in a zip its CRC-32, elsewhere the time it was last changed, in seconds
    compression: int | None = None  # None outside a zip; in a zip its method: 0 stored, 8 deflate
    name_crc: int = 0  # CRC-32 of the member's name; only in a zip
    refusal: str = ""  # why it cannot be read, if its archive says so

    @property
    def stamp(self) -> str:
        """Changes when the content changes."""
        return f"{self.size} {self.mark}"


class Locations(Mapping[str, Location]):
    """Locations by name, in the order of the names.

    Each is one string of bytes, its name and then the numbers of its location, in a sorted list: as objects of Python
    in a dictionary they would take several times the memory. A name has no zero byte. `sort` must follow the last
    `add`.
    """

    NUMBERS = struct.Struct(">qqqdiIII")  # the offset is first: it decides the order of two records with one name
    TAIL = 1 + NUMBERS.size  # bytes of a record after the name: a zero, so that "a" comes before "a.png"; the numbers

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._texts: list[str] = []  # files, or the folder of all files, and refusals: many locations share them
        self._numbers: dict[str, int] = {}  # of each, its position in that list

    def add(self, name: str, location: Location) -> None:
        """Add a location. Raises struct.error if a number in it is larger than any file's."""
        file, offset, stored_size, size, mark, compression, name_crc, refusal = location
        folder = file.removesuffix(name)  # of the whole source, if that is a folder
        numbers = self.NUMBERS.pack(
            offset,
            stored_size,
            size,
            mark,
            -1 if compression is None else compression,
            name_crc,
            self._number(folder if folder.endswith("/") else file),
            self._number(refusal),
        )
        self._records.append(_encoded(name) + b"\0" + numbers)

    def sort(self) -> list[str]:
        """Make everything that was added known. Returns the names that were added more than once.

        The location of such a name is the one that is furthest in its file, as in a tar to which it was appended.
        """
        self._records.sort()
        repeated = [one for one, other in pairwise(self._records) if one[: -self.TAIL] == other[: -self.TAIL]]
        if repeated:
            self._records = list({record[: -self.TAIL]: record for record in self._records}.values())
        return [_decoded(record[: -self.TAIL]) for record in repeated]

    def row(self, name: str) -> int:
        """The position of a name among all. Raises KeyError if it is not there."""
        start = _encoded(name) + b"\0"
        row = bisect_left(self._records, start)
        if row == len(self) or self._records[row][: 1 - self.TAIL] != start:
            raise KeyError(name)
        return row

    def name(self, row: int) -> str:
        """The name at a position."""
        return _decoded(self._records[row][: -self.TAIL])

    def at(self, row: int) -> tuple[str, Location]:
        """The name at a position, and its location."""
        record, name = self._records[row], self.name(row)
        offset, stored_size, size, mark, compression, name_crc, file, refusal = self.NUMBERS.unpack_from(
            record, -self.NUMBERS.size
        )
        path = self._texts[file]
        return name, Location(
            path + name if path.endswith("/") else path,
            offset,
            stored_size,
            size,
            mark,
            None if compression < 0 else compression,
            name_crc,
            self._texts[refusal],
        )

    def __getitem__(self, name: str) -> Location:
        return self.at(self.row(name))[1]

    def __iter__(self) -> Iterator[str]:
        return (_decoded(record[: -self.TAIL]) for record in self._records)

    def __len__(self) -> int:
        return len(self._records)

    def _number(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
        return number


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


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
    if zlib.crc32(content) != location.mark:
        raise BadPicture("damaged in the archive (its checksum differs)")
    return content
