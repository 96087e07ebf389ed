"""`alexnet visualize views`."""

from pathlib import Path

from alexnet_cli.commands.common import HERE, JsonOption, ModelOption, WorkspaceOption
from alexnet_cli.commands.visualize import OutOption, PictureArgument, SizeOption, figure_file, open_picture, show_files
from alexnet_cli.console import Console
from alexnet_cli.figures.canvas import Size
from alexnet_cli.workspace import Workspace, path_of


def views(
    picture: PictureArgument,
    model: ModelOption = None,
    out: OutOption = None,
    size: SizeOption = Size.page,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw the ten views of a picture and how each votes.

    The views are the four corners, the centre, and their reflections. Their probabilities are averaged, as
    `alexnet eval` and `alexnet predict --views 10` do.

    Example: alexnet visualize views photo.jpg
    """
    import alexnet_cli as alexnet
    from alexnet_cli.visualization.views import draw_votes, votes_of

    space, path, console = Workspace(workspace), figure_file(out or Path("views.png")), Console()
    found = space.find_classifier(model)
    console.note(f"drawing of model {path_of(found)}")
    predictor = alexnet.open_model(found, pictures=1, datasets=space.all("dataset"), progress=console)
    pixels = open_picture(picture, predictor.image_size)
    votes = votes_of(predictor, pixels)
    draw_votes(votes, pixels, path, size, model=predictor.name)
    said = ", ".join(f"{each.name} {each.probability:.0%}" for each in votes.answer[:3])
    classes = [{"label": each.label, "name": each.name, "probability": each.probability} for each in votes.answer]
    facts: dict[str, object] = {"model": predictor.name, "agreeing": votes.agreeing, "classes": classes}
    show_files(
        [path], as_json=as_json, facts=facts, said=f"ten views: {said}; {votes.agreeing} of 10 views vote for the first"
    )
