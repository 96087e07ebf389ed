"""The 2012 network (§3.5, figure 2): columns, and the exchanges between them.

            column 0   conv1 - conv2 \\ / conv3 - conv4 - conv5 \\ / fc6 \\ / fc7 \\
    image <                           X                          X       X        fc8 - softmax
            column 1   conv1 - conv2 / \\ conv3 - conv4 - conv5 / \\ fc6 / \\ fc7 /

In 2012 each column was a GPU. A layer sees its own column's maps, or, behind an X, those of both.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_cli.errors import BadRecipe
from alexnet_cli.nets.normalization import LocalResponseNorm, MapNorm
from alexnet_cli.recipe import Convolution, FullyConnected, Layer, Recipe


class Convolutional(nn.Module):
    """Convolution, and what follows it: ReLU, and where the recipe says so response norm and max-pooling."""

    def __init__(self, layer: Convolution, recipe: Recipe, maps_in: int) -> None:
        super().__init__()
        maps = layer.kernels // recipe.network.columns
        self.convolution = nn.Conv2d(maps_in, maps, layer.size, layer.stride)
        self.padding, self.rounds_up = layer.padding, layer.rounds == "up"
        self.then = then(layer, recipe)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H', W')."""
        activations: Tensor = self.then(self.weighted(maps))
        return activations

    def weighted(self, maps: Tensor) -> Tensor:
        """The convolution alone."""
        sums: Tensor = self.convolution(self._pad(maps))
        return sums

    def _pad(self, maps: Tensor) -> Tensor:
        """Zeros around the maps, and past the right and bottom edges as many as the last kernel needs: 224 -> 55."""
        size, (stride, _) = self.convolution.kernel_size[0], self.convolution.stride
        ends = []
        for extent in (maps.shape[3], maps.shape[2]):
            over = (extent + 2 * self.padding - size) % stride if self.rounds_up else 0
            ends += [self.padding, self.padding + (stride - over) % stride]
        return F.pad(maps, ends) if any(ends) else maps


class Dense(nn.Module):
    """A fully-connected layer, and its ReLU."""

    def __init__(self, layer: FullyConnected, recipe: Recipe, units_in: int) -> None:
        super().__init__()
        self.linear = nn.Linear(units_in, units(layer) // recipe.network.columns)
        self.then = then(layer, recipe)

    def forward(self, activations: Tensor) -> Tensor:
        """(B, units) or (B, C, H, W) to (B, units')."""
        activations = self.then(self.linear(activations.flatten(1)))
        return activations


def then(layer: Layer, recipe: Recipe) -> nn.Sequential:
    """What follows a layer's weights, in the recipe's order; but for dropout, which is drawn over all columns."""
    norm, within, pooling = recipe.response_norm, recipe.map_norm, recipe.pooling
    modules: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "response_norm": lambda: LocalResponseNorm(k=norm.k, n=norm.n, alpha=norm.alpha, beta=norm.beta),
        "map_norm": lambda: MapNorm(k=within.k, size=within.size, alpha=within.alpha, beta=within.beta),
        "pooling": lambda: nn.MaxPool2d(pooling.size, pooling.stride, ceil_mode=pooling.rounds == "up"),
    }
    return nn.Sequential(*(modules[step]() for step in layer.then if step != "dropout"))


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
        self.add_module(last, nn.Linear(width * recipe.network.columns * extent * extent, classes))

    def forward(
        self, images: Tensor, dropout_seed: int | None = None, rows: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and fc7 (B, 4096), after its ReLU and before its dropout, on the first column's device.

        ``images`` (B, 3, crop, crop): centred RGB. In training, ``dropout_seed`` decides which units are dropped;
        ``rows`` (first, all) says where the images stand in a batch of which other processes have the rest.
        """
        halves = [images.to(device) for device in self.devices]
        for i, (name, layer) in enumerate(self.hidden.items()):
            if layer.sees == "both":
                halves = exchange(halves)
            halves = self._through(name, halves)
            features = halves
            if self.training and "dropout" in layer.then:
                assert dropout_seed is not None, "training needs a dropout_seed"
                halves = drop(halves, self.recipe.network.dropout, dropout_seed + i, rows)
        logits = self.get_submodule(self.last)(gather(halves, self.devices[0]).flatten(1))
        return logits, gather(features, self.devices[0]).flatten(1)

    def _through(self, name: str, halves: list[Tensor]) -> list[Tensor]:
        """Each column's part of a layer, on what the column sees."""
        parts = self.parts(name)
        if self.recipe.response_norm.sees == "own" or "response_norm" not in self.hidden[name].then:
            return [part(half) for part, half in zip(parts, halves, strict=True)]
        # Caffe's way: step by step, for the norm looks over the border of the columns.
        convolutional = [part for part in parts if isinstance(part, Convolutional)]
        halves = [part.weighted(half) for part, half in zip(convolutional, halves, strict=True)]
        for steps in zip(*(part.then for part in convolutional), strict=True):
            if isinstance(steps[0], LocalResponseNorm):
                widths = [half.shape[1] for half in halves]
                wholes = [step(whole) for step, whole in zip(steps, exchange(halves), strict=True)]
                halves = [torch.split(whole, widths, dim=1)[i] for i, whole in enumerate(wholes)]
            else:
                halves = [step(half) for step, half in zip(steps, halves, strict=True)]
        return halves

    @property
    def devices(self) -> list[torch.device]:
        """Where each column lives."""
        return [next(column.parameters()).device for column in self.columns]

    def place(self, devices: Sequence[torch.device]) -> "AlexNet":
        """Put the columns on ``devices``, one each as in 2012, or all on the only one; the last layer on the first.

        Raises BadRecipe if there are as many devices as neither.
        """
        if len(devices) not in (1, len(self.columns)):
            raise BadRecipe(
                f"recipe {self.recipe.name} has {len(self.columns)} column{'s' if len(self.columns) > 1 else ''}, "
                f"which cannot lie on {len(devices)} devices: name one device a column, or one"
            )
        for i, column in enumerate(self.columns):
            column.to(devices[i % len(devices)])
        self.get_submodule(self.last).to(devices[0])
        return self

    def parts(self, name: str) -> list[nn.Module]:
        """A layer's modules: one a column, or the last layer's only one."""
        if name == self.last:
            return [self.get_submodule(name)]
        return [column.get_submodule(name) for column in self.columns]


def build(layer: Layer, recipe: Recipe, seen: int, extent: int) -> nn.Module:
    """One column's part of ``layer``, which sees ``seen`` maps of side ``extent``, or ``seen`` units (side 1)."""
    if isinstance(layer, Convolution):
        return Convolutional(layer, recipe, seen)
    return Dense(layer, recipe, seen * extent * extent)


def units(layer: FullyConnected) -> int:
    """How many units a hidden layer has."""
    assert isinstance(layer.units, int)
    return layer.units


def extent_after(layer: Layer, recipe: Recipe, extent: int) -> int:
    """Side of the maps that leave ``layer``, for maps of side ``extent`` that come in."""
    if isinstance(layer, FullyConnected):
        return 1
    extent = _positions(extent + 2 * layer.padding, layer.size, layer.stride, layer.rounds)
    if "pooling" in layer.then:
        extent = _positions(extent, recipe.pooling.size, recipe.pooling.stride, recipe.pooling.rounds)
    return extent


def _positions(extent: int, size: int, stride: int, rounds: str) -> int:
    """How many kernels or windows of ``size``, ``stride`` apart, ``extent`` pixels have room for."""
    whole = math.ceil if rounds == "up" else math.floor
    return whole((extent - size) / stride) + 1 if extent > 0 else 0


def exchange(halves: list[Tensor]) -> list[Tensor]:
    """Every column gets what all columns have: the only place where they meet."""
    if len(halves) == 1:
        return halves
    both = {device: gather(halves, device) for device in {half.device for half in halves}}
    return [both[half.device] for half in halves]


def gather(halves: list[Tensor], device: torch.device) -> Tensor:
    """What all columns have, on ``device``."""
    return torch.cat([half.to(device) for half in halves], dim=1) if len(halves) > 1 else halves[0]


def drop(halves: list[Tensor], share: float, seed: int, rows: tuple[int, int] | None = None) -> list[Tensor]:
    """Dropout (§4.2) of units (B, units), a pure function of ``seed``; what stays is scaled up: testing needs nothing.

    The draw is made for the layer's units of all columns at once, and for all images of the batch, of which these are
    those from ``rows`` (first, all) on: how units are split over columns, or images over processes, does not matter.
    Each device draws for itself, so that nothing crosses.
    """
    first, images = rows or (0, len(halves[0]))
    widths = [half.shape[1] for half in halves]
    shape = (images, sum(widths), *halves[0].shape[2:])
    kept = {}
    for device in {half.device for half in halves}:
        generator = torch.Generator(device).manual_seed(seed)
        draw = torch.rand(shape, generator=generator, device=device)[first : first + len(halves[0])]
        kept[device] = torch.split(draw >= share, widths, dim=1)
    return [half * kept[half.device][i] / (1 - share) for i, half in enumerate(halves)]


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
    return {name: sum(map(parameter_count, net.parts(name))) for name in net.recipe.layers}


def parameter_count(net: nn.Module) -> int:
    """Weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to, by its name: conv1 for columns.0.conv1.convolution.weight."""
    first, *rest = parameter.split(".")
    return rest[1] if first == "columns" else first


def is_bias(parameter: str) -> bool:
    """Whether a parameter is a layer's biases, by its name."""
    return parameter.endswith(".bias")
