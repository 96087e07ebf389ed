"""What a user sees: results on standard output; notes, progress and errors on standard error."""

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from alexnet_cli.progress import Progress

if TYPE_CHECKING:
    import rich.progress

PLAIN_SECONDS = 10.0  # off a terminal, a progress line at most this often


class Console(Progress):
    """Progress bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._last_line = 0.0

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if sys.stderr.isatty():
            self._draw(task, done, total, detail)
        elif done == total or time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.note(f"{task}: {done:,} of {total:,}" + (f"  {detail}" if detail else ""))

    def _draw(self, task: str, done: int, total: int, detail: str) -> None:
        import rich.console
        import rich.progress as bars

        if self._bar is None:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[detail]}"),
                console=rich.console.Console(stderr=True),
            )
            self._bar.start()
        if task not in self._tasks:
            self._tasks[task] = self._bar.add_task(task, total=total, detail=detail)
        self._bar.update(self._tasks[task], completed=done, total=total, detail=detail)
        if done == total:
            self._tasks.pop(task)
            if not self._tasks:
                self.close()

    def close(self) -> None:
        """End a bar that is still up, so that what follows stands on its own lines."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()


def show_json(content: object) -> None:
    """One JSON object on standard output."""
    print(json.dumps(content, ensure_ascii=False))  # noqa: T201


def show(text: str) -> None:
    """A line of result on standard output."""
    print(text)  # noqa: T201


def show_table(title: str, columns: list[str], rows: list[list[str]], note: str = "") -> None:
    """A table on standard output; columns after the first are right-aligned where every cell is a number."""
    import rich.console
    import rich.table

    table = rich.table.Table(title=title or None, caption=note or None, title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        numeric = all(row[i].strip("%–-.,+ ").replace(".", "").replace(",", "").isdigit() or not row[i] for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Off a terminal (a pipe, a test, a file) nothing should be folded to 80 columns.
    width = None if sys.stdout.isatty() else 200
    rich.console.Console(width=width, markup=False, highlight=False).print(table)


def fail(message: str) -> None:
    """The one line a user gets when something went wrong; of several processes each says which it is."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    print(f"error: {message}" if rank == "0" else f"error (process {rank}): {message}", file=sys.stderr)  # noqa: T201
