"""MNIST's own files, which other sets of 28×28 pictures, such as Fashion-MNIST, share."""

import gzip
import io
import math
import posixpath
import re
import struct
import zlib

import numpy as np

from alexnet_cli.data.layouts.bare import BarePictures
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.limits import FILE_BYTES
from alexnet_cli.data.sources import Source, is_hidden
from alexnet_cli.errors import BadPicture, BadSource, abbreviate, first_line

SIDE, BORDER = 28, 2  # pixels; LeNet-5 got 28×28 within 32×32 (LeCun, Bottou, Bengio and Haffner, 1998)
CLASSES = [str(digit) for digit in range(10)]
SPLITS = {"train": "train", "t10k": "val"}  # prefix of the files -> split
FILE = re.compile(r"(train|t10k)-(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?")


def mnist(source: Source) -> Listing | None:
    """A layout: pictures of 28×28 and their labels in idx files, gzipped or not. None if there are none.

    t10k is the validation split. A picture gets a border of 2 black pixels, as in 1998, so that it has 32×32.
    """
    names = _names(source)
    if not names:
        return None
    held = BarePictures(source)
    for prefix, split in SPLITS.items():
        images, labels = (names.get(f"{prefix}-{kind}") for kind in ("images-idx3", "labels-idx1"))
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            missing = f"{prefix}-images-idx3-ubyte" if images is None else f"{prefix}-labels-idx1-ubyte"
            raise BadSource(f"{source.path}: {missing} is missing: add it to {images or labels}")
        pixels, digits = _read(source, images, (SIDE, SIDE)), _read(source, labels, ())
        if len(pixels) != len(digits):
            raise BadSource(f"{source.path}: {images} has {len(pixels):,} pictures, {labels} {len(digits):,} labels")
        if digits.max(initial=0) >= len(CLASSES):
            raise BadSource(f"{source.path}: {labels} is damaged: it has the label {digits.max()}")
        for row, (picture, digit) in enumerate(zip(pixels, digits.tolist(), strict=True)):
            held.add(f"{prefix}/{row:05d}.pgm", split, digit, np.pad(picture, BORDER))
    return held.listing("mnist", CLASSES, SIDE + 2 * BORDER)


def _names(source: Source) -> dict[str, str]:
    """The idx files: "train-images-idx3" -> its name in the source; one that is there twice is read unpacked."""
    paths = [name for name in source.locations if FILE.fullmatch(posixpath.basename(name)) and not is_hidden(name)]
    folders = {posixpath.dirname(path) or "." for path in paths}
    if len(folders) > 1:
        raise BadSource(f"{source.path} has idx files in several folders ({abbreviate(folders)}): name one of them")
    paths.sort(key=lambda path: not path.endswith(".gz"))
    return {re.sub(r"[-.](idx\d)-ubyte.*", r"-\1", posixpath.basename(path)): path for path in paths}


def _read(source: Source, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an idx file, as (N, *shape) uint8. Raises BadSource if it is damaged, or not what its name says."""
    try:
        content = source.read(name)
        file = gzip.GzipFile(fileobj=io.BytesIO(content)) if name.endswith(".gz") else io.BytesIO(content)
        magic, count, *found = struct.unpack(f">{2 + len(shape)}I", file.read(4 * (2 + len(shape))))
        if magic != 0x0800 + 1 + len(shape) or tuple(found) != shape:
            raise ValueError(f"its header is not that of {'28×28 pictures' if shape else 'labels'} of a byte each")
        size = count * math.prod(shape)
        if size > FILE_BYTES:
            raise ValueError(f"its header says {size:,} bytes, and {FILE_BYTES:,} are possible")
        values = file.read(size + 1)  # one more shows what follows
        if len(values) != size:
            raise ValueError(f"{'more' if len(values) > size else 'fewer'} bytes than its header says")
    except (BadPicture, EOFError, gzip.BadGzipFile, struct.error, ValueError, zlib.error) as error:
        raise BadSource(f"{source.path}: {name} is damaged ({first_line(error)}): download it again") from None
    return np.frombuffer(values, np.uint8).reshape(count, *shape)
