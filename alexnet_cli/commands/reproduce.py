"""`alexnet reproduce`."""

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import (
    HERE,
    DataOption,
    DeviceOption,
    JsonOption,
    Precision,
    WorkspaceOption,
    command_line,
    refuse_torchrun,
    resumable,
)
from alexnet_cli.commands.visualize import SizeOption
from alexnet_cli.console import Console, show, show_json, show_table
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


class Name(StrEnum):
    figure_1 = "figure-1"
    figure_3 = "figure-3"
    figure_4 = "figure-4"
    table_1 = "table-1"
    table_2 = "table-2"
    ablations = "ablations"
    augmentation = "augmentation"
    neocognitron = "neocognitron"
    baselines = "baselines"


def reproduce(
    context: typer.Context,
    name: Annotated[Name, typer.Argument(metavar="NAME", help=f"{', '.join(list(Name)[:-1])} or {list(Name)[-1]}.")],
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder to write the result to. Default: reproduced/NAME.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Figures 3 and 4, tables: a trained model. Repeatable for tables. Default: the newest.",
            autocompletion=completion.models,
        ),
    ] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="table-2: a model that was pre-trained on more classes. Repeatable.",
            autocompletion=completion.models,
        ),
    ] = None,
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="ablations, augmentation: a row to run. Repeatable. Default: all.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="ablations, augmentation: the recipe that each is applied to.",
            autocompletion=completion.recipes,
        ),
    ] = "paper",
    width: Annotated[
        float,
        typer.Option(min=0.01, max=1, metavar="FRACTION", help="The same: multiply the width of every layer by this."),
    ] = 1.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value of every recipe: section.key=value. Repeatable."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of epochs. Default: the recipes'.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of runs of each network, with different seeds.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="figure-1: for a lesson, on 10,000 pictures, in some ten minutes.")
    ] = False,
    size: SizeOption = Size.page,
    device: DeviceOption = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the network's arithmetic.")] = Precision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run one of the paper's experiments.

    Writes the table and the figure. figure-1, ablations, augmentation (what is beyond the paper) and neocognitron (the
    network of 1980, on digits) train networks; figures 3 and 4 and the tables use models that are already trained;
    baselines fits the methods that the network beat. If you stop the command, run it again to resume.

    Example: alexnet reproduce figure-1 --data cifar10
    """
    from alexnet_cli.experiments import reproduction
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.training.trainer import Options

    refuse_torchrun("reproduce")
    console, space = Console(), Workspace(workspace)
    request = reproduction.Request(
        data=data,
        models=models or [],
        pretrained=pretrained or [],
        recipes=recipes or [],
        base=base,
        width=width,
        settings=settings or [],
        epochs=epochs,
        seeds=seeds,
        quick=quick,
        size=size,
        options=Options(devices=(pick_device(device),), precision=precision.value),
        command=command_line(*sys.argv[1:]),
    )
    experiment = reproduction.EXPERIMENTS[name.value]
    experiment.check(name.value, _options_given(context) - {"--out", "--workspace", "--json"}, request)
    folder = out or workspace / "reproduced" / (f"{name.value}-quick" if quick else name.value)
    console.note(f"reproducing {name.value} into {folder}")
    with contextlib.closing(console), resumable(request.command):
        report = experiment.run(space, request, folder, console)
    if as_json:
        show_json({"experiment": report.name, "folder": str(folder), "rows": report.rows, "facts": report.facts})
    else:
        show_table(report.title, report.columns, report.rows, report.note)
        recipes_written = ["recipes/"] if (folder / "recipes").is_dir() else []  # none without a network
        show(f"Written to {folder}: {', '.join(['table.md', 'table.json', *recipes_written, *report.figures])}")


def _options_given(context: typer.Context) -> set[str]:
    """The options in the command line."""
    sources = {param.opts[0]: context.get_parameter_source(str(param.name)) for param in context.command.params}
    return {
        name for name, source in sources.items() if name.startswith("--") and source and source.name == "COMMANDLINE"
    }
