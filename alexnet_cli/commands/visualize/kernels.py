"""`alexnet visualize kernels`."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import model_name
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.commands.visualize import NetworkOption, OutOption, SizeOption, figure_file, find_model, show_files
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


def kernels(
    over_time: Annotated[
        bool, typer.Option("--over-time", help="How they grew, from the epochs that a training kept.")
    ] = False,
    model: NetworkOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw the kernels of the first layer.

    As in figure 3: a block for each column. Structure is the share of a kernel's energy at its strongest spatial
    frequency: 1 for a plain wave, little for a random kernel. Saturation is the share that is colour.

    Example: alexnet visualize kernels --over-time
    """
    from alexnet_cli.model import Model
    from alexnet_cli.visualization import kernels as shown

    folder = find_model(Workspace(workspace), model)
    columns = shown.kernels_of(Model.load(folder))
    path = figure_file(out or Path("kernels-over-time.png" if over_time else "kernels.png"))
    if over_time:
        growth = shown.growth_of(folder, columns)
        if not growth.epochs:
            raise AlexNetError(f"{folder} kept no kernels of its epochs: only a model that was trained here has them")
        shown.draw_growth(growth, path, size, model=model_name(folder))
    else:
        shown.draw_kernels(columns, path, size, model=model_name(folder))
    means, chance = (
        [float(shown.structure(each).mean()) for each in columns],
        shown.structure_by_chance(columns[0].shape[1:]),
    )
    said = f"structure: {' and '.join(f'{mean:.2f}' for mean in means)} (random kernels: {chance:.2f})"
    facts: dict[str, object] = {"model": str(folder), "structure": means, "structure_of_random_kernels": chance}
    show_files([path], as_json=as_json, facts=facts, said=said)
