"""The 2012 network (§3.5, figure 2): columns, and the exchanges between them.

            column 0   conv1 - conv2 \\ / conv3 - conv4 - conv5 \\ / fc6 \\ / fc7 \\
    image <                           X                          X       X        fc8 - softmax
            column 1   conv1 - conv2 / \\ conv3 - conv4 - conv5 / \\ fc6 / \\ fc7 /

In 2012 each column was a GPU. A layer sees its own column's maps, or, behind an X, those of both.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_cli.errors import BadRecipe
from alexnet_cli.nets.normalization import LocalResponseNorm
from alexnet_cli.recipe import Convolution, FullyConnected, Layer, Recipe


class Convolutional(nn.Module):
    """Convolution, ReLU, and where the recipe says so response norm and overlapping max-pooling."""

    def __init__(self, layer: Convolution, recipe: Recipe, maps_in: int) -> None:
        super().__init__()
        maps = layer.kernels // recipe.network.columns
        self.convolution = nn.Conv2d(maps_in, maps, layer.size, layer.stride)
        self.padding = layer.padding
        norm = recipe.response_norm
        self.norm = (
            LocalResponseNorm(k=norm.k, n=norm.n, alpha=norm.alpha, beta=norm.beta) if layer.response_norm else None
        )
        self.pooling = nn.MaxPool2d(recipe.pooling.size, recipe.pooling.stride) if layer.pooling else None

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H', W')."""
        a = F.relu(self.convolution(self._pad(maps)))
        if self.norm is not None:
            a = self.norm(a)
        if self.pooling is not None:
            a = self.pooling(a)
        return a

    def _pad(self, maps: Tensor) -> Tensor:
        """Zeros around the maps, and past the right and bottom edges as many as the last kernel needs: 224 -> 55."""
        size, (stride, _) = self.convolution.kernel_size[0], self.convolution.stride
        ends = []
        for extent in (maps.shape[3], maps.shape[2]):
            over = (extent + 2 * self.padding - size) % stride
            ends += [self.padding, self.padding + (stride - over) % stride]
        return F.pad(maps, ends) if any(ends) else maps


class Dense(nn.Module):
    """A fully-connected layer and its ReLU."""

    def __init__(self, units_in: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(units_in, units)

    def forward(self, activations: Tensor) -> Tensor:
        """(B, units) or (B, C, H, W) to (B, units')."""
        return F.relu(self.linear(activations.flatten(1)))


class Column(nn.Module):
    """What one GPU held in 2012: its part of every hidden layer, as submodules conv1 ... fc7."""


class AlexNet(nn.Module):
    """The network of a recipe, for ``classes`` classes. Raises BadRecipe if a view is too small for its layers."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        *hidden, last = recipe.layers
        self.hidden = {name: recipe.layers[name] for name in hidden}
        self.columns = nn.ModuleList(Column() for _ in range(recipe.network.columns))
        width, extent = 3, recipe.image.crop  # of what a column has, at first the image
        for name, layer in self.hidden.items():
            seen = width * recipe.network.columns if layer.sees == "both" else width
            for column in self.columns:
                column.add_module(name, build(layer, recipe, seen, extent))
            width = (layer.kernels if isinstance(layer, Convolution) else units(layer)) // recipe.network.columns
            extent = extent_after(layer, recipe, extent)
            if extent < 1:
                raise BadRecipe(f"image.crop = {recipe.image.crop} is too small: nothing is left after {name}")
        self.last = last
        self.add_module(last, nn.Linear(width * recipe.network.columns, classes))

    def forward(self, images: Tensor, dropout_seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and fc7 (B, 4096), after its ReLU and before its dropout.

        ``images`` (B, 3, crop, crop): centred RGB. In training, ``dropout_seed`` decides which units are dropped.
        """
        halves = [images for _ in self.columns]
        for i, (name, layer) in enumerate(self.hidden.items()):
            if layer.sees == "both":
                halves = exchange(halves)
            halves = [part(half) for part, half in zip(self.parts(name), halves, strict=True)]
            features = halves
            if self.training and isinstance(layer, FullyConnected) and layer.dropout:
                assert dropout_seed is not None, "training needs a dropout_seed"
                halves = drop(halves, self.recipe.network.dropout, dropout_seed + i)
        logits = self.get_submodule(self.last)(exchange(halves)[0])
        return logits, exchange(features)[0]

    def parts(self, name: str) -> list[nn.Module]:
        """A layer's modules: one a column, or the last layer's only one."""
        if name == self.last:
            return [self.get_submodule(name)]
        return [column.get_submodule(name) for column in self.columns]


def build(layer: Layer, recipe: Recipe, seen: int, extent: int) -> nn.Module:
    """One column's part of ``layer``, which sees ``seen`` maps of side ``extent``, or ``seen`` units (side 1)."""
    if isinstance(layer, Convolution):
        return Convolutional(layer, recipe, seen)
    return Dense(seen * extent * extent, units(layer) // recipe.network.columns)


def units(layer: FullyConnected) -> int:
    """How many units a hidden layer has."""
    assert isinstance(layer.units, int)
    return layer.units


def extent_after(layer: Layer, recipe: Recipe, extent: int) -> int:
    """Side of the maps that leave ``layer``, for maps of side ``extent`` that come in."""
    if isinstance(layer, FullyConnected):
        return 1
    extent = math.ceil((extent + 2 * layer.padding - layer.size) / layer.stride) + 1
    if layer.pooling:
        extent = (extent - recipe.pooling.size) // recipe.pooling.stride + 1
    return extent


def exchange(halves: list[Tensor]) -> list[Tensor]:
    """Every column gets what all columns have."""
    if len(halves) == 1:
        return halves
    both = torch.cat(halves, dim=1)
    return [both for _ in halves]


def drop(halves: list[Tensor], share: float, seed: int) -> list[Tensor]:
    """Dropout (§4.2) of units (B, units), a pure function of ``seed``; what stays is scaled up: testing needs nothing.

    The draw is made for the layer's units of all columns at once: how they are split over columns does not matter.
    """
    widths = [half.shape[1] for half in halves]
    generator = torch.Generator(halves[0].device).manual_seed(seed)
    draw = torch.rand(len(halves[0]), sum(widths), generator=generator, device=halves[0].device)
    kept = torch.split(draw >= share, widths, dim=1)
    return [half * keep / (1 - share) for half, keep in zip(halves, kept, strict=True)]


@torch.no_grad()
def initialize(net: AlexNet, seed: int) -> None:
    """Initial weights and biases of the recipe (§5), a pure function of ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    for name, layer in net.recipe.layers.items():
        for part in net.parts(name):
            weight, bias = (parameter for parameter in part.parameters())
            fan_in = weight[0].numel()
            deviation = math.sqrt(2 / fan_in) if layer.weights == "he" else layer.weights
            weight.copy_(torch.empty(weight.shape).normal_(0, deviation, generator=generator))
            bias.fill_(layer.bias)


def parameters_by_layer(net: AlexNet) -> dict[str, int]:
    """Weights and biases of each layer, over all columns."""
    return {name: sum(p.numel() for part in net.parts(name) for p in part.parameters()) for name in net.recipe.layers}
