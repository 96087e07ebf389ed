"""The recipes that come with the package; `alexnet_cli.recipe` reads them."""

from importlib import resources

FOLDER = resources.files("alexnet_cli") / "recipes"


def names() -> list[str]:
    """Their names, `paper` first."""
    found = [file.name.removesuffix(".toml") for file in FOLDER.iterdir() if file.name.endswith(".toml")]
    return sorted(found, key=lambda name: (name != "paper", name))
