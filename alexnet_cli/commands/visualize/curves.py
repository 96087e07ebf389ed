"""`alexnet visualize curves`."""

import json
from pathlib import Path

from alexnet_cli.artefacts import HISTORY_FILE, model_header, model_name
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.commands.visualize import NetworkOption, OutOption, SizeOption, figure_file, find_model, show_files
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


def curves(
    model: NetworkOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw the learning curves of a model.

    Loss, training and validation error, and learning rate against epochs, as in its curves.png, for a projector or as
    SVG.

    Example: alexnet visualize curves --size slide
    """
    from alexnet_cli.training.curves import draw_curves, read_history

    folder = find_model(Workspace(workspace), model)
    if not (folder / HISTORY_FILE).exists():
        raise AlexNetError(f"{folder} has no {HISTORY_FILE}: only a model that was trained here has learning curves")
    chance = 1 - 1 / len(json.loads(model_header(folder)["classes"]))
    path = figure_file(out or Path("curves.png"))
    draw_curves(read_history(folder), path, size, title=model_name(folder), chance=chance)
    show_files([path], as_json=as_json, facts={"model": str(folder)})
