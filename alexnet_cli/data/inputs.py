"""Pictures as a user names them: files, folders, patterns, and a list on standard input."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alexnet_cli.data.sources import count_unread, is_picture, open_source
from alexnet_cli.data.unread import advices
from alexnet_cli.errors import BadSource
from alexnet_cli.wording import counted

LIST = "-"  # stands for the paths on standard input


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What `find_inputs` found."""

    pictures: Sequence[str]  # paths of files, which may be no pictures or not there
    empty: list[tuple[str, str]]  # what was named but leads to no file, with the reason
    left_out: Sequence[str] = ()  # how many pictures beside these were not taken, each with what to do about them

    def __len__(self) -> int:
        return len(self.pictures) + len(self.empty)


def find_inputs(names: Iterable[str], lines: Iterable[bytes] = (), target: Path | None = None) -> Inputs:
    """The pictures that ``names`` lead to, in their order.

    A file is itself; a folder all pictures in it and in its folders, sorted; a pattern such as `photos/**/*.jpg`, if no
    file has that name, the pictures that match, sorted; and "-" what ``lines`` lead to, which hold one path each.
    What lies in the folder ``target``, which pictures are sorted into, is left out unless its name leads there. Raises
    BadSource if that folder itself is named, or if ``lines`` are no text.
    """
    pictures, empty, unread, already = list[str](), list[tuple[str, str]](), Counter[str](), 0
    for name in names:
        paths = _listed(lines) if name == LIST else [name]
        if not paths:
            empty.append((LIST, "no paths on standard input: write one a line"))
        for path in paths:
            if target is not None and target.is_dir() and os.path.realpath(path) == os.path.realpath(target):
                raise BadSource(f"{path} holds the pictures to sort: name another folder to sort them into")
            is_inside = _is_inside(target, path)
            try:
                some, left_out = _found(path)
            except BadSource as error:  # there are none, or a folder may not be read
                empty.append((path, str(error)))
                continue
            new = [one for one in some if not is_inside(os.path.dirname(one))]
            already += len(some) - len(new)
            pictures += new
            unread += left_out
    told = [f"{counted(already, 'picture')} in {target}: sorted already"] if already else []
    return Inputs(pictures=pictures, empty=empty, left_out=[*advices(unread), *told])


def _listed(lines: Iterable[bytes]) -> list[str]:
    """The paths that ``lines`` hold."""
    paths = [line.rstrip(b"\r\n") for line in lines]
    if any(b"\0" in path for path in paths):
        raise BadSource("- reads a list of paths from standard input, one a line, and not a picture: name its file")
    return [os.fsdecode(path) for path in paths if path]


def _is_inside(target: Path | None, name: str) -> Callable[[str], bool]:
    """Whether a folder is ``target`` or lies in it; never, if ``name`` itself leads there."""
    if target is None:
        return lambda folder: False
    root = Path(os.path.realpath(target))
    is_inside = cache(lambda folder: Path(os.path.realpath(folder)).is_relative_to(root))
    start = re.split(r"[*?[]", name)[0]  # of a pattern
    return (lambda folder: False) if is_inside(name) or is_inside(start) else is_inside


def _found(name: str) -> tuple[list[str], Counter[str]]:
    """The pictures that one name leads to, and the suffixes of those that are not read. Raises BadSource for none."""
    if os.path.isdir(name):
        files, none = _in_folder(name), "no pictures in this folder{}"
    elif glob.has_magic(name) and not os.path.lexists(name):
        files, none = _matches(name), "no picture{} matches this pattern"
    else:
        return [str(Path(name))], Counter()
    pictures, unread = [path for path, within in files.items() if is_picture(within)], count_unread(files.values())
    if not pictures:
        reasons = "; ".join(advices(unread))
        raise BadSource(f"{none.format(' that can be read')}: {reasons}" if reasons else none.format(""))
    return pictures, unread


def _in_folder(folder: str) -> dict[str, str]:
    """Paths of all files in ``folder`` -> their names within it. Raises BadSource if a folder in it may not be read."""
    return {str(Path(folder, name)): name for name in open_source(Path(folder)).locations}


def _matches(pattern: str) -> dict[str, str]:
    """Paths of all files that match, and of those in folders that do -> names. Raises as `_in_folder`."""
    files = dict[str, str]()  # `**` matches a folder as well as the files in it
    for path in sorted(glob.iglob(pattern, recursive=True)):
        files |= _in_folder(path) if os.path.isdir(path) else {str(Path(path)): os.path.basename(path)}
    return files
