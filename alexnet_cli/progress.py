"""How library functions report progress. The base class prints nothing; `console.Console` prints to the terminal."""


class Progress:
    """A silent reporter, the default of library functions."""

    def note(self, text: str, detail: str = "") -> None:
        """Report one line of information. ``detail``: facts, two spaces apart; a narrow terminal has them below."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Report that ``done`` of ``total`` steps of ``task`` are done.

        The first call starts the task; ``done == total`` ends it.
        """

    def close(self) -> None:
        """End all tasks that are still open."""


SILENT = Progress()
