"""Copies pictures into a folder for each class. Nothing is ever written over, and nothing copied twice."""

import filecmp
import glob
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.errors import AlexNetError
from alexnet_cli.files import atomic_write, sweep
from alexnet_cli.inference.predictor import Predictor

UNSURE = "unsure"  # the folder of pictures whose best class is not probable enough
FORBIDDEN = '/\\:*?"<>|'  # in the name of a file, on one system or another
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}  # on Windows
LONGEST = 120  # bytes of a folder's name: systems take 255, and a picture's path 260 on some


@dataclass(frozen=True)
class Copy:
    """What `Sorter.add` did, or would do."""

    path: Path  # of the copy
    is_new: bool  # else the picture was there already
    others: Sequence[Path] = ()  # copies of it in other folders of the target, from an earlier run


class Sorter:
    """Copies pictures into folders of ``folder`` that are named after their classes."""

    def __init__(self, folder: Path, model: Predictor, *, dry_run: bool = False) -> None:
        """``model`` knows the classes. With ``dry_run`` nothing is written.

        Raises AlexNetError if there is a file called ``folder``, OSError if it cannot be made.
        """
        if folder.exists() and not folder.is_dir():
            raise AlexNetError(f"{folder} is a file: name a folder to sort into")
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)  # fails before the work
            for of_class in filter(Path.is_dir, folder.iterdir()):
                sweep(of_class)  # what a killed run left
        self.folder, self.dry_run = folder, dry_run
        self.folders = dict(zip(model.classes, folder_names(model.classes, model.class_names), strict=True))
        self._planned: dict[Path, Path] = {}  # copy -> picture, in a dry run
        self._earlier = _by_name(folder)

    def add(self, picture: Path, label: str | None) -> Copy:
        """Copy ``picture`` into the folder of class ``label``, or into `unsure` if None.

        It keeps its name; if another picture has that, it gets a number: "a (2).jpg". Raises OSError.
        """
        folder = self.folder / (UNSURE if label is None else self.folders[label])
        named_so = self._earlier.get(_unnumbered(picture.name), ())
        others = [path for path in map(Path, named_so) if path.parent != folder and _are_same(picture, path)]
        for name in _numbered(picture.stem, picture.suffix):
            path = folder / name
            content = self._planned.get(path, path if os.path.lexists(path) else None)
            if content is None:
                if self.dry_run:
                    self._planned[path] = picture
                if self.dry_run or _copy(picture, path):
                    return Copy(path, is_new=True, others=others)
                content = path  # another process has just written it, perhaps the same picture
            if _are_same(picture, content):
                return Copy(path, is_new=False, others=others)
        raise AssertionError("there is always another number")


def folder_names(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """A name for the folder of each class, safe on every system; no two are equal, nor are they `unsure`.

    Where the ``names`` of two classes would be equal, those of their folders end with their ``labels``.
    """
    plain = [safe_name(name) for name in names]
    often = Counter([UNSURE, *map(str.casefold, plain)])
    taken, folders = {UNSURE}, list[str]()
    for label, name, folder in zip(labels, names, plain, strict=True):
        if often[folder.casefold()] > 1:
            folder = safe_name(f"{name} {label}")
        folder = next(one for one in _numbered(folder) if one.casefold() not in taken)
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def safe_name(text: str) -> str:
    """``text`` as the name of a folder on any system: `_` for what may not be in it, at most LONGEST bytes."""
    kept = "".join("_" if letter in FORBIDDEN or not letter.isprintable() else letter for letter in text)
    short = kept.encode()[:LONGEST].decode(errors="ignore").strip(" .")
    return f"_{short}" if short.split(".")[0].casefold() in {"", *DEVICES} else short


def _numbered(stem: str, suffix: str = "") -> Iterator[str]:
    """ "a.jpg", "a (2).jpg", "a (3).jpg" ..."""
    yield stem + suffix
    yield from (f"{stem} ({number}){suffix}" for number in itertools.count(2))


def _unnumbered(name: str) -> str:
    """The name that `_numbered` has made ``name`` of, or may have."""
    stem, suffix = os.path.splitext(name)
    return re.sub(r"( \(\d+\))+$", "", stem) + suffix


def _by_name(folder: Path) -> dict[str, list[str]]:
    """Paths of the files in the folders of ``folder``, by their names without a number."""
    files: dict[str, list[str]] = {}
    for path in glob.iglob(f"{glob.escape(str(folder))}/*/*"):
        files.setdefault(_unnumbered(os.path.basename(path)), []).append(path)
    return files


def _copy(picture: Path, path: Path) -> bool:
    """Copy ``picture`` to ``path``, with its time. Returns whether it did: not if there is something by now."""
    try:
        with atomic_write(path, replace=False) as temporary:
            shutil.copyfile(picture, temporary)
            status = picture.stat()
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    except FileExistsError:
        if not os.path.lexists(path):
            raise  # a file where a folder of it should be
        return False
    return True


def _are_same(picture: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(picture, other, shallow=False)
