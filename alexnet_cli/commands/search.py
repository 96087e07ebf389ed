"""`alexnet search`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, Failures, JsonOption, PicturesArgument, WorkspaceOption
from alexnet_cli.console import Console, show_json, show_table
from alexnet_cli.errors import AlexNetError, visible
from alexnet_cli.wording import distances
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.retrieval.searcher import Answer, Searcher


def search(
    pictures: PicturesArgument,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="INDEX",
            help="Name or path of an index. Default: the newest.",
            autocompletion=completion.indexes,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Name or path of a model, or an .onnx file. Default: the index's own model.",
            autocompletion=completion.models,
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

    Similarity is the Euclidean distance between the features (fc7) of two pictures. A picture that cannot be read does
    not stop the others.

    Example: alexnet search image.jpg
    """
    import alexnet_cli as alexnet
    from alexnet_cli.retrieval.searcher import Answer

    console, space = Console(), Workspace(workspace)
    own = None if model is None else space.find_classifier(model)
    found = space.find("index", index)
    with alexnet.open_index(
        found, model=own, workspace=workspace, pictures=len(pictures), progress=console
    ) as searcher:
        failures, answers = Failures(len(pictures), console), list[Answer]()
        for path_of_query, neighbours in failures.without(searcher.search_each(pictures, k)):
            answer = Answer(path=path_of_query, neighbours=neighbours)
            if as_json or sheet or page:  # else memory stays flat, however many queries there are
                answers.append(answer)
            if not as_json:
                _show(answer)
        if as_json:
            facts = {"index": searcher.index.path.name, "model": searcher.model.name}
            show_json(facts | {"queries": [answer.as_json() for answer in answers], "failed": failures.failed})
        if answers and (sheet or page):
            _draw(answers, searcher, sheet, page, console)
    failures.check()


def _show(answer: "Answer") -> None:
    shown = distances([near.distance for near in answer.neighbours])
    rows = [[str(n.rank), n.name or "", shown[i], visible(n.path)] for i, n in enumerate(answer.neighbours)]
    show_table(f"nearest to {visible(answer.path)}", ["", "class", "distance", "picture"], rows)


def _draw(
    answers: "list[Answer]", searcher: "Searcher", sheet: Path | None, page: Path | None, console: Console
) -> None:
    from alexnet_cli.figures.page import write_page
    from alexnet_cli.figures.sheet import draw_sheet, thumbnails
    from alexnet_cli.retrieval.collection import open_collection

    index = searcher.index
    with contextlib.ExitStack() as stack:
        collection = None  # if it has moved since: there are no thumbnails, but the distances are right
        with contextlib.suppress(AlexNetError):
            collection = stack.enter_context(contextlib.closing(open_collection(index.source)))
        rows = thumbnails(answers, collection, index.facts["image_size"])
        if sheet:
            draw_sheet(answers, rows, sheet)
            console.note(f"wrote {sheet}")
        if page:
            write_page(answers, rows, collection, page, index=index.path.name, model=searcher.model.name)
            console.note(f"wrote {page}")
