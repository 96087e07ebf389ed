"""Features of many pictures in a file, written as they come: memory holds one picture's."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from alexnet_cli.data.arrays import npy_header
from alexnet_cli.outputs import check_suffix, write_csv, write_output

NPY, CSV = ".npy", ".csv"
Write = Callable[[str, np.ndarray], object]  # appends a picture, by its name and its features


def names_file(path: Path) -> Path:
    """Where the names of the pictures in the .npy file ``path`` are: one a line, in the order of its rows."""
    return path.with_suffix(".txt")


@contextlib.contextmanager
def writing_features(path: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Write]:
    """Write a file of features of ``shape``; yields what appends a picture.

    ``path``: a .npy file, (n, *shape) float32, with its `names_file`; or a .csv file, whose columns are path,
    ``layer``_0, ``layer``_1 ... The files are written atomically. Raises AlexNetError for another suffix.
    """
    check_suffix(path, "a file of features", (NPY, CSV))
    if path.suffix == CSV:
        with write_csv(path, ["path", *(f"{layer}_{i}" for i in range(int(np.prod(shape))))]) as write:
            # The shortest digits that are read as the same float32
            yield lambda name, features: write([name, *map(str, features.reshape(-1))])
    else:
        with _writing_npy(path, shape) as append:
            yield append


@contextlib.contextmanager
def _writing_npy(path: Path, shape: tuple[int, ...]) -> Iterator[Write]:
    with (
        write_output(path) as temporary,
        open(temporary, "wb") as file,
        write_output(names_file(path)) as temporary_names,
        open(temporary_names, "w", encoding="utf-8", errors="surrogateescape", newline="") as names,
    ):
        count = 0

        def append(name: str, features: np.ndarray) -> None:
            nonlocal count
            names.write(name.replace("\n", "\\n").replace("\r", "\\r") + "\n")
            file.write(np.asarray(features, np.float32, order="C").reshape(-1).view(np.uint8).data)
            count += 1

        file.write(npy_header((0, *shape), np.float32))
        yield append
        file.seek(0)
        file.write(npy_header((count, *shape), np.float32))
        # The names get their place first: a kill must not leave them beside other rows.
        Path(os.path.realpath(path)).unlink(missing_ok=True)
