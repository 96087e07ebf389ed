"""What all formats share: the weights found in a file, and our network made of them.

Other frameworks keep both columns of a layer in one tensor, column 0's kernels first, and have grouped convolutions
where a column sees its own maps only. Cut along the kernels, the tensor gives each column its share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count

import torch
from torch import Tensor

from alexnet_cli.errors import BadArtefact
from alexnet_cli.nets.layers import Convolution, Layer
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.nets.operations import Operation, Pooling
from alexnet_cli.recipe import Recipe

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CAFFE_MEAN = (122.679, 116.669, 104.007)  # RGB, of ILSVRC-2012's training images

Weights = Mapping[str, tuple[Tensor, Tensor]]  # layer -> weight (K, C, h, w) or (units, units in), and bias
Colour = tuple[float, float, float]  # RGB, 0-255


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a file holds."""

    format: str  # where it comes from
    weights: Weights
    recipe: Recipe
    bgr: bool = False  # the first layer sees blue, green and red in this order; ours sees red first
    mean: Colour = CAFFE_MEAN  # what is subtracted from the pixels
    deviation: Colour | None = None  # what centred pixels are divided by, colour by colour
    classes: list[str] = field(default_factory=list)  # if the file names them


def fit_recipe(recipe: Recipe, weights: Weights) -> Recipe:
    """``recipe`` with as many kernels and units in each layer as ``weights`` have.

    Raises BadArtefact naming a layer that is missing or of another kind, or BadRecipe if the columns cannot share the
    kernels.
    """
    layers = dict(recipe.network.layers)
    for name, layer in layers.items():
        if name not in weights:
            raise BadArtefact(f"{name} is missing; found: {', '.join(weights) or 'no known layers'}")
        weight, bias = weights[name]
        wanted = 4 if isinstance(layer, Convolution) else 2
        if weight.dim() != wanted:
            raise BadArtefact(f"{name} has weights of {weight.dim()} dimensions, {tuple(weight.shape)}, not {wanted}")
        if bias.dim() != 1:
            raise BadArtefact(f"{name} has biases of {bias.dim()} dimensions, {tuple(bias.shape)}, not 1")
        if not isinstance(layer.width, str):
            layers[name] = layer.with_width(len(weight))
    return replace(recipe, network=replace(recipe.network, layers=layers))


def with_operations(recipe: Recipe, then: Mapping[str, Sequence[Operation]]) -> Recipe:
    """``recipe`` with other operations after the layers that ``then`` names.

    An operation keeps the name that the recipe gives its class, such as `pooling`; a second one with other settings
    becomes `pooling2`. Raises BadRecipe for an operation that cannot follow its layer.
    """
    network = recipe.network
    layers: dict[str, Layer] = {}
    operations: dict[str, Operation] = {}
    for name, layer in network.layers.items():
        names = []
        for operation in then.get(name, [network.operations[step] for step in layer.then]):
            names.append(_name(operation, network.operations, operations))
            operations[names[-1]] = operation
        layers[name] = replace(layer, then=names)
    return replace(recipe, network=replace(network, layers=layers, operations=operations))


def _name(operation: Operation, own: Mapping[str, Operation], used: Mapping[str, Operation]) -> str:
    """The first name for ``operation`` that is not ``used`` for one with other settings."""
    equal = [name for name, other in own.items() if other == operation]
    same_class = [name for name, other in own.items() if type(other) is type(operation)]
    base = next(iter(same_class), "pooling" if isinstance(operation, Pooling) else operation.type)
    names = chain(equal, [base], (f"{base}{i}" for i in count(2)))
    return next(name for name in names if used.get(name, operation) == operation)


def cannot_import(what: str) -> BadArtefact:
    """The error for something in a file that our layers cannot compute: ``what`` names the layer."""
    return BadArtefact(f"{what}, which cannot be imported")


def build_network(found: Imported, scale: Tensor | None = None) -> tuple[ColumnNetwork, Recipe]:
    """The network with the weights that were ``found``, as wide as they are, and its recipe.

    ``scale`` (3,): what the first layer's weights for red, green and blue are multiplied by. Raises BadArtefact naming
    the first layer that differs from the recipe, or BadRecipe if the columns cannot share the kernels.
    """
    recipe = fit_recipe(found.recipe, found.weights)
    net = recipe.build(len(found.weights[list(recipe.network.layers)[-1]][0]))
    state, names = net.state_dict(), {id(module): name for name, module in net.named_modules()}
    for i, name in enumerate(recipe.network.layers):
        weight, bias = (tensor.float() for tensor in found.weights[name])
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise BadArtefact(
                f"{name} has weights that are not finite: the file is damaged, or its training has diverged"
            )
        if i == 0 and found.bgr:
            weight = weight.flip(1)
        if i == 0 and scale is not None:
            weight = weight * scale[None, :, None, None]
        modules = net.weighted(name)
        shares = zip(modules, weight.chunk(len(modules)), bias.chunk(len(modules)), strict=True)
        for module, own_weight, own_bias in shares:
            for key, tensor in ((f"{names[id(module)]}.weight", own_weight), (f"{names[id(module)]}.bias", own_bias)):
                if state[key].shape != tensor.shape:
                    raise BadArtefact(
                        f"{name} is {tuple(tensor.shape)} where recipe {recipe.name} has {tuple(state[key].shape)}"
                        + (" in each column" if len(modules) > 1 else "")
                    )
                state[key] = tensor.contiguous().clone()
    net.load_state_dict(state, assign=True)
    return net, recipe


def per_colour_scale(deviation: Colour | None) -> tuple[float, Tensor | None]:
    """One number for all colours that pixels are divided by, and what is left over for each colour, (3,)."""
    if deviation is None:
        return 1.0, None
    mean = float(torch.tensor(deviation, dtype=torch.float64).mean())
    return mean, mean / torch.tensor(deviation)
