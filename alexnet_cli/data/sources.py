"""Sources of pictures: folders and archives, read in place.

A source maps the names of its files, whether pictures or not, to their locations: a range of bytes in a file on disk.
Any process can read a location without opening the archive again.
"""

import contextlib
import os
import posixpath
import re
import shutil
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet_cli.data.archives import Files, decompress, decompressor, is_tar, tar_members, zip_members
from alexnet_cli.data.limits import EXPANSION, FORMATS, SUFFIXES, TAR_BYTES
from alexnet_cli.data.locations import ZIP_SIGNATURE, Location, Locations, is_system_error, read_location
from alexnet_cli.data.unread import HEIC_SUFFIXES, advices, reads_heic, unread_suffix
from alexnet_cli.errors import AlexNetError, BadSource, first_line
from alexnet_cli.files import real_path

DIGITS = "digits"  # the path that means scikit-learn's digits, where there is nothing else
SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# Names of temporary files begin so, followed by the process id, and end so that `files.sweep` finds them.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".source.", ".part"
TEXT_FILES = {"readme", "license", "licence", "copying", "notice", "authors", "makefile"}  # often without a suffix


@dataclass(kw_only=True)
class Source:
    """The files below a folder, or the members of an archive. A name is a file's path within the source."""

    path: Path
    locations: Locations = field(default_factory=Locations)
    folders: list[str] = field(default_factory=list)  # names, including those of folders without files
    bundled: str = ""  # name of pictures that come with a library, if it is these
    scratch: Path | None = None  # the folder of temporary files; the system's if None
    temporary_files: list[Any] = field(default_factory=list)  # deleted by `close`

    def read(self, name: str) -> bytes:
        """The content of a file. Raises BadPicture if it cannot be read."""
        return read_location(self.locations[name])

    def stamp(self, name: str) -> str:
        """A string that changes when the file's content changes."""
        return self.locations[name].stamp

    def temporary_file(self) -> Any:
        """A new binary file in ``scratch`` that exists until `close`, for content that cannot be read in place.

        If the process is killed, `files.sweep` of ``scratch`` removes it; nothing does in the system's folder.
        """
        if self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        prefix = f"{TEMPORARY_PREFIX}{os.getpid()}-"
        file = tempfile.NamedTemporaryFile(prefix=prefix, suffix=TEMPORARY_SUFFIX, dir=self.scratch)  # noqa: SIM115
        self.temporary_files.append(file)
        return file

    def close(self) -> None:
        """Delete the temporary files."""
        for file in self.temporary_files:
            file.close()


def open_source(path: Path, scratch: Path | None = None) -> Source:
    """Open the folder, zip or tar at ``path``.

    A compressed tar is decompressed into a temporary file in the folder ``scratch``, or in the system's if None.
    Raises BadSource if there is nothing at ``path``, or nothing of these kinds, or it is damaged; AlexNetError if the
    disk has no room for a decompressed tar; OSError for other errors of the system.
    """
    source = Source(path=path, scratch=scratch)
    with contextlib.ExitStack() as on_error:
        on_error.callback(source.close)
        try:
            source.locations, source.folders = _list_files(source)
        except AlexNetError:
            raise
        except PermissionError as error:
            raise BadSource(f"no permission to read {error.filename or path}: {error.strerror}") from None
        except Exception as error:  # zipfile raises all kinds of errors on damaged bytes
            if is_system_error(error):
                raise
            raise BadSource(
                f"{source.path} is damaged or cut short ({first_line(error)}): download or create it again"
            ) from None
        on_error.pop_all()
    return source


def bundled_source(path: Path, scratch: Path | None = None) -> Source | None:
    """The source that ``path`` names if there is nothing at it: `digits`, which are scikit-learn's; else None."""
    is_bundled = str(path) == DIGITS and not os.path.lexists(path)
    return Source(path=path, bundled=DIGITS, scratch=scratch) if is_bundled else None


def _list_files(source: Source) -> Files:
    path = source.path
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise BadSource(f"no folder or archive at {source.path}") from None
    if stat.S_ISDIR(mode):
        return _folder_files(path)
    if not stat.S_ISREG(mode):
        raise BadSource(f"{source.path} is neither a folder nor a regular file")
    with open(path, "rb") as file:
        magic = file.read(6)
    if decompressor(magic):
        return _compressed_tar_members(source)
    if magic.startswith(ZIP_SIGNATURE):
        return zip_members(path)
    with open(path, "rb") as file:
        if is_tar(file):  # before looking for a zip at the end of the file: a tar may end with one
            return tar_members(file, path, str(path))
    if zipfile.is_zipfile(path):
        return zip_members(path)
    if _is_picture(path) or unread_suffix(path.name):
        raise BadSource(f"{source.path} is one picture: name a folder of pictures")
    raise BadSource(f"{source.path} is neither a folder nor a .zip nor a .tar, or its first bytes are damaged")


def _is_picture(path: Path) -> bool:
    """Whether the file at ``path`` begins as a picture that can be read."""
    from PIL import Image

    signed = [name for name in FORMATS if name != "TGA"]  # which begins with no signature
    with contextlib.suppress(Exception), Image.open(path, formats=signed):  # damaged ones raise errors of any kind
        return True
    return False


def _folder_files(path: Path) -> Files:
    locations, folders = Locations(), list[str]()
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(path), "", frozenset())]
    while pending:
        folder, prefix, parents = pending.pop()
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in parents:  # a symbolic link to a folder that contains it
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                name, found = prefix + entry.name, None
                with contextlib.suppress(OSError):  # a link to nothing or to itself
                    found = entry.stat()
                if found is not None and stat.S_ISDIR(found.st_mode):
                    folders.append(name)
                    pending.append((entry.path, name + "/", parents | {identity}))
                elif found is not None and stat.S_ISREG(found.st_mode):
                    locations.add(name, Location(entry.path, 0, found.st_size, found.st_size, found.st_mtime))
                else:  # no file, a FIFO, a device: listed, so that it is reported as a bad picture
                    locations.add(name, Location(entry.path, 0, 0, 0, 0))
    locations.sort()
    return locations, folders


def _compressed_tar_members(source: Source) -> Files:
    """Decompress a tar into a temporary file and list that: in place, each member would need all bytes before it."""
    temporary = source.temporary_file()
    limit = max(TAR_BYTES, EXPANSION * os.path.getsize(source.path))
    folder = source.scratch or Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    with open(source.path, "rb") as packed:
        is_whole = decompress(packed, temporary, min(limit, free), str(source.path))
    if not is_whole and free < limit:
        raise AlexNetError(
            f"{source.path} takes more than the {free / 1e6:,.0f} MB that are free in {folder!s} when it "
            "is decompressed: free some space"
        )
    if not is_whole:
        raise BadSource(f"{source.path} expands to more than {limit / 1e9:,.1f} GB: refused, it may be a bomb")
    with open(temporary.name, "rb") as file:
        if not is_tar(file):
            raise BadSource(f"{source.path} is compressed, but does not contain a tar")
        return tar_members(file, Path(temporary.name), f"{source.path}, decompressed,")


def default_name(path: Path) -> str:
    """The name for what is made of the source at ``path``: its own, without an archive's suffixes."""
    name = real_path(path).name
    if not path.is_dir():
        name = re.sub(r"(\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz))+$", "", name, flags=re.IGNORECASE)
    return name


def is_picture(name: str) -> bool:
    """Whether a file may be a picture by its name. Only decoding shows whether it is one."""
    file_name = posixpath.basename(name).lower()
    suffix = posixpath.splitext(file_name)[1]
    is_read = suffix in SUFFIXES or (suffix in HEIC_SUFFIXES and reads_heic())
    return not is_hidden(name) and (is_read or (not suffix and file_name not in TEXT_FILES))


def count_unread(names: Iterable[str]) -> Counter[str]:
    """Suffix -> how many of ``names``, within a source, are pictures left out since their format is not read here."""
    visible = (name for name in names if not is_picture(name) and not is_hidden(name))
    return Counter(suffix for name in visible if (suffix := unread_suffix(name)))


def no_pictures(source: Source, advice: str) -> str:
    """The error for a source without pictures: what to do about those that are not read here, or else ``advice``."""
    unread = advices(count_unread(source.locations))
    if unread:
        return f"no pictures in {source.path} that can be read: {'; '.join(unread)}"
    return f"no pictures in {source.path}: {advice}"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its path, is hidden or belongs to an operating system."""
    return any((part.startswith(".") and part not in (".", "..")) or part in SYSTEM_FILES for part in name.split("/"))


def split_path(name: str) -> tuple[str, ...]:
    """`PurePosixPath(name).parts` of a relative name in a third of the time, which counts for a million names."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def leads_outside(name: str) -> bool:
    """Whether a member's name is absolute or contains ``..``, and so leads out of its archive."""
    return name.startswith(("/", "\\")) or ".." in name.split("/")
