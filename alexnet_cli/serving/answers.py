"""What the server answers of an open index, as plain values."""

import errno
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.data.store import SMALLEST
from alexnet_cli.errors import BadPicture
from alexnet_cli.files import open_regular
from alexnet_cli.inference.predictor import Picture, Predictor
from alexnet_cli.retrieval.index import Neighbour
from alexnet_cli.serving.decoding import Decoders
from alexnet_cli.serving.library import NotThere, Opened
from alexnet_cli.serving.thumbnails import SIDE, Cache, encode, key_of
from alexnet_cli.visualization.embedding import NONE, OTHER, colours_of, read_embedding

BITMAP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # sizes
TOP = 5  # classes, as in the paper's figure 4


def info(opened: Opened) -> dict[str, Any]:
    """The index and its model."""
    facts, model = opened.index.facts, opened.searcher.model
    return {
        "model": model.name,
        "index": opened.index.path.name,
        "pictures": len(opened.index),
        "classes": model.classes,
        "feature": model.feature_name,
        "generation": opened.generation,
        "source": facts["named"],
        "has_files": facts["are_files"],
    }


def pixels(opened: Opened, query: bytes | int) -> np.ndarray:
    """The pixels that the model takes of a picture, the content of a file, or of the one in a row: (S, S, 3) uint8.

    Raises BadPicture, NotThere.
    """
    size = opened.searcher.model.image_size
    return opened.decoders.load(query, size) if isinstance(query, bytes) else opened.pixels(query, size)


def pixels_if_there(opened: Opened, query: bytes | int) -> np.ndarray | None:
    """`pixels`; None if the picture in a row is gone, or cannot be read any more."""
    try:
        return pixels(opened, query)
    except BadPicture:
        if isinstance(query, bytes):
            raise
        return None


def search(opened: Opened, query: bytes | int, shown: np.ndarray | None, k: int) -> dict[str, Any]:
    """Predictions and neighbours of a picture that was sent, or of the one in a row; ``shown``: its `pixels`.

    If those are not there any more, neighbours of the row are, and there are no predictions. Raises NotThere.
    """
    index, model = opened.index, opened.searcher.model
    label = None
    if isinstance(query, bytes):
        assert shown is not None
        probabilities, features = _run(model, shown)
        predictions = model.best(probabilities, TOP)
        (neighbours,) = index.neighbours(features[None], k)
    else:
        _, label = opened.picture(query)
        neighbours = index.neighbours_of_row(query, k)
        predictions = [] if shown is None else model.best(_run(model, shown)[0], TOP)
    return {
        "predictions": [vars(prediction) for prediction in predictions],
        "neighbours": [_neighbour(one) for one in neighbours],
        "label": label,
        "generation": opened.generation,
    }


def _run(model: Predictor, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (classes,) and features (D,) of one picture. Raises BadPicture."""
    ((_, result),) = model.answer_each(picture, lambda images: zip(*model.run(images), strict=True))
    if isinstance(result, BadPicture):
        raise result
    return result


def _neighbour(one: Neighbour) -> dict[str, Any]:
    return {"row": one.row, **one.as_json()}


def classes(opened: Opened) -> dict[str, Any]:
    """The labels of the index's pictures, and how many each has; label null is those of none."""
    counts = opened.class_counts
    rows = [{"label": label, "name": opened.name_of(label), "pictures": count} for label, count in counts.items()]
    return {"classes": rows, "generation": opened.generation}


def pictures(opened: Opened, label: str | None, after: int, count: int) -> dict[str, Any]:
    """The first ``count`` pictures of a class whose rows are greater than ``after``, and whether there are more."""
    found = opened.index.table.pictures(label, after, count + 1)
    return _listed(opened, found[:count]) | {"more": len(found) > count}


def spread(opened: Opened, count: int) -> dict[str, Any]:
    """``count`` pictures, evenly spread over the index."""
    total = len(opened.index)
    rows = np.unique(((np.arange(count) + 0.5) * total / count).astype(np.int64)).tolist()
    return _listed(opened, [(row, *opened.picture(row)) for row in rows])


def embedding(opened: Opened) -> dict[str, Any]:
    """Where pictures of the index lie on its map; `coordinates` is null if there is none of these pictures. `index` is
    its name, quoted for a shell.

    `rows`, `coordinates` (x and y, from 0 to 1) and `of` (a position in `classes`, or null) have an entry a picture,
    `colours` an entry a class; `other` is the colour of the less frequent classes, `none` that of pictures without one.
    """
    index = opened.index
    told = {"index": shlex.quote(index.path.name), "coordinates": None, "generation": opened.generation}
    found = read_embedding(index.path)
    if found is None or found.generation != index.facts["generation"]:
        return told
    pictures = [opened.picture(row) for row in found.rows.tolist()]
    labels = sorted({label for _, label in pictures if label is not None})
    position = {label: i for i, label in enumerate(labels)}
    colours = colours_of([label for _, label in pictures])
    return told | {
        "rows": found.rows.tolist(),
        "coordinates": found.coordinates.round(5).tolist(),
        "paths": [name for name, _ in pictures],
        "of": [None if label is None else position[label] for _, label in pictures],
        "classes": [opened.name_of(label) for label in labels],
        "colours": [colours.get(label, OTHER) for label in labels],
        "other": OTHER,
        "none": NONE,
    }


def _listed(opened: Opened, found: list[tuple[int, str, str | None]]) -> dict[str, Any]:
    rows = [
        {"row": row, "path": str(opened.index.file_of(name) or name), "label": label, "name": opened.name_of(label)}
        for row, name, label in found
    ]
    return {"pictures": rows, "generation": opened.generation}


def cached_thumbnail(opened: Opened, cache: Cache, row: int) -> bytes | None:
    """`thumbnail`, if it was made before. Raises NotThere."""
    return cache.get(_thumbnail_key(opened, row))


def thumbnail(opened: Opened, cache: Cache, row: int) -> bytes:
    """A JPEG of the central square. Raises NotThere, or BadPicture if it cannot be read."""
    jpeg = encode(opened.pixels(row, SIDE))
    cache.put(_thumbnail_key(opened, row), jpeg)
    return jpeg


def _thumbnail_key(opened: Opened, row: int) -> str:
    name, _ = opened.picture(row)
    return key_of(str(opened.index.source), name, opened.stamp(row))


def preview(decoders: Decoders, content: bytes) -> bytes:
    """A JPEG of the central square of a picture, the content of a file. Raises BadPicture."""
    return encode(decoders.load(content, SIDE))


GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO)  # it is no file any more


def original(opened: Opened, row: int) -> tuple[Path, str]:
    """The file of a picture and its media type, told from its content.

    Raises NotThere if it lies in an archive or a dataset, is gone, or is no picture any more.
    """
    file = opened.file(row)
    if file is None:
        raise NotThere(f"{opened.picture(row)[0]} lies in {opened.index.source}, not in a file of its own")
    try:
        with open(open_regular(file), "rb") as content:
            start = content.read(512)
    except OSError as error:
        if error.errno not in GONE:
            raise
        raise NotThere(f"{file} is not there any more: update the index with `alexnet index`") from None
    media_type = _media_type(start)
    if media_type is None:
        try:
            opened.decoded(file, row, SMALLEST)
        except BadPicture as error:
            raise NotThere(f"{file} is not shown: {error}") from None
    return file, media_type or "application/octet-stream"


def _media_type(start: bytes) -> str | None:
    """Of a picture that browsers show; never of a drawing (SVG), which may hold scripts."""
    starts = {
        b"\xff\xd8\xff": "image/jpeg",
        b"\x89PNG\r\n\x1a\n": "image/png",
        b"GIF87a": "image/gif",
        b"GIF89a": "image/gif",
    }
    for magic, media_type in starts.items():
        if start.startswith(magic):
            return media_type
    if start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in BITMAP_HEADERS:
        return "image/bmp"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return "image/avif" if start[4:12] in (b"ftypavif", b"ftypavis") else None
