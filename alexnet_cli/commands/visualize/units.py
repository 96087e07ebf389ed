"""`alexnet visualize units`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import model_name
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.commands.visualize import (
    NetworkOption,
    OutOption,
    SizeOption,
    TrainedOnOption,
    figure_file,
    find_model,
    show_files,
)
from alexnet_cli.console import Console
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace, path_of


def units(
    layer: Annotated[str | None, typer.Option(metavar="LAYER", help="A layer with maps. Default: the last.")] = None,
    unit: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="A unit to draw, may be repeated. Default: those that respond most."),
    ] = None,
    ascent: Annotated[
        bool, typer.Option("--ascent", help="Beside them an input that excites the unit, found by gradient ascent.")
    ] = False,
    data: TrainedOnOption = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="The split of the dataset.")] = "train",
    model: NetworkOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw what excites the units of a layer most.

    For each unit, which is a kernel with its map, the nine patches of a dataset with the strongest responses: one a
    picture, cut to what the unit sees, with the response after ReLU and before norm and pooling. The patches of all
    layers are found in one pass over the dataset and kept with the model, until one of the two changes. With --ascent,
    beside them stands an input that excites the unit, kept smooth by an L2 pull, jitter and blur.

    Example: alexnet visualize units --layer conv5
    """
    import alexnet_cli as alexnet
    from alexnet_cli.opening import open_network
    from alexnet_cli.visualization.ascent import ascend
    from alexnet_cli.visualization.strongest import map_layers, units_of
    from alexnet_cli.visualization.units import draw_units, shown_units

    space = Workspace(workspace)
    folder = find_model(space, model)
    dataset, network = alexnet.open_dataset(space.dataset_of(folder, data, of_its_classes=False)), open_network(folder)
    images = dataset.split(split)
    with closing(Console()) as console:
        console.note(f"the strongest patches in the {split} pictures of {path_of(dataset.path)}")
        found = units_of(folder, network, dataset, split, layer or list(map_layers(network))[-1], console)
        kernels = len(found.rows)
        if unit and not 0 <= min(unit) <= max(unit) < kernels:
            raise AlexNetError(f"{found.layer} has the units 0 to {kernels - 1}")
        shown = unit or shown_units(found, size, with_ascents=ascent)
        path = figure_file(out or Path(f"units-{found.layer}.png"))
        ascents = ascend(network, found.layer, shown, progress=console) if ascent else None
        draw_units(found, shown, images, path, size, ascents, model=model_name(folder))
    facts: dict[str, object] = {
        "model": str(folder),
        "dataset": str(dataset.path),
        "split": split,
        "layer": found.layer,
        "field": found.field,
        "units": [
            {
                "unit": each,
                "column": found.column(each),
                "patches": [
                    {"row": row, "path": images.names[row], "response": response, "place": place}
                    for row, response, place in zip(
                        *(array[each].tolist() for array in (found.rows, found.responses, found.places)), strict=True
                    )
                    if row >= 0
                ],
            }
            for each in shown
        ],
    }
    if ascents:
        facts["ascent"] = {"started": ascents.started.tolist(), "responses": ascents.responses.tolist()}
    show_files([path], as_json=as_json, facts=facts)
