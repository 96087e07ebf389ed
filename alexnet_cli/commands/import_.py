"""`alexnet import`."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import CARD_FILE, RECIPE_FILE
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption, name_of, next_index, write_onnx
from alexnet_cli.console import Console, show, show_json
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import LOCK_FILE, is_temporary, one_writer
from alexnet_cli.workspace import Workspace


def import_weights(
    source: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="A .pth, .safetensors, .caffemodel or .onnx file; `torchvision` (its AlexNet) and `vgg-16` download "
            "torchvision's weights.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model. Default: the name of WEIGHTS.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="A dataset, or a text file with one class per line. Default for 1000 classes: ImageNet's.",
        ),
    ] = None,
    mean: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .binaryproto mean image. Default: Caffe's mean colour.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="caffenet or caffe-alexnet, if the file does not tell.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Import weights trained elsewhere.

    Makes a model from the weights of torchvision's AlexNet or VGG-16, Caffe's AlexNet or CaffeNet, or the ONNX zoo's
    AlexNet.

    Example: alexnet import bvlc_alexnet.caffemodel
    """
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.importing.model import import_model, read_classes
    from alexnet_cli.nets.network import parameter_count

    console, space = Console(), Workspace(workspace)
    folder = space.new("model", out or Path(source).stem)
    _check_free(folder)
    labels, words = None, dict[str, str]()
    if classes is not None and Path(classes).is_file():
        labels = read_classes(Path(classes))
    elif classes is not None:
        dataset = Dataset.open(space.find("dataset", classes))
        labels, words = dataset.classes, dataset.words
    console.note(f"importing {source} into {folder}")
    model = import_model(source, recipe=recipe, classes=labels, words=words, mean=mean, progress=console)
    with one_writer(folder, "model"):
        _check_free(folder)
        model.save(folder)
    write_onnx(folder, space)
    parameters = parameter_count(model.net)
    if as_json:
        facts = {"model": folder.name, "path": str(folder), "recipe": model.recipe.name, "parameters": parameters}
        show_json(facts | {"classes": len(model.classes), "fingerprint": model.fingerprint})
        return
    show(f"imported {folder}: recipe {model.recipe.name}, {parameters:,} parameters, {len(model.classes):,} classes")
    show(next_index(name_of(folder, "model", space), model.recipe.image.size, space))


def _check_free(folder: Path) -> None:
    """Raises BadArtefact if ``folder`` holds more than an import leaves that was killed while it wrote."""
    ours = (RECIPE_FILE, CARD_FILE, LOCK_FILE)
    if folder.exists() and not all(file.name in ours or is_temporary(file) for file in folder.iterdir()):
        raise BadArtefact(f"{folder} exists: choose another name with --out")
