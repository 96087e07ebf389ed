"""What the user sees: results on standard output; notes, progress and errors on standard error."""

import codecs
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from alexnet_cli.errors import visible
from alexnet_cli.progress import Progress

if TYPE_CHECKING:
    import rich.progress

    from alexnet_cli.bars import Bars

PLAIN_SECONDS = 10.0  # off a terminal, at most one progress line in this time


PLAIN = {
    "…": "...",
    "–": "-",
    "×": "x",
    "±": "+-",
    "“": '"',
    "”": '"',
    "’": "'",
    "·": "-",
    "§": "section ",
    "\u00a0": " ",
}


def use_any_encoding() -> None:
    """Let standard output and error write what their encoding lacks: by a plain sign, or as an escape."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(letter, ascii(letter)[1:-1]) for letter in missing), error.end


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def _fitting(text: str, detail: str) -> str:
    """``text`` and ``detail`` in one line, or in several if a terminal is too narrow for it."""
    width = shutil.get_terminal_size().columns
    if not sys.stderr.isatty() or len(text) + len(detail) + 2 <= width:
        return f"{text}  {detail}"
    from alexnet_cli.bars import detail_lines

    return "\n".join([text, *detail_lines(detail, width)])


class Console(Progress):
    """Progress bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._last_line = 0.0

    def note(self, text: str, detail: str = "") -> None:
        text = _lines(_fitting(text, detail) if detail else text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if sys.stderr.isatty():
            self._draw(task, done, total, detail)
        elif done == total or time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.note(f"{task}: {done:,} of {total:,}" + (f"  {detail}" if detail else ""))

    def _draw(self, task: str, done: int, total: int, detail: str) -> None:
        if self._bars is None:
            from alexnet_cli.bars import Bars

            self._bars = Bars()
            self._bars.start()
            _drawing.append(self)
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total, detail=detail)
        self._bars.update(self._tasks[task], completed=done, total=total, detail=detail)
        if done == total:
            self._tasks.pop(task)
            if not self._tasks:
                self.close()

    def close(self) -> None:
        """Stop drawing bars. The lines that are drawn stay, and later output starts below them."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            _drawing.remove(self)
            self._tasks.clear()


_drawing: list[Console] = []  # consoles that have bars on the terminal


def close_consoles() -> None:
    """Stop drawing, wherever a command has ended: bars hide the cursor, and would be drawn again below its error."""
    for console in list(_drawing):
        console.close()


class JsonArray:
    """An array in the JSON that a command prints. It waits in a temporary file: there may be 100,000 items."""

    def __init__(self) -> None:
        # Without a name, it is gone with the process.
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115
        self._file.write("[")
        self._is_empty = True

    def append(self, item: object) -> None:
        """Add an item. No more may follow once the array is printed."""
        self._file.write(("" if self._is_empty else ", ") + _json(item))
        self._is_empty = False

    def pieces(self) -> Iterator[str]:
        """The text of the array."""
        self._file.seek(0)
        while piece := self._file.read(1 << 20):
            yield piece
        yield "]"


def is_utf8() -> bool:
    """Whether standard output can write any letter."""
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=not is_utf8())


def show_json(content: object) -> None:
    """One JSON value on standard output. In an object, a value may be a JsonArray."""
    if isinstance(content, Mapping):
        for i, (key, value) in enumerate(content.items()):
            _print_piece(f"{', ' if i else '{'}{_json(key)}: ")
            for piece in value.pieces() if isinstance(value, JsonArray) else [_json(value)]:
                _print_piece(piece)
        _print_piece("}\n" if content else "{}\n")
    else:
        _print_piece(_json(content) + "\n")


def _print_piece(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), end="")  # noqa: T201 - a file name may not be UTF-8


def show_path(path: str) -> None:
    """A path on standard output, for the next program of a pipe: byte by byte as the file is called."""
    if sys.stdout.isatty():
        show(path)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def percent(probability: float) -> str:
    """``probability``, 0 to 1, in per cent."""
    if 0 < probability < 0.0001:
        return "< 0.01 %"
    return f"{100 * probability:.{1 if probability >= 0.01 or not probability else 2}f} %"


def show(text: str) -> None:
    """A line of result on standard output."""
    print(_lines(text))  # noqa: T201


def show_table(title: str, columns: list[str], rows: list[list[str]], note: str = "") -> None:
    """A table on standard output. Columns of numbers are right-aligned; cells that are too wide are folded."""
    import rich.console
    import rich.table

    table = rich.table.Table(title=title or None, caption=note or None, title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        numeric = all(
            row[i].strip("%–-.,+< ").replace(".", "").replace(",", "").isdigit() or not row[i] for row in rows
        )
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_lines, row))
    # A pipe or a file has no width: without one given, rich would fold the cells to 80 columns.
    width = None if sys.stdout.isatty() else 200
    rich.console.Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def fail(message: str) -> None:
    """One line on standard error that says what went wrong. A rank other than 0 gives its number."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    message = visible(message)
    print(f"error: {message}" if rank == "0" else f"error (rank {rank}): {message}", file=sys.stderr)  # noqa: T201
