"""`alexnet import`."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption
from alexnet_cli.console import Console, show, show_json
from alexnet_cli.errors import BadArtefact
from alexnet_cli.workspace import Workspace


def import_weights(
    source: Annotated[
        str, typer.Argument(help="A .pth, .safetensors, .caffemodel or .onnx file, or the word torchvision.")
    ],
    out: Annotated[str | None, typer.Option(help="Name of the model. Default: the name of SOURCE.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="A dataset, or a text file with one class per line. Default for 1000 classes: ImageNet's."),
    ] = None,
    mean: Annotated[Path | None, typer.Option(help="A .binaryproto mean image. Default: Caffe's mean colour.")] = None,
    recipe: Annotated[str | None, typer.Option(help="caffenet or caffe-alexnet, if the file does not tell.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a model from weights trained elsewhere: torchvision's AlexNet, Caffe's AlexNet and CaffeNet, the ONNX zoo's.

    Example: alexnet import bvlc_alexnet.caffemodel --classes ilsvrc
    """
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.importing.model import import_model, read_classes
    from alexnet_cli.nets.alexnet import parameter_count

    console, space = Console(), Workspace(workspace)
    folder = space.home("model") / (out or Path(source).stem)
    if folder.exists():
        raise BadArtefact(f"{folder} exists: choose another name with --out")
    labels = None
    if classes is not None:
        is_file = Path(classes).is_file()
        labels = read_classes(Path(classes)) if is_file else Dataset.open(space.find("dataset", classes)).classes
    console.note(f"importing {source} into {folder}")
    model = import_model(source, recipe=recipe, classes=labels, mean=mean)
    model.save(folder)
    parameters = parameter_count(model.net)
    if as_json:
        facts = {"model": folder.name, "path": str(folder), "recipe": model.recipe.name, "parameters": parameters}
        show_json(facts | {"classes": len(model.classes), "fingerprint": model.fingerprint})
        return
    show(f"imported {folder}: recipe {model.recipe.name}, {parameters:,} parameters, {len(model.classes):,} classes")
    show(f"Next: alexnet export {folder.name}")
