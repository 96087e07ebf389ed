"""Queries and their neighbours as a page: one HTML file that needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_cli.console import decimals
from alexnet_cli.errors import visible
from alexnet_cli.figures.sheet import Row
from alexnet_cli.files import atomic_write
from alexnet_cli.retrieval.searcher import Answer

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
    """Write one self-contained HTML file with thumbnails, classes and distances.

    ``rows``: the `thumbnails` of ``answers``. ``index``, ``model``: their names.
    """
    sections = "\n".join(
        "<section>"
        + _figure(query, Path(answer.path).name, "query", f"query: {answer.path}", "query")
        + "".join(
            _figure(thumbnail, one.name or Path(one.path).name, f"{one.rank}. at {distance}", one.path)
            for thumbnail, one, distance in zip(
                near, answer.neighbours, decimals([one.distance for one in answer.neighbours]), strict=True
            )
        )
        + "</section>"
        for answer, (query, near) in zip(answers, rows, strict=True)
    )
    with atomic_write(path) as temporary:
        temporary.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Neighbours</title>'
            f"<style>{STYLE}</style></head><body><h1>Most similar pictures</h1>"
            f'<p class="facts">Index {html.escape(index)}, model {html.escape(model)}; '
            "Euclidean distance between features (fc7).</p>"
            f"\n{sections}\n</body></html>\n",
            encoding="utf-8",
            errors="backslashreplace",  # a file name may not be UTF-8
        )


def _figure(thumbnail: np.ndarray, caption: str, below: str, title: str, kind: str = "") -> str:
    buffer = io.BytesIO()
    Image.fromarray(thumbnail).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="{kind}"><img src="data:image/jpeg;base64,{data}" alt="{html.escape(visible(title))}" '
        f'title="{html.escape(visible(title))}"><figcaption>{html.escape(visible(caption))}<br>'
        f'<span class="distance">{html.escape(visible(below))}</span></figcaption></figure>\n'
    )
