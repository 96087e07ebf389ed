"""Pages that need nothing else: one style, text that is escaped, links to files, thumbnails."""

import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_cli.errors import visible

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #c60; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.facts, .note, .below { opacity: .75; }
.pictures { display: flex; flex-wrap: wrap; gap: .9rem; padding: .6rem 0; }
.query-row { padding: 1.2rem 0; border-top: 1px solid var(--line); }
figure { margin: 0; width: 128px; } figure.query { margin-right: 1.2rem; }
figure img, .missing { width: 128px; height: 128px; border-radius: 4px; display: block; object-fit: cover; }
.missing { display: grid; place-content: center; text-align: center; font-size: .8rem; padding: .5rem;
  box-sizing: border-box; border: 1px dashed var(--line); }
.query img { outline: 3px solid var(--accent); outline-offset: 2px; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; margin-top: .3rem; }
"""


def text(content: object) -> str:
    """``content`` as HTML text or as the value of an attribute; what does not print in it is escaped."""
    return html.escape(visible(str(content)))


def link(file: Path | None, content: str) -> str:
    """``content``, which is HTML, as a link that opens ``file``; by itself if there is none."""
    return content if file is None else f'<a href="{html.escape(file.absolute().as_uri())}">{content}</a>'


def encoded(pixels: np.ndarray, side: int) -> bytes:
    """A JPEG of ``side`` × ``side`` pixels of the picture (S, S, 3) uint8."""
    buffer = io.BytesIO()
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def page(title: str, body: str, style: str = "") -> str:
    """A page, ready to be written as UTF-8. ``title`` is text; ``body`` and ``style`` are HTML and CSS."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head><body>\n{body}\n</body></html>\n"
    )
