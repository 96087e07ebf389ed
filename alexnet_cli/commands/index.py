"""`alexnet index`."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from alexnet_cli.artefacts import INDEX_FILE, model_name
from alexnet_cli.commands import completion
from alexnet_cli.commands.common import (
    HERE,
    JsonOption,
    ModelOption,
    WorkspaceOption,
    by_reason,
    next_line,
    processes,
)
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import BadSource
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace

PICTURE = Path("PICTURE")


class SplitName(StrEnum):
    train = "train"
    val = "val"
    test = "test"
    all = "all"


class Request(NamedTuple):
    """What is to be indexed, where, and by which model."""

    source: Path
    split: str | None
    folder: Path
    model: Path


def index(
    images: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGES",
            help="A folder (all of it), an archive or a dataset. Default: what the newest index is of, or the newest "
            "dataset.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the index. Default: the name of IMAGES.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="flat (exact), sq8, ivfpq, hnsw, binary, autoencoder or milvus. Default: by size.",
        ),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Where --kind milvus has its vectors: a server (http://host:19530), or a file that ends in .db. "
            "Default: a file in the index.",
        ),
    ] = None,
    split: Annotated[
        SplitName | None, typer.Option(help="The pictures of a dataset to index. Default: train.", show_default=False)
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make or update an index of pictures.

    An index holds the features of each picture, the outputs of the last hidden layer. Run again, the command embeds
    only pictures that are new or changed, with the model that the index has, and removes those that are gone. Without
    IMAGES it brings the newest index up to date. If a folder has moved, give its new path and the old name with --out.
    Under torchrun, on one machine or on several that share a disk, each process embeds a part.

    Example: alexnet index photos/
    """
    import alexnet_cli as alexnet

    space = Workspace(workspace)
    source, chosen, folder, path = _request(space, images, split and split.value, out, model)
    with processes() as (world, console):
        console.note(f"indexing {source} into {folder} with model {path}")
        built = alexnet.build_index(
            source,
            folder,
            model=path,
            split=chosen,
            kind=kind,
            uri=uri,
            datasets=space.all("dataset"),
            progress=console,
            world=world,
        )
        for line in by_reason(built.refused):
            console.note(f"refused {line}")
        if built.left_out:
            console.note(f"left out: {'; '.join(built.left_out)}")
    if not world.is_main:
        return
    if as_json:
        show_json(built.as_json(folder.name, model_name(path)))
        return
    show(
        f"index {folder}: {counted(built.images, 'picture')} "
        f"({built.added:,} added, {built.kept:,} kept, {built.removed:,} removed, {len(built.refused):,} refused)"
    )
    show(next_line("search", _a_picture(folder), "--index", folder.name, workspace=workspace))


def _a_picture(folder: Path) -> Path:
    """A picture of the index in ``folder`` to search for; the word PICTURE if it is of an archive."""
    from alexnet_cli.retrieval.index import Index

    with contextlib.closing(Index.open(folder)) as index:
        path = Path(index.path_of(0))
        return path if path.is_file() else PICTURE


def _request(space: Workspace, images: str | None, split: str | None, out: str | None, model: str | None) -> Request:
    """What the user has named. An index that is there keeps its model; without IMAGES also its source and split.

    Raises BadSource if that source is gone.
    """
    from alexnet_cli.data.sources import default_name
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.searcher import model_of

    is_bare = images is None and split is None
    found = next((folder for folder in space.all("index") if out in (None, folder.name)), None) if is_bare else None
    if found is None:
        source = space.find_pictures(images)
        found = space.new("index", out or default_name(source) + (f"-{split}" if split else ""))
        if model is not None or not (found / INDEX_FILE).is_file():
            return Request(source, split, found, space.model_of(source, model))
    with contextlib.closing(Index.open(found)) as old:
        if is_bare:
            source, split = old.reachable_source, old.facts["split"]
        if is_bare and not source.exists():
            mend = space.to_mend(found, source)
            raise BadSource(f"{old.source}, which {found} is an index of, is not there: if it has moved, run {mend}")
        return Request(source, split, found, model_of(old, space) if model is None else space.find_classifier(model))
