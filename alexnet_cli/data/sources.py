"""Where pictures come from: folders and archives, read in place; a source lists its files and reads their bytes."""

import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from alexnet_cli.errors import BadPicture, BadSource

DEFAULT_FRACTION = 0.1  # of each class, held out for validation where a source has no validation split
SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # the one class of pictures that lie in no class folder
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".avif"}


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a source; its name is a name only, nothing is ever written to it."""

    name: str  # within the source, folders separated by /
    stamp: str  # changes when the file changes
    offset: int = 0  # of its bytes within the archive, where the source reads them by it
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture that is to be packed."""

    split: str
    label: int
    file: File


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All pictures of a source, in the order in which they are packed."""

    layout: str
    classes: list[str]
    entries: list[Entry]
    facts: dict[str, object] = field(default_factory=dict)  # what else the dataset should keep


class Source(Protocol):
    """A folder or an archive."""

    def files(self) -> list[File]:
        """Every file, whatever it is."""
        ...

    def folders(self) -> list[str]:
        """Every folder, also empty ones, as far as the source knows."""
        ...

    def read(self, file: File) -> bytes:
        """Its bytes. Raises BadPicture if they cannot be read."""
        ...

    def listing(self, val_fraction: float | None) -> Listing:
        """Split and class of every picture. Raises BadSource."""
        ...


def open_source(path: Path) -> Source:
    """The source at ``path``. Raises BadSource if it is none."""
    from alexnet_cli.data import cifar, ilsvrc

    if path.is_dir():
        return ilsvrc.Ilsvrc(path) if ilsvrc.is_ilsvrc(path) else Folder(path)
    if not path.exists():
        raise BadSource(f"no folder or archive at {path}")
    if zipfile.is_zipfile(path):
        return Zip(path)
    if tarfile.is_tarfile(path):
        tar = Tar(path)
        return cifar.Cifar10(tar) if cifar.is_cifar10(tar) else tar
    raise BadSource(f"{path} is neither a folder nor a .zip nor a .tar: give one of pictures in class folders")


class ClassFolders:
    """Files whose folders say split and class; the common part of folders and archives."""

    def files(self) -> list[File]:
        raise NotImplementedError

    def folders(self) -> list[str]:
        raise NotImplementedError

    def listing(self, val_fraction: float | None) -> Listing:
        return from_folders(self.files(), self.folders(), val_fraction)


class Folder(ClassFolders):
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> list[File]:
        found = []
        for base, _, names in os.walk(self.path):  # does not follow links to folders: no loops
            for name in names:
                path = Path(base) / name
                if path.is_file():
                    facts = path.stat()
                    stamp = f"{facts.st_size} {facts.st_mtime_ns}"
                    found.append(File(name=path.relative_to(self.path).as_posix(), stamp=stamp))
        return found

    def folders(self) -> list[str]:
        return [
            (Path(base) / name).relative_to(self.path).as_posix()
            for base, names, _ in os.walk(self.path)
            for name in names
        ]

    def read(self, file: File) -> bytes:
        try:
            return (self.path / file.name).read_bytes()
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror})") from None


class Zip(ClassFolders):
    """A zip."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise BadSource(f"{path} is no zip that can be read ({error})") from None

    def files(self) -> list[File]:
        members = [member for member in self.archive.infolist() if not member.is_dir()]
        return [File(name=member.filename, stamp=f"{member.file_size} {member.CRC}") for member in members]

    def folders(self) -> list[str]:
        return [member.filename.rstrip("/") for member in self.archive.infolist() if member.is_dir()]

    def read(self, file: File) -> bytes:
        try:
            return self.archive.read(file.name)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise BadPicture(f"cannot be read from the archive ({error})") from None


class Tar(ClassFolders):
    """A tar; a compressed one works too, but every reader has to unpack it from its beginning."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = tarfile.open(path)  # noqa: SIM115 - open as long as the source is
            self.members = {member.name: member for member in self.archive}
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise BadSource(f"{path} is no tar that can be read ({error})") from None

    def files(self) -> list[File]:
        files = [member for member in self.members.values() if member.isreg()]
        return [File(name=member.name, stamp=f"{member.size} {member.mtime}") for member in files]

    def folders(self) -> list[str]:
        return [member.name for member in self.members.values() if member.isdir()]

    def read(self, file: File) -> bytes:
        content = self.archive.extractfile(self.members[file.name])
        assert content is not None  # only regular files are listed
        try:
            return content.read()
        except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
            raise BadPicture(f"cannot be read from the archive ({error})") from None


def is_picture(file: File) -> bool:
    """Whether a file may be a picture: hidden files and what systems leave in archives are not."""
    return not _is_hidden(file.name) and PurePosixPath(file.name).suffix.lower() in SUFFIXES


def _is_hidden(name: str) -> bool:
    return any((part[0] == "." and part not in (".", "..")) or part == "__MACOSX" for part in PurePosixPath(name).parts)


def from_folders(files: list[File], folders: list[str], val_fraction: float | None) -> Listing:
    """Split and class of every file by the folders it lies in: [wrapper/][train|val|test/]class/...

    Everything in a class folder counts as a picture, whatever its suffix: what is none is rejected when it is packed.
    """
    files = sorted((file for file in files if not _is_hidden(file.name)), key=lambda file: file.name)
    folders = [folder for folder in folders if not _is_hidden(folder)]
    pictures = [file for file in files if is_picture(file)]
    if not pictures:
        raise BadSource("there are no pictures: give a folder of class folders, each with its pictures")
    depth = _wrappers([PurePosixPath(file.name).parts[:-1] for file in pictures])
    below = [parts[depth:] for parts in (PurePosixPath(folder).parts for folder in folders) if len(parts) > depth]
    split_folders = {PurePosixPath(file.name).parts[depth] for file in pictures} | {parts[0] for parts in below}
    splits = [split for split in SPLITS if split in split_folders] if "train" in split_folders else []
    start = depth + 1 if splits else depth
    entries: list[tuple[str, str, File]] = []  # split, class, file
    for file in files:
        parts = PurePosixPath(file.name).parts
        split = parts[depth] if splits and len(parts) > depth + 1 else "train"
        inside = len(parts) > start + 1
        if splits and split not in splits:
            if is_picture(file):
                raise BadSource(f"{file.name} lies beside {' and '.join(splits)}: move it into one of them, or away")
        elif inside:
            entries.append((split, parts[start], file))
        elif is_picture(file):
            entries.append((split, UNLABELLED, file))
    expected = {(parts[0], parts[1]) for parts in below if len(parts) > 1} if splits else set()
    expected |= {(parts[0], "") for parts in below if len(parts) == 1 and parts[0] in splits}
    expected |= set() if splits else {("train", parts[0]) for parts in below}
    return _listing(entries, {one for one in expected if one[0] in SPLITS}, val_fraction)


def _wrappers(folders: list[tuple[str, ...]]) -> int:
    """How many folders wrap everything: shared by all pictures, and neither a split nor the only class."""
    depth = 0
    while all(len(parts) > depth + 1 for parts in folders):
        here = {parts[depth] for parts in folders}
        if len(here) > 1 or here & set(SPLITS):
            break
        depth += 1
    return depth


def _listing(
    entries: list[tuple[str, str, File]], expected: set[tuple[str, str]], val_fraction: float | None
) -> Listing:
    """Check what was found, ``expected`` being the folders that should have pictures, and number the classes."""
    found = {(split, name) for split, name, _ in entries}
    for split, name in sorted(expected):
        if name and (split, name) not in found:
            raise BadSource(f"class {name} has no pictures in {split}: add some, or remove its folder")
        if not name and not any(one == split for one, _ in found):
            raise BadSource(f"{split} has no pictures: add some, or remove the folder")
    names = {name for _, name in found}
    if UNLABELLED in names and len(names) > 1:
        split = next(split for split, name, _ in entries if name == UNLABELLED)
        raise BadSource(
            f"{split} has pictures outside of class folders, so their classes are unknown: sort them into class "
            "folders (for ImageNet's own archives give the folder with the tars and the devkit)"
        )
    trained = {name for split, name in found if split == "train"}
    if names - trained:
        raise BadSource(f"class {min(names - trained)} has no training pictures: add some, or remove it from the rest")
    classes = sorted(names)
    number = {name: label for label, name in enumerate(classes)}
    numbered = [Entry(split=split, label=number[name], file=file) for split, name, file in entries]
    flat = classes == [UNLABELLED]
    return Listing(
        layout="flat" if flat else "folders",
        classes=classes,
        entries=numbered if flat else with_validation(numbered, val_fraction),
    )


def with_validation(entries: list[Entry], fraction: float | None) -> list[Entry]:
    """The entries in the order of SPLITS; ``fraction`` of each class's training ones held out, replacing any val."""
    by_split = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    if fraction is None:
        fraction = 0.0 if by_split["val"] else DEFAULT_FRACTION
    if fraction > 0:
        held = _held_out(by_split["train"], fraction)
        by_split["val"] = [replace(entry, split="val") for entry in by_split["train"] if entry.file.name in held]
        by_split["train"] = [entry for entry in by_split["train"] if entry.file.name not in held]
    return [entry for split in SPLITS for entry in by_split[split]]


def _held_out(entries: Iterable[Entry], fraction: float) -> set[str]:
    """Names of the share of each class that hash lowest: the same whatever else is there; one of each class stays."""
    by_class: dict[int, list[str]] = {}
    for entry in entries:
        by_class.setdefault(entry.label, []).append(entry.file.name)
    held: set[str] = set()
    for names in by_class.values():
        count = min(max(1, round(len(names) * fraction)), len(names) - 1)
        held |= set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    return held
