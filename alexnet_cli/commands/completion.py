"""What a shell completes: names of recipes, and of what is in the workspace."""

from pathlib import Path

import typer

from alexnet_cli.recipes import names
from alexnet_cli.workspace import HOMES, Workspace


def recipes(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    return [name for name in names() if name.startswith(incomplete)]


def datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets, newest first, as are those below."""
    return _artefacts("dataset", context, incomplete)


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Models."""
    return _artefacts("model", context, incomplete)


def indexes(context: typer.Context, incomplete: str) -> list[str]:
    """Indexes."""
    return _artefacts("index", context, incomplete)


def artefacts(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets, models and indexes."""
    return [name for kind in HOMES for name in _artefacts(kind, context, incomplete)]


def _artefacts(kind: str, context: typer.Context, incomplete: str) -> list[str]:
    """Names of a kind in the workspace of the command line, if that stands before."""
    space = Workspace(Path(context.params.get("workspace") or "."))
    return [path.name for path in space.all(kind) if path.name.startswith(incomplete)]
