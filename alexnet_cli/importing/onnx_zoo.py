"""The ONNX zoo's `bvlcalexnet`: geometry, constants and the order of operations are read from the graph."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadArtefact, BadRecipe, first_line
from alexnet_cli.importing.weights import LAYERS, Imported, Weights, cannot_import, fit_recipe, with_operations
from alexnet_cli.nets.layers import Convolution, Layer
from alexnet_cli.nets.operations import (
    AveragePool,
    Dropout,
    MaxPool,
    Operation,
    Pooling,
    ReLU,
    ResponseNorm,
    Sigmoid,
    Tanh,
)
from alexnet_cli.recipe import Recipe

if TYPE_CHECKING:
    import onnx

ACTIVATIONS: dict[str, Operation] = {"Relu": ReLU(), "Tanh": Tanh(), "Sigmoid": Sigmoid()}
POOLINGS: dict[str, type[Pooling]] = {"MaxPool": MaxPool, "AveragePool": AveragePool}
IGNORED = {"Reshape", "Flatten", "Identity", "Softmax"}  # a dense layer flattens; logits are the network's output here
NORM = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}  # ONNX's defaults

Attributes = dict[str, Any]


def read(path: Path, recipe: str | None) -> Imported:
    """The weights and the network in an ONNX file of the zoo's kind. Raises BadArtefact."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own
        raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): fetch it again") from None
    try:
        _check(model)
        constants = {one.name: one for one in model.graph.initializer}
        weights = {
            layer: (_tensor(constants[f"{layer}_w_0"]), _tensor(constants[f"{layer}_b_0"]))
            for layer in LAYERS
            if f"{layer}_w_0" in constants and f"{layer}_b_0" in constants
        }
    except BadArtefact as error:
        raise BadArtefact(f"{path} cannot be imported: {error}") from None
    base = recipes.load(recipe or "caffe-alexnet")
    try:
        found, outputs = _read_graph(model.graph, fit_recipe(base, weights), weights, constants)
        _check_sides(found, model, outputs)
    except (BadArtefact, BadRecipe) as error:
        raise BadArtefact(f"{path} does not fit: {error}") from None
    return Imported(format="ONNX zoo", weights=weights, recipe=found, bgr=True)


def _check(model: "onnx.ModelProto") -> None:
    """Raises BadArtefact if ``model`` is not one graph of plain nodes with all its constants inside."""
    import onnx

    graph = model.graph
    names = Counter(one.name for one in graph.initializer)
    for one in graph.initializer:
        if names[one.name] > 1:
            raise BadArtefact(f"it has two constants called {one.name}")
        if one.data_location == onnx.TensorProto.EXTERNAL or one.external_data:
            raise BadArtefact(f"{one.name} is in another file, which is never opened: save it as one file")
    foreign = [node.op_type for node in graph.node if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise BadArtefact(f"it has a node of another origin than ONNX itself, {foreign[0]}")
    subgraphs = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
    if model.functions or any(one.type in subgraphs for node in graph.node for one in node.attribute):
        raise BadArtefact("it has functions or graphs inside of nodes, which AlexNet does not need")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # its own, and protobuf's
        raise BadArtefact(f"it is no valid ONNX graph ({first_line(error)})") from None


def _tensor(constant: "onnx.TensorProto") -> torch.Tensor:
    """A weight in float32. Raises BadArtefact if it has not the numbers that its shape needs."""
    import onnx

    kinds = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE
    if constant.data_type not in kinds or any(side < 0 for side in constant.dims):
        raise BadArtefact(
            f"{constant.name} holds no weights (type {constant.data_type}, shape {list(constant.dims)[:8]})"
        )
    try:
        with np.errstate(over="ignore"):  # infinity is refused with what else is not finite
            return torch.from_numpy(onnx.numpy_helper.to_array(constant).astype(np.float32))
    except (ValueError, TypeError) as error:
        raise BadArtefact(f"{constant.name} is damaged ({first_line(error)})") from None


def _read_graph(
    graph: "onnx.GraphProto", recipe: Recipe, weights: Weights, constants: Collection[str]
) -> tuple[Recipe, dict[str, str]]:
    """``recipe`` with the crop, geometry and operations of ``graph``; and layer -> the name of its output there."""
    import onnx

    image, crop = _input(graph, constants)
    activations = {image}  # the names of all tensors that the image becomes
    layers, then = dict(recipe.network.layers), {name: list[Operation]() for name in recipe.network.layers}
    outputs: dict[str, str] = {}
    current = ""
    for node in graph.node:
        if activations.isdisjoint(node.input) or node.op_type == "Shape":
            continue  # computes a constant, such as the shape for a Reshape
        activations.update(node.output)
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        weighted = [name.removesuffix("_w_0") for name in node.input if name.endswith("_w_0")]
        try:
            if weighted and weighted[0] in layers:
                current = weighted[0]
                layer = layers[current]
                _check_weighted(current, layer, node.op_type, attributes)
                if isinstance(layer, Convolution):
                    size = list(weights[current][0].shape[2:])
                    window = _window(f"{current} has", "kernels", {"kernel_shape": size} | attributes)
                    layers[current] = replace(layer, **window)
            elif node.op_type == "Softmax" and current != LAYERS[-1]:
                raise cannot_import(f"{current or 'the image'} is followed by Softmax")
            elif node.op_type in IGNORED:
                continue
            elif not current:
                raise cannot_import(f"the image first goes through {node.op_type}")
            else:
                then[current].append(_operation(f"{current} is followed by", node.op_type, attributes, recipe))
        except BadRecipe as error:
            raise BadArtefact(f"{current}: {error}") from None
        outputs[current] = node.output[0]
    network = replace(recipe.network, layers=layers)
    found = replace(recipe, network=network, image=replace(recipe.image, crop=crop))
    return with_operations(found, then), outputs


def _input(graph: "onnx.GraphProto", constants: Collection[str]) -> tuple[str, int]:
    """Name and side of the images that go in. Raises BadArtefact."""
    for one in graph.input:
        if one.name not in constants:
            sides = {dimension.dim_value for dimension in one.type.tensor_type.shape.dim[2:]}
            if len(sides) == 1 and 0 not in sides:
                return one.name, sides.pop()
    raise BadArtefact("its input must be square images of a fixed size")


def _operation(where: str, kind: str, attributes: Attributes, recipe: Recipe) -> Operation:
    """The operation of a node. Raises BadArtefact if it is none of ours; ``where`` begins the message."""
    if kind == "LRN":
        # ONNX divides alpha by the size of the window, we do not; and it normalizes over all columns.
        n = attributes["size"]
        if n % 2 == 0:
            raise cannot_import(f"{where} LRN over an even number of maps")
        alpha, beta, k = (round(attributes.get(key, default), 8) for key, default in NORM.items())
        return ResponseNorm(k=k, n=n, alpha=alpha / n, beta=beta, input="all")
    if kind in POOLINGS:
        if attributes.get("count_include_pad") and any(attributes.get("pads", [])):
            raise cannot_import(f"{where} {kind} over padding")
        return POOLINGS[kind](**_window(f"{where} {kind} with", "windows", attributes))
    if kind == "Dropout":
        own = [one.p for one in recipe.network.operations.values() if isinstance(one, Dropout)]
        return Dropout(p=round(attributes.get("ratio", own[0] if own else 0.5), 8), inverted=True)
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind]
    raise cannot_import(f"{where} {kind}")


def _check_weighted(name: str, layer: Layer, kind: str, attributes: Attributes) -> None:
    """Raises BadArtefact unless a node of this ``kind`` computes what ``layer`` does: products, and biases added."""
    wanted = "Conv" if isinstance(layer, Convolution) else "Gemm"
    if kind != wanted:
        raise cannot_import(f"{name} is a {kind} node, not {wanted}")
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    defaults = plain | {"transB": 0}
    if kind == "Gemm" and any(attributes.get(key, defaults[key]) != value for key, value in plain.items()):
        raise cannot_import(f"{name} is a Gemm node with scaled or transposed inputs")


def _window(where: str, what: str, attributes: Attributes) -> dict[str, Any]:
    """Size, stride and padding of a convolution or pooling; more padding at the end than at the beginning is ceil_mode.

    ceil_mode may pad differently. Windows start at the same positions either way, so equal output sizes mean equal
    results, and `_check_sides` compares the sizes. Raises BadArtefact if kernels or windows are not square, or dilated.
    """
    size, stride = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    pads, auto_pad = (
        attributes.get("pads", [0, 0, 0, 0]),
        attributes.get("auto_pad", b"NOTSET").decode(errors="replace"),
    )
    if (len(size), len(stride), len(pads)) != (2, 2, 4):
        raise cannot_import(f"{where} {what} that are not of two dimensions")
    top, left, bottom, right = pads
    if auto_pad not in ("NOTSET", "VALID"):
        raise cannot_import(f"{where} auto_pad = {auto_pad}")
    if set(attributes.get("dilations", [1])) != {1}:
        raise cannot_import(f"{where} dilated {what}")
    if len(set(size)) > 1 or len(set(stride)) > 1 or (top, bottom) != (left, right):
        raise cannot_import(f"{where} {what} that are not square")
    ceil_mode = bool(attributes.get("ceil_mode")) or bottom > top
    return {"size": size[0], "stride": stride[0], "padding": top, "ceil_mode": ceil_mode}


def _check_sides(recipe: Recipe, model: "onnx.ModelProto", outputs: dict[str, str]) -> None:
    """Raises BadArtefact naming the first layer whose maps have another side in the file than here."""
    import onnx

    try:
        values = onnx.shape_inference.infer_shapes(model).graph.value_info
    except Exception as error:  # its own
        raise BadArtefact(f"its shapes do not fit each other ({first_line(error)})") from None
    sides = {one.name: one.type.tensor_type.shape.dim[-1].dim_value for one in values if one.type.tensor_type.shape.dim}
    for name, shape in recipe.build(2).shapes.items():
        there = sides.get(outputs.get(name, ""), shape[-1])
        if len(shape) == 3 and there != shape[-1]:
            raise BadArtefact(
                f"{name} leaves maps of {there}×{there}, where its geometry here leaves {shape[-1]}×{shape[-1]}"
            )
