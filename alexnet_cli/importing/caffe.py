"""Caffe's AlexNet and CaffeNet: .caffemodel files, and .binaryproto mean images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadArtefact, BadRecipe
from alexnet_cli.importing.protobuf import fields, integers
from alexnet_cli.importing.weights import LAYERS, Imported, cannot_import, fit_recipe, with_operations
from alexnet_cli.nets.layers import Convolution
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
    WithinMapNorm,
)
from alexnet_cli.recipe import Recipe

# A layer is field 100, in old files 2; in it the fields of its name, type and blobs
LAYER_FIELDS = {100: (1, 2, 7), 2: (4, 5, 6)}
OLD_TYPES = {
    4: "Convolution",
    5: "Data",
    6: "Dropout",
    8: "Flatten",
    9: "HDF5Data",
    12: "ImageData",
    14: "InnerProduct",
    15: "LRN",
    17: "Pooling",
    18: "ReLU",
    19: "Sigmoid",
    22: "Split",
    23: "TanH",
    24: "WindowData",
    29: "MemoryData",
    32: "DummyData",
    36: "Silence",
}
# The field of the settings of a type, and the same in old files
SETTINGS_FIELDS = {
    "Convolution": {100: 106, 2: 10},
    "Dropout": {100: 108, 2: 12},
    "LRN": {100: 118, 2: 18},
    "Pooling": {100: 121, 2: 19},
    "ReLU": {100: 123, 2: 30},
    "Data": {100: 100, 2: 36},
    "ImageData": {100: 100, 2: 36},
    "MemoryData": {100: 100, 2: 36},
}
REPEATED = {3, 4, 6, 18}  # padding, size, stride and dilation of a convolution, which may be packed
ACTIVATIONS: dict[str, Operation] = {"ReLU": ReLU(), "TanH": Tanh(), "Sigmoid": Sigmoid()}
IGNORED = {"Flatten", "Reshape", "Split", "Silence"}  # they change no number
# Where the image comes from; their settings are those of its preprocessing: the field 1 is a scale
DATA = {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"}
# The fields of a window: of both sides, or its height and its width
CONVOLUTION = {"size": (4, 11, 12), "stride": (6, 13, 14), "padding": (3, 9, 10)}
POOLING = {"size": (2, 5, 6), "stride": (3, 7, 8), "padding": (4, 9, 10)}

Settings = dict[int, list[Any]]  # field -> the numbers in it


@dataclass(frozen=True, kw_only=True)
class CaffeLayer:
    """A layer of a .caffemodel."""

    name: str
    type: str
    blobs: list[torch.Tensor]  # weights and biases
    settings: Settings


def read(path: Path, recipe: str | None) -> Imported:
    """The weights and the network in a .caffemodel. Raises BadArtefact."""
    layers = list(_layers(path))
    weights: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for layer in layers:
        if layer.name in LAYERS and len(layer.blobs) == 2:
            if layer.name in weights:
                raise BadArtefact(f"{path} has two layers called {layer.name}: it is not of an AlexNet")
            weight, bias = layer.blobs
            if layer.name.startswith("fc") and weight.shape[:-2].numel() == 1:  # old files have (1, 1, units, units in)
                weight = weight.reshape(weight.shape[-2:])
            weights[layer.name] = (weight, bias.reshape(-1))
    order = [layer.type for layer in layers if layer.type in ("LRN", "Pooling")]
    base = recipes.load(recipe or ("caffenet" if order[:2] == ["Pooling", "LRN"] else "caffe-alexnet"))
    try:
        found = _read_network(layers, fit_recipe(base, weights))
    except (BadArtefact, BadRecipe) as error:
        raise BadArtefact(f"{path} does not fit: {error}") from None
    return Imported(format="Caffe", weights=weights, recipe=found, bgr=True)


def mean_image(path: Path, size: int) -> np.ndarray:
    """The mean image in a .binaryproto: (size, size, 3) float32 RGB, 0-255. Raises BadArtefact."""
    blob = _blob(memoryview(path.read_bytes()), path)
    if blob.numel() != 3 * size * size:
        raise BadArtefact(f"{path} holds {tuple(blob.shape)} numbers, not the 3×{size}×{size} of a mean image")
    if not blob.isfinite().all():
        raise BadArtefact(f"{path} holds numbers that are not finite: fetch it again")
    return np.ascontiguousarray(blob.reshape(3, size, size).flip(0).permute(1, 2, 0).numpy())


def _layers(path: Path) -> Iterator[CaffeLayer]:
    """The layers of a .caffemodel, in order."""
    for number, wire, value in fields(memoryview(path.read_bytes()), path):
        if number not in LAYER_FIELDS or wire != 2:
            continue
        name_field, type_field, blob_field = LAYER_FIELDS[number]
        parts = list(fields(value, path))
        name = next((_text(v) for n, w, v in parts if n == name_field and w == 2), "")
        told = next((v for n, _, v in parts if n == type_field), memoryview(b""))
        kind = OLD_TYPES.get(told, f"type-{told}") if isinstance(told, int) else _text(told)
        settings_field = SETTINGS_FIELDS.get(kind, {}).get(number)
        given = [v for n, w, v in parts if n == settings_field and w == 2]
        yield CaffeLayer(
            name="fc8" if name.startswith("fc8") else name,  # a net fine-tuned in Caffe calls its new layer fc8_mine
            type=kind,
            blobs=[_blob(v, path) for n, w, v in parts if n == blob_field and w == 2],
            settings=_settings(memoryview(b"".join(given)), path),
        )


def _text(value: memoryview) -> str:
    return bytes(value[:100]).decode("utf-8", "replace")


def _settings(data: memoryview, path: Path) -> Settings:
    """The numbers in a message of settings."""
    settings: Settings = {}
    for field in fields(data, path):
        number, wire, value = field
        if wire == 5:
            settings.setdefault(number, []).append(round(float(np.frombuffer(value, "<f4")[-1]), 8))
        elif wire == 0 or (wire == 2 and number in REPEATED and value):
            settings.setdefault(number, []).extend(integers(field, path))
    return settings


def _read_network(file_layers: list[CaffeLayer], recipe: Recipe) -> Recipe:
    """``recipe`` with the geometry and the operations of the file.

    A file without a single activation function holds weights alone: the recipe says what follows them.
    """
    layers, then = dict(recipe.network.layers), {name: list[Operation]() for name in recipe.network.layers}
    current = ""
    for one in file_layers:
        try:
            if one.name in layers and one.blobs:
                current, layer = one.name, layers[one.name]
                if isinstance(layer, Convolution) and one.settings:
                    layers[current] = replace(layer, **_kernels(current, one))
            elif one.blobs or (not current and one.type not in IGNORED | DATA):
                raise cannot_import(f"{current or 'the image'} is followed by {one.name}, a {one.type} layer")
            elif one.type in DATA and one.settings.get(1, [1.0]) != [1.0]:
                raise cannot_import(f"{one.name} scales the pixels")
            elif current and one.type not in IGNORED:
                operation = _operation(f"{current} is followed by", one)
                if operation is not None:
                    then[current].append(operation)
                elif current != LAYERS[-1]:  # the last one is followed by the loss
                    raise cannot_import(f"{current} is followed by a {one.type} layer")
        except BadRecipe as error:
            raise BadArtefact(f"{one.name}: {error}") from None
    found = replace(recipe, network=replace(recipe.network, layers=layers))
    return with_operations(found, then) if any(one.type in ACTIVATIONS for one in file_layers) else found


def _operation(where: str, layer: CaffeLayer) -> Operation | None:
    """The operation that ``layer`` is, or None if it is none of ours.

    Raises BadArtefact, with a message that begins with ``where``, if it has settings that ours do not have.
    """
    if layer.type == "LRN":
        return _response_norm(where, layer.settings)
    if layer.type == "Pooling":
        return _pooling(where, layer.settings)
    if layer.type == "Dropout":
        return Dropout(p=layer.settings.get(1, [0.5])[-1], inverted=True)
    if layer.type == "ReLU" and any(layer.settings.get(1, [])):
        raise cannot_import(f"{where} a ReLU with a negative slope")
    return ACTIVATIONS.get(layer.type)


def _response_norm(where: str, settings: Settings) -> Operation:
    """An LRNParameter: local_size 1, alpha 2, beta 3, norm_region 4, k 5; a field that is missing has Caffe's default.

    Caffe divides alpha by the size of the window, ours is not divided; and it normalizes over all columns.
    """
    n, alpha, beta, within, k = (
        settings.get(number, [default])[-1] for number, default in ((1, 5), (2, 1.0), (3, 0.75), (4, 0), (5, 1.0))
    )
    if n % 2 == 0:
        raise cannot_import(f"{where} LRN over an even number of maps")
    if within:  # Caffe does not use k here
        return WithinMapNorm(k=1.0, size=n, alpha=alpha / n**2, beta=beta)
    return ResponseNorm(k=k, n=n, alpha=alpha / n, beta=beta, input="all")


def _pooling(where: str, settings: Settings) -> Pooling:
    """A PoolingParameter: method 1, global 12, round_mode 13, and `POOLING`."""
    method, is_global, rounds_down = (settings.get(number, [0])[-1] for number in (1, 12, 13))
    if is_global:
        raise cannot_import(f"{where} global pooling")
    if method not in (0, 1):
        raise cannot_import(f"{where} stochastic pooling")
    window = _window(f"{where} pooling with windows", settings, POOLING, size=0)
    if method == 1 and window["padding"]:
        raise cannot_import(f"{where} average pooling over padding")
    return (AveragePool if method else MaxPool)(**window, ceil_mode=not rounds_down)


def _kernels(name: str, layer: CaffeLayer) -> dict[str, Any]:
    """Size, stride and padding of a convolution; Caffe rounds its extent down."""
    if set(layer.settings.get(18, [1])) != {1}:
        raise cannot_import(f"{name} has dilated kernels")
    window = _window(f"{name} has kernels", layer.settings, CONVOLUTION, size=layer.blobs[0].shape[-1])
    return window | {"ceil_mode": False}


def _window(where: str, settings: Settings, numbers: dict[str, tuple[int, int, int]], size: int) -> dict[str, int]:
    """Size (by default ``size``), stride and padding. Raises BadArtefact if height and width differ."""
    window = {}
    for (key, (both, height, width)), default in zip(numbers.items(), (size, 1, 0), strict=True):
        given = settings.get(both, [default])
        if height in settings or width in settings:
            given = [settings.get(number, [default])[-1] for number in (height, width)]
        if len(set(given)) > 1:
            raise cannot_import(f"{where} that are not square")
        window[key] = given[0]
    return window


def _blob(data: memoryview, path: Path) -> torch.Tensor:
    """A BlobProto: shape 7 (dim 1), or the old num, channels, height and width 1 to 4; data 5, double_data 8."""
    shape: list[int] = []
    old_shape: dict[int, int] = {}
    numbers: dict[int, list[memoryview]] = {5: [], 8: []}
    for number, wire, value in fields(data, path):
        if number == 7 and wire == 2:
            shape = [dim for field in fields(value, path) if field[0] == 1 for dim in integers(field, path)]
        elif number <= 4 and wire == 0:
            old_shape[number] = value
        elif number in numbers and wire in (1, 2, 5):
            numbers[number].append(value)
    kind, raw = ("<f4", b"".join(numbers[5])) if numbers[5] else ("<f8", b"".join(numbers[8]))
    shape = shape or [old_shape.get(i, 1) for i in (1, 2, 3, 4)]
    if len(shape) > 8 or len(raw) != int(kind[2]) * math.prod(shape):
        raise BadArtefact(f"{path} is damaged: {len(raw)} bytes are no {'×'.join(map(str, shape[:8]))} numbers")
    with np.errstate(over="ignore"):  # infinity is refused with what else is not finite
        array = np.frombuffer(raw, kind).astype(np.float32).reshape(shape)
    return torch.from_numpy(array)
