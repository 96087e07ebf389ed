"""Weights that were trained elsewhere, put in place in our columns. Knows no files.

What they come from keeps both columns of a layer in one tensor, column 0's kernels first, and has grouped convolutions
where a column sees its own maps only: cut in two along the kernels, each half is a column's.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from alexnet_cli.errors import BadArtefact
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.recipe import Convolution, Layer, Recipe

Weights = Mapping[str, tuple[Tensor, Tensor]]  # layer -> weight (K, C, h, w) or (units, units in), and bias


def fitted(recipe: Recipe, weights: Weights) -> Recipe:
    """``recipe`` with as many kernels and units in each layer as ``weights`` have. Raises BadArtefact naming a layer
    that is missing or of another kind."""
    layers: dict[str, Layer] = {}
    for name, layer in recipe.layers.items():
        if name not in weights:
            raise BadArtefact(f"there is no {name}: it has {', '.join(weights) or 'no layer that is known'}")
        weight, _ = weights[name]
        wanted = 4 if isinstance(layer, Convolution) else 2
        if weight.dim() != wanted:
            raise BadArtefact(f"{name} has weights of {weight.dim()} dimensions, {tuple(weight.shape)}, not {wanted}")
        if isinstance(layer, Convolution):
            layers[name] = replace(layer, kernels=len(weight))
        else:
            layers[name] = layer if layer.units == "classes" else replace(layer, units=len(weight))
    return replace(recipe, layers=layers)


@torch.no_grad()
def network(recipe: Recipe, weights: Weights, *, bgr: bool, scale: Tensor | None = None) -> AlexNet:
    """The network of ``recipe`` with ``weights``, as wide as they are.

    ``bgr``: the first layer sees blue, green and red in this order; ours sees red first. ``scale`` (3,): what the first
    layer's weights for red, green and blue are multiplied with. Raises BadArtefact naming the first layer that differs.
    """
    recipe = fitted(recipe, weights)
    net = AlexNet(recipe, len(weights[list(recipe.layers)[-1]][0]))
    for i, name in enumerate(recipe.layers):
        weight, bias = (tensor.float() for tensor in weights[name])
        if i == 0 and bgr:
            weight = weight.flip(1)
        if i == 0 and scale is not None:
            weight = weight * scale[None, :, None, None]
        parts = net.parts(name)
        for part, own_weight, own_bias in zip(parts, weight.chunk(len(parts)), bias.chunk(len(parts)), strict=True):
            places = list(part.parameters())
            for place, own in zip(places, (own_weight, own_bias), strict=True):
                if place.shape != own.shape:
                    raise BadArtefact(
                        f"{name} is {tuple(own.shape)} where recipe {recipe.name} has {tuple(place.shape)}"
                        + (" in each column" if len(parts) > 1 else "")
                    )
                place.copy_(own)
    return net
