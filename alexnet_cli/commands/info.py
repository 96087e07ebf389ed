"""`alexnet info`."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption, command_line
from alexnet_cli.console import Console, show, show_json, show_table
from alexnet_cli.workspace import Workspace


def info(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH",
            help="Name or path of a dataset, model, run, index or .onnx file. Default: list the workspace.",
            autocompletion=completion.artefacts,
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all of it and compare it with its checksums.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Describe a dataset, a model or an index.

    Shows what it holds and where it came from, and of a model its layers: connections are multiply-adds for one
    picture, and field is the side of what a unit sees of the picture, in pixels. Without PATH, lists what is in the
    workspace. PATH may also be an .onnx file, or a run that has no model yet: how far it has come, and the command that
    resumes it. Of a model, --verify says which files have no checksum.

    Example: alexnet info models/photos-small-data
    """
    from alexnet_cli.commands.described import in_words, layer_lines
    from alexnet_cli.describe import contents, describe, find
    from alexnet_cli.verify import verify_artefact

    space = Workspace(workspace)
    if path is None:
        if verify:
            raise typer.BadParameter("--verify needs a PATH: what to verify")
        _list(contents(space), space, as_json)
        return
    kind, found = find(space, path)
    facts = describe(kind, found)
    if kind == "run":
        facts["resume"] = space.to_resume(found)
    if facts.get("missing"):
        facts["mend"] = space.to_mend(found, Path(facts["source"]))
    if verify:
        facts["verified"] = verify_artefact(kind, found, Console())
    if as_json:
        show_json(facts)
        return
    verified = [("verified", _shortened(facts["verified"]))] if verify else []
    show_table("", ["", path], [*map(list, in_words(facts)), *map(list, verified)])
    for line in layer_lines(facts["layers"]) if "layers" in facts else []:
        show(line)


def _list(artefacts: list[dict[str, str]], space: Workspace, as_json: bool) -> None:
    """Shows what is in the workspace."""
    if as_json:
        show_json({"workspace": str(space.root), "artefacts": artefacts})
    elif artefacts:
        show_table("", ["", "name", ""], [[one["kind"], one["name"], one["what"]] for one in artefacts])
    else:
        fetch, pack = (
            command_line(*words, workspace=space.root) for words in (["import", "torchvision"], ["prep", "FOLDER"])
        )
        show(f"nothing in {space.root} yet: begin with `{fetch}`, to train with `{pack}`, or with `alexnet demo`")


def _shortened(value: object) -> str:
    """A table's cell: of a long list, the first ten."""
    if isinstance(value, list):
        first = ", ".join(map(str, value[:10]))
        return first if len(value) <= 10 else f"{first} ... ({len(value):,})"
    return str(value)
