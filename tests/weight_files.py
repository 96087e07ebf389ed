"""Weights as torchvision, Caffe and the ONNX zoo keep them: small files of each format, made on the spot."""

import struct

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import nn

from alexnet_cli.importing.weights import LAYERS

CLASSES = [f"class {i}" for i in range(7)]
SHAPES = {  # of a narrow net of Caffe's form, in two groups
    "conv1": (8, 3, 11, 11),
    "conv2": (12, 4, 5, 5),
    "conv3": (16, 12, 3, 3),
    "conv4": (16, 8, 3, 3),
    "conv5": (8, 8, 3, 3),
    "fc6": (32, 8 * 36),
    "fc7": (24, 32),
    "fc8": (7, 24),
}
GROUPS = {"conv2": 2, "conv4": 2, "conv5": 2}


def random_weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of that net."""
    random = np.random.default_rng(1)

    def normal(*shape: int, size: float) -> np.ndarray:
        return (size * random.standard_normal(shape)).astype(np.float32)

    return {
        name: (normal(*shape, size=(2 / np.prod(shape[1:])) ** 0.5), normal(shape[0], size=0.1))
        for name, shape in SHAPES.items()
    }


def torchvisions(widths: tuple[int, ...] = (4, 6, 8, 8, 8, 20, 16), classes: int = 7) -> nn.Module:
    """torchvision's module, as wide as is said; it has no argument for it."""
    from torchvision.models import AlexNet

    net = AlexNet(num_classes=classes)
    a, b, c, d, e, f, g = widths
    for place, layer in {
        0: nn.Conv2d(3, a, 11, 4, 2),
        3: nn.Conv2d(a, b, 5, padding=2),
        6: nn.Conv2d(b, c, 3, padding=1),
        8: nn.Conv2d(c, d, 3, padding=1),
        10: nn.Conv2d(d, e, 3, padding=1),
    }.items():
        net.features[place] = layer
    for place, layer in {1: nn.Linear(e * 36, f), 4: nn.Linear(f, g), 6: nn.Linear(g, classes)}.items():
        net.classifier[place] = layer
    return net.eval()


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, *, old: bool, double: bool = False) -> bytes:
    if old:
        shape = b"".join(varint(i << 3) + varint(dim) for i, dim in enumerate((1,) * (4 - array.ndim) + array.shape, 1))
        numbers = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in array.ravel())  # not packed
        return shape + numbers
    shape = message(7, message(1, b"".join(map(varint, array.shape))))
    return shape + (message(8, array.astype("<f8").tobytes()) if double else message(5, array.astype("<f4").tobytes()))


TYPES = {"conv": 4, "fc": 14, "norm": 15, "pool": 17, "relu": 18, "drop": 6, "sigmoid": 19, "bn": 38}  # in old files
TYPE_NAMES = {"conv": "Convolution", "fc": "InnerProduct", "norm": "LRN", "pool": "Pooling", "relu": "ReLU"}
TYPE_NAMES |= {"drop": "Dropout", "sigmoid": "Sigmoid", "bn": "BatchNorm"}
PARAMETERS = {"conv": (106, 10), "norm": (118, 18), "pool": (121, 19), "drop": (108, 12)}


def settings(**values: int | float) -> bytes:
    """A message of numbers, by their fields: f1=3 or f2=1e-4."""
    out = b""
    for key, value in values.items():
        number = int(key[1:])
        is_int = isinstance(value, int)
        out += varint(number << 3) + varint(value) if is_int else varint(number << 3 | 5) + struct.pack("<f", value)
    return out


NORM = settings(f1=5, f2=1e-4, f3=0.75)  # local_size, alpha, beta
POOL = settings(f1=0, f2=3, f3=2)  # max, kernel_size, stride


def caffemodel(
    weights,
    *,
    old: bool = False,
    caffenet: bool = False,
    double: bool = False,
    bare: bool = False,
    changed: dict[str, bytes | str] | None = None,
) -> bytes:
    """A file as Caffe writes it. ``bare``: of the weights alone; ``changed``: other settings of a layer by its name, or
    the name of the layer that takes its place."""
    number, name_field, type_field, blob_field = (2, 4, 5, 6) if old else (100, 1, 2, 7)

    def layer(name: str, own: bytes = b"", blobs: bytes = b"") -> bytes:
        change = (changed or {}).get(name, own)
        name, own = (change, b"") if isinstance(change, str) else (name, change)
        kind = next(kind for kind in TYPES if name.startswith(kind))
        told = varint(type_field << 3) + varint(TYPES[kind]) if old else message(type_field, TYPE_NAMES[kind].encode())
        given = message(PARAMETERS[kind][old], own) if own else b""
        return message(number, message(name_field, name.encode()) + told + blobs + given)

    out = message(1, b"a net")
    for name, (weight, bias) in weights.items():
        blobs = b"".join(message(blob_field, blob(one, old=old, double=double)) for one in (weight, bias))
        size = weight.shape[-1]
        stride, pad = (4, 0) if name == "conv1" else (1, size // 2)
        own = settings(f1=len(weight), f3=pad, f4=size, f5=GROUPS.get(name, 1), f6=stride)
        out += layer(name, own if name.startswith("conv") and not bare else b"", blobs)
        if bare or name.startswith("fc8"):
            continue
        i = name[-1]
        out += layer(f"relu{i}")
        pool, norm = layer(f"pool{i}", POOL), layer(f"norm{i}", NORM)
        if name in ("conv1", "conv2"):
            out += pool + norm if caffenet else norm + pool
        out += pool if name == "conv5" else b""
        out += layer(f"drop{i}", settings(f1=0.5)) if name.startswith("fc") else b""
    return out


def zoo(weights, *, padded: bool = True, k: float = 1.0) -> onnx.ModelProto:
    """A graph of the zoo's kind: 224 in, 54 after conv1, and pooling that is padded at its end."""
    nodes, last = [], "data_0"

    def add(kind: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, [*inputs], [name], name=name, **attributes))
        return name

    end = [0, 0, 1, 1] if padded else [0, 0, 0, 0]
    for name in LAYERS:
        given = (f"{name}_w_0", f"{name}_b_0")
        if name == "fc6":
            last = add("Reshape", "flat", last, "shape")
        if name.startswith("fc"):
            last = add("Gemm", f"{name}_1", last, *given, transB=1)
            last = last if name == "fc8" else add("Relu", f"{name}_2", last)
            last = last if name == "fc8" else add("Dropout", f"{name}_3", last)
            continue
        size = weights[name][0].shape[2]
        pad = 0 if name == "conv1" else size // 2
        last = add(
            "Conv", f"{name}_1", last, *given, kernel_shape=[size, size], pads=[pad] * 4,
            strides=[4, 4] if name == "conv1" else [1, 1], group=GROUPS.get(name, 1),
        )  # fmt: skip
        last = add("Relu", f"{name}_2", last)
        if name in ("conv1", "conv2"):
            last = add("LRN", f"{name}_n", last, size=5, alpha=1e-4, beta=0.75, bias=k)
        if name in ("conv1", "conv2", "conv5"):
            last = add("MaxPool", f"{name}_p", last, kernel_shape=[3, 3], strides=[2, 2], pads=end)
    add("Softmax", "prob_1", last, axis=1)
    constants = [numpy_helper.from_array(np.array([1, -1]), "shape")]
    for name, (weight, bias) in weights.items():
        constants += [numpy_helper.from_array(weight, f"{name}_w_0"), numpy_helper.from_array(bias, f"{name}_b_0")]
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 7]) for name in ("fc8_1", "prob_1")],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def change(proto: onnx.ModelProto, name: str, kind: str | None = None, **attributes: object) -> onnx.ModelProto:
    """``proto`` with other attributes of the node called ``name``, perhaps of another kind."""
    node = next(node for node in proto.graph.node if node.name == name)
    node.op_type = kind or node.op_type
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return proto
