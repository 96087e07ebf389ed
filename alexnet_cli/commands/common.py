"""What several commands share: options, the processes of torchrun, and commands that are printed for the user."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.commands import completion
from alexnet_cli.console import Console
from alexnet_cli.distributed import is_distributed, process_group
from alexnet_cli.errors import AlexNetError, BadArtefact, BadPicture, Interrupted, Resumable
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
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
PicturesArgument = Annotated[
    list[Path], typer.Argument(metavar="PICTURE", help="Pictures in any format that Pillow reads.")
]


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


class Failures:
    """Pictures that cannot be read, among ``count``: each is told when it is met, and the command fails at its end."""

    def __init__(self, count: int, console: Console) -> None:
        self.count, self.console = count, console
        self.failed: list[dict[str, str]] = []  # path, reason: as in JSON

    def without(self, pairs: Iterable[tuple[object, Result | BadPicture]]) -> Iterator[tuple[str, Result]]:
        """The path and the result of each of ``pairs`` that has one."""
        for picture, result in pairs:
            if not isinstance(result, BadPicture):
                yield str(picture), result
                continue
            self.failed.append({"path": str(picture), "reason": str(result)})
            if self.count > 1:
                self.console.note(f"failed {picture}: {result}")

    def check(self) -> None:
        """Raises BadPicture if there was any."""
        if self.failed and self.count == 1:
            raise BadPicture("{path}: {reason}".format(**self.failed[0]))
        if self.failed:
            raise BadPicture(f"{len(self.failed):,} of {counted(self.count, 'picture')} could not be read")


def name_of(folder: Path, kind: str, space: Workspace) -> str:
    """What to type for the ``kind`` of artefact in ``folder``: its name if that finds it, else its path."""
    if folder.parent == space.home(kind) and not folder.name.startswith("-"):
        with suppress(BadArtefact):
            if space.find(kind, folder.name) == folder:
                return folder.name
    return path_of(folder)


def to_resume(folder: Path, space: Workspace, dataset: Path | None = None) -> str:
    """The command that resumes the run in ``folder``, for where the user is; on ``dataset`` if that has moved."""
    out = folder.name if folder.parent == space.home("model") else path_of(folder)
    moved = [] if dataset is None else [path_of(dataset)]
    return space.command("train", *moved, "--resume", "--out", out)


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


def refuse_torchrun(command: str) -> None:
    """Raises AlexNetError under torchrun, in rank 0; the other ranks end in silence."""
    if is_distributed():
        if os.environ.get("RANK") != "0":
            raise typer.Exit(0)
        raise AlexNetError(f"alexnet {command} runs in one process: start it without torchrun")
