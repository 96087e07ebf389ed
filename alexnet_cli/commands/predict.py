"""`alexnet predict`."""

from typing import Any

from alexnet_cli.commands.common import HERE, Failures, JsonOption, ModelOption, PicturesArgument, WorkspaceOption
from alexnet_cli.console import Console, show_json, show_table
from alexnet_cli.workspace import Workspace


def predict(
    pictures: PicturesArgument,
    model: ModelOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Predict the classes of pictures.

    Prints the five most probable classes of each picture. A picture that cannot be read does not stop the others.

    Example: alexnet predict image.jpg
    """
    import alexnet_cli as alexnet
    from alexnet_cli.inference.predictor import BATCH
    from alexnet_cli.prefetch import batched

    console, space = Console(), Workspace(workspace)
    path = space.find_classifier(model)
    console.note(f"predicting with model {path}")
    predictor = alexnet.open_model(path, pictures=len(pictures), datasets=space.all("dataset"), progress=console)
    failures, predictions = Failures(len(pictures), console), list[dict[str, Any]]()
    for some in batched(failures.without(predictor.predict_each(pictures)), BATCH):
        if as_json:
            predictions += [{"path": image, "classes": [vars(best) for best in classes]} for image, classes in some]
            continue
        rows = [
            ["" if i else image, best.name, f"{100 * best.probability:.1f} %"]
            for image, classes in some
            for i, best in enumerate(classes)
        ]
        show_table("", ["picture", "class", "probability"], rows)
    if as_json:
        show_json({"model": predictor.name, "predictions": predictions, "failed": failures.failed})
    failures.check()
