"""Caffe's AlexNet and CaffeNet: .caffemodel files, and .binaryproto mean images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadArtefact
from alexnet_cli.importing.protobuf import fields, integers
from alexnet_cli.importing.weights import LAYERS, Imported
from alexnet_cli.nets.layers import ResponseNorm
from alexnet_cli.recipe import Recipe

# A layer is field 100, in old files 2; in it the fields of its name, type, blobs and response norm
LAYER_FIELDS = {100: (1, 2, 7, 118), 2: (4, 5, 6, 18)}
TYPES = {b"LRN": "norm", 15: "norm", b"Pooling": "pool", 17: "pool"}


def read(path: Path, recipe: str | None) -> Imported:
    """The weights in a .caffemodel. Raises BadArtefact."""
    weights: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    order: list[str] = []
    norm: ResponseNorm | None = None
    for number, wire, value in fields(_bytes(path), path):
        if number not in LAYER_FIELDS or wire != 2:
            continue
        name_field, type_field, blob_field, norm_field = LAYER_FIELDS[number]
        parts = list(fields(value, path))
        name = next((bytes(v).decode("utf-8", "replace") for n, w, v in parts if n == name_field and w == 2), "")
        name = "fc8" if name.startswith("fc8") else name  # a net fine-tuned in Caffe calls its new layer fc8_mine
        order += [TYPES[v] for n, _, v in parts if n == type_field and v in TYPES]
        blobs = [_blob(v, path) for n, w, v in parts if n == blob_field and w == 2]
        if name in LAYERS and len(blobs) == 2:
            weight, bias = blobs
            weights[name] = (weight.reshape(weight.shape[-2:]) if name.startswith("fc") else weight, bias.reshape(-1))
        for given in (v for n, w, v in parts if n == norm_field and w == 2):
            norm = _response_norm(given, path)
    chosen = recipes.load(recipe or ("caffenet" if order[:2] == ["pool", "norm"] else "caffe-alexnet"))
    return Imported(
        format="Caffe", weights=weights, recipe=chosen if norm is None else _with_norm(chosen, norm), bgr=True
    )


def mean_image(path: Path, size: int) -> np.ndarray:
    """The mean image in a .binaryproto: (size, size, 3) float32 RGB, 0-255. Raises BadArtefact."""
    blob = _blob(_bytes(path), path)
    if blob.numel() != 3 * size * size:
        raise BadArtefact(f"{path} holds {tuple(blob.shape)} numbers, not the 3×{size}×{size} of a mean image")
    return np.ascontiguousarray(blob.reshape(3, size, size).flip(0).permute(1, 2, 0).numpy())


def _with_norm(recipe: Recipe, norm: ResponseNorm) -> Recipe:
    operations = {
        name: norm if isinstance(operation, ResponseNorm) else operation
        for name, operation in recipe.network.operations.items()
    }
    return replace(recipe, network=replace(recipe.network, operations=operations))


def _response_norm(data: bytes, path: Path) -> ResponseNorm:
    """An LRNParameter: local_size 1, alpha 2, beta 3, k 5; a field that is missing has Caffe's default."""
    n, given = 5, {2: 1.0, 3: 0.75, 5: 1.0}
    for number, wire, value in fields(data, path):
        if number == 1 and wire == 0:
            n = value
        elif number in given and wire == 5:
            given[number] = round(float(np.frombuffer(value, "<f4")[0]), 8)
    return ResponseNorm(k=given[5], n=n, alpha=given[2] / n, beta=given[3], input="all")


def _blob(data: bytes, path: Path) -> torch.Tensor:
    """A BlobProto: shape 7 (dim 1), or the old num, channels, height and width 1 to 4; data 5, double_data 8."""
    shape: list[int] = []
    old_shape: dict[int, int] = {}
    numbers: dict[int, list[bytes]] = {5: [], 8: []}
    for number, wire, value in fields(data, path):
        if number == 7 and wire == 2:
            shape = [dim for field in fields(value, path) if field[0] == 1 for dim in integers(field, path)]
        elif number <= 4 and wire == 0:
            old_shape[number] = value
        elif number in numbers and wire in (1, 2, 5):
            numbers[number].append(value)
    kind, raw = ("<f4", b"".join(numbers[5])) if numbers[5] else ("<f8", b"".join(numbers[8]))
    shape = shape or [old_shape.get(i, 1) for i in (1, 2, 3, 4)]
    if len(raw) != int(kind[2]) * int(np.prod(shape)):
        raise BadArtefact(f"{path} is damaged: {len(raw)} bytes are no {'×'.join(map(str, shape))} numbers")
    return torch.from_numpy(np.frombuffer(raw, kind).astype(np.float32).reshape(shape))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadArtefact(f"cannot read {path}: {error.strerror}") from None
