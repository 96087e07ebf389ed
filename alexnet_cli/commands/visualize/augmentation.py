"""`alexnet visualize augmentation`."""

from contextlib import closing
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
    TrainedOnOption,
    figure_file,
    find_model,
    open_picture,
    show_files,
)
from alexnet_cli.console import Console
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace, path_of


def augmentation(
    picture: PictureArgument,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed draws other views.")] = 0,
    model: NetworkOption = None,
    data: TrainedOnOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw random training views of a picture.

    What the recipe of the model lists is drawn as in its training: crops, reflections, colour noise and what else there
    is. The colours come from the dataset that it was trained on or, if that is not in the workspace, the newest; --data
    names another.

    Example: alexnet visualize augmentation photo.jpg
    """
    import alexnet_cli as alexnet
    from alexnet_cli.model import Model
    from alexnet_cli.visualization import augmentation as shown

    space, path = Workspace(workspace), figure_file(out or Path("augmentation.png"))
    folder = find_model(space, model)
    dataset = alexnet.open_dataset(space.dataset_of(folder, data, of_its_classes=False))
    with closing(Console()) as console:
        console.note(f"with the colours of {path_of(dataset.path)}")
    loaded, statistics = Model.load(folder), dataset.statistics()
    pixels = open_picture(picture, loaded.recipe.image.size)
    views = shown.training_views(loaded, statistics, pixels, shown.VIEWS[size], seed)
    shown.draw_training_views(views, pixels, path, size, model=model_name(folder))
    facts: dict[str, object] = {
        "model": str(folder),
        "views": [
            {
                "top": top,
                "left": left,
                "reflected": reflected,
                "shift": [round(float(each), 2) for each in shift],
                "drawn": [word for word in words if word],
            }
            for (top, left), reflected, shift, words in zip(
                views.corners, views.reflected, views.shifts, views.words, strict=True
            )
        ],
    }
    show_files([path], as_json=as_json, facts=facts)
