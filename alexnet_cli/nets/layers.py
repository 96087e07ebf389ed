"""What a network is made of: layers with weights, each followed by operations (`operations.py`).

Each class here is everything about one kind of layer: its name in recipes, its settings, the module it is built as, and
how that module starts. To add one, write a class and register it; nothing else has to know.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_cli.nets.operations import Columns, Dropout, Factor, Operation, Padding, Shape, Window
from alexnet_cli.settings import Epochs, Registry, Settings, Side, Width, Within, require


@dataclass(frozen=True, kw_only=True)
class Layer(Settings, ABC):
    """A layer with weights."""

    input: Columns = "own"
    # standard deviation of the initial weights; "he": sqrt(2 / fan-in)
    weights: Annotated[float, Within(0, 1000)] | Literal["he"]
    bias: Annotated[float, Within(-1000, 1000)]  # initial bias
    then: list[str]  # the operations that follow, in this order
    learning_rate_factor: Factor = 1.0  # what training.learning_rate is multiplied by
    weight_decay: Annotated[float, Within(0, 1000)] | Literal["training"] = "training"  # its own; else [training]'s
    milestones: list[Epochs] = field(default_factory=list)  # its own instead of training.milestones
    # the epoch, counted from 1, at which its weights are frozen; 0: never
    frozen_from: Annotated[int, Within(0, 1_000_000)] = 0
    width_key: ClassVar[str]  # the setting with its width, over all columns

    @abstractmethod
    def build(self, shape: Shape, columns: int) -> nn.Module:
        """One column's part, for inputs of ``shape``; it has a `weight` (..., inputs of a unit) and a `bias`."""

    def initialize(self, module: nn.Module, generator: torch.Generator) -> None:
        """Give ``module`` its initial weights and biases (§5)."""
        weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
        deviation = math.sqrt(2 * bias.numel() / weight.numel()) if isinstance(self.weights, str) else self.weights
        weight.copy_(torch.empty(weight.shape).normal_(0, deviation, generator=generator))
        bias.fill_(self.bias)

    @property
    def window(self) -> Window | None:
        """What its kernels read of each input map; None: all of it, and they give no maps."""
        return None

    @property
    def width(self) -> int | str:
        """Kernels or units of all columns together."""
        width: int | str = getattr(self, self.width_key)
        return width

    def with_width(self, width: int) -> "Layer":
        """The same layer with ``width`` kernels or units."""
        change: dict[str, Any] = {self.width_key: width}
        return replace(self, **change)


LAYERS = Registry[Layer]()


@LAYERS.register("convolution")
@dataclass(frozen=True, kw_only=True)
class Convolution(Layer):
    """Kernels of ``size`` × ``size`` over all input maps, ``stride`` apart."""

    kernels: Width  # of all columns together
    size: Side
    stride: Side = 1
    padding: Padding = 0
    ceil_mode: bool = False  # round the output size up: 224 -> 54.25 -> 55
    width_key: ClassVar[str] = "kernels"

    @property
    def window(self) -> Window:
        return Window(self.size, self.stride, self.padding)

    def build(self, shape: Shape, columns: int) -> nn.Module:
        return Conv2d(self, shape[0], self.kernels // columns)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with pooling's ceil_mode: zeros past the right and bottom edges complete the last window."""

    def __init__(self, layer: Convolution, maps: int, kernels: int) -> None:
        super().__init__(maps, kernels, layer.size, layer.stride)
        self.border, self.ceil_mode = layer.padding, layer.ceil_mode  # both are padded here, not by torch

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H', W')."""
        size, (stride, _) = self.kernel_size[0], self.stride
        pads = []
        for extent in (maps.shape[3], maps.shape[2]):
            over = (extent + 2 * self.border - size) % stride if self.ceil_mode else 0
            pads += [self.border, self.border + (stride - over) % stride]
        return super().forward(F.pad(maps, pads) if any(pads) else maps)


@LAYERS.register("local")
@dataclass(frozen=True, kw_only=True)
class Local(Layer):
    """A convolution whose kernels differ from position to position: each has weights and biases of its own."""

    kernels: Width  # at each position, of all columns together
    size: Side
    padding: Padding = 0
    width_key: ClassVar[str] = "kernels"

    @property
    def window(self) -> Window:
        return Window(self.size, 1, self.padding)

    def build(self, shape: Shape, columns: int) -> nn.Module:
        return LocallyConnected2d(shape, self.kernels // columns, self.size, self.padding)


class LocallyConnected2d(nn.Module):
    """Kernels at stride 1 that are not shared between positions: `weight` (H' W', K, C size²), `bias` (H' W', K)."""

    def __init__(self, shape: Shape, kernels: int, size: int, padding: int) -> None:
        super().__init__()
        maps, *extent = shape
        self.kernels, self.size, self.padding = kernels, size, padding
        self.sides = [side + 2 * padding - size + 1 for side in extent]  # H', W'
        if min(self.sides) < 1:
            raise RuntimeError(f"windows of {size} positions in maps of {extent[0]} × {extent[1]}")
        positions = math.prod(self.sides)
        self.weight = nn.Parameter(torch.empty(positions, kernels, maps * size**2))
        self.bias = nn.Parameter(torch.empty(positions, kernels))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H', W')."""
        rows, columns = self.sides
        padded = F.pad(maps, 4 * [self.padding]).permute(2, 3, 0, 1)  # (H, W, B, C)
        offsets = [(i, j) for i in range(self.size) for j in range(self.size)]
        # Windows of whole rows of C are copied and added up faster than those of F.unfold, map by map.
        windows = torch.cat([padded[i : i + rows, j : j + columns] for i, j in offsets], dim=3)  # (H', W', B, size² C)
        weight = self.weight.reshape(*self.weight.shape[:2], -1, len(offsets))  # (H' W', K, C, size²)
        weight = weight.transpose(2, 3).flatten(2)  # (H' W', K, size² C)
        outputs = torch.baddbmm(self.bias[:, None], windows.flatten(0, 1), weight.transpose(1, 2))  # (H' W', B, K)
        return outputs.permute(1, 2, 0).reshape(-1, self.kernels, *self.sides)


@LAYERS.register("dense")
@dataclass(frozen=True, kw_only=True)
class Dense(Layer):
    """A fully-connected layer."""

    units: Width | Literal["classes"]  # of all columns together; the last layer has as many as there are classes
    width_key: ClassVar[str] = "units"

    def build(self, shape: Shape, columns: int) -> nn.Module:
        assert isinstance(self.units, int)  # the last layer is not in a column
        return Linear(math.prod(shape), self.units // columns)


class Linear(nn.Linear):
    """`torch.nn.Linear` that takes maps as well."""

    def forward(self, activations: Tensor) -> Tensor:
        """(B, units) or (B, C, H, W) to (B, units')."""
        return super().forward(activations.flatten(1))


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which layers, in which order, in how many columns (§3.5)."""

    columns: int
    layers: dict[str, Layer]  # in order; the last one gives the classes
    operations: dict[str, Operation]  # what the layers' `then` names

    def __post_init__(self) -> None:
        require(self.columns >= 1, "columns must be at least 1")
        require(len(self.layers) >= 2, "layers must name at least two layers")
        *hidden, (last, output) = self.layers.items()
        require(
            isinstance(output, Dense) and output.units == "classes" and output.input == "all" and not output.then,
            f'layers: the last one, {last}, must have type = "dense", units = "classes", input = "all" and then = []',
        )
        has_maps = [layer.window is not None for layer in self.layers.values()]
        require(
            has_maps == sorted(has_maps, reverse=True),
            "layers: a convolution needs maps, and there are none after a dense layer",
        )
        first, sees_image = next(iter(self.layers.items()))
        require(
            self.columns == 1 or sees_image.input == "own",
            f'layers: every column has the whole image, so {first} must have input = "own"',
        )
        for name, layer in hidden:
            width = layer.width
            require(
                isinstance(width, int) and width % self.columns == 0,
                f"columns = {self.columns} cannot share the {width} {layer.width_key} of {name}",
            )
            without_maps = [step for step in layer.then if self.operations[step].needs_maps]
            require(
                layer.window is not None or not without_maps,
                f"layers: {name} is a dense layer and has no maps for {', '.join(without_maps)}",
            )
            dropped = [isinstance(self.operations[step], Dropout) for step in layer.then]
            require(not any(dropped[:-1]), f"layers: dropout must be the last operation of {name}")

    def scaled(self, width: float) -> "Network":
        """``width`` times the kernels and units of every hidden layer, a whole number a column and at least one."""

        def scale(layer: Layer) -> Layer:
            if isinstance(layer.width, str):
                return layer
            return layer.with_width(max(1, round(layer.width * width / self.columns)) * self.columns)

        return replace(self, layers={name: scale(layer) for name, layer in self.layers.items()})
