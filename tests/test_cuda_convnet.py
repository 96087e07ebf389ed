"""Recipes against configuration files in the format of cuda-convnet, the program of 2012.

The files below were written for this test, with the values that docs/2012-source.md lists. Whoever has the original
files can compare our recipes with those: `CUDA_CONVNET=cifar-19:LAYERS:PARAMS pytest tests/test_cuda_convnet.py`.
"""

import configparser
import os
from pathlib import Path

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.nets.layers import (
    AveragePool,
    Convolution,
    Dense,
    Local,
    MaxPool,
    ReLU,
    ResponseNorm,
    Tanh,
    WithinMapNorm,
)
from alexnet_cli.recipe import Recipe
from alexnet_cli.training.schedule import learning_rate, learning_rates, weight_decays

LAYERS_19 = """
[conv1]
type=conv
inputs=data
filters=32
padding=2
stride=1
filterSize=5
initW=0.0001
[pool1]
type=pool
pool=max
inputs=conv1
sizeX=3
stride=2
neuron=relu
[conv2]
type=conv
inputs=pool1
filters=32
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.01
[pool2]
type=pool
pool=avg
inputs=conv2
sizeX=3
stride=2
[conv3]
type=conv
inputs=pool2
filters=64
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.01
[pool3]
type=pool
pool=avg
inputs=conv3
sizeX=3
stride=2
[fc10]
type=fc
outputs=10
inputs=pool3
initW=0.01
"""
PARAMS_19 = "".join(
    f"[{name}]\nepsW=0.001\nepsB=0.002\nmomW=0.9\nmomB=0.9\nwc={decay}\n"
    for name, decay in (("conv1", 0.004), ("conv2", 0.004), ("conv3", 0.004), ("fc10", 3))
)
LAYERS_11 = """
[conv1]
type=conv
inputs=data
filters=64
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.0001
[pool1]
type=pool
pool=max
inputs=conv1
sizeX=3
stride=2
[rnorm1]
type=cmrnorm
inputs=pool1
size=9
[conv2]
type=conv
inputs=rnorm1
filters=64
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.01
[rnorm2]
type=cmrnorm
inputs=conv2
size=9
[pool2]
type=pool
pool=max
inputs=rnorm2
sizeX=3
stride=2
[local3]
type=local
inputs=pool2
filters=64
padding=1
stride=1
filterSize=3
neuron=relu
initW=0.04
[local4]
type=local
inputs=local3
filters=32
padding=1
stride=1
filterSize=3
neuron=relu
initW=0.04
[fc10]
type=fc
outputs=10
inputs=local4
initW=0.01
"""
PARAMS_11 = "".join(
    f"[{name}]\nepsW=0.001\nepsB=0.002\nmomW=0.9\nmomB=0.9\nwc={decay}\n"
    for name, decay in (("conv1", 0), ("conv2", 0), ("local3", 0.004), ("local4", 0.004), ("fc10", 0.01))
) + "".join(f"[{name}]\nscale=0.001\npow=0.75\n" for name in ("rnorm1", "rnorm2"))
LAYERS_2012 = """
[conv1]
type=conv
inputs=data
filters=96
padding=0
stride=4
filterSize=11
initW=0.01
[rnorm1]
type=cmrnorm
inputs=conv1
size=5
minDiv=2
[pool1]
type=pool
pool=max
inputs=rnorm1
sizeX=3
stride=2
neuron=relu
[conv2]
type=conv
inputs=pool1
filters=256
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.01
initB=1
[rnorm2]
type=cmrnorm
inputs=conv2
size=5
minDiv=2
[rnorm3]
type=rnorm
inputs=rnorm2
size=5
[pool2]
type=pool
pool=max
inputs=rnorm3
sizeX=3
stride=2
[conv3]
type=conv
inputs=pool2
filters=384
padding=1
stride=1
filterSize=3
neuron=relu
initW=0.03
[conv4]
type=conv
inputs=conv3
filters=384
padding=1
stride=1
filterSize=3
neuron=relu
initW=0.03
initB=1
[conv5]
type=conv
inputs=conv4
filters=256
padding=1
stride=1
filterSize=3
neuron=relu
initW=0.03
initB=1
[pool5]
type=pool
pool=max
inputs=conv5
sizeX=3
stride=2
[fc6]
type=fc
outputs=4096
inputs=pool5
neuron=relu
initW=0.01
initB=1
dropout=0.5
[fc7]
type=fc
outputs=4096
inputs=fc6
neuron=relu
initW=0.01
initB=1
dropout=0.5
[fc8]
type=fc
outputs=1000
inputs=fc7
initW=0.01
"""
PARAMS_2012 = (
    "".join(
        f"[{name}]\nepsW=0.01\nepsB=0.02\nmomW=0.9\nmomB=0.9\nwc=0.0005\n"
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    )
    + "[rnorm1]\nscale=0.0001\npow=0.75\n[rnorm2]\nscale=0.0001\npow=0.75\n[rnorm3]\nscale=0.001\npow=0.75\n"
)
FILES = {
    "cifar-19": (LAYERS_19, PARAMS_19),
    "cifar-11": (LAYERS_11, PARAMS_11),
    "original-2012": (LAYERS_2012, PARAMS_2012),
}
KINDS = {Convolution: "conv", Local: "local", Dense: "fc"}


def of_files(layers: str, params: str) -> dict[str, list]:
    """Each layer with weights: its numbers, and what follows it until the next, in order."""
    net, settings = configparser.ConfigParser(), configparser.ConfigParser()
    net.read_string(layers)
    settings.read_string(params)
    described: dict[str, list] = {}
    for name in net.sections():
        layer, own = net[name], settings[name] if settings.has_section(name) else {}
        kind, size = layer["type"], layer.getint("size") or layer.getint("filterSize") or layer.getint("sizeX")
        if kind in ("data", "softmax", "cost.logreg"):
            continue
        if kind in ("conv", "local", "fc"):
            numbers = [kind, layer.getint("filters") or layer.getint("outputs"), size, layer.getint("stride")]
            numbers += [layer.getint("padding"), layer.getfloat("initW"), layer.getfloat("initB", 0)]
            numbers += [float(own[key]) for key in ("epsW", "epsB", "momW", "wc")]
            described[name] = follows = [numbers]
        elif kind == "pool":
            follows.append([layer["pool"], size, layer.getint("stride")])
        else:  # cuda-convnet divides the scale by the number of activations in a window
            window = size if kind == "cmrnorm" else size**2
            follows.append([kind, size, float(own["scale"]) / window, float(own["pow"]), layer.getfloat("minDiv", 1)])
        if "neuron" in layer:
            follows.append(layer["neuron"].split("[")[0])
        if "dropout" in layer:
            follows.append(["dropout", layer.getfloat("dropout")])
    return described


def of_recipe(recipe: Recipe) -> dict[str, list]:
    described, training = {}, recipe.training
    names = [f"columns.0.{name}.weighted.{which}" for name in recipe.network.layers for which in ("weight", "bias")]
    rates = learning_rates(recipe, names, learning_rate(training, 1, []), 1)
    decays = weight_decays(recipe, names)
    for name, layer in recipe.network.layers.items():
        width = layer.width if isinstance(layer.width, int) else (1000 if name == "fc8" else 10)
        size, padding = getattr(layer, "size", None), getattr(layer, "padding", None)
        stride = getattr(layer, "stride", None if isinstance(layer, Dense) else 1)
        weights, biases = (f"columns.0.{name}.weighted.{which}" for which in ("weight", "bias"))
        assert decays[biases] == 0
        numbers = [KINDS[type(layer)], width, size, stride, padding, layer.weights, layer.bias]
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
        described[name] = follows
    return described


def files() -> dict[str, tuple[str, str]]:
    named = [one.split(":") for one in os.environ.get("CUDA_CONVNET", "").split()]
    return FILES | {recipe: (Path(layers).read_text(), Path(params).read_text()) for recipe, layers, params in named}


@pytest.mark.parametrize("name", files())
def test_a_recipe_has_every_value_of_the_files(name):
    expected, found = of_files(*files()[name]), of_recipe(recipes.load(name))
    assert list(found) == list(expected)
    for layer, steps in expected.items():
        assert len(found[layer]) == len(steps), layer
        for (ours, *own), (theirs, *others) in zip(map(_listed, found[layer]), map(_listed, steps), strict=True):
            assert (ours, own) == (theirs, pytest.approx(others)), layer


def _listed(step: str | list) -> list:
    return [step] if isinstance(step, str) else [0.0 if value is None else value for value in step]


def test_another_value_is_noticed():
    layers, params = FILES["cifar-19"]
    assert of_files(layers, params.replace("wc=3", "wc=1")) != of_recipe(recipes.load("cifar-19"))
    assert of_files(layers, params.replace("wc=3", "wc=1"))["fc10"] == of_recipe(recipes.load("cifar-18"))["fc10"]
