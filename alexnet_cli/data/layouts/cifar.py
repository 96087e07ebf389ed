"""CIFAR-10's archive for Python: batches of pictures in pickles."""

import posixpath
import re
from typing import Any, TypeGuard

import numpy as np

from alexnet_cli.data.layouts.bare import BarePictures
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.layouts.pickles import Array, load_pickle
from alexnet_cli.data.sources import Source, is_hidden
from alexnet_cli.errors import BadSource, first_line

SIDE = 32  # of its pictures, in pixels
META = "batches.meta"  # has the names of the classes
BATCH = re.compile(r"data_batch_\d+|test_batch")


def cifar10(source: Source) -> Listing | None:
    """A layout: CIFAR-10. Its test batch is the validation split. None if there are no such batches."""
    names = {posixpath.basename(name): name for name in source.locations if _is_batch_or_meta(name)}
    batches = sorted(names.keys() - {META})
    if META not in names or not batches:
        return None
    classes = _read_classes(source, names[META])
    held = BarePictures(source)
    for batch in batches:
        split = "val" if batch == "test_batch" else "train"
        for pixels, label, name in zip(*_read_batch(source, names[batch], len(classes)), strict=True):
            held.add(f"{batch}/{name}", split, label, pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0))
    return held.listing("cifar-10", classes, SIDE)


def _is_batch_or_meta(name: str) -> bool:
    file_name = posixpath.basename(name)
    return (file_name == META or BATCH.fullmatch(file_name) is not None) and not is_hidden(name)


def _read_classes(source: Source, name: str) -> list[str]:
    """The names of the classes, in label order. Raises BadSource if they are damaged."""
    found = _unpickle(source, name).get(b"label_names")
    classes = [_text(each) for each in found] if _are_texts(found) else []
    if not classes or "" in classes or len(set(classes)) < len(classes):
        raise BadSource(f"{source.path}: {name} is damaged: it must hold the names of the classes, each once")
    return classes


def _read_batch(source: Source, name: str, class_count: int) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels (N, 3072) uint8 in planes R, G, B, labels and file names of a batch. Raises BadSource if damaged."""
    content = _unpickle(source, name)
    data, labels, file_names = content.get(b"data"), content.get(b"labels"), content.get(b"filenames")
    rows = data.values if isinstance(data, Array) else None
    if (
        rows is None
        or not isinstance(labels, list)
        or rows.shape != (len(labels), 3072)
        or not all(type(label) is int and 0 <= label < class_count for label in labels)
        or not (file_names is None or (_are_texts(file_names) and len(file_names) == len(labels)))
    ):
        raise BadSource(f"{source.path}: {name} is damaged: it must hold pictures of 3072 bytes and their labels")
    texts = [_text(file_name) for file_name in file_names or ()]
    if len(set(texts)) < len(labels):
        texts = [f"{row:05d}.png" for row in range(len(labels))]
    return rows, labels, texts


def _are_texts(values: object) -> TypeGuard[list[bytes | str]]:
    return isinstance(values, list) and all(isinstance(value, bytes | str) for value in values)


def _text(name: bytes | str) -> str:
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "replace")
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")


def _unpickle(source: Source, name: str) -> dict[bytes, Any]:
    try:
        return load_pickle(source.read(name))
    except BadSource as error:
        raise BadSource(f"{source.path}: {name}: {error!s}") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes raise all kinds of errors
        raise BadSource(f"{source.path}: {name} is damaged ({first_line(error)}): download it again") from None
