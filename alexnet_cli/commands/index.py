"""`alexnet index`."""

from typing import Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, JsonOption, ModelOption, WorkspaceOption, command_line, processes
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import visible
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace


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
    source, path = space.find_pictures(images), space.find_classifier(model)
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
        f"index {folder}: {counted(built.images, 'picture')} "
        f"({built.added:,} added, {built.kept:,} kept, {built.removed:,} removed, {len(built.refused):,} refused)"
    )
    show(f"Next: {command_line('search', 'PICTURE', '--index', folder.name, workspace=workspace)}")
