"""Writes docs/lesson.ipynb, the lesson as a notebook, from docs/lesson.md.

    python tools/lesson_notebook.py

Text becomes text. The `$ alexnet …` lines of a console block become one cell each; blocks of other kinds, which are for
a terminal, stay text. Each cell calls the command in the notebook's own process, so that torch is imported once.
"""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
LESSON, NOTEBOOK = DOCS / "lesson.md", DOCS / "lesson.ipynb"

SETUP = '''\
# Runs in the workspace of the demonstration: copy this file into the folder `demo`, which `alexnet demo` makes, and
# open it there.
import contextlib, io, re, shlex, shutil
from pathlib import Path

from PIL import Image
from alexnet_cli.commands import main


def alexnet(arguments):
    """Run a command as in a terminal; return the figures that it draws, below each other, for Jupyter to show."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = main(shlex.split(arguments))
    print(shown.getvalue())
    assert code == 0, f"alexnet {arguments} did not succeed"
    files = re.findall(r"^wrote (.*\\.png)$", shown.getvalue(), re.MULTILINE)
    for folder, names in re.findall(r"^Written to (.*?): (.*)$", shown.getvalue(), re.MULTILINE):
        files += [f"{folder}/{name}" for name in names.split(", ") if name.endswith(".png")]
    pictures = [Image.open(file).convert("RGB") for file in files]
    if not pictures:
        return None
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    sheet, top = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


if not Path("room.jpg").exists():  # put a picture from the room here
    shutil.copy("photos/val/cat/cat-00.jpg", "room.jpg")'''


def notebook(lesson: str) -> dict:
    """The notebook of the lesson in Markdown: the text and the commands, and a first cell that the others need."""
    first, *rest = re.split(r"^(?=## 0:00)", lesson, flags=re.MULTILINE)
    cells = [_text(first), _code(SETUP)]
    for i, part in enumerate(re.split(r"^```console\n(.*?)^```\n", "".join(rest), flags=re.MULTILINE | re.DOTALL)):
        if i % 2 == 0:
            cells += [_text(part)] if part.strip() else []
        else:
            cells += [_code(f"alexnet({line!r})") for line in re.findall(r"^\$ alexnet (.*)$", part, re.MULTILINE)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _text(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text.strip().splitlines(keepends=True)}


def _code(code: str) -> dict:
    source = code.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def written(lesson: str) -> str:
    """The notebook's file."""
    return json.dumps(notebook(lesson), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(written(LESSON.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {NOTEBOOK}")
