"""`alexnet recipes`."""

from typing import Annotated

import typer

from alexnet_cli.commands import completion
from alexnet_cli.commands.common import JsonOption
from alexnet_cli.console import show, show_json, show_table
from alexnet_cli.recipes import names


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A recipe to show, or a .toml file. Default: all.", autocompletion=completion.recipes
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes, or show one.

    NAME shows every value of a recipe, its number of parameters, its published error, what `paper` has where the two
    differ, and the table of its layers. What it prints is a recipe, which `alexnet train --recipe FILE.toml` takes.

    Example: alexnet recipes small-data
    """
    from alexnet_cli import recipe
    from alexnet_cli.commands.described import layer_lines
    from alexnet_cli.describe import layers_of

    if name is not None:
        layers = layers_of(recipe.load(name), 1000)
        if as_json:
            show_json(recipe.summary(name) | {"layers": layers})
            return
        show(recipe.annotated(name))
        show("\n".join(f"# {line}" for line in layer_lines(layers)))
        return
    summaries = [recipe.summary(each) for each in names()]
    if as_json:
        show_json({"recipes": summaries})
        return
    rows = [[each["name"], f"{each['parameters']:,}", each["description"]] for each in summaries]
    show_table("", ["recipe", "parameters", "what it is"], rows, note="parameters for 1,000 classes")
