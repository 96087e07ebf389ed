"""What several commands share: options, the processes of torchrun, and commands that are printed for the user."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from alexnet_cli.artefacts import CHECKPOINT_FILE, INDEX_FILE, model_name
from alexnet_cli.commands import completion
from alexnet_cli.console import Console
from alexnet_cli.distributed import is_distributed, process_group
from alexnet_cli.errors import AlexNetError, BadArtefact, BadPicture, Interrupted, Resumable, abbreviate, visible
from alexnet_cli.files import free_name, read_json
from alexnet_cli.outputs import check_output
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
    from alexnet_cli.data.inputs import Inputs
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.distributed import World

HERE = Path(".")
Result = TypeVar("Result")

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        metavar="FOLDER",
        help="The folder with data/, models/ and indexes/. Default: the current folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATASET",
        help="Name or path of a dataset. Default: the newest.",
        autocompletion=completion.datasets,
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Name or path of a model, or an .onnx file. Default: the newest.",
        autocompletion=completion.models,
    ),
]
TO_FILL_IN = {"FOLDER": "the folder of your pictures", "PICTURE": "a picture", "RECIPE.toml": "a recipe of your own"}
PICTURES: Any = typer.Argument(
    metavar="PICTURE",
    help="Pictures, folders of them, patterns in quotes such as 'photos/*.jpg', or - for a list of paths on standard "
    "input, one a line.",
)
PicturesArgument = Annotated[list[str], PICTURES]


def output_file(what: str, *suffixes: str) -> Callable[[Path | None], Path | None]:
    """A callback for an option that names a file to write, which is to be ``what``, such as "a figure"."""

    def check(path: Path | None) -> Path | None:
        if path == Path("-"):  # results go to standard output without it
            raise typer.BadParameter(f"- is no name for a file: name one such as answers{suffixes[0]}")
        if path is not None:
            check_output(path, what, suffixes)
        return path

    return check


CsvOption = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="Write the answers to a CSV file.", callback=output_file("a table", ".csv")
    ),
]


class Views(StrEnum):
    """How many views of a picture are averaged."""

    one = "1"
    ten = "10"


class Precision(StrEnum):
    """The precision of the network's arithmetic in training."""

    fp32 = "fp32"
    bf16 = "bf16"


@contextmanager
def processes(device: str = "cpu") -> Iterator[tuple["World", Progress]]:
    """Joins the processes that torchrun started, this one on ``device``. Gives the console to rank 0 alone."""
    with process_group(device) as world, closing(Console() if world.is_main else SILENT) as console:
        yield world, console


def command_line(*words: object, workspace: Path = HERE) -> str:
    """An `alexnet` command for the user to paste: quoted for the shell, with the ``workspace`` if it is another."""
    return Workspace(workspace).command(*words)


def next_line(*words: object, workspace: Path = HERE) -> str:
    """What a command says last: the `alexnet` command that comes next, and which of its words the user has to fill in.

    After "Next: " it can be pasted as it is.
    """
    filled = [f"{what} for {word}" for word, what in TO_FILL_IN.items() if word in map(str, words)]
    return f"Next{', with ' if filled else ''}{' and '.join(filled)}: {command_line(*words, workspace=workspace)}"


def next_index(model: str, size: int, space: Workspace) -> str:
    """The `next_line` of who has a ``model``, which takes pictures of ``size`` pixels: to index what it was trained on,
    the newest of such pictures, or a folder if there is none. Of a dataset that was packed from a folder, the folder:
    it has all pictures, and originals to open."""
    datasets, fitting = space.all("dataset"), space.dataset_of_size(size, model)
    if fitting is None:
        source = ["FOLDER"]
    elif folder := space.folder_of(fitting):
        source = [str(folder)]
    elif fitting == datasets[0] and not space.all("index"):
        source = []  # as it is without a name
    else:
        name = name_of(fitting, "dataset", space)
        source = [str(fitting) if Path(name).exists() else name]  # a folder of that name comes first for `index`
    named = Path(source[0] if source else fitting or "").name
    out = [] if fitting is None else _another_index(space.home("index") / named, model)
    return next_line("index", *source, "--model", model, *out, workspace=space.root)


def _another_index(folder: Path, model: str) -> list[str]:
    """The option that names another index, if that in ``folder`` was built with another ``model``."""
    with suppress(BadArtefact):
        if read_json(folder / INDEX_FILE, what="index").get("model") != model_name(Path(model)):
            return ["--out", free_name(folder)]
    return []


def inputs_of(words: Sequence[str], target: Path | None = None) -> "Inputs":
    """The pictures that the arguments of a command lead to; "-" stands for the paths on standard input.

    ``target``: the folder that they are sorted into.
    """
    from alexnet_cli.data.inputs import find_inputs

    return find_inputs(words, sys.stdin.buffer, target)


class Failures:
    """Which of the pictures of a command have no answer: each is told when it is met, and the command fails at its end.

    What leads to no picture at all is among them.
    """

    def __init__(self, inputs: "Inputs", console: Console) -> None:
        self.count, self.left_out, self.console = len(inputs), list(inputs.left_out), console
        self.failed: list[dict[str, str]] = []  # path, reason: as in JSON
        for name, reason in inputs.empty:
            self._add(name, reason)

    def without(self, pairs: Iterable[tuple[object, Result | BadPicture]]) -> Iterator[tuple[str, Result]]:
        """The path and the result of each of ``pairs`` that has one."""
        for picture, result in pairs:
            if isinstance(result, BadPicture):
                self._add(str(picture), str(result))
            else:
                yield str(picture), result

    def _add(self, path: str, reason: str) -> None:
        self.failed.append({"path": path, "reason": reason})
        if self.count > 1:
            self.console.note(f"failed {path}: {reason}")

    def as_json(self) -> dict[str, object]:
        """What the JSON of each command says of pictures without an answer."""
        return {"failed": self.failed, "left_out": self.left_out}

    def check(self) -> None:
        """Tell what was left out. Raises BadPicture if any picture has failed."""
        if self.left_out:
            self.console.note(f"left out: {'; '.join(self.left_out)}")
        if self.failed and self.count == 1:
            raise BadPicture("{path}: {reason}".format(**self.failed[0]))
        if self.failed:
            names = abbreviate(each["path"] for each in self.failed)  # what was told of each may have scrolled away
            raise BadPicture(f"{len(self.failed):,} of {self.count:,} pictures could not be read: {names}")


def with_progress(items: Iterable[Result], task: str, total: int, progress: Progress) -> Iterator[Result]:
    """``items``, with a progress bar for ``task`` if there is more than a batch of them."""
    from alexnet_cli.inference.predictor import BATCH

    for done, item in enumerate(items, 1):
        yield item
        if total > BATCH:
            progress.advance(task, done, total)


def by_reason(refused: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each reason: the picture, or how many there are and the first three. ``refused``: name, reason."""
    names: dict[str, list[str]] = {}
    for name, reason in refused:
        names.setdefault(reason, []).append(name)
    return [
        f"{visible(some[0])}: {reason}" if len(some) == 1 else f"{len(some):,} pictures: {reason} ({abbreviate(some)})"
        for reason, some in names.items()
    ]


def name_of(folder: Path, kind: str, space: Workspace) -> str:
    """What to type for the ``kind`` of artefact in ``folder``: its name if that finds it, else its path."""
    if folder.parent == space.home(kind) and not folder.name.startswith("-"):
        with suppress(BadArtefact):
            if space.find(kind, folder.name) == folder:
                return folder.name
    return path_of(folder)


@contextmanager
def resumable(command: str, run: Path | None = None, world: "World | None" = None) -> Iterator[None]:
    """Adds to what ends the block how to go on: by ``command``, once the folder ``run`` has a checkpoint.

    If ``run`` is None, ``command`` always does. Errors that would only come again are left as they are.
    """
    advice = f"resume{', under torchrun or alone,' if is_distributed() else ''} with: {command}"

    def advices() -> list[str]:
        return [advice] if run is None or (run / CHECKPOINT_FILE).exists() else []

    if world is not None and world.peers is not None:
        world.peers.advices = advices
    try:
        yield
    except KeyboardInterrupt:
        stopped = Interrupted("interrupted")  # Typer would lose a note on the other
        stopped.__notes__ = advices()
        raise stopped from None
    except Exception as error:
        if isinstance(error, Resumable) or not isinstance(error, AlexNetError):
            error.__notes__ = advices() or getattr(error, "__notes__", [])  # the outermost block knows what was typed
        raise


def better_start(dataset: "Dataset", space: Workspace) -> tuple[str, list[str]]:
    """What is better than to train the few pictures of ``dataset`` from the start: a sentence, and the words of the
    next command. Both are empty if they are not few."""
    from alexnet_cli.defaults import are_few

    if not are_few(dataset) or len(dataset.classes) == 1:
        return "", []
    model = space.imported()
    words = ["train", name_of(dataset.path, "dataset", space)]
    words += ["--from", "torchvision" if model is None else name_of(model, "model", space)]
    first = f"`{command_line('import', 'torchvision', workspace=space.root)}`, then " if model is None else ""
    command = command_line(*words, workspace=space.root)
    few = f"{dataset.counts['train']:,} training pictures are few to learn from alone"
    sentence = f"{few}: {first}`{command}` starts from a model that has seen more"
    return sentence, ["import", "torchvision"] if model is None else words


def write_onnx(folder: Path, space: Workspace) -> None:
    """Write `model.onnx` of the new model in ``folder``, so that what follows needs no torch."""
    import alexnet_cli as alexnet

    again = command_line("export", name_of(folder, "model", space), workspace=space.root)
    with closing(Console()) as console, resumable(again):
        console.note(f"exporting {folder}")
        alexnet.export(folder, datasets=space.all("dataset"), progress=console)


def refuse_torchrun(command: str) -> None:
    """Raises AlexNetError under torchrun, in rank 0; the other ranks end in silence."""
    if is_distributed():
        if os.environ.get("RANK") != "0":
            raise typer.Exit(0)
        raise AlexNetError(f"alexnet {command} runs in one process: start it without torchrun")
