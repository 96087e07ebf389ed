"""`alexnet search`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import (
    HERE,
    CsvOption,
    Failures,
    JsonOption,
    PicturesArgument,
    WorkspaceOption,
    inputs_of,
    output_file,
    with_progress,
)
from alexnet_cli.console import Console, JsonArray, show, show_json, show_path, show_table
from alexnet_cli.errors import AlexNetError, visible
from alexnet_cli.outputs import write_csv
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import counted, distances
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.data.inputs import Inputs
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.searcher import Answer, Searcher

COLUMNS = ("query", "rank", "path", "label", "name", "distance")  # of the CSV file


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
    max_distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="D",
            help="Only neighbours up to this distance, in the unit of those that are printed; -k of them at most.",
        ),
    ] = None,
    mean: Annotated[
        bool, typer.Option("--mean", help="Take all pictures as one query: the mean of their features.")
    ] = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print the neighbours' paths and nothing else, one a line, for a pipe.")
    ] = False,
    table: CsvOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a contact sheet of the neighbours, a PNG file.",
            callback=output_file("a contact sheet", ".png"),
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page of the neighbours, an HTML file.",
            callback=output_file("a page", ".html", ".htm"),
        ),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Find the most similar pictures.

    They are those of an index whose features, the outputs of the last hidden layer, have the smallest Euclidean
    distance to those of the picture. A picture that cannot be read does not stop the others.

    Example: alexnet search image.jpg
    """
    import alexnet_cli as alexnet
    from alexnet_cli.retrieval.searcher import Answer

    if paths and as_json:
        raise typer.BadParameter("give one of --paths and --json")
    console, space, inputs = Console(), Workspace(workspace), inputs_of(pictures)
    own = None if model is None else space.find_classifier(model)
    found = space.find("index", index)
    with contextlib.ExitStack() as stack:
        searcher = stack.enter_context(
            alexnet.open_index(found, model=own, workspace=workspace, pictures=len(inputs), progress=console)
        )
        write = None if table is None else stack.enter_context(write_csv(table, COLUMNS))
        failures, queries, drawn, gone = Failures(inputs, console), JsonArray(), list[Answer](), set[str]()
        printed = names = 0  # of the paths, and those of them that are no files
        is_quiet = as_json or paths or table is not None
        for answer in _answers(searcher, inputs, failures, k, mean, console if is_quiet else SILENT):
            answer = answer.within(max_distance)
            gone.update(one.path for one in answer.neighbours if searcher.index.is_gone(one.path))
            if sheet or page:  # else memory stays flat, however many queries there are
                drawn.append(answer)
            if as_json:
                queries.append(answer.as_json())
            if write is not None:
                for one in answer.neighbours:
                    write((answer.path, one.rank, one.path, one.label, one.name, one.distance))
            if paths:
                for one in answer.neighbours:
                    show_path(one.path)
                printed += len(answer.neighbours)
                names += _names(answer, searcher.index)
            if not is_quiet:
                _show(answer)
        if as_json:
            facts = {"index": searcher.index.path.name, "model": searcher.model.name}
            show_json(facts | {"queries": queries, **failures.as_json()})
        if drawn:
            _draw(drawn, searcher, sheet, page, console)
    if table is not None:
        console.note(f"wrote {table}")
    if names:
        console.note(f"not files here, but names within {searcher.index.source}: {names:,} of {printed:,} paths")
    if gone:
        again = space.command("index", *([] if index is None else [searcher.index.source, "--out", index]))
        console.note(
            f"{counted(len(gone), 'picture')} that the index has {'is' if len(gone) == 1 else 'are'} no longer there; "
            f"to bring it up to date: {again}"
        )
    failures.check()


def _answers(
    searcher: "Searcher", inputs: "Inputs", failures: Failures, k: int, mean: bool, progress: Progress
) -> "Iterator[Answer]":
    """An answer for each picture that can be read, or one for their ``mean``."""
    from alexnet_cli.retrieval.searcher import Answer

    count = len(inputs.pictures)
    if not mean:
        each = with_progress(searcher.search_each(inputs.pictures, k), "searching", count, progress)
        for path, neighbours in failures.without(each):
            yield Answer(path=path, neighbours=neighbours)
        return
    each_row = with_progress(searcher.model.features_each(inputs.pictures), "embedding", count, progress)
    total, used = None, list[str]()
    for path, row in failures.without(each_row):
        used.append(path)
        total = row.astype(float) if total is None else total + row
    if total is not None:
        neighbours = searcher.search_features(total / len(used), k)
        path = used[0] if len(used) == 1 else f"the mean of {len(used):,} pictures"
        yield Answer(path=path, pictures=used, neighbours=neighbours)


def _names(answer: "Answer", index: "Index") -> int:
    """How many paths of ``answer`` are only names in the archive or dataset that was indexed."""
    return 0 if index.facts["are_files"] else sum(not Path(one.path).is_file() for one in answer.neighbours)


def _show(answer: "Answer") -> None:
    if not answer.neighbours:
        show(f"no picture of the index is that near to {visible(answer.path)}")
        return
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
            names = {"index": index.path.name, "model": searcher.model.name, "feature": searcher.model.feature_name}
            write_page(answers, rows, collection, page, **names)
            console.note(f"wrote {page}")
