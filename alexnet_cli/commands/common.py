"""What several commands share: their options, and the processes and the console they run with."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.console import Console
from alexnet_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from alexnet_cli.distributed import World

HERE = Path(".")

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The folder with data/, models/ and indexes/.", show_default="here"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DataOption = Annotated[str | None, typer.Option("--data", help="Name or path of a dataset. Default: the newest.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.")]
ModelOption = Annotated[str | None, typer.Option(help="A model or an .onnx file. Default: the newest model.")]


class Precision(StrEnum):
    """Of the network's arithmetic in training."""

    fp32 = "fp32"
    bf16 = "bf16"


@contextmanager
def processes(device: str = "cpu") -> Iterator[tuple["World", Progress]]:
    """The processes that torchrun started, this one running on ``device``; and the console, which only rank 0 has."""
    from alexnet_cli.distributed import process_group

    with process_group(device) as world, closing(Console() if world.is_main else SILENT) as console:
        yield world, console
