"""The bytes of an ONNX file: its checksum, and inputs for other views than the central one. Imports no torch.

An ONNX file is a protobuf message, and such messages may be joined: what is appended to the file adds to its fields.
"""

import os
from pathlib import Path

import xxhash

from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import file_checksum
from alexnet_cli.inference.views import View

KEY, DIGITS = b"checksum", 32
PIECE = 1 << 20  # bytes that are read at a time: the file is never in memory as a whole


def seal(path: Path) -> None:
    """Append the checksum of all that is in the file, as the last of its metadata."""
    digest = file_checksum(path)
    with open(path, "ab") as file:
        file.write(_entry(digest))


def check(path: Path) -> None:
    """Raises BadArtefact if the file is damaged, cut short or was not sealed; OSError if it cannot be read."""
    size = len(_entry("0" * DIGITS))
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(PIECE))
    with open(path, "rb") as file:
        rest = os.fstat(file.fileno()).st_size - size
        while rest > 0 and (count := file.readinto(buffer[: min(rest, PIECE)])):
            digest.update(buffer[:count])
            rest -= count
        end = file.read(size)
    expected = _entry(digest.hexdigest())
    if end[:-DIGITS] != expected[:-DIGITS]:
        raise BadArtefact(f"{path} is cut short or was not made by `alexnet export`: export it again")
    if end != expected:
        raise BadArtefact(f"{path} is damaged (its checksum differs): export it again")


def _entry(digest: str) -> bytes:
    """In protobuf: an entry of ModelProto's `metadata_props`, field 14, with its key, field 1, and value, field 2."""
    entry = b"\x0a" + bytes([len(KEY)]) + KEY + b"\x12" + bytes([len(digest)]) + digest.encode()
    return b"\x72" + bytes([len(entry)]) + entry


def with_view_inputs(path: Path, crop: int) -> bytes:
    """The file with two more inputs, `rows` and `columns` (crop,) int64, whose defaults are the constants it has."""
    import onnx

    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [crop]) for name in View._fields]
    added: bytes = onnx.ModelProto(graph=onnx.GraphProto(input=inputs)).SerializeToString()
    return path.read_bytes() + added
