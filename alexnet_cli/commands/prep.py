"""`alexnet prep`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption, command_line, processes
from alexnet_cli.console import show, show_json
from alexnet_cli.workspace import Workspace


class OnBad(StrEnum):
    skip = "skip"
    stop = "stop"


def prep(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, .zip or .tar of pictures in class folders, or one of the archives in the README.",
        ),
    ],
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="Name of the dataset. Default: the name of SOURCE.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of worker processes. Default: one per core.")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            metavar="FRACTION",
            help="Hold out this fraction of each class's training pictures for validation, instead of SOURCE's val/.",
        ),
    ] = None,
    on_bad: Annotated[OnBad, typer.Option(help="What to do with a picture that cannot be read.")] = OnBad.skip,
    size: Annotated[int, typer.Option(min=8, max=4096, metavar="PIXELS", help="Side of the packed pictures.")] = 256,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Pack pictures into a dataset.

    A dataset holds 256×256 RGB pictures, their mean image and their colour PCA. If you stop the command, run it again
    to resume. Run on a dataset that is there, it checks all of it, and packs it again if it is damaged or if pictures
    were added to SOURCE, removed or changed. Under torchrun, on one machine or on several that share a disk, each
    process packs a part.

    Example: alexnet prep photos/
    """
    import alexnet_cli as alexnet
    from alexnet_cli.data.sources import default_name

    folder = Workspace(workspace).new("dataset", dataset or default_name(source))
    with processes() as (world, console):
        prepared = alexnet.prepare(
            source,
            folder,
            size=size,
            workers=workers,
            val_fraction=val_fraction,
            on_bad=on_bad.value,
            progress=console,
            world=world,
        )
        if prepared.left_out:
            console.note(f"left out: {'; '.join(prepared.left_out)}")
    if not world.is_main:
        return
    if as_json:
        show_json(prepared.as_json())
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in prepared.dataset.counts.items())
    classes = len(prepared.dataset.classes)
    show(f"packed {folder}: {splits} pictures, {classes:,} classes, {prepared.rejected:,} rejected")
    if prepared.rejected:
        show(f"what was rejected, and why: {folder / 'rejected.csv'}")
    show(f"Next: {command_line('train', folder.name, workspace=workspace)}")
