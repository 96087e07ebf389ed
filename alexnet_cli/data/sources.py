"""Where pictures come from: folders and archives, read in place; a source names its pictures and reads their bytes."""

import hashlib
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from alexnet_cli.errors import BadPicture, BadSource

DEFAULT_FRACTION = 0.1  # of each class, held out for validation where a source has no validation split


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a source."""

    split: str  # "train" or "val"
    label: int
    name: str  # its path within the source


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All pictures of a source, in the order in which they are packed."""

    layout: str  # "folders" or "flat"
    classes: list[str]
    entries: list[Entry]


class Folder:
    """Files below a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found = []
        for base, _, files in os.walk(self.path):  # does not follow links to folders: no loops
            found += [(Path(base) / file).relative_to(self.path).as_posix() for file in files]
        return found

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror})") from None

    def stamp(self, name: str) -> str:
        facts = (self.path / name).stat()
        return f"{facts.st_size} {facts.st_mtime_ns}"


class Zip:
    """Members of a zip; names are names only, nothing is ever extracted."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise BadSource(f"{path} is no zip that can be read ({error})") from None

    def names(self) -> list[str]:
        return [member.filename for member in self.archive.infolist() if not member.is_dir()]

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise BadPicture(f"cannot be read from the archive ({error})") from None

    def stamp(self, name: str) -> str:
        member = self.archive.getinfo(name)
        return f"{member.file_size} {member.CRC}"


class Tar:
    """Members of a tar; names are names only, nothing is ever extracted."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = tarfile.open(path)  # noqa: SIM115 - open as long as the source is
            self.members = {member.name: member for member in self.archive if member.isreg()}
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadSource(f"{path} is no tar that can be read ({error})") from None

    def names(self) -> list[str]:
        return list(self.members)

    def read(self, name: str) -> bytes:
        file = self.archive.extractfile(self.members[name])
        assert file is not None  # only regular files are listed
        try:
            return file.read()
        except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
            raise BadPicture(f"cannot be read from the archive ({error})") from None

    def stamp(self, name: str) -> str:
        return f"{self.members[name].size} {self.members[name].mtime}"


Source = Folder | Zip | Tar


def open_source(path: Path) -> Source:
    """The source at ``path``. Raises BadSource if it is none."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise BadSource(f"no folder or archive at {path}")
    if zipfile.is_zipfile(path):
        return Zip(path)
    if tarfile.is_tarfile(path):
        return Tar(path)
    raise BadSource(f"{path} is neither a folder nor a .zip nor a .tar")


SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".jpe", ".jfif", ".avif"}


def list_pictures(source: Source, val_fraction: float | None = None) -> Listing:
    """Split, label and name of every picture. Raises BadSource where that cannot be told, or something is empty."""
    names = sorted(name for name in source.names() if is_picture(name))
    if not names:
        raise BadSource("no pictures there: give a folder of class folders, each with its pictures")
    depth = _common_folders(names)
    parts = [PurePosixPath(name).parts[depth:] for name in names]
    has_splits = all(len(part) > 1 and part[0] in ("train", "val") for part in parts)
    if not has_splits:
        depth, parts = depth, [("train", *part) for part in parts]
    labels = [part[1] if len(part) > 2 else "" for part in parts]
    for split in ("train", "val"):
        here = {label for part, label in zip(parts, labels, strict=True) if part[0] == split}
        if "" in here and len(here | set(labels)) > 1:
            raise BadSource(
                f"{split} has pictures outside of class folders, so their classes are unknown: sort them into folders"
            )
    classes = sorted(set(labels) - {""}) or ["unlabelled"]
    number = {label: i for i, label in enumerate(classes)} | {"": 0}
    entries = [
        Entry(split=part[0], label=number[label], name=name)
        for part, label, name in zip(parts, labels, names, strict=True)
    ]
    return Listing(
        layout="flat" if classes == ["unlabelled"] else "folders",
        classes=classes,
        entries=_with_validation(entries, has_splits, val_fraction),
    )


def is_picture(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES


def _common_folders(names: list[str]) -> int:
    """How many folders wrap everything: those that all names share and that are neither a split nor a class."""
    depth = 0
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    while all(len(part) > depth + 1 for part in folders):
        here = {part[depth] for part in folders}
        if len(here) > 1 or here & {"train", "val"}:
            break
        depth += 1
    return depth


def _with_validation(entries: list[Entry], has_splits: bool, fraction: float | None) -> list[Entry]:
    """Training entries first, then validation ones: those given, or the share asked for of each class's own."""
    train = [entry for entry in entries if entry.split == "train"]
    val = [entry for entry in entries if entry.split == "val"]
    if fraction is None:
        fraction = 0.0 if val else DEFAULT_FRACTION
    if fraction > 0:
        train, val = _held_out(train, fraction)
    return train + val


def _held_out(entries: list[Entry], fraction: float) -> tuple[list[Entry], list[Entry]]:
    """The pictures of each class whose names hash lowest, the same whatever else is there, are held out."""
    train, val = [], []
    for label in sorted({entry.label for entry in entries}):
        own = [entry for entry in entries if entry.label == label]
        count = min(max(1, round(len(own) * fraction)), len(own) - 1)
        held = {e.name for e in sorted(own, key=lambda e: hashlib.sha256(e.name.encode()).digest())[:count]}
        train += [entry for entry in own if entry.name not in held]
        val += [replace(entry, split="val") for entry in own if entry.name in held]
    return train, val
