"""`alexnet reproduce`."""

import contextlib
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands.common import HERE, DataOption, DeviceOption, JsonOption, Precision, WorkspaceOption
from alexnet_cli.console import Console, show, show_json, show_table
from alexnet_cli.workspace import Workspace


class Name(StrEnum):
    figure_1 = "figure-1"
    figure_3 = "figure-3"
    figure_4 = "figure-4"
    table_1 = "table-1"
    table_2 = "table-2"
    ablations = "ablations"


def reproduce(
    context: typer.Context,
    name: Annotated[Name, typer.Argument(help="The experiment.")],
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the result. Default: reproduced/NAME.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Figures 3 and 4, tables: trained models. Default: the newest."),
    ] = None,
    pretrained: Annotated[
        list[str] | None, typer.Option(help="table-2: models that were pre-trained on more classes.")
    ] = None,
    recipes: Annotated[list[str] | None, typer.Option("--recipe", help="ablations: which. Default: all.")] = None,
    base: Annotated[
        str, typer.Option(help="ablations: what this recipe changes of `paper`, every net changes too.")
    ] = "paper",
    width: Annotated[float, typer.Option(min=0.01, max=1, help="ablations: scale of every layer's width.")] = 1.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value: change every recipe. Repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs. Default: the recipes'.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each net.")] = 3,
    device: DeviceOption = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the network's arithmetic.")] = Precision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run one of the paper's experiments, from data to table and figure. If you stop it, the same command resumes.

    figure-1 and ablations train networks; figures 3 and 4 and the tables use models that are already trained.

    Example: alexnet reproduce figure-1 --data cifar10
    """
    from alexnet_cli.experiments import reproduction
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.training.trainer import Options

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
        options=Options(devices=(pick_device(device),), precision=precision.value),
        command=shlex.join(["alexnet", *sys.argv[1:]]),
    )
    experiment = reproduction.EXPERIMENTS[name.value]
    experiment.check(name.value, _options_given(context) - {"--out", "--workspace", "--json"}, request)
    folder = out or workspace / "reproduced" / name.value
    console.note(f"reproducing {name.value} into {folder}")
    with contextlib.closing(console):
        report = experiment.run(space, request, folder, console)
    if as_json:
        show_json({"experiment": report.name, "folder": str(folder), "rows": report.rows, "facts": report.facts})
    else:
        show_table(report.title, report.columns, report.rows, report.note)
        show(f"Written to {folder}: {', '.join(['table.md', 'table.json', 'recipes/', *report.figures])}")


def _options_given(context: typer.Context) -> set[str]:
    """The options in the command line."""
    sources = {param.opts[0]: context.get_parameter_source(str(param.name)) for param in context.command.params}
    return {
        name for name, source in sources.items() if name.startswith("--") and source and source.name == "COMMANDLINE"
    }
