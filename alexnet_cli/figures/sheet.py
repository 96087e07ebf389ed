"""Queries and their neighbours as a contact sheet, one PNG."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import AlexNetError, BadPicture, visible
from alexnet_cli.figures.lettering import fit, font
from alexnet_cli.outputs import DRAWN, write_output
from alexnet_cli.retrieval.collection import Collection, Loaded
from alexnet_cli.retrieval.searcher import Answer
from alexnet_cli.wording import distances

SIDE = 128  # of a thumbnail, in pixels
GAP, LINE = 12, 14  # between thumbnails, between lines of text, in pixels
TEXT = 3 * LINE + 6  # for the lines below a thumbnail

Thumbnail = Loaded  # (SIDE, SIDE, 3) uint8, or why there is none
Row = tuple[Thumbnail, list[Thumbnail]]  # of a query and of its neighbours


def thumbnails(answers: Sequence[Answer], collection: Collection | None, size: int) -> list[Row]:
    """Thumbnails of every query and neighbour, or why there is none.

    ``collection``: what was indexed; None if it is not there. ``size``: of its pictures in the index, in pixels.
    """
    return [
        (
            _queries(answer.pictures or [answer.path], size),
            [
                _small(pixels)
                for pixels in load_pictures(collection, [near.source_path for near in answer.neighbours], size)
            ],
        )
        for answer in answers
    ]


def _queries(paths: Sequence[str], size: int) -> Thumbnail:
    """The picture of a query; of several as one query, the first four of them in two rows."""
    if len(paths) == 1:
        return _small(_query(paths[0], size))
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    half = SIDE // 2
    for i, path in enumerate(paths[:4]):
        small = _small(_query(path, size))
        if not isinstance(small, str):
            top, left = half * (i // 2), half * (i % 2)
            square[top : top + half, left : left + half] = np.asarray(Image.fromarray(small).resize((half, half)))
    return square


def load_pictures(collection: Collection | None, names: Sequence[str], size: int) -> list[Loaded]:
    """What ``collection`` has of ``names``, whatever has happened to it since it was indexed."""
    if collection is None:
        return ["what was indexed is not there any more"] * len(names)
    try:
        return collection.load(names, size)
    except AlexNetError as error:  # a dataset packed again at another size, an archive that is gone or damaged
        return [str(error)] * len(names)


def _query(path: str, size: int) -> Loaded:
    try:
        return load_picture(Path(path), size)
    except BadPicture as error:
        return str(error)


def _small(pixels: Loaded) -> Thumbnail:
    if isinstance(pixels, str):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def draw_sheet(answers: Sequence[Answer], rows: list[Row], path: Path) -> None:
    """Write one row per query: the query, framed, then its neighbours, nearest first, with class, name and distance."""
    across = 1 + max(len(near) for _, near in rows)
    width, height = across * (SIDE + GAP) + 3 * GAP, len(rows) * (SIDE + TEXT + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (answer, (query, near)) in enumerate(zip(answers, rows, strict=True)):
        top = GAP + line * (SIDE + TEXT + GAP)
        _draw_one(sheet, draw, query, GAP, top, [Path(answer.path).name, "query"])
        draw.rectangle((GAP - 3, top - 3, GAP + SIDE + 2, top + SIDE + 2), outline="black", width=2)
        shown = distances([neighbour.distance for neighbour in answer.neighbours])
        for i, (thumbnail, neighbour) in enumerate(zip(near, answer.neighbours, strict=True), 1):
            lines = [neighbour.name, Path(neighbour.path).name, shown[i - 1]]
            _draw_one(sheet, draw, thumbnail, 3 * GAP + i * (SIDE + GAP), top, lines)
    made_here = PngInfo()
    made_here.add_text("Software", DRAWN)
    with write_output(path) as temporary:
        sheet.save(temporary, "PNG", pnginfo=made_here)


def _draw_one(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    thumbnail: Thumbnail,
    left: int,
    top: int,
    lines: Sequence[str | None],
) -> None:
    """A thumbnail, or why there is none, and the lines below it."""
    small = font(11)
    if isinstance(thumbnail, str):
        draw.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline="darkgray")
        reason = textwrap.shorten(visible(thumbnail), 110, placeholder=" …")
        draw.text((left + 8, top + 8), textwrap.fill(f"missing: {reason}", 19), "dimgray", small)
    else:
        sheet.paste(Image.fromarray(thumbnail), (left, top))
    for i, text in enumerate(filter(None, lines)):
        colour = "black" if i == 0 else "dimgray"
        draw.text((left, top + SIDE + 4 + i * LINE), fit(text, draw, small, SIDE), colour, small)
