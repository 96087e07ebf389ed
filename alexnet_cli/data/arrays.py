"""Arrays in .npy files whose size is known beforehand: made whole, written in parts, and refused if they differ."""

import errno
import math
import os
import struct
from pathlib import Path

import numpy as np

from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import atomic_write

HEADER_SIZE = 4096  # bytes; the array begins at a page
WRITE_SIZE = 4 << 20  # bytes
ADVICE = "prep the dataset again"

Shape = tuple[int, ...]


def npy_header(shape: Shape, dtype: type) -> bytes:
    """The first HEADER_SIZE bytes of the .npy file of an array, which `np.load` and `np.memmap` read as any other."""
    descr = np.dtype(dtype).newbyteorder("<").str
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    size = HEADER_SIZE - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + text.ljust(size - 1).encode() + b"\n"


def create_array(path: Path, shape: Shape, dtype: type) -> None:
    """Make the file of an array of zeros. It takes no space on disk until it is written to."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(npy_header(shape, dtype))
        file.truncate(HEADER_SIZE + _bytes(shape, dtype))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a whole array atomically."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(npy_header(array.shape, array.dtype.type))
        file.write(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)


def write_rows(path: Path, start: int, rows: np.ndarray) -> None:
    """Write ``rows`` into an existing file, from row ``start`` on. Raises OSError if the disk is full.

    Each WRITE_SIZE bytes are synced and dropped from the page cache before the next are written: a dataset larger than
    memory does not evict everything else from the cache. Reusing the same few pages is also up to five times as fast on
    machines where new pages are slow, as on virtual ones.
    """
    content = rows.reshape(-1).view(np.uint8)
    begin = HEADER_SIZE + start * rows[:1].nbytes
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    try:
        with open(path, "r+b", buffering=0) as file:
            for offset in range(0, len(content), WRITE_SIZE):
                part = content[offset : offset + WRITE_SIZE]
                if os.pwrite(file.fileno(), part.data, begin + offset) != len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                sync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), begin + offset, len(part), os.POSIX_FADV_DONTNEED)
    except OSError as error:  # a failed write does not know the name of its file
        error.filename = error.filename or str(path)
        raise


def check_array(path: Path, shape: Shape, dtype: type) -> None:
    """Raise BadArtefact unless the file at ``path`` has the header and the size of such an array; OSError as it is."""
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtefact(f"{path} is missing: {ADVICE}") from None
    if size != HEADER_SIZE + _bytes(shape, dtype):
        raise BadArtefact(f"{path} is damaged (it has {size:,} bytes, not those of {shape[0]:,} pictures): {ADVICE}")
    with open(path, "rb") as file:
        if file.read(HEADER_SIZE) != npy_header(shape, dtype):
            raise BadArtefact(f"{path} is damaged (its header is not that of {shape[0]:,} pictures): {ADVICE}")


def map_array(path: Path, shape: Shape, dtype: type) -> np.ndarray:
    """The array in the file, memory-mapped and read-only. Raises BadArtefact like `check_array`, and OSError."""
    check_array(path, shape, dtype)
    try:
        # A plain array over the mapping: indexing a numpy.memmap creates a new memmap each time, which is slow.
        return np.asarray(np.memmap(path, dtype, "r", HEADER_SIZE, shape))
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _bytes(shape: Shape, dtype: type) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
