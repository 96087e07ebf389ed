"""What can go wrong for a user: each message is one line that says what to do; the command line exits 1."""


class AlexNetError(Exception):
    """Base of every error a user can cause or mend."""


class BadPicture(AlexNetError):
    """A file that is no picture, cannot be decoded in full, or is larger than the pixel limit."""


class BadSource(AlexNetError):
    """A folder or archive that prep or index cannot take pictures from."""


class BadArtefact(AlexNetError):
    """A dataset, model, checkpoint or index that is missing, half written, damaged or of a newer format."""


class WrongModel(AlexNetError):
    """An index asked with another model than the one it was built with."""


class BadRecipe(AlexNetError):
    """An unknown recipe, an unknown key, or a value that does not fit."""


class Diverged(AlexNetError):
    """Training met a loss that is not finite."""


class Interrupted(AlexNetError):
    """Ctrl-C or SIGTERM, after saving; the command line exits 130."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line: its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
