"""Recipes: bases and differences, settings, and what is said of a word that is not known."""

import json
import math
from dataclasses import replace
from typing import get_args, get_origin, get_type_hints

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.augmentations import AUGMENTATIONS
from alexnet_cli.data.preprocess import Image
from alexnet_cli.errors import BadRecipe
from alexnet_cli.nets.layers import LAYERS
from alexnet_cli.nets.operations import OPERATIONS
from alexnet_cli.recipe import Training, _NetworkSection
from alexnet_cli.recipes import names
from alexnet_cli.settings import Within, parse


@pytest.mark.parametrize("name", names())
def test_every_recipe_says_what_it_is_and_survives_writing(name):
    recipe = recipes.load(name)
    assert recipe.description
    assert recipes.loads(recipes.dumps(recipe)) == recipe


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_settings_does_not_matter(order):
    settings = ["brightness.max_delta=20", "bright.max_delta=30", 'bright.type="brightness"']
    settings += ['training.augmentation=["random_crop", "brightness", "bright"]']
    recipe = recipes.load("paper", settings[::order])
    assert [recipe.augmentations[name].max_delta for name in ("brightness", "bright")] == [20, 30]


def test_paper_comes_first():
    assert names()[0] == "paper"


def test_a_recipe_is_its_base_and_the_lines_that_differ(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "paper"\ndescription = "mine"\n[conv1]\nbias = 0.5\n')
    recipe, paper = recipes.load(tmp_path / "mine.toml"), recipes.load("paper")
    assert recipe.name == "mine"
    assert recipes.differences(recipe, paper) == {"conv1.bias": 0.5}
    assert replace(recipe, name="paper", description=paper.description, network=paper.network) == paper


COUNTS = {  # worked out by hand: maps in x size² x kernels + kernels, over all layers
    "paper": 60_965_224,
    "original-2012": 60_965_224,
    "caffe-alexnet": 60_965_224,
    "caffenet": 60_965_224,
    "torchvision": 61_100_840,
    "non-overlapping-pooling": 60_965_224,
    "without-conv5": 60_965_224 - 442_624 + 4096 * 36 * 128,  # 30 % more
    "cnn-star": 60_965_224 + 3 * 3 * 256 * 256 + 256,
    "without-conv4": 60_965_224 - 663_936,
    "no-communication": 60_714_408,  # the log of net 150
}


def test_parameter_counts_and_published_errors():
    described = {name: recipes.summary(name) for name in names()}
    assert {name: described[name]["parameters"] for name in COUNTS} == COUNTS
    assert abs(described["one-gpu"]["parameters"] / COUNTS["paper"] - 1) < 0.02  # about as many, says §3.2
    assert described["original-2012"]["published"]["top1_error"] == 0.4066
    assert described["small-data"]["published"] == {}  # not that of its base


def test_scaled_keeps_whole_kernels_in_every_column():
    layers = recipes.load("paper").scaled(0.13).network.layers
    assert [layer.kernels for layer in list(layers.values())[:5]] == [12, 34, 50, 50, 34]
    assert (layers["fc6"].units, layers["fc8"].units) == (532, "classes")


def test_settings_stand_above_the_recipe():
    recipe = recipes.load("paper", ["training.batch=64", "conv1.weights=he", "network.columns = 1"])
    assert (recipe.training.batch, recipe.network.layers["conv1"].weights, recipe.network.columns) == (64, "he", 1)
    assert recipes.adjust(recipe, ["training.batch=32"]).training.batch == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.bach=64"], "unknown recipe key 'training.bach': did you mean 'training.batch'?"),
        (["trainin.batch=64"], "unknown section 'trainin': did you mean 'training'?"),
        (["batch=64"], "--set batch=64: write section.key=value, for example training.batch=64"),
        (["training.batch=many"], 'training.batch = "many" does not fit: it takes a whole number from 1 to 65536'),
        (["training.batch=0"], "training.batch = 0 does not fit: it takes a whole number from 1 to 65536"),
        (["conv1.input=none"], 'conv1.input = "none" does not fit: it takes "own" or "all"'),
        (['fc6.then=["pooling"]'], "network.layers: fc6 is a dense layer and has no maps for pooling"),
        (['fc6.then=["rely"]'], "fc6.then: unknown name 'rely': did you mean 'relu'?"),
        (
            ["image.mean_crop=central", 'training.augmentation=["reflection", "random_crop"]'],
            'training.augmentation: with image.mean_crop = "central" a random crop must come first',
        ),
        (["training.milestones=25"], "training.milestones = 25 does not fit: it takes a list"),
        (
            ['training.augmentation=["randm_crop"]'],
            "training.augmentation: unknown name 'randm_crop': did you mean 'random_crop'?",
        ),
        (['fc7.then=["relu", "my drop"]'], "fc7.then: 'my drop' cannot be a name: letters, digits, _ and - only"),
        (
            ["training.learning_rate=inf"],
            "training.learning_rate = Infinity does not fit: it takes a number from 1e-30 to 1e+30",
        ),
        (
            ["response_norm.alpha=-1.0"],
            "response_norm.alpha = -1.0 does not fit: it takes a number from 0 to 1000000",
        ),
        (["network.layers=3"], "network.layers = 3 does not fit: it takes a list"),
        (["conv1.then=3"], "conv1.then = 3 does not fit: it takes a list"),
        (["conv1.stride=0"], "conv1.stride = 0 does not fit: it takes a whole number from 1 to 4096"),
        (["conv2.padding=-1"], "conv2.padding = -1 does not fit: it takes a whole number from 0 to 4096"),
        (["training.weight_decay=-0.1"], "training.weight_decay = -0.1 does not fit: it takes a number from 0 to 1"),
        (["conv1.type=conv"], "unknown type in [conv1] 'conv': did you mean 'convolution'?"),
        (
            ['network.layers=["conv 1", "fc8"]'],
            "network.layers: 'conv 1' cannot be a name: letters, digits, _ and - only",
        ),
        (['network.layers=["conv1", "conv1", "fc8"]'], "network.layers names conv1 twice"),
        (
            ['network.layers=["conv1", "fc6", "conv2", "fc8"]'],
            "network.layers: a convolution needs maps, and there are none after a dense layer",
        ),
        (["responsenorm.k=2"], "unknown section 'responsenorm': did you mean 'response_norm'?"),
        (["conv1.weights=she"], 'conv1.weights = "she" does not fit: it takes a number from 0 to 1000 or "he"'),
        (["conv1.weights=-1"], 'conv1.weights = -1 does not fit: it takes a number from 0 to 1000 or "he"'),
        (["conv1.milestones=[5, 0]"], "conv1.milestones = 0 does not fit: it takes a whole number from 1 to 1000000"),
        (["image.size=1000000000"], "image.size = 1000000000 does not fit: it takes a whole number from 1 to 4096"),
        (["fc6.units=true"], 'fc6.units = true does not fit: it takes a whole number from 1 to 65536 or "classes"'),
        (["dropout.p=1"], "dropout.p = 1 does not fit: it takes a number from 0 to 0.999"),
        (
            ["training.epochs=0x" + 5000 * "f"],
            "training.epochs = a number of thousands of digits does not fit: it takes a whole number from 1 to 1000000",
        ),
        (
            ["training.learning_rate=0x" + 5000 * "f"],
            "training.learning_rate = a number of thousands of digits does not fit: "
            "it takes a number from 1e-30 to 1e+30",
        ),
        (["conv1.type=[]"], "unknown type in [conv1] '[]': there are convolution, local, dense"),
        (
            ['training.augmentation=["random_crop", "reflection", "random_crop"]'],
            "training.augmentation names random_crop twice",
        ),
        (["image.crop=300"], "image.crop must be between 1 and image.size"),
        (["conv2.kernels=255"], "network.columns = 2 cannot share the 255 kernels of conv2"),
        (['network.layers=["conv1", "conv9", "fc8"]'], "network.layers names 'conv9', but there is no section [conv9]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings, message):
    with pytest.raises(BadRecipe) as error:
        recipes.load("paper", settings)
    assert str(error.value) == message


def classes_of_a_recipe():
    """Every class that a section can be, by the section's name or its type."""
    found = {"image": Image, "training": Training, "network": _NetworkSection}
    for registry in (LAYERS, OPERATIONS, AUGMENTATIONS):
        found |= registry
    return found.items()


def wrong_numbers():
    """Section, class, key and a wrong number for it: below and above what it takes, of every number of a recipe."""
    for section, cls in classes_of_a_recipe():
        for key, kind in get_type_hints(cls, include_extras=True).items():
            numbers = [kind, *get_args(kind), *(part for one in get_args(kind) for part in get_args(one))]
            if int in numbers or float in numbers:
                (bounds,) = {one for one in numbers if isinstance(one, Within)}  # a number without bounds fails here
                assert bounds.low >= -1000
                assert bounds.high <= 1_000_000 or key in ("learning_rate", "window")
                for value in (bounds.low - 1, bounds.high * 2, math.nan, "many", True, -(10**400), 10**400):
                    yield section, cls, key, [value] if get_origin(kind) is list else value


def test_every_number_of_a_recipe_has_bounds():
    given = {"convolution": {"kernels": 8, "size": 3, "weights": 0.1, "bias": 0, "then": []}}
    given["local"] = {"kernels": 8, "size": 3, "weights": 0.1, "bias": 0, "then": []}
    given["dense"] = {"units": 8, "weights": 0.1, "bias": 0, "then": []}
    given["training"] = {"batch": 1, "momentum": 0, "weight_decay": 0, "learning_rate": 1, "epochs": 1}
    given["training"]["schedule"] = "linear"
    given["max_pool"] = given["average_pool"] = {"size": 2, "stride": 2}
    given["response_norm"] = {"k": 1, "n": 5, "alpha": 1, "beta": 1}
    given["map_norm"] = {"k": 1, "size": 5, "alpha": 1, "beta": 1}
    given |= {"image": {"size": 9, "crop": 9}, "network": {"columns": 1, "layers": []}}
    given |= {"dropout": {"p": 0.5}, "colour_noise": {"deviation": 0.1}}
    tried = set()
    for section, cls, key, value in wrong_numbers():
        table = given.get(section, {})
        parse(section, cls, table)
        with pytest.raises(BadRecipe, match=rf"^{section}\.{key} = .* does not fit: it takes "):
            parse(section, cls, table | {key: value})
        tried.add((section, key))
    assert len(tried) == 71


def test_a_network_of_more_weights_than_memory_is_refused_before_it_is_built():
    recipe = recipes.load("paper", ["fc6.units=65536", "fc7.units=65536"])
    expected = "the network has 4,966,949,224 weights, and 500,000,000 are possible: make fc7 smaller, which has"
    with pytest.raises(BadRecipe, match=expected):
        recipe.build(1000)
    recipe = recipes.load("paper", ["image.size=4096", "image.crop=4096"])
    with pytest.raises(BadRecipe, match=r"weights, and 500,000,000 are possible: make fc6 smaller, which has"):
        recipe.build(1000)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"[conv1",
        b"x = " + 5000 * b"[",
        b"x = " + 5000 * b"9",
        b'base = "paper"\n[conv1]\nstride = 0\n',
        b'base = "paper"\n[[conv1]]\nstride = 2\n',
        b'base = "paper"\nnetwork = 3\n',
        b'base = ["paper"]\n',
        b'base = "paper"\n[network]\nlayers = ["conv1", ["conv2"], "fc8"]\n',
        b'base = "paper"\n[conv1]\nthen = ["relu", 3]\n',
        b'base = "paper"\n[relu]\ntype = {}\n',
        b'base = "paper"\ndescription = 3\n',
    ],
)
def test_no_text_is_more_than_a_recipe_or_one_line(content, tmp_path):
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(BadRecipe) as error:
        recipes.load(tmp_path / "r.toml")
    assert "\n" not in str(error.value)


def test_unknown_and_unreadable_recipes(tmp_path):
    with pytest.raises(BadRecipe, match=r"^unknown recipe 'papr': did you mean 'paper'\?$"):
        recipes.load("papr")
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        recipes.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("base = ")
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        recipes.load(tmp_path / "bad.toml")
    (tmp_path / "typo.toml").write_text('base = "paper"\n[trainning]\nbatch = 1\n')
    with pytest.raises(BadRecipe, match=r"^unknown section 'trainning': did you mean 'training'"):
        recipes.load(tmp_path / "typo.toml")
    (tmp_path / "unused.toml").write_text('base = "paper"\n[conv22]\nkernels = 3\n')
    with pytest.raises(BadRecipe, match=r"^unknown section 'conv22': did you mean 'conv2'"):
        recipes.load(tmp_path / "unused.toml")
    (tmp_path / "key.toml").write_text('base = "paper"\nbananas = 3\n')
    with pytest.raises(BadRecipe, match=r"^unknown recipe key 'bananas'"):
        recipes.load(tmp_path / "key.toml")


def test_a_base_is_relative_to_its_file_and_not_the_recipe_itself(tmp_path):
    (tmp_path / "base.toml").write_text('base = "paper"\n[conv1]\nbias = 0.5\n')
    (tmp_path / "mine.toml").write_text('base = "base.toml"\n[conv2]\nbias = 0.25\n')
    layers = recipes.load(tmp_path / "mine.toml").network.layers
    assert (layers["conv1"].bias, layers["conv2"].bias) == (0.5, 0.25)
    (tmp_path / "base.toml").write_text('base = "mine.toml"\n')
    with pytest.raises(BadRecipe, match=r"^the recipe .*mine.toml is its own base: "):
        recipes.load(tmp_path / "mine.toml")


def test_any_file_name_survives_writing(tmp_path):
    (tmp_path / "😀.toml").write_text('base = "paper"\ndescription = "ünïcode"\n')
    recipe = recipes.load(tmp_path / "😀.toml")
    assert recipes.loads(recipes.dumps(recipe)) == recipe


@pytest.mark.parametrize("name", ["paper", "tiny", "caffe-alexnet"])
def test_the_command_shows_a_recipe_that_can_be_trained(name, tmp_path, capsys):
    assert main(["recipes", name]) == 0
    shown = capsys.readouterr().out
    (tmp_path / f"{name}.toml").write_text(shown)
    assert recipes.load(tmp_path / f"{name}.toml") == recipes.load(name)
    differing = [line for line in shown.splitlines() if "  # paper: " in line or "  # not in paper" in line]
    assert len(differing) == len(recipes.summary(name)["differs"])
    if name == "tiny":
        assert 'schedule = "linear"  # paper: "plateau"' in differing
        assert shown.startswith("# 1,409,480 parameters for 1,000 classes\n# 27 lines of 141 differ from paper\n")
    if name == "caffe-alexnet":
        assert "# published: top-1 error 42.9 %, top-5 error 19.8 % (ILSVRC-2012" in shown
    assert main(["recipes", str(tmp_path / f"{name}.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == {}  # of a file of one's own nothing was published


def test_the_command_refuses_an_unknown_recipe(capsys):
    assert main(["recipes", "papr"]) == 1
    assert capsys.readouterr().err.startswith("error: unknown recipe 'papr': did you mean 'paper'?")


def test_a_recipe_of_ones_own_has_no_published_error():
    assert recipes.published("mine.toml") == {}


def test_a_delete_character_survives_writing():
    described = replace(recipes.load("paper"), description="a \x7f b")
    assert recipes.loads(recipes.dumps(described)) == described


def test_two_random_crops_are_refused(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(
        'base = "paper"\n[training]\naugmentation = ["random_crop", "again"]\n[again]\ntype = "random_crop"\n'
    )
    message = "training.augmentation: random_crop and again are random crops, and one is possible: drop one"
    with pytest.raises(BadRecipe) as error:
        recipes.load(file)
    assert str(error.value) == message
    recipes.load(file, ['training.augmentation=["again"]'])
