"""`alexnet visualize saliency`."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import model_name
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.commands.visualize import (
    NetworkOption,
    OutOption,
    PictureArgument,
    SizeOption,
    figure_file,
    find_model,
    open_picture,
    show_files,
)
from alexnet_cli.console import Console, percent
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


def saliency(
    picture: PictureArgument,
    wanted: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Label or name of a class. Default: the most probable one."),
    ] = None,
    model: NetworkOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw which parts of a picture speak for a class.

    Three maps over the picture. Occlusion: the probability of the class while a square of the mean image hides a part.
    Gradient: how much the class's logit, its value before the softmax, changes with each pixel. Class activation: the
    maps of the last convolutional layer, weighted by their gradients (Grad-CAM).

    Example: alexnet visualize saliency dog.jpg --class pug
    """
    import alexnet_cli as alexnet
    from alexnet_cli.opening import open_network
    from alexnet_cli.visualization import saliency as shown
    from alexnet_cli.visualization.occlusion import POSITIONS

    space, console = Workspace(workspace), Console()
    folder, path = find_model(space, model), figure_file(out or Path("saliency.png"))
    network = open_network(folder)
    image = open_picture(picture, network.image_size)
    predictor = alexnet.open_model(folder, pictures=POSITIONS**2, datasets=space.all("dataset"), progress=console)
    told = shown.saliency(network, predictor, image, wanted)
    shown.draw_saliency(told, path, size, model=model_name(folder))
    least = float(told.occlusion.min())
    said = f"{shown.title_of(told)}; with the square where that matters most: {percent(least)}"
    facts: dict[str, object] = {
        "model": str(folder),
        "picture": picture,
        "class": vars(told.shown),
        "most_probable": vars(told.best),
        "least_probability_occluded": least,
    }
    show_files([path], as_json=as_json, facts=facts, said=said)
