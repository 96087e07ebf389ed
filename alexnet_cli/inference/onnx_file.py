"""The bytes of an ONNX file: its checksum, and inputs for other views than the central one. Imports no torch.

An ONNX file is a protobuf message, and such messages may be joined: what is appended to the file adds to its fields.
"""

import os
import weakref
from io import FileIO
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


class OnnxFile:
    """An open ONNX file. It stays the same file when an export takes its name."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be opened."""
        self.path, self._descriptor = path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._opened = _identity(os.fstat(self._descriptor))

    def check(self) -> None:
        """Raises BadArtefact if the file is damaged, cut short or was not sealed; OSError if it cannot be read."""
        size = len(_entry("0" * DIGITS))
        digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(PIECE))
        with self._reader() as file:
            rest = os.fstat(file.fileno()).st_size - size
            while rest > 0 and (count := file.readinto(buffer[: min(rest, PIECE)])):
                digest.update(buffer[:count])
                rest -= count
            end = file.read(size)
        expected = _entry(digest.hexdigest())
        if end[:-DIGITS] != expected[:-DIGITS]:
            raise BadArtefact(f"{self.path} is cut short or was not made by `alexnet export`: export it again")
        if end != expected:
            raise BadArtefact(f"{self.path} is damaged (its checksum differs): export it again")

    def read(self) -> bytes:
        """The whole file. Raises BadArtefact if it was written over since it was opened."""
        with self._reader() as file:
            content = file.read()
        if self.is_written_over:
            raise BadArtefact(f"{self.path} was written over while it was in use: open it again")
        return content

    @property
    def is_written_over(self) -> bool:
        """Whether it was written to since it was opened."""
        return _identity(os.fstat(self._descriptor)) != self._opened

    def has_its_name(self) -> bool:
        """Whether its path still leads to this file, with the content that was opened."""
        return self.path.exists() and _identity(os.stat(self.path)) == self._opened

    def with_view_inputs(self, crop: int) -> bytes:
        """The file with two more inputs, `rows` and `columns` (crop,) int64, whose defaults are the constants it has.

        Raises what `read` raises.
        """
        import onnx

        inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [crop]) for name in View._fields]
        added: bytes = onnx.ModelProto(graph=onnx.GraphProto(input=inputs)).SerializeToString()
        return self.read() + added

    def _reader(self) -> FileIO:
        """The file from its beginning. Only one thread may read it at a time."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return FileIO(self._descriptor, closefd=False)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and what changes when it is written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _entry(digest: str) -> bytes:
    """In protobuf: an entry of ModelProto's `metadata_props`, field 14, with its key, field 1, and value, field 2."""
    entry = b"\x0a" + bytes([len(KEY)]) + KEY + b"\x12" + bytes([len(digest)]) + digest.encode()
    return b"\x72" + bytes([len(entry)]) + entry
