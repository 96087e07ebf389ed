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

    NAME shows every value of a recipe, its number of parameters, its published error, and what `paper` has where the
    two differ. What it prints is a recipe, which `alexnet train --recipe FILE.toml` takes.

    Example: alexnet recipes small-data
    """
    from alexnet_cli import recipe

    if name is not None:
        show_json(recipe.summary(name)) if as_json else show(recipe.annotated(name).rstrip())
        return
    summaries = [recipe.summary(each) for each in names()]
    if as_json:
        show_json({"recipes": summaries})
        return
    rows = [[each["name"], f"{each['parameters']:,}", each["description"]] for each in summaries]
    show_table("", ["recipe", "parameters", "what it is"], rows, note="parameters for 1,000 classes")
