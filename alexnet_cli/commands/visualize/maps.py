"""`alexnet visualize maps`."""

from pathlib import Path
from typing import Annotated

import typer

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
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace


def maps(
    picture: PictureArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="A layer to draw large, and step by step; may be given several times."),
    ] = None,
    strongest: Annotated[
        bool, typer.Option("--strongest", help="The strongest maps first, by the mean of their activations.")
    ] = False,
    model: NetworkOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw what each layer makes of a picture.

    Without --layer, all layers in one figure, maps.png. For a layer that is named, two: maps-conv1.png has every map,
    by column; maps-conv1-steps.png has the strongest maps after each step, so before and after response norm and
    pooling.

    Example: alexnet visualize maps photo.jpg --layer conv1
    """
    from alexnet_cli.opening import open_network
    from alexnet_cli.visualization import maps as shown

    network = open_network(find_model(Workspace(workspace), model))
    seen = shown.activations_of(network, open_picture(picture, network.image_size))
    layers, path, files = list(dict.fromkeys(layer or [])), out or Path("maps.png"), []
    for name in layers:
        seen.check(name)  # before any figure is drawn
    if not layers:
        shown.draw_overview(seen, figure_file(path), size, strongest=strongest, model=network.name)
        files.append(path)
    for name in layers:
        file = figure_file(path if out and len(layers) == 1 else path.with_stem(f"{path.stem}-{name}"))
        steps = figure_file(file.with_stem(f"{file.stem}-steps"))
        shown.draw_layer(seen, name, file, size, strongest=strongest, model=network.name)
        shown.draw_steps(seen, name, steps, size, model=network.name)
        files += [file, steps]
    show_files(files, as_json=as_json, facts={"model": network.name})
