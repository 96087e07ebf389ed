"""Reads the struct array of a MATLAB file (level 5), as ImageNet's `meta.mat` has it.

scipy reads such files as well, but a damaged one makes it end the process.
"""

import struct
import zlib
from typing import Any

import numpy as np

STRUCT, CHARACTERS, FIRST_NUMBER, LAST_NUMBER = 2, 4, 6, 15  # classes of arrays
MATRIX, COMPRESSED, UTF8 = 14, 15, 16  # types of elements
TYPES = {  # of elements with values
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"},
    **{UTF8: "u1", 17: "u2", 18: "u4"},  # text
}
HEADER = 128  # bytes before the first element
EXPANDED = 2**26  # bytes of a compressed element; ImageNet's has less than 1 MB


def read_struct(content: bytes) -> tuple[str, list[dict[str, Any]]]:
    """The name and the rows of the first variable of a MATLAB file, a struct array.

    Numbers are ints or floats, text is str, and everything else is None. Raises ValueError, or another Exception, if
    the file is damaged or has something else.
    """
    order = {b"IM": "<", b"MI": ">"}[content[126:HEADER]]
    kind, data, _ = _element(content, HEADER, order)
    if kind == COMPRESSED:
        kind, data, _ = _element(zlib.decompressobj().decompress(data, EXPANDED), 0, order)
    name, rows = _array(kind, data, order)
    if not isinstance(rows, list):
        raise ValueError("not a struct array")
    return name, rows


def _element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Type and data of the element at a position, and the position of the next."""
    kind, size = struct.unpack_from(f"{order}II", content, at)
    if kind >> 16:  # up to 4 bytes of data are in the second half of the tag
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
        start = at + 8
        end = start + size + (-size % 8 if kind != COMPRESSED else 0)
    if start + size > len(content):
        raise ValueError("it is cut short")
    return kind, content[start : start + size], end


def _array(kind: int, data: bytes, order: str) -> tuple[str, Any]:
    """Name and value of an array."""
    if kind != MATRIX:
        raise ValueError("not an array")
    if not data:
        return "", None
    _, flags, at = _element(data, 0, order)
    _, dimensions, at = _element(data, at, order)
    _, name, at = _element(data, at, order)
    array_class = struct.unpack(f"{order}I", flags[:4])[0] & 0xFF
    value: Any = None
    if array_class == STRUCT:
        value = _rows(data, at, int(np.prod(np.frombuffer(dimensions, f"{order}i4"), dtype=object)), order)
    elif array_class == CHARACTERS or FIRST_NUMBER <= array_class <= LAST_NUMBER:
        kind, stored, _ = _element(data, at, order)
        values = np.frombuffer(stored, f"{order}{TYPES[kind]}").tolist()
        if array_class != CHARACTERS:
            value = values[0] if len(values) == 1 else None
        else:
            value = stored.decode() if kind == UTF8 else "".join(map(chr, values))
    return name.decode("ascii"), value


def _rows(data: bytes, at: int, count: int, order: str) -> list[dict[str, Any]]:
    """The elements of a struct array, of which each has the same fields."""
    _, length, at = _element(data, at, order)
    _, names, at = _element(data, at, order)
    (size,) = struct.unpack(f"{order}I", length)
    fields = [names[start : start + size].split(b"\0")[0].decode("ascii") for start in range(0, len(names), size)]
    if not fields:
        raise ValueError("a struct array without fields")
    rows = []
    for _ in range(count):
        row = {}
        for field in fields:
            kind, value, at = _element(data, at, order)
            row[field] = _array(kind, value, order)[1]
        rows.append(row)
    return rows
