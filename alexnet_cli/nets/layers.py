"""What a network is made of: layers with weights, and the operations that may follow them.

Each class here is everything about one of them: its name in recipes, its settings, the module it is built as, and how
that module starts. To add one, write a class and register it; nothing else has to know.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_cli.nets.normalization import LocalResponseNorm, MapNorm
from alexnet_cli.settings import MAX_SIDE, Epochs, Registry, Settings, Side, Width, Within, require

Shape = tuple[int, ...]  # of one image's activations in one column: (C, H, W), or (units,)
Columns = Literal["own", "all"]  # the activations of the column itself, or those of all columns
Padding = Annotated[int, Within(0, MAX_SIDE)]
Positive = Annotated[float, Within(1e-6, 1_000_000)]
Factor = Annotated[float, Within(0, 1_000_000)]


class Window(NamedTuple):
    """The positions of a map that one output is computed from."""

    size: int  # side
    stride: int  # between the windows of neighbouring outputs
    padding: int  # positions before the map's first at which the first window begins


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
        """What its kernels read of each input map; None: all of it."""
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
        windows = F.unfold(maps, self.size, padding=self.padding)  # (B, C size², H' W')
        outputs = torch.baddbmm(self.bias[:, :, None], self.weight, windows.permute(2, 1, 0))  # (H' W', K, B)
        return outputs.permute(2, 1, 0).reshape(-1, self.kernels, *self.sides)


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
class Operation(Settings, ABC):
    """What may follow a layer's weights."""

    needs_maps: ClassVar[bool] = False  # so that it cannot follow a dense layer

    @property
    def crosses_columns(self) -> bool:
        """Whether it takes the activations of all columns, and gives each column its own part of the result."""
        return False

    @property
    def window(self) -> Window:
        """What it reads of each map."""
        return Window(1, 1, 0)

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """The module for one column's activations of ``shape``."""

    def initialize(self, module: nn.Module) -> None:
        """Give ``module`` its initial parameters and buffers, if it has any: torch's own."""
        for part in module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()


OPERATIONS = Registry[Operation]()


@OPERATIONS.register("relu")
@dataclass(frozen=True, kw_only=True)
class ReLU(Operation):
    """max(0, x) (§3.1)."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.ReLU()


@OPERATIONS.register("tanh")
@dataclass(frozen=True, kw_only=True)
class Tanh(Operation):
    """What neurons computed before ReLU (§3.1)."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.Tanh()


@OPERATIONS.register("scaled_tanh")
@dataclass(frozen=True, kw_only=True)
class ScaledTanh(Operation):
    """1.7159 tanh(2x / 3), LeNet-5's, which is about 1 at 1 and -1 at -1 (LeCun and others, 1998, appendix A)."""

    def build(self, shape: Shape) -> nn.Module:
        return LeCunTanh()


class LeCunTanh(nn.Module):
    """The module of `ScaledTanh`."""

    def forward(self, activations: Tensor) -> Tensor:
        """Of any shape."""
        return 1.7159 * torch.tanh(activations * (2 / 3))


@OPERATIONS.register("sigmoid")
@dataclass(frozen=True, kw_only=True)
class Sigmoid(Operation):
    """1 / (1 + exp(-x))."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.Sigmoid()


@OPERATIONS.register("response_norm")
@dataclass(frozen=True, kw_only=True)
class ResponseNorm(Operation):
    """Local response normalization across neighbouring maps (§3.3); alpha is not divided by n."""

    k: Positive
    n: Side
    alpha: Factor
    beta: Factor
    input: Columns = "own"  # neighbours within the column; "all": beyond its border, as in Caffe
    needs_maps: ClassVar[bool] = True

    @property
    def crosses_columns(self) -> bool:
        return self.input == "all"

    def build(self, shape: Shape) -> nn.Module:
        return LocalResponseNorm(k=self.k, n=self.n, alpha=self.alpha, beta=self.beta)


@OPERATIONS.register("map_norm")
@dataclass(frozen=True, kw_only=True)
class WithinMapNorm(Operation):
    """Response norm within each map, over windows of size × size positions: in the 2012 code, not in the paper."""

    k: Positive
    size: Side
    alpha: Factor
    beta: Factor
    needs_maps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size % 2 == 1, "size must be odd")

    @property
    def window(self) -> Window:
        return Window(self.size, 1, self.size // 2)

    def build(self, shape: Shape) -> nn.Module:
        return MapNorm(k=self.k, size=self.size, alpha=self.alpha, beta=self.beta)


@OPERATIONS.register("batch_norm")
@dataclass(frozen=True, kw_only=True)
class BatchNorm(Operation):
    """Batch normalization (Ioffe and Szegedy, 2015), with a learned scale and shift for each map or unit."""

    eps: Annotated[float, Within(1e-12, 1)] = 1e-5
    momentum: Annotated[float, Within(0, 1)] = 0.1  # of the running mean and variance, as torch defines it

    def build(self, shape: Shape) -> nn.Module:
        kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return kind(shape[0], eps=self.eps, momentum=self.momentum)


@dataclass(frozen=True, kw_only=True)
class Pooling(Operation):
    """Windows of size × size, ``stride`` apart; where stride < size they overlap (§3.4)."""

    size: Side
    stride: Side
    padding: Padding = 0
    ceil_mode: bool = False  # round the output size up
    needs_maps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 * self.padding <= self.size, "padding must be at most half of size")

    @property
    def window(self) -> Window:
        return Window(self.size, self.stride, self.padding)


@OPERATIONS.register("max_pool")
@dataclass(frozen=True, kw_only=True)
class MaxPool(Pooling):
    """The largest value in each window."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.MaxPool2d(self.size, self.stride, self.padding, ceil_mode=self.ceil_mode)


@OPERATIONS.register("average_pool")
@dataclass(frozen=True, kw_only=True)
class AveragePool(Pooling):
    """The mean of each window, of the part of it that lies within the maps."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.AvgPool2d(self.size, self.stride, self.padding, ceil_mode=self.ceil_mode, count_include_pad=False)


@OPERATIONS.register("dropout")
@dataclass(frozen=True, kw_only=True)
class Dropout(Operation):
    """In training each unit is set to 0 with probability p, else left as it is; in testing all are multiplied by 1 - p
    (§4.2).

    Later nets have it ``inverted``: in training the units that are left are divided by 1 - p, and testing changes
    nothing. With p = 0.5 that doubles what the next layer gets in training, so it needs other initial weights.
    """

    p: Annotated[float, Within(0, 0.999)]
    inverted: bool = False

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()  # the network draws one mask over all columns: nets/columns.py

    def factor(self, *, training: bool) -> float:
        """What the units that are not set to 0 are multiplied by."""
        if self.inverted:
            return 1 / (1 - self.p) if training else 1.0
        return 1.0 if training else 1 - self.p


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
        dense = [isinstance(layer, Dense) for layer in self.layers.values()]
        require(dense == sorted(dense), "layers: a convolution needs maps, and there are none after a dense layer")
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
                not isinstance(layer, Dense) or not without_maps,
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
