"""Pictures as a user names them: files, folders, patterns, and a list on standard input."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.data.sources import is_picture, open_source
from alexnet_cli.errors import BadSource

LIST = "-"  # stands for the paths on standard input


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What `find_inputs` found."""

    pictures: Sequence[str]  # paths of files, which may be no pictures or not there
    empty: list[tuple[str, str]]  # what was named but leads to no file, with the reason

    def __len__(self) -> int:
        return len(self.pictures) + len(self.empty)


def find_inputs(names: Iterable[str], lines: Iterable[bytes] = ()) -> Inputs:
    """The pictures that ``names`` lead to, in their order.

    A file is itself; a folder all pictures in it and in its folders, sorted; a pattern such as `photos/**/*.jpg`, if no
    file has that name, the pictures that match, sorted; and "-" what ``lines`` lead to, which hold one path each.
    """
    pictures, empty = list[str](), list[tuple[str, str]]()
    for name in names:
        paths = [path for line in lines if (path := os.fsdecode(line.rstrip(b"\r\n")))] if name == LIST else [name]
        if not paths:
            empty.append((LIST, "no paths on standard input: write one a line"))
        for path in paths:
            found, reason = _found(path)
            pictures.extend(found)
            if not found:
                empty.append((path, reason))
    return Inputs(pictures=pictures, empty=empty)


def _found(name: str) -> tuple[list[str], str]:
    """The pictures that one name leads to, and why there are none."""
    try:
        if os.path.isdir(name):
            return _in_folder(name), "no pictures in this folder"
        if glob.has_magic(name) and not os.path.lexists(name):
            return _matches(name), "no picture matches this pattern"
    except BadSource as error:  # a folder that may not be read
        return [], str(error)
    return [str(Path(name))], ""


def _in_folder(folder: str) -> list[str]:
    """Raises BadSource if a folder in it may not be read."""
    return [str(Path(folder, name)) for name in open_source(Path(folder)).locations if is_picture(name)]


def _matches(pattern: str) -> list[str]:
    pictures: dict[str, None] = {}  # `**` matches a folder as well as the pictures in it
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isdir(path):
            pictures |= dict.fromkeys(_in_folder(path))
        elif is_picture(os.path.basename(path)):
            pictures[str(Path(path))] = None
    return list(pictures)
