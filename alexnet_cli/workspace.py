"""The folder that holds datasets, models and indexes, and how a command finds one of them."""

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from alexnet_cli.artefacts import DATASET_FILE, INDEX_FILE, MODEL_FILE
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.files import with_article


class Home(NamedTuple):
    """Where a workspace keeps one kind of artefact."""

    folder: str
    marker: str  # the file that is written last: an artefact without it is incomplete
    command: str  # makes one; without `alexnet` and the workspace


HOMES = {
    "dataset": Home("data", DATASET_FILE, "prep FOLDER"),
    "model": Home("models", MODEL_FILE, "train"),
    "index": Home("indexes", INDEX_FILE, "index"),
}


class Workspace:
    """A folder with ``data/``, ``models/`` and ``indexes/``. A ``kind`` is a key of HOMES."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *words: object) -> str:
        """An `alexnet` command for the user to paste: quoted for the shell, with this workspace if it is another than
        the current folder."""
        option = [] if self.root == Path(".") else ["--workspace", self.root]
        return shlex.join(map(str, ["alexnet", *words, *option]))

    def home(self, kind: str) -> Path:
        """The folder of all artefacts of a kind."""
        return self.root / HOMES[kind].folder

    def new(self, kind: str, name: str) -> Path:
        """The folder for a new artefact called ``name``. Raises AlexNetError if that is not a plain name."""
        if name in ("", ".", "..") or Path(name).name != name:
            raise AlexNetError(
                f"{name!r} is not a name for {with_article(kind)}: "
                f"it becomes a folder in {HOMES[kind].folder}/, so give a plain name"
            )
        return self.home(kind) / name

    def find(self, kind: str, named: str | None) -> Path:
        """The artefact ``named`` (its name in the workspace, or a path), or the newest of its kind if None.

        Raises BadArtefact if there is none.
        """
        home = HOMES[kind]
        command = self.command(*home.command.split())
        if named is None:
            for newest in self.all(kind):
                return newest
            raise BadArtefact(f"no {kind} in {self.home(kind)} yet: make one with `{command}`, or name one")
        paths = (Path(named), self.home(kind) / named)  # a path that exists means that path
        for path in paths:
            if (path / home.marker).is_file():
                return path
        missing = " nor ".join(str(path / home.marker) for path in paths)
        raise BadArtefact(f"no {kind} {named!r}: there is neither {missing}; make one with `{command}`")

    def all(self, kind: str) -> list[Path]:
        """Every complete artefact of a kind, newest first."""
        files = self.home(kind).glob(f"*/{HOMES[kind].marker}")
        return [file.parent for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file), reverse=True)]

    def find_classifier(self, named: str | None) -> Path:
        """The folder of a model, or an ONNX file. Raises BadArtefact if there is none."""
        if named is not None and named.endswith(".onnx"):
            for path in (Path(named), self.home("model") / named):
                if path.is_file():
                    return path
            raise BadArtefact(f"no file {named}: make one with `{self.command('export')}`")
        return self.find("model", named)

    def find_pictures(self, named: str | None) -> Path:
        """A folder or archive of pictures at path ``named``, else the dataset of that name; if None, the newest.

        Raises BadArtefact if there is no dataset yet.
        """
        if named is None or (not Path(named).exists() and (self.home("dataset") / named / DATASET_FILE).is_file()):
            return self.find("dataset", named)
        return Path(named)


def path_of(path: Path) -> str:
    """``path`` as typed where a single word would be a name."""
    text = str(path)
    return text if os.sep in text else os.path.join(".", text)
