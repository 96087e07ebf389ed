"""Just enough of protobuf's wire format to find the fields of a message."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_cli.errors import BadArtefact

Field = tuple[int, int, Any]  # number, wire type, value: an int, or bytes


def fields(data: bytes, path: Path) -> Iterator[Field]:
    """The fields of a message. Raises BadArtefact if it ends in the middle of one; ``path`` is named in the message."""
    position = 0
    while position < len(data):
        key, position = varint(data, position, path)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = varint(data, position, path)
            yield number, wire, value
            continue
        if wire == 2:
            length, position = varint(data, position, path)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise BadArtefact(f"{path} is damaged or no protobuf: fetch it again")
        if number == 0 or position + length > len(data):
            raise BadArtefact(f"{path} is damaged or cut short: fetch it again")
        yield number, wire, data[position : position + length]
        position += length


def varint(data: bytes, position: int, path: Path) -> tuple[int, int]:
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
    numbers, position = [], 0
    while position < len(value):
        number, position = varint(value, position, path)
        numbers.append(number)
    return numbers
