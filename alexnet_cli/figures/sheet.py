"""Queries and their neighbours as pictures: a contact sheet (PNG) and a page (HTML) that needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import BadPicture
from alexnet_cli.files import written_whole
from alexnet_cli.retrieval.pictures import Pictures
from alexnet_cli.retrieval.search import Answer

SIDE = 128  # of a thumbnail, in pixels
GAP, TEXT = 12, 34  # between thumbnails; for the two lines below one

Row = tuple[np.ndarray, list[np.ndarray]]  # thumbnails of a query and of its neighbours, (SIDE, SIDE, 3) uint8


def thumbnails(answers: Sequence[Answer], pictures: Pictures | None) -> list[Row]:
    """Thumbnails of every query and neighbour; grey where a picture is gone since the index was built."""
    by_path = {} if pictures is None else {picture.path: picture for picture in pictures.all()}
    size = 256
    rows = []
    for answer in answers:
        wanted = [by_path.get(neighbour.path) for neighbour in answer.neighbours]
        there = [picture for picture in wanted if picture is not None]
        loaded = iter(pictures.load(there, size) if pictures is not None else [])
        near = [_small(None if picture is None else next(loaded)) for picture in wanted]
        rows.append((_small(_query(answer.path, size)), near))
    return rows


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
    """A row a query: the query, framed, then its neighbours, nearest first, with label and distance."""
    across = 1 + max(len(near) for _, near in rows)
    width, height = across * (SIDE + GAP) + 3 * GAP, len(rows) * (SIDE + TEXT + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for line, (answer, (query, near)) in enumerate(zip(answers, rows, strict=True)):
        top = GAP + line * (SIDE + TEXT + GAP)
        sheet.paste(Image.fromarray(query), (GAP, top))
        draw.rectangle((GAP - 3, top - 3, GAP + SIDE + 2, top + SIDE + 2), outline="black", width=2)
        draw.text((GAP, top + SIDE + 4), _fit(Path(answer.path).name, draw, font), "black", font)
        draw.text((GAP, top + SIDE + 18), "query", "dimgray", font)
        for i, (thumbnail, neighbour) in enumerate(zip(near, answer.neighbours, strict=True), 1):
            left = 3 * GAP + i * (SIDE + GAP)
            sheet.paste(Image.fromarray(thumbnail), (left, top))
            draw.text((left, top + SIDE + 4), _fit(neighbour.label or neighbour.path, draw, font), "black", font)
            draw.text((left, top + SIDE + 18), f"{neighbour.distance:.1f}", "dimgray", font)
    with written_whole(path) as beside:
        sheet.save(beside, "PNG")


def _fit(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """``text``, cut so that it is no wider than a thumbnail."""
    shown = text
    while draw.textlength(shown, font) > SIDE and len(text) > 1:
        text = text[:-1]
        shown = text + "…"
    return shown


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } .facts { opacity: .75; }
section { display: flex; flex-wrap: wrap; gap: .9rem; padding: 1.2rem 0; border-top: 1px solid #8886; }
figure { margin: 0; width: 128px; } figure.query { margin-right: 1.2rem; }
img { width: 128px; height: 128px; border-radius: 4px; display: block; }
.query img { outline: 3px solid #c60; outline-offset: 2px; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; margin-top: .3rem; }
.distance { opacity: .75; }
"""


def write_page(answers: Sequence[Answer], rows: list[Row], path: Path, *, index: str, model: str) -> None:
    """One self-contained page: thumbnails, classes and distances."""
    sections = "\n".join(
        "<section>"
        + _figure(query, Path(answer.path).name, "query", f"query: {answer.path}", "query")
        + "".join(
            _figure(thumbnail, one.label or Path(one.path).name, f"{one.rank}. at {one.distance:.2f}", one.path)
            for thumbnail, one in zip(near, answer.neighbours, strict=True)
        )
        + "</section>"
        for answer, (query, near) in zip(answers, rows, strict=True)
    )
    with written_whole(path) as beside:
        beside.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Neighbours</title>'
            f"<style>{STYLE}</style></head><body><h1>Most similar pictures</h1>"
            f'<p class="facts">Index {html.escape(index)}, model {html.escape(model)}; Euclidean distance of fc7.</p>'
            f"\n{sections}\n</body></html>\n",
            encoding="utf-8",
        )


def _figure(thumbnail: np.ndarray, caption: str, below: str, title: str, kind: str = "") -> str:
    buffer = io.BytesIO()
    Image.fromarray(thumbnail).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="{kind}"><img src="data:image/jpeg;base64,{data}" alt="{html.escape(title)}" '
        f'title="{html.escape(title)}"><figcaption>{html.escape(caption)}<br>'
        f'<span class="distance">{html.escape(below)}</span></figcaption></figure>\n'
    )
