"""A network of columns with exchanges between them, as that of 2012 is (§3.5, figure 2); most others have one column.

            column 0   conv1 - conv2 \\ / conv3 - conv4 - conv5 \\ / fc6 \\ / fc7 \\
    image <                           X                          X       X        fc8 - softmax
            column 1   conv1 - conv2 / \\ conv3 - conv4 - conv5 / \\ fc6 / \\ fc7 /

This is AlexNet, each of whose columns was a GPU in 2012. A layer takes its input from its own column or, behind an X,
from all columns.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from alexnet_cli.errors import AlexNetError, BadRecipe, first_line
from alexnet_cli.nets.columns import drop, exchange, gather
from alexnet_cli.nets.layers import Layer, Linear, Network
from alexnet_cli.nets.operations import Dropout, Operation, Shape


class Part(nn.Module):
    """One column's part of a hidden layer: its weights, and the operations that follow."""

    weighted: nn.Module
    then: nn.ModuleList

    def __init__(self, weighted: nn.Module, then: list[nn.Module]) -> None:
        super().__init__()
        self.weighted, self.then = weighted, nn.ModuleList(then)


class Column(nn.Module):
    """What one GPU held in 2012: its part of every hidden layer, as submodules conv1 ... fc7."""


class ColumnNetwork(nn.Module):
    """The network of columns that ``network`` describes, for ``classes`` classes and images of ``shape`` (C, H, W).

    It is built on the meta device, where running the layers gives the shape of the next one's input. It has no weights
    until `initialize` or `load_state_dict(..., assign=True)` gives it some. Raises BadRecipe if the images are too
    small for its layers.
    """

    def __init__(self, network: Network, shape: Shape, classes: int) -> None:
        super().__init__()
        self.network = network
        *hidden, self.last = network.layers
        self.hidden = {name: network.layers[name] for name in hidden}
        self.columns = nn.ModuleList(Column() for _ in range(network.columns))
        self.shapes: dict[str, Shape] = {}  # of what leaves each hidden layer in one column: (C, H, W) or (units,)
        with torch.device("meta"), torch.no_grad():
            parts = [torch.empty(2, *shape) for _ in self.columns]  # two: batch norm cannot do with one
            for name, layer in self.hidden.items():
                parts = self._build(name, layer, parts)
            _check_name(self, self.last)
            self.add_module(self.last, Linear(gather(parts, parts[0].device).flatten(1).shape[1], classes))

    def _build(self, name: str, layer: Layer, parts: list[Tensor]) -> list[Tensor]:
        """Add ``layer`` to every column and run it: from the activations that enter it to those that leave it."""
        inputs = exchange(parts) if layer.input == "all" else parts
        for column, entering in zip(self.columns, inputs, strict=True):
            _check_name(column, name)
            column.add_module(name, Part(layer.build(tuple(entering.shape[1:]), len(self.columns)), []))
        try:
            parts = self._weigh(name, inputs)
            for operation in self.operations(name):
                for part, activations in zip(self.parts(name), parts, strict=True):
                    part.then.append(operation.build(tuple(activations.shape[1:])))
                parts = self._operate(operation, name, -1, parts)
        except RuntimeError as error:
            shape = " × ".join(map(str, inputs[0].shape[1:]))
            raise BadRecipe(
                f"{name} gets {shape} and leaves nothing of it: image.crop is too small for these layers "
                f"({first_line(error)})"
            ) from None
        self.shapes[name] = tuple(parts[0].shape[1:])
        return parts

    def forward(
        self, images: Tensor, dropout_seed: int | None = None, rows: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and features (B, D), on the first column's device.

        ``images`` (B, C, crop, crop): centred. The features are the activations of the last hidden layer, in AlexNet
        fc7 (B, 4096), before its dropout. In training, ``dropout_seed`` decides which units are dropped; ``rows``
        (first, total) says where the images stand in a batch of which other processes have the rest.
        """
        wanted = self._before_dropout(self.features_name)
        for *position, parts in self._run(images, dropout_seed, rows):
            if position == wanted:
                features = parts
        logits = self._classify(gather(parts, self.devices[0]))
        return logits, gather(features, self.devices[0]).flatten(1)

    def activations(self, images: Tensor, layer: str) -> Tensor:
        """What leaves the hidden ``layer`` in testing, before its dropout: (B, C, H, W) or (B, units), all columns'.

        ``images``: as in `forward`. Raises AlexNetError if there is no such layer.
        """
        if layer not in self.hidden:
            raise AlexNetError(f"this network has no hidden layer {layer!r}: it has {', '.join(self.hidden)}")
        wanted = self._before_dropout(layer)
        return next(
            gather(parts, self.devices[0]) for *position, parts in self._run(images, None, None) if position == wanted
        )

    def steps(self, images: Tensor) -> Iterator[tuple[str, str, list[Tensor]]]:
        """What each step of the network makes of ``images``, in testing, as it is computed.

        ``images``: as in `forward`. Yields the layer, the name of the operation, which is empty for the weighted sums,
        and the activations of each column, (B, C, H, W) or (B, units) on the column's device. The factor of dropout is
        the step of its own that it is in the recipe. The last step is the weighted sums of the last layer, the logits
        (B, classes), of all columns together.
        """
        for name, step, parts in self._run(images, None, None):
            yield name, "" if step < 0 else self.hidden[name].then[step], parts
        yield self.last, "", [self._classify(gather(parts, self.devices[0]))]

    def _before_dropout(self, name: str) -> list[str | int]:
        """Where `_run` has the activations of a layer before its dropout."""
        return [name, sum(not isinstance(operation, Dropout) for operation in self.operations(name)) - 1]

    def _run(
        self, images: Tensor, dropout_seed: int | None, rows: tuple[int, int] | None
    ) -> Iterator[tuple[str, int, list[Tensor]]]:
        """Layer by layer, operation by operation: the layer, the operation's position in it, or -1 for the weighted
        sums, and the activations after it, column by column."""
        parts = [images.to(device) for device in self.devices]
        for i, (name, layer) in enumerate(self.hidden.items()):
            if layer.input == "all":
                parts = exchange(parts)
            parts = self._weigh(name, parts)
            yield name, -1, parts
            for step, operation in enumerate(self.operations(name)):
                if not isinstance(operation, Dropout):
                    parts = self._operate(operation, name, step, parts)
                else:
                    if self.training:
                        assert dropout_seed is not None, "training needs a dropout_seed"
                        parts = drop(parts, operation.p, dropout_seed + i, rows)
                    if (factor := operation.factor(training=self.training)) != 1:
                        parts = [part * factor for part in parts]
                yield name, step, parts

    def _classify(self, activations: Tensor) -> Tensor:
        """The last layer, in fp32 also under autocast: logits that bf16 cannot tell apart would be ties."""
        last = self.get_submodule(self.last)
        if not torch.is_autocast_enabled(activations.device.type):
            return cast(Tensor, last(activations))
        with torch.autocast(activations.device.type, enabled=False):
            return cast(Tensor, last(activations.float()))

    def _weigh(self, name: str, parts: list[Tensor]) -> list[Tensor]:
        """The weighted sums of a layer, column by column."""
        return [part.weighted(entering) for part, entering in zip(self.parts(name), parts, strict=True)]

    def _operate(self, operation: Operation, name: str, step: int, parts: list[Tensor]) -> list[Tensor]:
        """An operation of a layer, column by column; one that crosses columns gets all of them."""
        modules = [part.then[step] for part in self.parts(name)]
        if not operation.crosses_columns:
            return [module(part) for module, part in zip(modules, parts, strict=True)]
        widths = [part.shape[1] for part in parts]
        results = [module(whole) for module, whole in zip(modules, exchange(parts), strict=True)]
        return [torch.split(result, widths, dim=1)[i] for i, result in enumerate(results)]

    @property
    def features_name(self) -> str:
        """The last hidden layer, in AlexNet fc7."""
        return list(self.hidden)[-1]

    @property
    def devices(self) -> list[torch.device]:
        """The device of each column."""
        return [next(column.parameters()).device for column in self.columns]

    def to_devices(self, devices: Sequence[torch.device]) -> "ColumnNetwork":
        """Put the columns on ``devices``, one each as in 2012, or all on the only one; the last layer on the first.

        Raises BadRecipe unless given one device, or one per column.
        """
        if len(devices) not in (1, len(self.columns)):
            raise BadRecipe(
                f"this network has {len(self.columns)} column{'s' if len(self.columns) > 1 else ''}, "
                f"which cannot lie on {len(devices)} devices: name one device, or one per column"
            )
        for i, column in enumerate(self.columns):
            column.to(devices[i % len(devices)])
        self.get_submodule(self.last).to(devices[0])
        return self

    def weighted(self, name: str) -> list[nn.Module]:
        """The modules with the weights of a layer: one per column, or the last layer's only one."""
        if name == self.last:
            return [self.get_submodule(name)]
        return [part.weighted for part in self.parts(name)]

    def parts(self, name: str) -> list[Part]:
        """What each column has of a hidden layer."""
        return [cast(Part, column.get_submodule(name)) for column in self.columns]

    def operations(self, name: str) -> list[Operation]:
        """What follows the weights of a layer."""
        return [self.network.operations[step] for step in self.network.layers[name].then]


def _check_name(module: nn.Module, name: str) -> None:
    """Raises BadRecipe if ``module`` cannot have a layer called ``name``: torch or this network uses the name."""
    if hasattr(module, name):
        raise BadRecipe(f"a layer cannot be called {name!r}: choose another name")


@torch.no_grad()
def without_dropout(net: ColumnNetwork) -> ColumnNetwork:
    """A copy of ``net`` without dropout that computes the same in testing: the factor by which dropout multiplies a
    layer's outputs is in the weights of the next layer. For the paper's 0.5 this is exact."""
    net = copy.deepcopy(net)
    names = [*net.hidden, net.last]
    for name, following in pairwise(names):
        for operation in net.operations(name):
            if isinstance(operation, Dropout):
                for module in net.weighted(following):
                    module.get_parameter("weight").mul_(operation.factor(training=False))
    operations = {
        name: replace(operation, p=0.0) if isinstance(operation, Dropout) else operation
        for name, operation in net.network.operations.items()
    }
    net.network = replace(net.network, operations=operations)
    return net


@torch.no_grad()
def initialize(net: ColumnNetwork, seed: int) -> ColumnNetwork:
    """Give ``net`` the initial weights and biases of its layers (§5), on the CPU: a pure function of ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    net.to_empty(device="cpu")
    for name, layer in net.network.layers.items():
        for module in net.weighted(name):
            layer.initialize(module, generator)
        for part in net.parts(name) if name in net.hidden else []:
            for operation, module in zip(net.operations(name), part.then, strict=True):
                operation.initialize(module)
    return net


def parameters_by_layer(net: ColumnNetwork) -> dict[str, int]:
    """The number of weights and biases of each layer, over all columns."""
    return {
        name: sum(map(parameter_count, net.parts(name) if name in net.hidden else net.weighted(name)))
        for name in net.network.layers
    }


def parameter_count(net: nn.Module) -> int:
    """The number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def layer_of(parameter: str) -> str:
    """The layer of a parameter, by its name: conv1 for columns.0.conv1.weighted.weight."""
    first, *rest = parameter.split(".")
    return rest[1] if first == "columns" else first


def is_bias(parameter: str) -> bool:
    """Whether a parameter is a layer's biases, by its name."""
    return parameter.endswith(".bias")
