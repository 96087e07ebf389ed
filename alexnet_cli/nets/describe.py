"""The numbers of each layer: its neurons, weights and connections, and how much of the picture a unit sees."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from alexnet_cli.nets.layers import Network
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.nets.operations import Shape, Window


@dataclass(frozen=True, kw_only=True)
class Field:
    """The receptive fields of the units of a map: squares in the network's input, in pixels."""

    size: int  # side
    stride: int  # between the fields of neighbouring units
    start: int  # the first row, and column, of unit (0, 0)'s field; negative where there is padding

    def through(self, window: Window) -> "Field":
        """The fields of outputs that are each computed from a ``window`` of units with these fields."""
        return Field(
            size=self.size + (window.size - 1) * self.stride,
            stride=self.stride * window.stride,
            start=self.start - window.padding * self.stride,
        )

    @property
    def centre(self) -> float:
        """Of unit (0, 0)'s field, in both directions."""
        return self.start + (self.size - 1) / 2


PIXEL = Field(size=1, stride=1, start=0)


def fields(network: Network) -> dict[str, Field]:
    """The receptive fields of the units of each layer that has maps, before its operations; first to last."""
    found, field = dict[str, Field](), PIXEL
    for name, layer in network.layers.items():
        if layer.window is None:  # a dense layer: after it there are no maps
            break
        found[name] = field = field.through(layer.window)
        for step in layer.then:
            field = field.through(network.operations[step].window)
    return found


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A layer with weights, over all columns. Shapes are (C, H, W), or (units,)."""

    name: str
    kind: str  # convolution, local, dense: its type in a recipe
    input: str  # own, all: which columns it takes its input from
    columns: int  # 1 for the last layer, which is in none
    kernels: int  # or units
    size: int | None  # side of a kernel, in positions of its input maps; None for a dense layer, as is `stride`
    stride: int | None
    output: Shape  # of its weights, before the operations
    then: tuple[str, ...]  # the operations that follow, by their names in the recipe
    leaves: Shape  # after the operations
    neurons: int  # numbers in `output`
    weights: int
    biases: int
    connections: int  # without biases: multiply-adds for one picture; windows past a border count in full
    field: Field | None  # of a unit before the operations; None from the first dense layer on: the whole picture

    def as_json(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def layer_table(network: Network, shape: Shape, classes: int) -> list[LayerRow]:
    """The layers of ``network``, first to last, for images of ``shape`` (C, H, W) and that many ``classes``.

    For the paper's network: 290,400 neurons in conv1, and fields of 11, 51, 99, 131 and 163 pixels (§3.5). Raises
    BadRecipe if the images are too small for its layers.
    """
    net = ColumnNetwork(network, shape, classes)
    rows, seen = list[LayerRow](), fields(network)
    for name, output in _outputs(net, shape).items():
        layer, modules = network.layers[name], net.weighted(name)
        columns, window = len(modules), layer.window
        weights, biases = (sum(module.get_parameter(kind).numel() for module in modules) for kind in ("weight", "bias"))
        neurons = columns * math.prod(output)
        rows.append(
            LayerRow(
                name=name,
                kind=layer.type,
                input=layer.input,
                columns=columns,
                kernels=columns * output[0],
                size=window.size if window else None,
                stride=window.stride if window else None,
                output=_whole(output, columns),
                then=tuple(layer.then),
                leaves=_whole(net.shapes.get(name, output), columns),
                neurons=neurons,
                weights=weights,
                biases=biases,
                connections=neurons * (weights // biases),  # a unit, or a kernel, has one bias
                field=seen.get(name),
            )
        )
    return rows


def _outputs(net: ColumnNetwork, shape: Shape) -> Mapping[str, Shape]:
    """Layer -> the shape of what its weights give in one column: (C, H, W) or (units,)."""
    outputs, entering = dict[str, Shape](), shape
    with torch.device("meta"), torch.no_grad():
        for name, layer in net.network.layers.items():
            if layer.input == "all" and outputs:
                entering = _whole(entering, len(net.columns))
            outputs[name] = tuple(net.weighted(name)[0](torch.empty(2, *entering)).shape[1:])
            entering = net.shapes.get(name, ())
    return outputs


def _whole(shape: Shape, columns: int) -> Shape:
    """The shape of all columns together, of one column's."""
    return (columns * shape[0], *shape[1:])
