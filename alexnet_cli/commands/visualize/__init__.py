"""`alexnet visualize`: a module for each kind of picture, and the options that they share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import output_file
from alexnet_cli.console import Console, show, show_json
from alexnet_cli.errors import AlexNetError, BadPicture
from alexnet_cli.figures.canvas import SUFFIXES, Size
from alexnet_cli.outputs import check_output
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
    import numpy as np


NetworkOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Name or path of a model. Default: the newest.",
        autocompletion=completion.models,
    ),
]
TrainedOnOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATASET",
        help="Name or path of a dataset. Default: the one that the model was trained on.",
        autocompletion=completion.datasets,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The figure, a .png or .svg file. Default: its name here.",
        callback=output_file("a figure", *SUFFIXES),
    ),
]
SizeOption = Annotated[Size, typer.Option(metavar="<page|slide>", help="slide: 16:9, with letters for a projector.")]
PictureArgument = Annotated[str, typer.Argument(metavar="PICTURE", help="The file of a picture.")]


def figure_file(path: Path) -> Path:
    """``path``, a figure to draw. Raises AlexNetError if there is a picture that was not drawn here."""
    check_output(path, "a figure", SUFFIXES)
    return path


def find_model(space: Workspace, model: str | None) -> Path:
    """The folder of the model that is named, or of the newest, and tell which. Raises BadArtefact if there is none."""
    if model is not None and model.endswith(".onnx"):
        raise AlexNetError(f"{model} has no layers to look into: name the folder of its model")
    folder = space.find("model", model)
    Console().note(f"drawing of model {path_of(folder)}")
    return folder


def open_picture(picture: str, size: int) -> "np.ndarray":
    """The central square of the file ``picture``, (size, size, 3) uint8. Raises BadPicture, which names the file."""
    from alexnet_cli.data.pictures import load_picture

    try:
        return load_picture(Path(picture), size)
    except BadPicture as error:
        raise BadPicture(f"{picture}: {error}") from None


def show_files(files: list[Path], *, as_json: bool, facts: dict[str, object] | None = None, said: str = "") -> None:
    """Tells which ``files`` were drawn, and in words or as JSON what was measured."""
    if as_json:
        show_json({"files": [str(file) for file in files]} | (facts or {}))
        return
    for file in files:
        show(f"wrote {file}")
    if said:
        show(said)
