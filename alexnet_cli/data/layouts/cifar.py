"""CIFAR-10's archive for Python: batches of pictures in pickles."""

import io
import pickle
import pickletools
import posixpath
import re
import zlib
from typing import Any

import numpy as np

from alexnet_cli.data.layouts.listing import Entries, Listing, abbreviate
from alexnet_cli.data.locations import Location, Locations
from alexnet_cli.data.sources import Source, is_hidden
from alexnet_cli.errors import BadSource, first_line

META = "batches.meta"  # has the names of the classes
BATCH = re.compile(r"data_batch_\d+|test_batch")


def cifar10(source: Source) -> Listing | None:
    """A layout: CIFAR-10. Its test batch is the validation split. None if there are no such batches.

    The pixels are written as PPM pictures into one temporary file, so that they are read like all other pictures.
    """
    names = {posixpath.basename(name): name for name in source.locations if _is_batch_or_meta(name)}
    batches = sorted(names.keys() - {META})
    if META not in names or not batches:
        return None
    classes = [_text(name) for name in _unpickle(source, names[META]).get(b"label_names", [])]
    file = source.temporary_file()
    locations, pictures, offset = Locations(), list[tuple[str, str, int]](), 0
    for batch in batches:
        split = "val" if batch == "test_batch" else "train"
        for pixels, label, name in zip(*_read_batch(source, names[batch], len(classes)), strict=True):
            content = b"P6 32 32 255\n" + pixels.reshape(3, 32, 32).transpose(1, 2, 0).tobytes()
            file.write(content)
            location = Location(file.name, offset, len(content), len(content), zlib.crc32(content))
            locations.add(f"{batch}/{name}", location)
            pictures.append((f"{batch}/{name}", split, label))
            offset += len(content)
    file.flush()
    locations.sort()
    trained = {label for _, split, label in pictures if split == "train"}
    missing = [name for label, name in enumerate(classes) if label not in trained]
    if missing:
        raise BadSource(f"{source.path}: classes without training pictures: {abbreviate(missing)}")
    return Listing(layout="cifar-10", classes=classes, entries=Entries.of(locations, pictures))


def _is_batch_or_meta(name: str) -> bool:
    file_name = posixpath.basename(name)
    return (file_name == META or BATCH.fullmatch(file_name) is not None) and not is_hidden(name)


def _read_batch(source: Source, name: str, class_count: int) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels (N, 3072) uint8 in planes R, G, B, labels and file names of a batch. Raises BadSource if damaged."""
    content = _unpickle(source, name)
    data, labels = content.get(b"data"), content.get(b"labels")
    rows = data.values if isinstance(data, _Array) else None
    file_names = content.get(b"filenames") or [f"{row:05d}.png" for row in range(len(labels or []))]
    if (
        rows is None
        or not isinstance(labels, list)
        or rows.shape != (len(labels), 3072)
        or len(file_names) != len(labels)
        or not all(isinstance(file_name, bytes | str) for file_name in file_names)
        or not all(isinstance(label, int) and 0 <= label < class_count for label in labels)
    ):
        raise BadSource(f"{source.path}: {name} is damaged: it must hold pictures of 3072 bytes and their labels")
    texts = [_text(file_name) for file_name in file_names]
    if len(set(texts)) < len(texts):
        texts = [f"{row:05d}.png" for row in range(len(labels))]
    return rows, labels, texts


def _text(name: bytes | str) -> str:
    raw = name if isinstance(name, bytes) else str(name).encode("utf-8", "replace")
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")


def _unpickle(source: Source, name: str) -> dict[bytes, Any]:
    try:
        pickled = source.read(name)
        for opcode, number, _ in pickletools.genops(pickled):
            if "PUT" in opcode.name and number is not None and number > len(pickled):
                raise ValueError("a number that would take memory")  # the unpickler has a table of so many places
        content = _SafeUnpickler(io.BytesIO(pickled), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("not a dictionary")
    except BadSource as error:
        raise BadSource(f"{source.path}: {name}: {error!s}") from None
    except Exception as error:  # unpickling damaged bytes raises all kinds of errors
        raise BadSource(f"{source.path}: {name} is damaged ({first_line(error)}): download it again") from None
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


class _SafeUnpickler(pickle.Unpickler):
    """Loads arrays of bytes and built-in types only. Any other global that a pickle names could run arbitrary code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return _Array if name == "ndarray" else _Type
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        raise BadSource(f"it asks for {module}.{name}, which CIFAR's archive never does: refused, it may be malicious")


# What a pickle makes in the place of NumPy's array and its type: NumPy's own would take any memory it is asked for.


class _Type:
    def __init__(self, name: bytes | str, *_: object) -> None:
        self.is_byte = name in (b"u1", "u1")

    def __setstate__(self, state: object) -> None:
        pass  # byte order and alignment


class _Array:
    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        _, shape, kind, is_fortran, content = state
        if not kind.is_byte or is_fortran:
            raise ValueError("an array of other values than bytes, row by row")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode_latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
