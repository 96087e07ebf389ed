"""Queries and their neighbours as a contact sheet, one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from alexnet_cli.console import decimals
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import AlexNetError, BadPicture
from alexnet_cli.figures.lettering import fit, font
from alexnet_cli.files import atomic_write
from alexnet_cli.retrieval.collection import Collection, Loaded
from alexnet_cli.retrieval.searcher import Answer

SIDE = 128  # of a thumbnail, in pixels
GAP, TEXT = 12, 34  # between thumbnails; for the two lines below one

Row = tuple[np.ndarray, list[np.ndarray]]  # thumbnails of a query and of its neighbours, (SIDE, SIDE, 3) uint8


def thumbnails(answers: Sequence[Answer], collection: Collection | None, size: int) -> list[Row]:
    """Thumbnails of every query and neighbour; grey where a picture is no longer there.

    ``size``: of the pictures the index was built from, in pixels.
    """
    return [
        (
            _small(_query(answer.pictures[0] if answer.pictures else answer.path, size)),
            [_small(pixels) for pixels in _load(collection, [near.source_path for near in answer.neighbours], size)],
        )
        for answer in answers
    ]


def _load(collection: Collection | None, names: Sequence[str], size: int) -> list[Loaded]:
    try:
        return ["gone"] * len(names) if collection is None else collection.load(names, size)
    except AlexNetError:  # a dataset packed again at another size, an archive that is gone or damaged
        return ["gone"] * len(names)


def _query(path: str, size: int) -> np.ndarray | None:
    try:
        return load_picture(Path(path), size)
    except BadPicture:
        return None


def _small(pixels: np.ndarray | str | None) -> np.ndarray:
    if pixels is None or isinstance(pixels, str):
        return np.full((SIDE, SIDE, 3), 160, np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def draw_sheet(answers: Sequence[Answer], rows: list[Row], path: Path) -> None:
    """Write one row per query: the query, framed, then its neighbours, nearest first, with class and distance."""
    across = 1 + max(len(near) for _, near in rows)
    width, height = across * (SIDE + GAP) + 3 * GAP, len(rows) * (SIDE + TEXT + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, small = ImageDraw.Draw(sheet), font(11)
    for line, (answer, (query, near)) in enumerate(zip(answers, rows, strict=True)):
        top = GAP + line * (SIDE + TEXT + GAP)
        sheet.paste(Image.fromarray(query), (GAP, top))
        draw.rectangle((GAP - 3, top - 3, GAP + SIDE + 2, top + SIDE + 2), outline="black", width=2)
        draw.text((GAP, top + SIDE + 4), fit(Path(answer.path).name, draw, small, SIDE), "black", small)
        draw.text((GAP, top + SIDE + 18), "query", "dimgray", small)
        distances = decimals([neighbour.distance for neighbour in answer.neighbours], digits=3)
        for i, (thumbnail, neighbour, distance) in enumerate(zip(near, answer.neighbours, distances, strict=True), 1):
            left = 3 * GAP + i * (SIDE + GAP)
            sheet.paste(Image.fromarray(thumbnail), (left, top))
            draw.text((left, top + SIDE + 4), fit(neighbour.name or neighbour.path, draw, small, SIDE), "black", small)
            draw.text((left, top + SIDE + 18), distance, "dimgray", small)
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")
