"""Errors that a user can cause. Each message is one line that says what to do; the command line exits with 1."""

from collections.abc import Iterable


class AlexNetError(Exception):
    """Base class of every error that a user can cause or fix. Its message is one line, whatever names are in it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


class BadPicture(AlexNetError):
    """A file that is not a picture, cannot be decoded in full, or is over a limit."""


class BadSource(AlexNetError):
    """A folder or archive whose pictures `prep` or `index` cannot use."""


class BadArtefact(AlexNetError):
    """A dataset, model, checkpoint or index that is missing, incomplete, damaged or of a newer format."""


class NotFinite(BadArtefact):
    """A network whose outputs are not finite."""


class WrongModel(AlexNetError):
    """The model is not the one that the index was built with."""


class NoSuchLayer(AlexNetError):
    """A layer that the network does not have."""


class BadRecipe(AlexNetError):
    """An unknown recipe, an unknown key, or a value that does not fit its key."""


class Diverged(AlexNetError):
    """Training reached a loss, a weight or an output that is not finite."""


class Resumable(AlexNetError):
    """What ended a run that can be resumed, by a command or call that the library's caller knows."""


class Interrupted(Resumable):
    """Ctrl-C or SIGTERM, raised after the work so far is saved; the command line exits with 130."""


class LostProcess(Resumable):
    """Another process of a run under torchrun is gone."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, 200 characters at most; the class's name if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def visible(text: str) -> str:
    """``text`` with an escape such as \\x1b or \\u202e in the place of each character that does not print.

    A file's name may hold characters that move a terminal's cursor or turn the direction of writing.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def abbreviate(names: Iterable[str], limit: int = 3) -> str:
    """The first ``limit`` of ``names`` in sorted order and the number of the others, for a message of one line."""
    first = sorted(names)
    return ", ".join(map(visible, first[:limit])) + (f" and {len(first) - limit:,} more" if len(first) > limit else "")
