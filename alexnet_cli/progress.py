"""How library functions tell what they are doing. This base says nothing; the console has the one that shows it."""


class Progress:
    """Silent: library functions take one of these and need no command line."""

    def note(self, text: str) -> None:
        """One line worth knowing."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """``done`` of ``total`` of ``task``; the first call starts it, ``done == total`` ends it."""

    def close(self) -> None:
        """Nothing more will be told."""


SILENT = Progress()
