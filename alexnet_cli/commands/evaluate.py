"""`alexnet eval`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.artefacts import model_name
from alexnet_cli.commands import completion
from alexnet_cli.commands.common import (
    HERE,
    DataOption,
    DeviceOption,
    JsonOption,
    Views,
    WorkspaceOption,
    name_of,
    next_index,
    processes,
)
from alexnet_cli.console import show, show_json, show_table
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.inference.evaluation import Evaluation


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models or .onnx files. Default: the newest model.",
            autocompletion=completion.models,
        ),
    ] = None,
    data: DataOption = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="The split to evaluate on.")] = "val",
    views: Annotated[
        Views | None,
        typer.Option(
            help="How many views of each image to average. Default: 10, or 1 after training without reflections."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a report: errors by class, confusions, the worst mistakes, every prediction.",
        ),
    ] = None,
    device: DeviceOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Measure top-1 and top-5 error.

    Averages the predictions for ten views of each image, and those of several models. --report writes report.html,
    which any browser opens, and its tables as CSV files.

    Example: alexnet eval photos-small-data --views 10
    """
    import alexnet_cli as alexnet
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.reporting.folder import REPORT_FILE

    space, chosen = Workspace(workspace), pick_device(device)
    paths = [space.find_classifier(named) for named in (models or (None,))]
    dataset = alexnet.open_dataset(space.dataset_of(paths[0], data))
    with processes(chosen) as (world, console):
        console.note(f"evaluating {', '.join(map(str, paths))} on the {split} images of {dataset.path}")
        evaluation = alexnet.evaluate(
            paths,
            dataset,
            split,
            views=None if views is None else int(views),
            device=device,
            report=report,
            progress=console,
            world=world,
        )
    if not world.is_main:
        return
    if as_json:
        facts = {
            "models": list(map(model_name, paths)),
            "dataset": dataset.name,
            "store": dataset.store,
            "split": split,
        }
        show_json(facts | evaluation.as_json() | ({} if report is None else {"report": str(report)}))
    else:
        show_table(*as_table(evaluation, paths, dataset, split))
        if report is not None:
            show(f"wrote {report / REPORT_FILE}")
        folders = [name_of(path, "model", space) for path in paths if path.suffix != ".onnx"]
        if folders:
            show(next_index(folders[0], dataset.image_size, space))


def as_table(
    evaluation: "Evaluation", paths: Sequence[Path], dataset: "Dataset", split: str
) -> tuple[str, list[str], list[list[str]], str]:
    """Title, columns, rows and note. Ten views of ILSVRC-2012's validation images get the published rows as well."""
    from alexnet_cli.experiments.published import TABLE2, are_of_table2

    ilsvrc = evaluation.views == 10 and are_of_table2(dataset, split)
    errors = (evaluation.top1, evaluation.top1_ci95), (evaluation.top5, evaluation.top5_ci95)
    cells = [f"{100 * error:.1f}  ({100 * low:.1f}-{100 * high:.1f})" for error, (low, high) in errors]
    if len(dataset.classes) <= 5:
        cells[1] = "–"  # no answer of five classes can be wrong
    measured = [" + ".join(map(model_name, paths)) + (" (measured here)" if ilsvrc else ""), *cells]
    notes = ["published: table 2 of the paper, ILSVRC-2012 validation images, ten views"] if ilsvrc else []
    if len(paths) > 1:
        notes.append("the models' predictions are averaged: for the error of each, evaluate it alone")
    if dataset.store == "jpeg":
        notes.append(f"{dataset.name} keeps its images as JPEGs, which differ a little from their pixels")
    published = [[f"{row.name} (published)", row.top1, row.top5] for row in TABLE2 if row.top1 != "–"]
    return (
        f"{dataset.name}, {split}: {counted(evaluation.images, 'image')}, {counted(evaluation.views, 'view')}",
        ["model", "top-1 error, %  (95 % interval)", "top-5 error, %  (95 % interval)"],
        [*(published if ilsvrc else []), measured],
        "\n".join(notes),
    )
