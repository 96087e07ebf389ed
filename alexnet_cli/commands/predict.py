"""`alexnet predict`."""

from alexnet_cli.commands.common import HERE, JsonOption, ModelOption, PicturesArgument, WorkspaceOption
from alexnet_cli.console import Console, show_json, show_table
from alexnet_cli.workspace import Workspace


def predict(
    pictures: PicturesArgument,
    model: ModelOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Predict the classes of pictures.

    Prints the five most probable classes of each picture.

    Example: alexnet predict image.jpg
    """
    import alexnet_cli as alexnet

    console, space = Console(), Workspace(workspace)
    path = space.find_classifier(model)
    predictor = alexnet.open_model(path, pictures=len(pictures), datasets=space.all("dataset"), progress=console)
    found = list(zip(map(str, pictures), predictor.predict(pictures), strict=True))
    if as_json:
        predictions = [{"path": image, "classes": [vars(best) for best in classes]} for image, classes in found]
        show_json({"model": predictor.name, "predictions": predictions})
        return
    rows = [
        ["" if i else image, best.name, f"{100 * best.probability:.1f} %"]
        for image, classes in found
        for i, best in enumerate(classes)
    ]
    show_table("", ["picture", "class", "probability"], rows)
