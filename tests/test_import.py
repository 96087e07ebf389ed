"""Weights from elsewhere: files of each format made on the spot, against what would run them there."""

import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.errors import BadArtefact
from alexnet_cli.importing.caffe import mean_image
from alexnet_cli.importing.model import import_model
from alexnet_cli.importing.weights import CAFFE_MEAN, LAYERS
from alexnet_cli.model import Model

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


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)


@pytest.fixture
def weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(1)

    def normal(*shape: int, size: float) -> np.ndarray:
        return (size * random.standard_normal(shape)).astype(np.float32)

    return {
        name: (normal(*shape, size=(2 / np.prod(shape[1:])) ** 0.5), normal(shape[0], size=0.1))
        for name, shape in SHAPES.items()
    }


def logits(model: Model, pictures: np.ndarray) -> torch.Tensor:
    """Of the central view."""
    image, centre = model.recipe.image, (model.recipe.image.size - model.recipe.image.crop) // 2
    view = torch.arange(centre, centre + image.crop)
    inputs = Preprocessor(image, model.mean_image, "cpu")(torch.from_numpy(pictures), view, view)
    with torch.no_grad():
        return model.net.eval()(inputs)[0]


def caffes(pictures: np.ndarray, crop: int, mean: np.ndarray) -> np.ndarray:
    """What Caffe feeds: (N, 3, crop, crop) float32, BGR, less ``mean`` (256, 256, 3) RGB."""
    start = (256 - crop) // 2
    centred = (pictures - mean)[:, start : start + crop, start : start + crop, ::-1]
    return np.ascontiguousarray(centred.transpose(0, 3, 1, 2).astype(np.float32))


# torchvision


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


def torchvisions_input(pictures: np.ndarray) -> torch.Tensor:
    images = torch.from_numpy(pictures[:, 16:240, 16:240]).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean[:, None, None]) / deviation[:, None, None]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_state_dict(suffix, pictures, tmp_path):
    theirs, file = torchvisions(), tmp_path / f"alexnet{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), file)
    else:
        save_file(theirs.state_dict(), file)
    model = import_model(str(file), classes=CLASSES)
    with torch.no_grad():
        torch.testing.assert_close(logits(model, pictures), theirs(torchvisions_input(pictures)), rtol=1e-4, atol=1e-4)
    assert model.recipe.name == "torchvision"


def test_torchvisions_own_size_has_its_parameters_and_imagenets_classes(tmp_path):
    from torchvision.models import alexnet

    torch.save(alexnet(weights=None).state_dict(), tmp_path / "a.pth")
    model = import_model(str(tmp_path / "a.pth"))
    assert sum(parameter.numel() for parameter in model.net.parameters()) == 61_100_840
    assert model.recipe.network == recipes.load("torchvision").network
    assert (model.classes[0], model.classes[999], len(set(model.classes))) == ("tench", "toilet tissue", 1000)


# Caffe


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


def caffemodel(weights, *, old: bool = False, caffenet: bool = False, double: bool = False) -> bytes:
    number, name_field, kind_field, blob_field = (2, 4, 5, 6) if old else (100, 1, 2, 7)
    kinds = {"conv": 4, "fc": 14, "norm": 15, "pool": 17} if old else {"conv": "Convolution", "fc": "InnerProduct"}
    kinds |= {} if old else {"norm": "LRN", "pool": "Pooling"}

    def layer(name: str, blobs: bytes = b"") -> bytes:
        kind = kinds[next(kind for kind in kinds if name.startswith(kind))]
        told = varint(kind_field << 3) + varint(kind) if old else message(kind_field, kind.encode())
        return message(number, message(name_field, name.encode()) + told + blobs)

    out = message(1, b"a net")
    for name, (weight, bias) in weights.items():
        both = (weight, bias)
        out += layer(name, b"".join(message(blob_field, blob(one, old=old, double=double)) for one in both))
        if name in ("conv1", "conv2"):
            out += b"".join(map(layer, ("pool1", "norm1") if caffenet else ("norm1", "pool1")))
    return out


def as_caffe(weights, images: np.ndarray, *, caffenet: bool) -> torch.Tensor:
    """Caffe's network, with grouped convolutions."""
    a = torch.from_numpy(images)

    def norm(maps: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(maps, 5, alpha=1e-4, beta=0.75, k=1.0)  # over both groups

    def pool(maps: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(maps, 3, 2, ceil_mode=True)

    for name, (weight, bias) in weights.items():
        w, b = torch.from_numpy(weight), torch.from_numpy(bias)
        if name.startswith("fc"):
            a = F.linear(a.flatten(1), w, b)
            a = a if name == "fc8" else F.relu(a)
            continue
        stride, padding = (4, 0) if name == "conv1" else (1, weight.shape[2] // 2)
        a = F.relu(F.conv2d(a, w, b, stride, padding, groups=GROUPS.get(name, 1)))
        if name in ("conv1", "conv2"):
            a = norm(pool(a)) if caffenet else pool(norm(a))
        if name == "conv5":
            a = pool(a)
    return a


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("caffenet", [False, True])
def test_caffemodels_of_both_nets_and_both_formats(old, caffenet, weights, pictures, tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(weights, old=old, caffenet=caffenet))
    model = import_model(str(file), classes=CLASSES)
    assert model.recipe.name == ("caffenet" if caffenet else "caffe-alexnet")
    wanted = as_caffe(weights, caffes(pictures, 227, np.array(CAFFE_MEAN, np.float32)), caffenet=caffenet)
    torch.testing.assert_close(logits(model, pictures), wanted, rtol=1e-4, atol=1e-4)


def test_caffes_own_constants_of_response_norm_are_carried_over(weights, tmp_path):
    # local_size 3, alpha 0.0002, k 2.5; beta is Caffe's default
    given = varint(1 << 3) + varint(3) + varint(2 << 3 | 5) + struct.pack("<f", 2e-4) + varint(5 << 3 | 5)
    layer = message(1, b"norm1") + message(2, b"LRN") + message(118, given + struct.pack("<f", 2.5))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights) + message(100, layer))
    norm = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES).recipe.network
    norm = norm.operations["response_norm"]
    assert (norm.n, norm.k, norm.beta, norm.input) == (3, 2.5, 0.75, "all")
    assert norm.alpha == pytest.approx(2e-4 / 3)


def test_a_last_layer_that_was_fine_tuned_in_caffe_goes_by_another_name(weights, tmp_path):
    file, tuned = tmp_path / "net.caffemodel", dict(weights)
    tuned["fc8_mine"] = tuned.pop("fc8")
    file.write_bytes(caffemodel(tuned))
    net = import_model(str(file), classes=CLASSES).net
    assert np.array_equal(net.weighted("fc8")[0].weight.detach().numpy(), weights["fc8"][0])


def test_double_data_and_a_mean_image(weights, pictures, tmp_path):
    mean = np.random.default_rng(2).uniform(80, 140, (256, 256, 3)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(blob(mean[..., ::-1].transpose(2, 0, 1)[None].copy(), old=False))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, double=True))
    assert np.array_equal(mean_image(tmp_path / "mean.binaryproto", 256), mean)
    model = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES, mean=tmp_path / "mean.binaryproto")
    wanted = as_caffe(weights, caffes(pictures, 227, mean), caffenet=False)
    torch.testing.assert_close(logits(model, pictures), wanted, rtol=1e-4, atol=1e-4)


def test_the_whole_of_caffes_alexnet_has_its_parameters(tmp_path):
    whole = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096, "fc8": 1000}
    seen = {"conv1": (3, 11, 11), "conv2": (48, 5, 5), "conv3": (256, 3, 3), "conv4": (192, 3, 3), "conv5": (192, 3, 3)}
    seen |= {"fc6": (9216,), "fc7": (4096,), "fc8": (4096,)}
    zeros = {name: (np.zeros((k, *seen[name]), np.float32), np.zeros(k, np.float32)) for name, k in whole.items()}
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(zeros))
    model = import_model(str(tmp_path / "net.caffemodel"))
    assert sum(parameter.numel() for parameter in model.net.parameters()) == 60_965_224


# The ONNX zoo


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
        [helper.make_tensor_value_info("prob_1", onnx.TensorProto.FLOAT, [1, 7])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_the_zoos_graph_in_onnx_runtime(k, weights, pictures, tmp_path):
    file = tmp_path / "bvlcalexnet.onnx"
    proto = zoo(weights, k=k)
    onnx.checker.check_model(proto)
    onnx.save(proto, file)
    model = import_model(str(file), classes=CLASSES)
    assert model.recipe.image.crop == 224
    operations = model.recipe.network.operations
    assert set(operations) == {"relu", "response_norm", "pooling", "dropout"}
    assert operations["response_norm"].k == k
    assert operations["response_norm"].alpha == pytest.approx(2e-5)
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    images = caffes(pictures, 224, np.array(CAFFE_MEAN, np.float32))
    wanted = np.concatenate([session.run(None, {"data_0": image[None]})[0] for image in images])
    np.testing.assert_allclose(logits(model, pictures).softmax(1).numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_a_pooling_of_its_own_in_one_layer_of_the_zoos_graph(weights, pictures, tmp_path):
    proto = zoo(weights)
    pool = next(node for node in proto.graph.node if node.name == "conv5_p")
    del pool.attribute[:]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}  # 12 -> 6, as 3 with a stride of 2 and padding
    pool.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    onnx.save(proto, tmp_path / "net.onnx")
    model = import_model(str(tmp_path / "net.onnx"), classes=CLASSES)
    assert model.recipe.network.layers["conv5"].then == ["relu", "pooling2"]
    assert model.recipe.network.operations["pooling2"].size == 2
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    images = caffes(pictures, 224, np.array(CAFFE_MEAN, np.float32))
    wanted = np.concatenate([session.run(None, {"data_0": image[None]})[0] for image in images])
    np.testing.assert_allclose(logits(model, pictures).softmax(1).numpy(), wanted, rtol=1e-3, atol=1e-4)


# By command


def test_an_imported_model_is_exported_evaluated_and_fine_tuned(packed, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "colours").symlink_to(packed.path)
    torch.save(torchvisions(classes=3).state_dict(), "vision.pth")
    assert main(["import", "vision.pth", "--classes", "colours", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["classes"], said["recipe"]) == ("vision", 3, "torchvision")
    assert Model.load(Path("models/vision")).classes == packed.classes
    assert main(["export", "vision"]) == 0
    assert main(["info", "vision"]) == 0
    out = capsys.readouterr().out
    assert "vision.pth" in out
    assert main(["prep", str(source), "large", "--workers", "1"]) == 0
    tuned = ["train", "large", "--from", "vision", "--out", "tuned", "--epochs", "1", "--set", "training.batch=14"]
    assert main(tuned) == 0
    assert main(["eval", "vision", "tuned", "--data", "large", "--views", "1"]) == 0
    capsys.readouterr()
    assert main(["import", "vision.pth"]) == 1
    assert "models/vision exists: choose another name with --out" in capsys.readouterr().err


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.bin", b"", "net.bin is of no known format: it takes .pth, .pt, .safetensors, .caffemodel, .onnx"),
        ("net.pth", b"junk", "net.pth is damaged or holds more than tensors"),
        ("net.pth", pickle.dumps(Bomb()), "net.pth is damaged or holds more than tensors"),
        ("net.safetensors", b"junk", "net.safetensors is damaged"),
        ("net.onnx", b"junk", "net.onnx is damaged or no ONNX file"),
        ("net.caffemodel", b"\xa2\x06\x7f" + b"x" * 9, "net.caffemodel is damaged or cut short: fetch it again"),
        ("net.caffemodel", b"", "net.caffemodel does not fit: there is no conv1: it has no layer that is known"),
    ],
)
def test_what_is_refused(name, content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert main(["import", name]) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert not Path("ran").exists()
    assert not Path("models").exists()


def test_the_first_layer_that_differs_is_named(weights, tmp_path):
    file, changed = tmp_path / "net.caffemodel", dict(weights)
    changed["conv4"] = (np.zeros((16, 9, 3, 3), np.float32), weights["conv4"][1])
    file.write_bytes(caffemodel(changed))
    expected = r"does not fit: conv4 is \(8, 9, 3, 3\) where recipe caffe-alexnet has \(8, 8, 3, 3\) in each column$"
    with pytest.raises(BadArtefact, match=expected):
        import_model(str(file), classes=CLASSES)
    state = OrderedDict(torchvisions().state_dict())
    del state["classifier.1.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(
        BadArtefact, match="does not fit: there is no fc6: it has conv1, conv2, conv3, conv4, conv5, fc7"
    ):
        import_model(str(tmp_path / "net.pth"), classes=CLASSES)


def test_a_graph_of_another_geometry_is_refused(weights, tmp_path):
    proto = zoo(weights)
    pool = next(node for node in proto.graph.node if node.name == "conv2_p")
    del pool.attribute[:]
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    pool.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(
        BadArtefact, match=r"does not fit: conv2 leaves maps of 14×14, where its geometry here leaves 13×13"
    ):
        import_model(str(tmp_path / "net.onnx"), classes=CLASSES)


def test_classes_must_be_as_many_as_there_are(weights, tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(weights))
    with pytest.raises(
        BadArtefact, match="has 7 classes and does not name them: name a file or dataset with --classes"
    ):
        import_model(str(file))
    with pytest.raises(BadArtefact, match="has 7 classes, but 2 are named"):
        import_model(str(file), classes=["a", "b"])
