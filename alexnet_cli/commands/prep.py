"""`alexnet prep`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands.common import (
    HERE,
    JsonOption,
    WorkspaceOption,
    better_start,
    name_of,
    next_line,
    processes,
)
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import BadRecipe
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
    from alexnet_cli.data.store import Dataset


class OnBad(StrEnum):
    skip = "skip"
    stop = "stop"


class Store(StrEnum):
    raw = "raw"
    jpeg = "jpeg"


def prep(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, .zip or .tar of pictures in class folders, one of the archives in the README, or digits: "
            "scikit-learn's handwritten digits, if nothing else is called so.",
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
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=4096,
            metavar="PIXELS",
            help="Side of the packed pictures. Default: 256; of CIFAR-10, MNIST and digits 32.",
        ),
    ] = None,
    store: Annotated[
        Store, typer.Option(help="Keep the pixels, or JPEGs of them: a sixth of the space, small differences.")
    ] = Store.raw,
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

    space = Workspace(workspace)
    folder = space.new("dataset", dataset or default_name(source))
    with processes() as (world, console):
        prepared = alexnet.prepare(
            source,
            folder,
            size=size,
            store=store.value,
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
    classes = counted(len(prepared.dataset.classes), "class")
    show(f"packed {folder}: {splits} pictures, {classes}, {prepared.rejected:,} rejected")
    if prepared.rejected:
        show(f"what was rejected, and why: {folder / 'rejected.csv'}")
    show(next_line(*_next(prepared.dataset, space), workspace=workspace))


def _next(dataset: "Dataset", space: Workspace) -> list[str]:
    """The words of the command that makes the best of ``dataset``; shows why, if that is not to train it."""
    from alexnet_cli.defaults import recipe_for

    name = name_of(dataset.path, "dataset", space)
    if len(dataset.classes) == 1:
        index = ["index", path_of(dataset.path)]
        if space.all("model"):
            return index
        show(f"one class: not to train on, but to search, with a model: import one, then `{space.command(*index)}`")
        return ["import", "torchvision"]
    try:
        recipe_for(dataset)
    except BadRecipe as error:
        show(str(error))
        return ["train", name, "--recipe", "RECIPE.toml"]
    advice, words = better_start(dataset, space)
    if advice:
        show(advice)
    return words or ["train", name]
