"""`alexnet recipes`."""

from alexnet_cli.commands.common import JsonOption
from alexnet_cli.console import show, show_json


def recipes(as_json: JsonOption = False) -> None:
    """List the recipes and how they differ.

    Shows the lines in which each recipe differs from `paper`, its number of parameters and its published error.

    Example: alexnet recipes
    """
    from alexnet_cli import recipe

    summaries = recipe.summaries()
    if as_json:
        show_json(summaries)
        return
    for summary in summaries:
        parameters = f"{summary['parameters']:,} parameters for 1000 classes"
        show(f"{summary['name']}: {summary['description']}  ({parameters})")
        if summary["published"]:
            show(f"    published: {recipe.published_line(summary['published'])}")
        for key, value in summary["differs"].items():
            show(f"    {key} = {value}")
