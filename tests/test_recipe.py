"""Recipes: bases and differences, settings, and what is said of a word that is not known."""

from dataclasses import replace

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadRecipe


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is_and_survives_writing(name):
    recipe = recipes.load(name)
    assert recipe.says
    assert recipes.loads(recipes.dumps(recipe)) == recipe


def test_paper_comes_first():
    assert recipes.names()[0] == "paper"


def test_a_recipe_is_its_base_and_the_lines_that_differ(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "paper"\nsays = "mine"\n[conv1]\nresponse_norm = false\n')
    recipe, paper = recipes.load(tmp_path / "mine.toml"), recipes.load("paper")
    assert recipe.name == "mine"
    assert recipes.differences(recipe, paper) == {"conv1.response_norm": False}
    assert replace(recipe, name="paper", says=paper.says, layers=paper.layers) == paper


def test_settings_stand_above_the_recipe():
    recipe = recipes.load("paper", ["training.batch=64", "conv1.weights=he", "network.columns = 1"])
    assert (recipe.training.batch, recipe.layers["conv1"].weights, recipe.network.columns) == (64, "he", 1)
    assert recipes.adjust(recipe, ["training.batch=32"]).training.batch == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.bach=64"], "unknown recipe key 'training.bach': did you mean 'training.batch'?"),
        (["trainin.batch=64"], "unknown section 'trainin': did you mean 'training'?"),
        (["batch=64"], "--set batch=64: write section.key=value, for example training.batch=64"),
        (["training.batch=many"], 'training.batch = "many" does not fit: it takes a whole number'),
        (["training.batch=0"], "training.batch must be at least 1"),
        (["training.schedule=cosine"], 'training.schedule = "cosine" does not fit: it takes "plateau" or "linear"'),
        (["conv1.weights=she"], 'conv1.weights = "she" does not fit: it takes a number or "he"'),
        (["image.crop=300"], "image.crop must be between 1 and image.size"),
        (["conv2.kernels=255"], "conv2 must have a positive number of kernels or units that 2 columns can share"),
        (['network.layers=["conv1", "conv9", "fc8"]'], "network.layers names 'conv9', but there is no section [conv9]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings, message):
    with pytest.raises(BadRecipe) as error:
        recipes.load("paper", settings)
    assert str(error.value) == message


def test_unknown_and_unreadable_recipes(tmp_path):
    with pytest.raises(
        BadRecipe, match=r"^unknown recipe 'papr': did you mean 'paper'\?; a file's name ends in .toml$"
    ):
        recipes.load("papr")
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        recipes.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("base = ")
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        recipes.load(tmp_path / "bad.toml")
    (tmp_path / "typo.toml").write_text('base = "paper"\n[trainning]\nbatch = 1\n')
    with pytest.raises(BadRecipe, match="unknown recipe key 'trainning': did you mean 'training'"):
        recipes.load(tmp_path / "typo.toml")
