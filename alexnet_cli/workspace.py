"""The folder that holds datasets, models and indexes, and how a command finds one of them."""

import difflib
import glob
import json
import os
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_cli.artefacts import CHECKPOINT_FILE, DATASET_FILE, GREY, INDEX_FILE, MODEL_FILE, model_header
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.files import read_json, with_article


class Home(NamedTuple):
    """Where a workspace keeps one kind of artefact."""

    folder: str
    marker: str  # the file that is written last: an artefact without it is incomplete
    commands: tuple[str, ...]  # each makes one; without `alexnet` and the workspace


HOMES = {
    "dataset": Home("data", DATASET_FILE, ("prep FOLDER",)),
    "model": Home("models", MODEL_FILE, ("train", "import torchvision")),
    "index": Home("indexes", INDEX_FILE, ("index FOLDER",)),
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

    def to_resume(self, run: Path, dataset: Path | None = None, log: str | None = None) -> str:
        """The command that resumes the ``run`` in that folder, for where the user is; on ``dataset`` if that has moved,
        and with the ``log`` that it has."""
        out = run.name if run.parent == self.home("model") else path_of(run)
        moved = [] if dataset is None else [path_of(dataset)]
        logged = [] if log is None else ["--log", log]
        return self.command("train", *moved, "--resume", "--out", out, *logged)

    def to_mend(self, index: Path, source: Path) -> str:
        """The command that mends an index of which pictures are missing at its ``source``, for where the user is."""
        moved = [] if source.exists() else ["FOLDER"]
        root = self.root if index.parent == self.home("index") else index.resolve().parent.parent
        return Workspace(root).command("index", *moved, "--out", index.name)

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
        if name.startswith("-"):  # commands would take it for an option
            raise AlexNetError(f"{name!r} is not a name for {with_article(kind)}: it must not begin with -")
        return self.home(kind) / name

    def find(self, kind: str, named: str | None) -> Path:
        """The artefact ``named`` (its name in the workspace, or a path), or the newest of its kind if None.

        Raises BadArtefact if there is none.
        """
        home = HOMES[kind]
        source = named if named is not None and Path(named).is_dir() else "FOLDER"
        makers = [[source if word == "FOLDER" else word for word in each.split()] for each in self._makers(kind)]
        commands = " or ".join(f"`{self.command(*words)}`" for words in makers)
        if named is None:
            for newest in self.all(kind):
                return newest
            there = self.hint([kind], None)
            advice = f"; {there}" if there else f": make one with {commands}, or name one"
            raise BadArtefact(f"no {kind} in {self.home(kind)} yet{advice}")
        paths = self._paths(kind, named)
        for path in paths:
            if (path / home.marker).is_file():
                return path
            if kind == "model" and (path / CHECKPOINT_FILE).is_file():
                raise BadArtefact(f"{path} is unfinished: resume with: {self.to_resume(path)}")
        run = self.home("model") / named
        if kind == "dataset" and (run / CHECKPOINT_FILE).is_file() and not (run / MODEL_FILE).is_file():
            raise BadArtefact(f"{named} is no dataset, but an unfinished model: resume with: {self.to_resume(run)}")
        missing = " nor ".join(str(path / home.marker) for path in paths)
        others = ", ".join(path.name for path in self.all(kind)[:3])
        there = f"{self.home(kind)} has {others}; " if others else ""
        advice = self.hint([kind], named) or f"{there}make one with {commands}"
        raise BadArtefact(f"no {kind} {named!r}: there is neither {missing}; {advice}")

    def _paths(self, kind: str, named: str) -> tuple[Path, Path]:
        """Where an artefact that is called ``named`` may be: a path that exists means that path."""
        return Path(named), self.home(kind) / named

    def _makers(self, kind: str) -> list[str]:
        """The commands that make an artefact of a kind; without `train` if the newest dataset has a single class."""
        is_vain = any(len(self._facts(path).get("classes", ())) == 1 for path in self.all("dataset")[:1])
        return [each for each in HOMES[kind].commands if not (is_vain and each == "train")]

    def hint(self, kinds: Iterable[str], named: str | None) -> str:
        """Where an artefact ``named`` (any if None) of one of ``kinds`` may be, since it is not here: under a similar
        name, or in a workspace one level below or above; empty if it is not there either."""
        others = [path.name for kind in kinds for path in self.all(kind)]
        begin_so = [name for name in others if named and name.startswith(named)]
        if near := difflib.get_close_matches(named or "", others, n=1) or begin_so:
            return f"did you mean {near[0]!r}?"
        if named is not None and (not named or os.sep in named):
            return ""
        pattern = "*" if named is None else glob.escape(named)
        for kind in kinds:
            inside = f"{HOMES[kind].folder}/{pattern}/{HOMES[kind].marker}"
            for found in (*sorted(self.root.glob(f"*/{inside}")), *(self.root / "..").glob(inside)):
                root = found.parent.parent.parent
                return f"{root} has {'one' if named is None else 'that'}: add --workspace {shlex.quote(str(root))}"
        return ""

    def dataset_of(self, model: Path, named: str | None = None, *, of_its_classes: bool = True) -> Path:
        """The dataset ``named``; if None, the one that ``model`` was trained on, else the newest with its classes, or
        if ``of_its_classes`` is false, the newest.

        ``model``: a model's folder, or an ONNX file; for one that lies in no model's folder it is the newest of all.
        Raises BadArtefact if there is none.
        """
        folder = model.parent if model.suffix == ".onnx" else model
        if named is not None or not self.all("dataset") or not (folder / MODEL_FILE).is_file():
            return self.find("dataset", named)
        told = _told(folder)
        for key in ("fingerprint", "classes"):
            for path in self.all("dataset"):
                if told.get(key) and self._facts(path).get(key) == told[key]:
                    return path
        if not of_its_classes:
            return self.find("dataset", None)
        raise BadArtefact(
            f"no dataset in {self.home('dataset')} has the classes of {model}: `alexnet prep` its pictures, "
            "or name a dataset with --data"
        )

    def model_of(self, source: Path, named: str | None = None) -> Path:
        """The model ``named``; if None, the newest that was trained on the dataset ``source``, else the newest of all.

        Raises BadArtefact if there is none.
        """
        if named is None and (source / DATASET_FILE).is_file():
            fingerprint = self._facts(source).get("fingerprint")
            for path in self.all("model"):
                if _told(path).get("fingerprint") == fingerprint:
                    return path
        return self.find_classifier(named)

    def imported(self) -> Path | None:
        """The newest model whose weights were imported; None if there is none."""
        return next((path for path in self.all("model") if _told(path).get("is_imported")), None)

    def dataset_of_size(self, size: int, model: str | None = None, *, grey: bool | None = None) -> Path | None:
        """The dataset that ``model`` was trained on, else the newest with pictures of ``size`` pixels; None if there is
        neither. ``grey``: only digits, or only others."""
        folders = [] if model is None else [path for path in self._paths("model", model) if path.exists()]
        trained_on = {told.get("fingerprint") for told in map(_told, folders[:1])} - {None}
        facts = [(path, self._facts(path)) for path in self.all("dataset")]
        its_own = [path for path, each in facts if each.get("fingerprint") in trained_on]
        fitting = [
            path
            for path, each in facts
            if each.get("image_size") == size and grey in (None, each.get("source", {}).get("layout") in GREY)
        ]
        return next(iter([*its_own, *fitting]), None)

    def folder_of(self, dataset: Path) -> Path | None:
        """The folder of pictures that ``dataset`` was packed from, for where the user is; None if it was another source
        or is gone."""
        source = self._facts(dataset).get("source", {})
        folder = Path(source.get("absolute", ""))
        if source.get("layout") not in ("folders", "flat") or not folder.is_absolute() or not folder.is_dir():
            return None
        here = Path.cwd()
        return folder.relative_to(here) if here in folder.parents and folder.name[0] != "-" else folder

    def _facts(self, dataset: Path) -> dict[str, Any]:
        with suppress(BadArtefact):  # a damaged dataset does not keep others from being used
            return read_json(dataset / DATASET_FILE, what="dataset")
        return {}

    def all(self, kind: str) -> list[Path]:
        """Every complete artefact of a kind, newest first."""
        files = [file for file in self.home(kind).glob(f"*/{HOMES[kind].marker}") if file.is_file()]
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

        Raises BadArtefact if there is none.
        """
        if named is None and not self.all("dataset"):
            there = self.hint(["dataset"], None) or f"name a folder of pictures: `{self.command('index', 'FOLDER')}`"
            raise BadArtefact(f"no dataset in {self.home('dataset')} yet; {there}")
        if named is None or (not Path(named).exists() and (self.home("dataset") / named / DATASET_FILE).is_file()):
            return self.find("dataset", named)
        if not (named and Path(named).exists()):
            there = self.hint(["dataset"], named)
            raise BadArtefact(f"no folder, archive or dataset {named!r}{'; ' if there else ''}{there}")
        return Path(named)


def path_of(path: Path) -> str:
    """``path`` as typed where a single word would be a name."""
    text = str(path)
    return text if os.sep in text else os.path.join(".", text)


def _told(model: Path) -> dict[str, Any]:
    """What a model says of where it comes from: the `fingerprint` of its dataset, its `classes`, `is_imported`."""
    with suppress(BadArtefact, KeyError, ValueError):  # a damaged one is refused when it is opened
        header = model_header(model)
        provenance = json.loads(header["provenance"])
        return {
            "fingerprint": provenance.get("dataset"),
            "classes": json.loads(header["classes"]),
            "is_imported": "imported" in provenance,
        }
    return {}
