"""Queries and their neighbours as a page: one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from pathlib import Path

from alexnet_cli.figures.html import encoded, link, page, text
from alexnet_cli.figures.sheet import SIDE, Row, Thumbnail
from alexnet_cli.outputs import write_output
from alexnet_cli.retrieval.collection import Collection
from alexnet_cli.retrieval.searcher import Answer
from alexnet_cli.wording import distances, shortened

NAME = 48  # letters of a file's name


def write_page(
    answers: Sequence[Answer],
    rows: list[Row],
    collection: Collection | None,
    path: Path,
    *,
    index: str,
    model: str,
    feature: str,
) -> None:
    """Write one self-contained HTML file with thumbnails, classes, names and distances; a name opens its file.

    ``rows``: the `thumbnails` of ``answers`` from ``collection``. ``index``, ``model``, ``feature``: the names
    of the index, the model and the layer of its features.
    """
    sections = [_section(answer, row, collection) for answer, row in zip(answers, rows, strict=True)]
    facts = f"Index {index}, model {model}; Euclidean distance between features ({feature})."
    body = f'<h1>Most similar pictures</h1><p class="facts">{text(facts)}</p>\n' + "\n".join(sections)
    with write_output(path) as temporary:
        # A file's name may not be UTF-8.
        temporary.write_text(page("Neighbours", body), encoding="utf-8", errors="backslashreplace")


def _section(answer: Answer, row: Row, collection: Collection | None) -> str:
    """A query and its neighbours."""
    query, near = row
    figures = [_figure(query, answer.path, _existing(Path(answer.path)), ["query"], "query")]
    shown = distances([neighbour.distance for neighbour in answer.neighbours])
    for thumbnail, neighbour, distance in zip(near, answer.neighbours, shown, strict=True):
        file = None if collection is None else collection.file(neighbour.source_path)
        lines = [neighbour.name or "", f"{neighbour.rank}. at {distance}"]
        figures.append(_figure(thumbnail, neighbour.path, file, lines))
    return f'<section class="pictures query-row">{"".join(figures)}</section>'


def _figure(thumbnail: Thumbnail, path: str, file: Path | None, lines: Sequence[str], kind: str = "") -> str:
    """A thumbnail, the name of its file, which opens it, and ``lines``."""
    title = text(f"query: {path}" if kind else path)
    picture = f'<div class="missing">missing: {text(thumbnail)}</div>'
    if not isinstance(thumbnail, str):
        data = base64.b64encode(encoded(thumbnail, SIDE)).decode("ascii")
        picture = f'<img src="data:image/jpeg;base64,{data}" alt="{title}" title="{title}">'
    name = f'<span title="{title}">{text(shortened(Path(path).name, NAME))}</span>'
    caption = "<br>".join([link(file, name), *(f'<span class="below">{text(line)}</span>' for line in lines if line)])
    return f'<figure class="{kind}">{link(file, picture)}<figcaption>{caption}</figcaption></figure>\n'


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
