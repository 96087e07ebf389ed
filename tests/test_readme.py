"""The recipe in the README: it loads, and differs from the paper where the README says."""

import re
from pathlib import Path

from alexnet_cli import recipe as recipes
from alexnet_cli.nets.operations import OPERATIONS

README = Path(__file__).parent.parent / "README.md"


def test_the_recipe_in_the_readme_loads_and_builds(tmp_path):
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "mine.toml").write_text(block, encoding="utf-8")
    recipe = recipes.load(tmp_path / "mine.toml")
    steps = {step for layer in recipe.network.layers.values() for step in layer.then}
    assert steps == {"batch_norm", "relu", "pooling", "last_pooling", "dropout"}
    assert recipe.network.operations["last_pooling"].type == "average_pool"
    assert list(recipe.augmentations) == ["random_crop", "reflection"]
    norms = [module for module in recipe.build(10).modules() if type(module).__name__ == "BatchNorm2d"]
    assert len(norms) == 4  # one per column after conv1, and one per column after conv2


def test_the_readme_names_every_operation():
    (row,) = [line for line in README.read_text(encoding="utf-8").splitlines() if "| `type` of an operation |" in line]
    assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == set(OPERATIONS)
