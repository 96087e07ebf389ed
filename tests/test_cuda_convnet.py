"""Recipes against configuration files in the format of cuda-convnet, the program of 2012.

The files below were written for this test, with the values that docs/2012-source.md lists. Whoever has the original
files can compare our recipes with those: `CUDA_CONVNET=cifar-19:LAYERS:PARAMS pytest tests/test_cuda_convnet.py`.
Layers are compared in their order, whatever their names.
"""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.nets.layers import Convolution, Dense, Local
from alexnet_cli.nets.operations import AveragePool, MaxPool, ReLU, ResponseNorm, Tanh, WithinMapNorm
from alexnet_cli.recipe import Recipe
from alexnet_cli.training.schedule import learning_rate, learning_rates, weight_decays


def section(name: str, **values: object) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in values.items())


def conv(name: str, inputs: str, filters: int, size: int, weights: float, **others: object) -> str:
    padding = others.pop("padding", size // 2)
    shape = {"filters": filters, "filterSize": size, "stride": 1, "padding": padding, "initW": weights}
    return section(name, **{"type": "conv", "inputs": inputs} | shape | others)


def pool(name: str, inputs: str, kind: str = "max", **others: object) -> str:
    return section(name, type="pool", pool=kind, inputs=inputs, sizeX=3, stride=2, **others)


def norm(name: str, inputs: str, kind: str = "cmrnorm", **others: object) -> str:
    return section(name, type=kind, inputs=inputs, **others)


def fc(name: str, inputs: str, outputs: int, **others: object) -> str:
    return section(name, type="fc", inputs=inputs, outputs=outputs, initW=0.01, **others)


def layers_19(*, norms: bool = False) -> str:
    return (
        conv("conv1", "data", 32, 5, 0.0001, neuron="ident")
        + pool("pool1", "conv1", neuron="relu")
        + norms * norm("rnorm1", "pool1", "rnorm", size=3)
        + conv("conv2", "rnorm1" if norms else "pool1", 32, 5, 0.01, neuron="relu")
        + pool("pool2", "conv2", "avg")
        + norms * norm("rnorm2", "pool2", "rnorm", size=3)
        + conv("conv3", "rnorm2" if norms else "pool2", 64, 5, 0.01, neuron="relu")
        + pool("pool3", "conv3", "avg")
        + fc("fc10", "pool3", 10, neuron="ident")
    )


def layers_13(*, norms: bool = False) -> str:
    return (
        conv("conv1", "data", 64, 5, 0.0001, neuron="relu")
        + pool("pool1", "conv1")
        + norms * norm("rnorm1", "pool1", size=9)
        + conv("conv2", "rnorm1" if norms else "pool1", 64, 5, 0.01, neuron="relu")
        + norms * norm("rnorm2", "conv2", size=9)
        + pool("pool2", "rnorm2" if norms else "conv2")
        + conv("local3", "pool2", 64 if norms else 32, 3, 0.04, type="local", neuron="relu")
        + conv("local4", "local3", 32, 3, 0.04, type="local", neuron="relu")
        + fc("fc10", "local4", 10, neuron="ident")
    )


def layers_2012() -> str:
    """Each layer once for each GPU: the letter that ends its name. What reads both GPUs has a list of numbers."""
    return "".join(_of_gpu(g) for g in "ab") + fc("fc8", "fc7a,fc7b", 1000)


def _of_gpu(g: str) -> str:
    hidden = {"neuron": "relu", "initB": 1, "dropout": 0.5}
    both = {"filterSize": "3,3", "padding": "1,1", "stride": "1,1", "initW": "0.03,0.03"}
    return (
        conv(f"conv1{g}", "data", 48, 11, 0.01, padding=0, stride=4)
        + norm(f"rnorm1{g}", f"conv1{g}", size=5, minDiv=2)
        + pool(f"pool1{g}", f"rnorm1{g}", neuron="relu")
        + conv(f"conv2{g}", f"pool1{g}", 128, 5, 0.01, neuron="relu", initB=1)
        + norm(f"rnorm2{g}", f"conv2{g}", size=5, minDiv=2)
        + norm(f"rnorm3{g}", f"rnorm2{g}", "rnorm", size=5)
        + pool(f"pool2{g}", f"rnorm3{g}")
        + conv(f"conv3{g}", "pool2a,pool2b", 192, 3, 0.03, neuron="relu", **both)
        + conv(f"conv4{g}", f"conv3{g}", 192, 3, 0.03, neuron="relu", initB=1)
        + conv(f"conv5{g}", f"conv4{g}", 128, 3, 0.03, neuron="relu", initB=1)
        + pool(f"pool5{g}", f"conv5{g}")
        + fc(f"fc6{g}", "pool5a,pool5b", 2048, **hidden)
        + fc(f"fc7{g}", "fc6a,fc6b", 2048, **hidden)
    )


def rates(decays: dict[str, float], weights: float = 0.001, biases: float = 0.002) -> str:
    return "".join(
        section(name, epsW=weights, epsB=biases, momW=0.9, momB=0.9, wc=decay) for name, decay in decays.items()
    )


def scales(*names: str, scale: float) -> str:
    return "".join(section(name, scale=scale, pow=0.75) for name in names)


WEIGHTED_2012 = [f"{name}{g}" for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7") for g in "ab"]
OF_19 = {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004}
OF_13 = {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004}
FILES = {
    "cifar-19": (layers_19(), rates(OF_19 | {"fc10": 3})),
    "cifar-18": (layers_19(norms=True), rates(OF_19 | {"fc10": 1}) + scales("rnorm1", "rnorm2", scale=5e-5)),
    "cifar-13": (layers_13(), rates(OF_13 | {"fc10": 0.004})),
    "cifar-11": (layers_13(norms=True), rates(OF_13 | {"fc10": 0.01}) + scales("rnorm1", "rnorm2", scale=0.001)),
    "original-2012": (
        layers_2012(),
        rates(dict.fromkeys([*WEIGHTED_2012, "fc8"], 0.0005), 0.01, 0.02)
        + scales("rnorm1a", "rnorm1b", "rnorm2a", "rnorm2b", scale=1e-4)
        + scales("rnorm3a", "rnorm3b", scale=0.001),
    ),
}
KINDS = {Convolution: "conv", Local: "local", Dense: "fc"}


def of_files(layers: str, params: str) -> list[list]:
    """Each layer with weights, in order: its numbers and its input, then what follows it until the next.

    The sections of the two GPUs, whose names end with `a` and `b`, are one layer here, and must agree.
    """
    net, settings = configparser.ConfigParser(), configparser.ConfigParser()
    net.read_string(layers)
    settings.read_string(params)
    steps_of: dict[str, dict[str, list]] = {}
    follows: dict[str, list] = {}  # of each GPU: the steps of its latest layer
    for name in net.sections():
        layer, own = net[name], settings[name] if settings.has_section(name) else {}
        if layer["type"] in ("data", "softmax", "cost.logreg"):
            continue
        stem, gpu = of_gpu(name)
        if layer["type"] in ("conv", "local", "fc"):
            follows[gpu] = steps_of.setdefault(stem, {})[gpu] = [weighted(layer, own, gpu)]
        else:
            follows[gpu].append(between(layer, own))
        if layer.get("neuron", "ident") != "ident":
            follows[gpu].append(layer["neuron"].split("[")[0])
        if "dropout" in layer:
            follows[gpu].append(["dropout", layer.getfloat("dropout")])
    described = []
    for stem, of_gpus in steps_of.items():
        (kind, width, *numbers), *others = steps = next(iter(of_gpus.values()))
        assert all(each == steps for each in of_gpus.values()), stem
        described.append([[kind, width * len(of_gpus), *numbers], *others])
    return described


def of_gpu(name: str) -> tuple[str, str]:
    """`conv1a` is `conv1` of GPU `a`; `fc8` belongs to none alone."""
    return (name[:-1], name[-1]) if name[-1] in "ab" and name[-2].isdigit() else (name, "")


def one(layer: Mapping[str, str], key: str, default: float | None = None) -> float | None:
    """A number; a list, one for each input, must have the same number throughout."""
    if key not in layer:
        return default
    (number,) = {float(each) for each in layer[key].split(",")}
    return number


def weighted(layer: Mapping[str, str], own: Mapping[str, str], gpu: str) -> list:
    size, stride, padding = (one(layer, key) for key in ("filterSize", "stride", "padding"))
    sources = {of_gpu(each.strip())[1] for each in layer["inputs"].split(",")}
    width = one(layer, "filters") or one(layer, "outputs")
    numbers = [size, stride, padding, one(layer, "initW"), one(layer, "initB", 0)]
    sees = "all" if len(sources) > 1 else "own"
    return [layer["type"], width, sees, *numbers, *(one(own, key) for key in ("epsW", "epsB", "momW", "wc"))]


def between(layer: Mapping[str, str], own: Mapping[str, str]) -> list:
    if layer["type"] == "pool":
        return [layer["pool"], one(layer, "sizeX"), one(layer, "stride")]
    size = one(layer, "size")
    # cuda-convnet divides the scale by the number of activations in a window
    window = size if layer["type"] == "cmrnorm" else size**2
    return [layer["type"], size, one(own, "scale") / window, one(own, "pow"), one(layer, "minDiv", 1)]


def of_recipe(recipe: Recipe) -> list[list]:
    described, training, several = [], recipe.training, recipe.network.columns > 1
    names = [f"columns.0.{name}.weighted.{which}" for name in recipe.network.layers for which in ("weight", "bias")]
    rates = learning_rates(recipe, names, learning_rate(training, 1, []), 1)
    decays = weight_decays(recipe, names)
    for name, layer in recipe.network.layers.items():
        width = layer.width if isinstance(layer.width, int) else (1000 if name == "fc8" else 10)
        size, padding = getattr(layer, "size", None), getattr(layer, "padding", None)
        stride = getattr(layer, "stride", None if isinstance(layer, Dense) else 1)
        weights, biases = (f"columns.0.{name}.weighted.{which}" for which in ("weight", "bias"))
        assert decays[biases] == 0
        sees = layer.input if several and name != next(iter(recipe.network.layers)) else "own"
        numbers = [KINDS[type(layer)], width, sees, size, stride, padding, layer.weights, layer.bias]
        follows: list = [[*numbers, rates[weights], rates[biases], training.momentum, decays[weights]]]
        for operation in (recipe.network.operations[step] for step in layer.then):
            match operation:
                case MaxPool() | AveragePool():
                    assert operation.ceil_mode
                    kind = "max" if isinstance(operation, MaxPool) else "avg"
                    follows.append([kind, operation.size, operation.stride])
                case ResponseNorm():
                    follows.append(["cmrnorm", operation.n, operation.alpha, operation.beta, operation.k])
                case WithinMapNorm():
                    follows.append(["rnorm", operation.size, operation.alpha, operation.beta, operation.k])
                case ReLU() | Tanh():
                    follows.append(operation.type)
                case _:
                    assert not operation.inverted
                    follows.append(["dropout", operation.p])
        described.append(follows)
    return described


def files() -> dict[str, tuple[str, str]]:
    named = [one.split(":") for one in os.environ.get("CUDA_CONVNET", "").split()]
    return FILES | {recipe: (Path(layers).read_text(), Path(params).read_text()) for recipe, layers, params in named}


@pytest.mark.parametrize("name", files())
def test_a_recipe_has_every_value_of_the_files(name):
    expected, found = of_files(*files()[name]), of_recipe(recipes.load(name))
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        assert len(ours) == len(theirs), number
        for own, other in zip(map(_listed, ours), map(_listed, theirs), strict=True):
            assert own == [pytest.approx(each) if isinstance(each, float) else each for each in other], number


def _listed(step: str | list) -> list:
    return [step] if isinstance(step, str) else [0.0 if value is None else value for value in step]


def test_another_value_is_noticed():
    layers, params = FILES["cifar-19"]
    assert of_files(layers, params.replace("wc=3", "wc=1")) != of_recipe(recipes.load("cifar-19"))
    assert of_files(layers, params.replace("wc=3", "wc=1"))[-1] == of_recipe(recipes.load("cifar-18"))[-1]
    layers, params = FILES["original-2012"]
    assert of_files(layers.replace("inputs=pool2a,pool2b", "inputs=pool2a"), params)[2][0][2] == "own"


def test_what_the_files_of_layers_do_not_say():
    """It stands in the program (crops, means, the order of images) and in its logs (what was set by hand)."""
    original = recipes.load("original-2012")
    training, augmentations, conv1 = original.training, original.augmentations, original.network.layers["conv1"]
    assert (training.batch, training.milestones, training.epochs) == (128, [25, 51, 79], 91)
    assert (training.bias_rate_falls, training.bias_decay) == (False, False)
    assert (conv1.milestones, conv1.frozen_from, conv1.ceil_mode) == ([25, 51, 67], 72, True)
    assert original.network.operations["response_norm"].input == "own"
    assert (original.image.crop, original.image.mean_crop) == (224, "central")
    assert [augmentations[name].shared_by for name in ("random_crop", "reflection")] == [32, 32]
    assert (augmentations["colour_noise"].divide_by, augmentations["colour_noise"].until) == (1.1, 67)
    for name in ("cifar-13", "cifar-11"):
        recipe = recipes.load(name)
        assert (recipe.image.size, recipe.image.crop, recipe.image.mean_crop) == (32, 24, "central")
        assert list(recipe.augmentations) == ["random_crop", "reflection"]
    for name in ("cifar-19", "cifar-18"):
        recipe = recipes.load(name)
        assert (recipe.image.size, recipe.image.crop, recipe.augmentations) == (32, 32, {})
        assert (recipe.training.batch, recipe.training.bias_decay) == (128, False)
