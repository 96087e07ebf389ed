"""`alexnet index`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, JsonOption, ModelOption, WorkspaceOption, command_line, processes
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import visible
from alexnet_cli.workspace import Workspace

PICTURE = Path("PICTURE")


def index(
    images: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGES",
            help="A folder, an archive or a dataset. Default: the newest dataset's training pictures.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the index. Default: the name of IMAGES.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="flat (exact), sq8, ivfpq, hnsw or binary. Default: by size.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make or update an index of pictures.

    An index holds the features (fc7) of each picture. Run again, the command embeds only pictures that are new or
    changed, and removes those that are gone. Under torchrun, on one
    machine or on several that share a disk, each process embeds a part.

    Example: alexnet index photos/
    """
    import alexnet_cli as alexnet
    from alexnet_cli.artefacts import model_name
    from alexnet_cli.data.sources import default_name

    space = Workspace(workspace)
    source = space.find_pictures(images)
    path = space.model_of(source, model)
    folder = space.new("index", out or default_name(source))
    with processes() as (world, console):
        console.note(f"indexing {source} into {folder} with model {path}")
        built = alexnet.build_index(
            source, folder, model=path, kind=kind, datasets=space.all("dataset"), progress=console, world=world
        )
        for name, reason in built.refused:
            console.note(f"refused {visible(name)}: {reason}")
    if not world.is_main:
        return
    if as_json:
        show_json(built.as_json(folder.name, model_name(path)))
        return
    show(
        f"index {folder}: {built.images:,} pictures "
        f"({built.added:,} added, {built.kept:,} kept, {built.removed:,} removed, {len(built.refused):,} refused)"
    )
    show(f"Next: {command_line('search', _a_picture(folder), '--index', folder.name, workspace=workspace)}")


def _a_picture(folder: Path) -> Path:
    """A picture of the index in ``folder`` to search for; the word PICTURE if it is of an archive."""
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.retrieval.index import Index

    with contextlib.closing(Index.open(folder)) as index:
        path = Path(index.path_of(0))
        if (index.source / DATASET_FILE).is_file():
            path = Path(Dataset.open(index.source).source["path"], path)
        elif not index.facts["are_files"]:
            return PICTURE
    return path if path.is_file() else PICTURE
