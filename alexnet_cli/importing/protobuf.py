"""Just enough of protobuf's wire format to find the fields of a message."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.errors import BadArtefact

Field = tuple[int, int, Any]  # number, wire type, value: an int, or a memoryview of bytes

MOST = 65_536  # fields of one message; consecutive numbers of one field count as one
FIXED = {1: 8, 5: 4}  # wire types of numbers of a fixed size -> bytes


def fields(data: memoryview, path: Path) -> Iterator[Field]:
    """The fields of a message; consecutive numbers of a fixed size with the same field number come as one value.

    Raises BadArtefact if it ends in the middle of a field or has more than MOST; ``path`` is named in the message.
    """
    position = 0
    for _ in range(MOST):
        if position >= len(data):
            return
        start = position
        key, position = varint(data, position, path)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, position = varint(data, position, path)
        elif wire == 2:
            length, position = varint(data, position, path)
            value, position = data[position : position + length], position + length
        elif wire in FIXED:
            value, position = _numbers(data, start, position, FIXED[wire])
        else:
            raise BadArtefact(f"{path} is damaged or no protobuf: fetch it again")
        if number == 0 or position > len(data):
            raise BadArtefact(f"{path} is damaged or cut short: fetch it again")
        yield number, wire, value
    raise BadArtefact(f"{path} has more fields than a network: fetch it again")


def _numbers(data: memoryview, start: int, position: int, size: int) -> tuple[memoryview, int]:
    """The numbers of ``size`` bytes from ``start`` on, each behind the same key, whose first ends at ``position``:
    their bytes joined, and the position after the last.

    A file that is not packed has a key before each of its millions of numbers. They are looked at in steps that double,
    so that the time is linear.
    """
    key, width = bytes(data[start:position]), position - start + size
    count, step = 0, 16
    while True:
        most = min(step, (len(data) - start) // width - count)
        records = np.frombuffer(data, np.uint8, most * width, start + count * width).reshape(most, width)
        other = np.flatnonzero((records[:, : len(key)] != np.frombuffer(key, np.uint8)).any(axis=1))
        count += int(other[0]) if len(other) else most
        if len(other) or most < step:
            break
        step *= 2
    if count == 0:
        return data[position:], len(data) + 1  # it is cut short
    records = np.frombuffer(data, np.uint8, count * width, start).reshape(count, width)
    return memoryview(records[:, len(key) :].tobytes()), start + count * width


def varint(data: memoryview, position: int, path: Path) -> tuple[int, int]:
    """A number of variable length at ``position``, and the position after it. Raises BadArtefact."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value, position, shift = value | (byte & 127) << shift, position + 1, shift + 7
        if byte < 128:
            return value, position
    raise BadArtefact(f"{path} is damaged or cut short: fetch it again")


def integers(field: Field, path: Path) -> list[int]:
    """The numbers of a repeated field, which is packed or has one of them. Raises BadArtefact."""
    _, wire, value = field
    if wire == 0:
        return [value]
    numbers: list[int] = []
    position = 0
    while position < len(value):
        if len(numbers) == MOST:
            raise BadArtefact(f"{path} has more numbers in a list than a network: fetch it again")
        number, position = varint(value, position, path)
        numbers.append(number)
    return numbers
