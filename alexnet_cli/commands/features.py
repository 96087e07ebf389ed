"""`alexnet features`."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands.common import (
    HERE,
    PICTURES,
    Failures,
    JsonOption,
    ModelOption,
    WorkspaceOption,
    inputs_of,
    output_file,
    with_progress,
)
from alexnet_cli.console import Console, show, show_json
from alexnet_cli.errors import AlexNetError
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from alexnet_cli.data.store import Split


def features(
    pictures: Annotated[list[str] | None, PICTURES] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A .npy file, with the pictures' names in a .txt file, or a .csv file.",
            callback=output_file("a file of features", ".npy", ".csv"),
        ),
    ] = Path("features.npy"),
    layer: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="The layer whose outputs are written. Default: the last hidden one."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATASET", help="A dataset, whose pictures are taken in its order.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="The split of the dataset.")] = "train",
    model: ModelOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write the features of pictures.

    It gets a row of float32 for each picture that can be read: the outputs of the last hidden layer, or what leaves
    another layer after its ReLU, norm and pooling, (C, H, W) in a .npy file. A picture that cannot be read does not
    stop the others.

    Example: alexnet features photos/ --out photos.npy
    """
    import alexnet_cli as alexnet
    from alexnet_cli.data.inputs import Inputs
    from alexnet_cli.inference.features import names_file, writing_features

    if bool(pictures) == bool(data):
        raise typer.BadParameter("name pictures, or a dataset with --data")
    console, space = Console(), Workspace(workspace)
    if data is None:
        packed, inputs = None, inputs_of(pictures or [])
    else:
        packed = alexnet.open_dataset(space.find("dataset", data)).split(split)
        inputs = Inputs(pictures=packed.names, empty=[])
    path = space.find_classifier(model)
    console.note(f"features of model {path}")
    predictor = alexnet.open_model(
        path,
        backend="onnx" if layer is None else "torch",
        pictures=len(inputs),
        datasets=space.all("dataset"),
        progress=console,
    )
    if packed is not None and packed.size != predictor.image_size:
        raise AlexNetError(
            f"the model takes pictures of {predictor.image_size} pixels, dataset {data} has {packed.size}: "
            f"prep it with --size {predictor.image_size}"
        )
    chosen, failures, count = layer or predictor.feature_name, Failures(inputs, console), 0
    answers = predictor.answer_each(
        inputs.pictures if packed is None else _images(packed), lambda images: predictor.activations(images, chosen)
    )
    named = zip(inputs.pictures, (answer for _, answer in answers), strict=True)
    rows = failures.without(with_progress(named, "embedding", len(inputs.pictures), console))
    for first in itertools.islice(rows, 1):  # which knows the shape
        with writing_features(out, chosen, first[1].shape) as write:
            for name, row in itertools.chain([first], rows):
                write(name, row)
                count += 1
    if as_json:
        facts = {"model": predictor.name, "layer": chosen, "file": str(out), "pictures": count}
        show_json(facts | failures.as_json())
    elif count:
        names = f", their names in {names_file(out)}" if out.suffix == ".npy" else ""
        show(f"wrote {out}: {chosen} of {counted(count, 'picture')}{names}")
    failures.check()


def _images(split: "Split") -> "Iterator[np.ndarray]":
    """The images of ``split`` in its order, (S, S, 3) each, read a batch at a time."""
    import numpy as np

    from alexnet_cli.inference.predictor import BATCH

    for start in range(0, len(split), BATCH):
        yield from split.read(np.arange(start, min(start + BATCH, len(split))))
