"""Files that a user names for what a command makes: tables, figures, pages."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alexnet_cli.errors import AlexNetError
from alexnet_cli.files import atomic_write, sweep

DRAWN = "drawn by alexnet"  # stands near the beginning of every .png and .svg file that is drawn here
HEAD = 4096  # bytes of a file in which that is looked for


def check_suffix(path: Path, what: str, suffixes: Sequence[str]) -> None:
    """Raises AlexNetError if the name of ``path``, which is to be ``what``, does not end in one of ``suffixes``."""
    if path.suffix.lower() not in suffixes:
        example = f", for example {path.with_suffix(suffixes[0]).name}" if path.name else ""
        raise AlexNetError(f"{path or '.'}: {what} is a {' or '.join(suffixes)} file{example}")


def check_output(path: Path, what: str, suffixes: Sequence[str]) -> None:
    """Raises AlexNetError as `check_suffix` does, or if there is a picture at ``path`` that was not drawn here.

    Photographs are easily named where a file to write is expected: `--sheet *.png`, `--csv *.jpg`.
    """
    check_suffix(path, what, suffixes)
    if path.suffix.lower() in (".png", ".svg") and path.is_file():
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if head and DRAWN.encode() not in head:
            raise AlexNetError(f"{path} is a picture that alexnet did not draw: name another file")


@contextmanager
def write_output(path: Path) -> Iterator[Path]:
    """`atomic_write` to a file that the user named, after what killed runs left of it is removed.

    A link is written through. Raises AlexNetError if there is a folder, a device or a pipe.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink() or (target.exists() and not target.is_file()):  # a link is left where links lead in a circle
        raise AlexNetError(f"{path} is a folder, a device, a pipe or leads nowhere: name a file")
    sweep(target.parent, of=target)
    with atomic_write(target) as temporary:
        yield temporary


@contextmanager
def write_csv(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Iterable[object]], object]]:
    """Write a CSV file atomically, in UTF-8, with the names of its ``columns``; yields what writes one row.

    What is not UTF-8 in the name of a file is written as it is.
    """
    with (
        write_output(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write = csv.writer(file, lineterminator="\r\n").writerow  # RFC 4180; a name may hold either of the two
        write(columns)
        yield write
