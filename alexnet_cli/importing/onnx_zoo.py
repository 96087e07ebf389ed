"""The ONNX zoo's `bvlcalexnet`: geometry, constants and the order of operations are read from the graph."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadArtefact, BadRecipe, first_line
from alexnet_cli.importing.weights import LAYERS, Imported, fit_recipe
from alexnet_cli.nets.layers import Convolution, Dropout, Layer, MaxPool, Operation, ReLU, ResponseNorm, Tanh
from alexnet_cli.recipe import Recipe

if TYPE_CHECKING:
    import onnx

NORM = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}  # ONNX's defaults


def read(path: Path, recipe: str | None) -> Imported:
    """The weights and the network in an ONNX file of the zoo's kind. Raises BadArtefact."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's own
        raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): fetch it again") from None
    constants = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in model.graph.initializer}
    weights = {
        layer: (constants[f"{layer}_w_0"], constants[f"{layer}_b_0"])
        for layer in LAYERS
        if f"{layer}_w_0" in constants and f"{layer}_b_0" in constants
    }
    try:
        base = fit_recipe(recipes.load(recipe or "caffe-alexnet"), weights)
        found, outputs = _of_graph(model.graph, base, set(constants))
        _check_sides(found, model, outputs)
    except (BadArtefact, BadRecipe) as error:
        raise BadArtefact(f"{path} does not fit: {error}") from None
    return Imported(format="ONNX zoo", weights=weights, recipe=found, bgr=True)


def _of_graph(graph: "onnx.GraphProto", recipe: Recipe, constants: set[str]) -> tuple[Recipe, dict[str, str]]:
    """``recipe`` with the crop, geometry and operations of ``graph``; and layer -> the name of its output there."""
    import onnx

    image = next(one for one in graph.input if one.name not in constants)
    crop = image.type.tensor_type.shape.dim[-1].dim_value
    layers: dict[str, Layer] = dict(recipe.network.layers)
    operations: dict[str, Operation] = {}
    outputs: dict[str, str] = {}
    current = ""
    for node in graph.node:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        weighted = [name.removesuffix("_w_0") for name in node.input if name.endswith("_w_0")]
        if weighted and weighted[0] in layers:
            current = weighted[0]
            layers[current] = replace(layers[current], then=[])
            layer = layers[current]
            if node.op_type == "Conv" and isinstance(layer, Convolution):
                layers[current] = replace(layer, **_geometry(attributes))
        elif current and (operation := _operation(node.op_type, attributes, recipe)) is not None:
            name = _name_of(operation, operations)
            operations[name] = operation
            layers[current] = replace(layers[current], then=[*layers[current].then, name])
        else:
            continue
        outputs[current] = node.output[0]
    network = replace(recipe.network, layers=layers, operations=operations)
    return replace(recipe, network=network, image=replace(recipe.image, crop=crop)), outputs


def _operation(kind: str, attributes: dict[str, Any], recipe: Recipe) -> Operation | None:
    """The operation of an ONNX node; None if it is none of ours, such as Reshape and Softmax."""
    if kind == "LRN":
        # ONNX divides alpha by the size of the window, we do not; and it normalizes over all columns.
        n = attributes["size"]
        alpha, beta, k = (round(attributes.get(key, default), 8) for key, default in NORM.items())
        return ResponseNorm(k=k, n=n, alpha=alpha / n, beta=beta, input="all")
    if kind == "MaxPool":
        ceil_mode = bool(attributes.get("ceil_mode")) or max(attributes.get("pads", [0])) > 0
        return MaxPool(size=attributes["kernel_shape"][0], stride=attributes["strides"][0], ceil_mode=ceil_mode)
    if kind == "Dropout":
        own = [one for one in recipe.network.operations.values() if isinstance(one, Dropout)]
        return own[0] if own else Dropout(p=0.5)
    return {"Relu": ReLU(), "Tanh": Tanh()}.get(kind)


def _name_of(operation: Operation, operations: dict[str, Operation]) -> str:
    """What the recipe calls the operation: pooling; pooling2 where another one has other settings."""
    base = "pooling" if isinstance(operation, MaxPool) else operation.type
    number = 1
    while operations.get(name := base if number == 1 else f"{base}{number}", operation) != operation:
        number += 1
    return name


def _geometry(attributes: dict[str, Any]) -> dict[str, Any]:
    """Size, stride and padding of a convolution; more zeros at the end than at the beginning are ceil_mode."""
    begin, _, end, _ = attributes.get("pads", [0, 0, 0, 0])
    return {
        "size": attributes["kernel_shape"][0],
        "stride": attributes.get("strides", [1])[0],
        "padding": begin,
        "ceil_mode": end > begin,
    }


def _check_sides(recipe: Recipe, model: "onnx.ModelProto", outputs: dict[str, str]) -> None:
    """Raises BadArtefact naming the first layer whose maps have another side in the file than here."""
    import onnx

    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    sides = {one.name: one.type.tensor_type.shape.dim[-1].dim_value for one in values}
    for name, shape in recipe.build(2).shapes.items():
        there = sides.get(outputs.get(name, ""), shape[-1])
        if len(shape) == 3 and there != shape[-1]:
            raise BadArtefact(
                f"{name} leaves maps of {there}×{there}, where its geometry here leaves {shape[-1]}×{shape[-1]}"
            )
