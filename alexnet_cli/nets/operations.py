"""What may follow a layer's weights: pooling, normalization, activation functions, dropout.

Each class here is everything about one of them: its name in recipes, its settings, and the module it is built as. To
add one, write a class and register it; nothing else has to know.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from alexnet_cli.nets.normalization import LocalResponseNorm, MapNorm
from alexnet_cli.settings import MAX_SIDE, Registry, Settings, Side, Within, require

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
class Operation(Settings, ABC):
    """What may follow a layer's weights."""

    needs_maps: ClassVar[bool] = False  # so that it cannot follow a dense layer

    @property
    def crosses_columns(self) -> bool:
        """Whether it takes the activations of all columns, and gives each column its own part of the result."""
        return False

    @property
    def in_response(self) -> bool:
        """Whether what a unit gives after it is still that unit's own response (`nets/responses.py`)."""
        return not (self.needs_maps or self.crosses_columns)

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

    @property
    def in_response(self) -> bool:
        return False  # it is between a unit and the next layer

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()  # the network draws one mask over all columns: nets/columns.py

    def factor(self, *, training: bool) -> float:
        """What the units that are not set to 0 are multiplied by."""
        if self.inverted:
            return 1 / (1 - self.p) if training else 1.0
        return 1.0 if training else 1 - self.p
