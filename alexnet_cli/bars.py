"""Progress bars for a terminal. The console imports this module when it draws the first bar."""

import textwrap
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

NO_BREAK = "\u00a0"  # a space at which textwrap does not break a line


class Bars(Progress):
    """One line per task, which fits 60 columns: name, bar, count, time left. Below it stands the task's detail."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),  # 40 columns, or what the others leave
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=Console(stderr=True, emoji=False),  # a file's name may hold :cat:
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["detail"]:
                yield Text("\n".join(detail_lines(task.fields["detail"], self.console.width)))


def detail_lines(detail: str, width: int) -> list[str]:
    """``detail`` in lines of at most ``width`` columns, indented by two. Lines break only at double spaces."""
    parts = "  ".join(part.replace(" ", NO_BREAK) for part in detail.split("  "))
    lines = textwrap.wrap(parts, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in lines]
