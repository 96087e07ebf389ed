"""`alexnet search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands.common import HERE, JsonOption, PicturesArgument, WorkspaceOption
from alexnet_cli.console import Console, show_json, show_table
from alexnet_cli.errors import AlexNetError
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.retrieval.searcher import Answer, Searcher


def search(
    pictures: PicturesArgument,
    index: Annotated[
        str | None, typer.Option("--index", metavar="INDEX", help="Name or path of an index. Default: the newest.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Name or path of a model, or an .onnx file. Default: the index's own model."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="Number of neighbours per picture.")] = 10,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of the neighbours, a PNG file.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page of the neighbours, an HTML file.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Find the most similar pictures of an index.

    Similarity is the Euclidean distance between the features (fc7) of two pictures.

    Example: alexnet search image.jpg
    """
    import alexnet_cli as alexnet

    console, space = Console(), Workspace(workspace)
    own = None if model is None else space.find_classifier(model)
    found = space.find("index", index)
    with alexnet.open_index(
        found, model=own, workspace=workspace, pictures=len(pictures), progress=console
    ) as searcher:
        answers = searcher.answer(pictures, k)
        if sheet or page:
            _draw(answers, searcher, sheet, page, console)
        if as_json:
            queries = [answer.as_json() for answer in answers]
            show_json({"index": searcher.index.path.name, "model": searcher.model.name, "queries": queries})
            return
    for answer in answers:
        rows = [[str(n.rank), n.name or "", f"{n.distance:.2f}", n.path] for n in answer.neighbours]
        show_table(f"nearest to {answer.path}", ["", "class", "distance", "picture"], rows)


def _draw(
    answers: "list[Answer]", searcher: "Searcher", sheet: Path | None, page: Path | None, console: Console
) -> None:
    from alexnet_cli.figures.page import write_page
    from alexnet_cli.figures.sheet import draw_sheet, thumbnails
    from alexnet_cli.retrieval.collection import open_collection

    index = searcher.index
    try:
        collection = open_collection(index.source)
    except AlexNetError:
        collection = None  # it has moved since: there are no thumbnails, but the distances are right
    rows = thumbnails(answers, collection, index.facts["image_size"])
    if sheet:
        draw_sheet(answers, rows, sheet)
        console.note(f"wrote {sheet}")
    if page:
        write_page(answers, rows, page, index=index.path.name, model=searcher.model.name)
        console.note(f"wrote {page}")
