"""`alexnet visualize embedding`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.commands.visualize import OutOption, SizeOption, figure_file, show_files
from alexnet_cli.console import Console
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


def embedding(
    index: Annotated[
        str | None,
        typer.Argument(
            metavar="INDEX", help="Name or path of an index. Default: the newest.", autocompletion=completion.indexes
        ),
    ] = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw an index as a map: pictures that are alike lie close together.

    By PCA and t-SNE of the features. What is near is alike; how far apart groups lie, and how large they are, says
    little. The map is kept with the index, and the page of `alexnet serve` shows it too.

    Example: alexnet visualize embedding photos
    """
    from alexnet_cli.retrieval.collection import open_collection
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.visualization.embedding import draw_embedding, embed

    path = figure_file(out or Path("embedding.png"))
    with closing(Index.open(Workspace(workspace).find("index", index))) as opened:
        found = embed(opened, Console())
        if opened.source.exists():
            with closing(open_collection(opened.source, split=opened.facts["split"])) as collection:
                draw_embedding(found, opened, collection, path, size)
        else:
            draw_embedding(found, opened, None, path, size)
        facts: dict[str, object] = {"index": opened.path.name, "pictures": len(found.rows)}
    show_files([path], as_json=as_json, facts=facts)
