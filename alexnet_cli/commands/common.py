"""What several commands share: options, the processes of torchrun, and commands that are printed for the user."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from alexnet_cli.console import Console
from alexnet_cli.errors import BadPicture
from alexnet_cli.progress import SILENT, Progress

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
    str | None, typer.Option("--data", metavar="DATASET", help="Name or path of a dataset. Default: the newest.")
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.")
]
ModelOption = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Name or path of a model, or an .onnx file. Default: the newest.")
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
    from alexnet_cli.distributed import process_group

    with process_group(device) as world, closing(Console() if world.is_main else SILENT) as console:
        yield world, console


def command_line(*words: object, workspace: Path = HERE) -> str:
    """An `alexnet` command for the user to paste: quoted for the shell, with the ``workspace`` if it is another."""
    option = [] if workspace == HERE else ["--workspace", workspace]
    return shlex.join(map(str, ["alexnet", *words, *option]))


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
            raise BadPicture(f"{len(self.failed):,} of {self.count:,} pictures could not be read")
