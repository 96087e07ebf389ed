"""Models from elsewhere: torchvision's, Caffe's and the ONNX zoo's files, read without running anything in them."""

import datetime
import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

import alexnet_cli
from alexnet_cli import recipe as recipes
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import extent_after
from alexnet_cli.nets.pretrained import Weights, fitted, network
from alexnet_cli.recipe import Convolution, Recipe, ResponseNorm, Rounds, Step

if TYPE_CHECKING:
    import onnx

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
STEPS: dict[str, Step] = {
    "Relu": "relu",
    "Tanh": "tanh",
    "LRN": "response_norm",
    "MaxPool": "pooling",
    "Dropout": "dropout",
}
NORM = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}  # ONNX's defaults
CAFFE_MEAN = (122.679, 116.669, 104.007)  # RGB, of ILSVRC-2012's training images
TORCHVISION_MEAN, TORCHVISION_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What was found in a file."""

    kind: str  # where it comes from
    weights: Weights
    recipe: Recipe
    bgr: bool = False
    mean: tuple[float, float, float] = CAFFE_MEAN  # RGB, 0-255
    deviation: tuple[float, float, float] | None = None  # RGB, 0-255: what centred pixels were divided by
    classes: list[str] = field(default_factory=list)  # if it says


def import_model(
    source: str, *, recipe: str | None = None, classes: list[str] | None = None, mean: Path | None = None
) -> Model:
    """A model of ours from ``source``: the word `torchvision`, or a file of torchvision, Caffe or the ONNX zoo.

    ``recipe``: instead of the one the file is taken to be of; ``classes``: in label order, by default ImageNet's where
    there are 1000; ``mean``: a `.binaryproto` mean image. Raises BadArtefact for a file that is none of these, is
    damaged, or does not fit, naming the first layer that differs.
    """
    found = _read(source, recipe)
    divide_by, scale = 1.0, None
    if found.deviation is not None:
        divide_by = float(np.mean(found.deviation))
        scale = divide_by / torch.tensor(found.deviation)  # what one number for all colours leaves over
    try:
        net = network(found.recipe, found.weights, bgr=found.bgr, scale=scale)
    except BadArtefact as error:
        raise BadArtefact(f"{source} does not fit: {error}") from None
    size = found.recipe.image.size
    final = replace(net.recipe, image=replace(net.recipe.image, divide_by=divide_by))
    net.recipe = final
    count = len(found.weights[LAYERS[-1]][0])
    return Model(
        net=net.to(memory_format=torch.channels_last).eval(),
        recipe=final,
        classes=_classes(classes or found.classes, count, source),
        mean_image=np.broadcast_to(np.array(found.mean, np.float32), (size, size, 3)).copy()
        if mean is None
        else mean_image(mean, size),
        provenance={
            "imported": found.kind,
            "source": source if source == "torchvision" else Path(source).name,
            "sha256": None if source == "torchvision" else hashlib.sha256(Path(source).read_bytes()).hexdigest(),
            "date": datetime.date.today().isoformat(),
            "version": alexnet_cli.__version__,
        },
    )


def read_classes(path: Path) -> list[str]:
    """The classes in a text file, one a line, in label order. Raises BadArtefact."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadArtefact(f"cannot read the classes in {path} ({error}): give a text file, a class a line") from None


def mean_image(path: Path, size: int) -> np.ndarray:
    """The mean image in a `.binaryproto`: (size, size, 3) float32 RGB. Raises BadArtefact."""
    blob = _blob(_bytes(path), path)
    if blob.numel() != 3 * size * size:
        raise BadArtefact(f"{path} holds {tuple(blob.shape)} numbers, not the 3×{size}×{size} of a mean image")
    return np.ascontiguousarray(blob.reshape(3, size, size).flip(0).permute(1, 2, 0).numpy())


def _classes(given: list[str], count: int, source: str) -> list[str]:
    if not given and count == 1000:
        from torchvision.models import AlexNet_Weights

        given = list(
            AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
        )  # all of them have ILSVRC's order, of sorted WNIDs
    if not given:
        raise BadArtefact(f"{source} has {count} classes and does not name them: name a file or dataset with --classes")
    if len(given) != count:
        raise BadArtefact(f"{source} has {count} classes, but {len(given)} are named by --classes")
    names = [name if given.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(given)]
    return names  # two of ImageNet's classes are both called crane, and two maillot


def _read(source: str, recipe: str | None) -> Foreign:
    if source == "torchvision":
        return _torchvision(_fetched(), recipe)
    path = Path(source)
    if not path.is_file():
        raise BadArtefact(f"no file {source}: give one, or the word torchvision, which fetches torchvision's weights")
    readers: dict[str, Callable[[Path, str | None], Foreign]] = {
        ".pth": _torch_file,
        ".pt": _torch_file,
        ".safetensors": _torch_file,
        ".caffemodel": _caffe,
        ".onnx": _onnx,
    }
    if path.suffix not in readers:
        raise BadArtefact(f"{source} is of no known format: it takes {', '.join(readers)}")
    return readers[path.suffix](path, recipe)


# torchvision


def _fetched() -> dict[str, torch.Tensor]:
    from torchvision.models import AlexNet_Weights

    try:
        return dict(AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise AlexNetError(
            f"torchvision could not fetch its weights ({type(error).__name__}): fetch alexnet-owt-7be5be79.pth where "
            "there is a network, and import that file"
        ) from None


def _torch_file(path: Path, recipe: str | None) -> Foreign:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about pickles that it then refuses
            state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): fetch it again") from None
    except Exception as error:  # a zip that is none, a pickle that is more than tensors
        raise BadArtefact(f"{path} is damaged or holds more than tensors ({first_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadArtefact(f"{path} is no state dict: save `model.state_dict()`")
    return _torchvision(state, recipe)


def _torchvision(state: dict[str, torch.Tensor], recipe: str | None) -> Foreign:
    weights = {
        layer: (state[f"{name}.weight"], state[f"{name}.bias"])
        for layer, name in TORCHVISION.items()
        if f"{name}.weight" in state and f"{name}.bias" in state
    }
    mean, deviation = (
        cast(tuple[float, float, float], tuple(255 * v for v in values))
        for values in (TORCHVISION_MEAN, TORCHVISION_DEVIATION)
    )
    return Foreign(
        kind="torchvision",
        weights=weights,
        recipe=recipes.load(recipe or "torchvision"),
        mean=mean,
        deviation=deviation,
    )


# Caffe: just enough of protobuf's wire format to find layers and their numbers

Field = tuple[int, int, Any]  # number, wire type, value: an int, or bytes


def _fields(data: bytes, path: Path) -> Iterator[Field]:
    """The fields of a protobuf message. Raises BadArtefact if it ends in the middle of one."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, path)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at, path)
            yield number, wire, value
            continue
        if wire == 2:
            length, at = _varint(data, at, path)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise BadArtefact(f"{path} is damaged or no protobuf: fetch it again")
        if number == 0 or at + length > len(data):
            raise BadArtefact(f"{path} is damaged or cut short: fetch it again")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int, path: Path) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise BadArtefact(f"{path} is damaged or cut short: fetch it again")


def _blob(data: bytes, path: Path) -> torch.Tensor:
    """A BlobProto: shape 7 (dim 1), or the old num, channels, height and width 1 to 4; data 5, double_data 8."""
    shape: list[int] = []
    old: dict[int, int] = {}
    numbers = {5: b"", 8: b""}
    for number, wire, value in _fields(data, path):
        if number == 7 and wire == 2:
            shape = [dim for part in _fields(value, path) if part[0] == 1 for dim in _packed(part, path)]
        elif number <= 4 and wire == 0:
            old[number] = value
        elif number in numbers and wire in (1, 2, 5):
            numbers[number] += value
    kind = "<f4" if numbers[5] else "<f8"
    raw = numbers[5] or numbers[8]
    shape = shape or [old.get(i, 1) for i in (1, 2, 3, 4)]
    if len(raw) != int(kind[2]) * int(np.prod(shape)):
        raise BadArtefact(f"{path} is damaged: {len(raw)} bytes are no {'×'.join(map(str, shape))} numbers")
    return torch.from_numpy(np.frombuffer(raw, kind).astype(np.float32).reshape(shape))


def _packed(part: Field, path: Path) -> list[int]:
    """The numbers of a repeated field, packed or one by one."""
    _, wire, value = part
    if wire == 0:
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at, path)
        numbers.append(number)
    return numbers


def _caffe(path: Path, recipe: str | None) -> Foreign:
    """A `.caffemodel`: `layer` 100 (name 1, type 2, blobs 7, lrn_param 118), in old files `layers` 2 (name 4, type 5,
    blobs 6, lrn_param 18)."""
    fields_of = {100: (1, 2, 7, 118), 2: (4, 5, 6, 18)}
    kinds = {b"LRN": "norm", 15: "norm", b"Pooling": "pool", 17: "pool"}
    weights: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    order: list[str] = []
    norm: ResponseNorm | None = None
    for number, wire, value in _fields(_bytes(path), path):
        if number not in fields_of or wire != 2:
            continue
        name_field, kind_field, blob_field, norm_field = fields_of[number]
        parts = list(_fields(value, path))
        name = next((bytes(v).decode("utf-8", "replace") for n, w, v in parts if n == name_field and w == 2), "")
        name = "fc8" if name.startswith("fc8") else name  # who fine-tunes in Caffe calls the new layer fc8_mine
        order += [kinds[v] for n, _, v in parts if n == kind_field and v in kinds]
        blobs = [_blob(v, path) for n, w, v in parts if n == blob_field and w == 2]
        if name in LAYERS and len(blobs) == 2:
            weight, bias = blobs
            units = weight.reshape(weight.shape[-2:]) if name.startswith("fc") else weight
            weights[name] = (units, bias.reshape(-1))
        for given in (v for n, w, v in parts if n == norm_field and w == 2):
            norm = _caffes_norm(given, path)
    found = recipes.load(recipe or ("caffenet" if order[:2] == ["pool", "norm"] else "caffe-alexnet"))
    found = found if norm is None else replace(found, response_norm=norm)
    return Foreign(kind="Caffe", weights=weights, recipe=found, bgr=True)


def _caffes_norm(data: bytes, path: Path) -> ResponseNorm:
    """An LRNParameter: local_size 1, alpha 2, beta 3, k 5; what is not there is Caffe's default."""
    n, given = 5, {2: 1.0, 3: 0.75, 5: 1.0}
    for number, wire, value in _fields(data, path):
        if number == 1 and wire == 0:
            n = value
        elif number in given and wire == 5:
            given[number] = round(float(np.frombuffer(value, "<f4")[0]), 8)
    return ResponseNorm(k=given[5], n=n, alpha=given[2] / n, beta=given[3], sees="both")


# The ONNX zoo


def _onnx(path: Path, recipe: str | None) -> Foreign:
    """An ONNX file of the zoo's kind: its geometry and its order of layers are read from the graph."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's own
        raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): fetch it again") from None
    constants = model.graph.initializer
    tensors = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in constants}
    weights = {
        layer: (tensors[f"{layer}_w_0"], tensors[f"{layer}_b_0"])
        for layer in LAYERS
        if f"{layer}_w_0" in tensors and f"{layer}_b_0" in tensors
    }
    try:
        base = fitted(recipes.load(recipe or "caffe-alexnet"), weights)
        found, ends = _of_graph(model.graph, base, tensors)
        _check_sides(found, model, ends)
    except BadArtefact as error:
        raise BadArtefact(f"{path} does not fit: {error}") from None
    return Foreign(kind="ONNX zoo", weights=weights, recipe=found, bgr=True)


def _of_graph(
    graph: "onnx.GraphProto", recipe: Recipe, tensors: dict[str, torch.Tensor]
) -> tuple[Recipe, dict[str, str]]:
    """``recipe`` with the crop, strides, padding, response norm and order of steps of ``graph``; and what leaves each
    layer is called there."""
    import onnx

    image = next(one for one in graph.input if one.name not in tensors)
    crop = image.type.tensor_type.shape.dim[-1].dim_value
    layers, current, ends = dict(recipe.layers), "", {}
    for node in graph.node:
        given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        named = [name.removesuffix("_w_0") for name in node.input if name.endswith("_w_0")]
        if named and named[0] in layers:
            current = named[0]
            layers[current] = replace(layers[current], then=[])
            if node.op_type == "Conv":
                layers[current] = replace(cast(Convolution, layers[current]), **_geometry(given))
        elif node.op_type in STEPS and current:
            layers[current] = replace(layers[current], then=[*layers[current].then, STEPS[node.op_type]])
        if node.op_type == "LRN":
            recipe = replace(recipe, response_norm=_norm(given))
        if node.op_type == "MaxPool":
            rounds: Rounds = "up" if given.get("ceil_mode") or max(given.get("pads", [0])) > 0 else "down"
            pooling = replace(recipe.pooling, size=given["kernel_shape"][0], stride=given["strides"][0], rounds=rounds)
            recipe = replace(recipe, pooling=pooling)
        if named or node.op_type in STEPS:
            ends[current] = node.output[0]
    return replace(recipe, layers=layers, image=replace(recipe.image, crop=crop)), ends


def _geometry(given: dict[str, Any]) -> dict[str, Any]:
    """Size, stride and padding of a convolution by its ONNX attributes; more zeros at the end are a kernel more."""
    begin, _, end, _ = given.get("pads", [0, 0, 0, 0])
    return {
        "size": given["kernel_shape"][0],
        "stride": given.get("strides", [1])[0],
        "padding": begin,
        "rounds": "up" if end > begin else "down",
    }


def _norm(given: dict[str, Any]) -> ResponseNorm:
    """ONNX divides alpha by the size of the window, the paper and we do not; and it knows no columns."""
    n = given["size"]
    alpha, beta, k = (round(given.get(key, default), 8) for key, default in NORM.items())
    return ResponseNorm(k=k, n=n, alpha=alpha / n, beta=beta, sees="both")


def _check_sides(recipe: Recipe, model: "onnx.ModelProto", ends: dict[str, str]) -> None:
    """Raises BadArtefact naming the first layer whose maps have another side in the file than here."""
    import onnx

    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    sides = {one.name: one.type.tensor_type.shape.dim[-1].dim_value for one in values}
    side = recipe.image.crop
    for name, layer in recipe.layers.items():
        if isinstance(layer, Convolution):
            side = extent_after(layer, recipe, side)
            there = sides.get(ends.get(name, ""), side)
            if there != side:
                raise BadArtefact(
                    f"{name} leaves maps of {there}×{there}, where its geometry here leaves {side}×{side}"
                )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadArtefact(f"cannot read {path}: {error.strerror}") from None
