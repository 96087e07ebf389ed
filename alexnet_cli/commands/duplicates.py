"""`alexnet duplicates`."""

from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands.common import HERE, CsvOption, JsonOption, WorkspaceOption
from alexnet_cli.console import Console, show, show_json, show_table
from alexnet_cli.errors import visible
from alexnet_cli.outputs import write_csv
from alexnet_cli.wording import counted, distances
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.retrieval.duplicates import Duplicates

COLUMNS = ("group", "path", "distance")  # of the CSV file


def duplicates(
    index: Annotated[
        str | None, typer.Argument(metavar="INDEX", help="Name or path of an index. Default: the newest.")
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="D",
            help="Largest distance of two pictures that are nearly the same, in the unit of `alexnet search`. "
            "Default: a quarter of the median distance between two pictures of the index.",
        ),
    ] = None,
    table: CsvOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Find pictures that are nearly the same.

    They are resized, compressed again or cropped a little. Every pair of pictures is compared, in every kind of index.
    A group may be a chain, in which a picture is like the first only by way of others: a note below the table says so.

    Example: alexnet duplicates photos
    """
    import alexnet_cli as alexnet

    folder = Workspace(workspace).find("index", index)
    console = Console()
    found = alexnet.find_duplicates(folder, max_distance, progress=console)
    if found.are_alike and max_distance is None:
        console.note(
            "most of these pictures are alike, so the distance that was chosen may be too small: take one that "
            "`alexnet search` shows for a copy, with --max-distance"
        )
    if table is not None:
        with write_csv(table, COLUMNS) as write:
            for number, group in enumerate(found.groups, 1):
                for path, distance in zip(group.paths, group.distances, strict=True):
                    write((number, path, distance))
    if as_json:
        facts = {"index": folder.name, "threshold": found.threshold, "median_distance": found.median}
        show_json(facts | {"groups": [group.paths for group in found.groups]})
        return
    if table is None:
        _show(found)
    else:
        show(f"wrote {table}")
    pictures = sum(len(group.paths) for group in found.groups)
    groups = f"{counted(len(found.groups), 'group')} of {counted(pictures, 'picture')},"
    show(
        f"{groups if pictures else 'no two pictures are'} at a distance of {found.threshold:.3g} or less "
        f"(half of all pairs: {found.median:.3g} or less)"
    )


def _show(found: "Duplicates") -> None:
    shown = iter(distances([distance for group in found.groups for distance in group.distances]))
    rows = [
        ["" if i else f"{number} (chain)" if found.is_chain(group) else str(number), next(shown), visible(path)]
        for number, group in enumerate(found.groups, 1)
        for i, path in enumerate(group.paths)
    ]
    if rows:
        show_table("", ["group", "distance from the first", "picture"], rows)
