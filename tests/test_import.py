"""Weights from elsewhere: files of each format made on the spot, against what would run them there."""

import hashlib
import json
import pickle
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from safetensors.torch import save_file
from torch.nn import functional as F
from weight_files import CLASSES, GROUPS, blob, caffemodel, change, message, random_weights, settings, torchvisions, zoo

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.errors import BadArtefact
from alexnet_cli.importing import torchvision
from alexnet_cli.importing.caffe import mean_image
from alexnet_cli.importing.model import import_model
from alexnet_cli.importing.weights import CAFFE_MEAN
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.operations import AveragePool
from alexnet_cli.wordnet import ilsvrc2012


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)


@pytest.fixture
def weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return random_weights()


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
    assert (model.classes[0], model.classes[999], len(set(model.classes))) == ("n01440764", "n15075141", 1000)


def test_nothing_of_a_state_dict_is_dropped(tmp_path):
    state = torchvisions().state_dict() | {"features.1.running_mean": torch.zeros(4)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(BadArtefact, match=r"a.pth does not fit: torchvision's alexnet has no features.1.running_mean"):
        import_model(str(tmp_path / "a.pth"), classes=CLASSES)


# Caffe


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


def test_a_whole_caffemodel_has_the_network_of_its_recipe(weights, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    network = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES).recipe.network
    wanted = recipes.load("caffe-alexnet").network
    assert network.operations == wanted.operations
    assert {name: layer.then for name, layer in network.layers.items()} == {
        name: layer.then for name, layer in wanted.layers.items()
    }


def test_a_caffemodel_of_weights_alone_gets_the_operations_of_the_recipe(weights, pictures, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, bare=True))
    model = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES)
    assert model.recipe.network.operations == recipes.load("caffe-alexnet").network.operations
    wanted = as_caffe(weights, caffes(pictures, 227, np.array(CAFFE_MEAN, np.float32)), caffenet=False)
    torch.testing.assert_close(logits(model, pictures), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("old", [False, True])
def test_caffes_own_constants_of_response_norm_are_carried_over(old, weights, tmp_path):
    own = settings(f1=3, f2=2e-4, f5=2.5)  # local_size, alpha and k; beta is Caffe's default
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(weights, old=old, changed={"norm1": own, "norm2": own}))
    network = import_model(str(file), classes=CLASSES).recipe.network
    assert set(network.operations) == {"relu", "response_norm", "pooling", "dropout"}
    norm = network.operations["response_norm"]
    assert (norm.n, norm.k, norm.beta, norm.input) == (3, 2.5, 0.75, "all")
    assert norm.alpha == pytest.approx(2e-4 / 3)


def test_each_layer_of_a_caffemodel_has_its_own_constants(weights, pictures, tmp_path):
    changed = {
        "norm2": settings(f1=3, f2=2e-3, f3=0.75, f5=2.0),
        "pool5": settings(f1=1, f2=2, f3=2, f13=1),  # average, rounded down
        "drop7": settings(f1=0.25),
        "relu7": "sigmoid7",
    }
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, changed=changed))
    model = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES)
    network = model.recipe.network
    assert [network.layers[name].then for name in ("conv1", "conv2", "conv5", "fc6", "fc7")] == [
        ["relu", "response_norm", "pooling"],
        ["relu", "response_norm2", "pooling"],
        ["relu", "pooling2"],
        ["relu", "dropout"],
        ["sigmoid", "dropout2"],
    ]
    assert network.operations["pooling2"] == AveragePool(size=2, stride=2)
    assert network.operations["dropout2"].p == 0.25
    assert recipes.loads(recipes.dumps(model.recipe)) == model.recipe

    def conv(maps: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = map(torch.from_numpy, weights[name])
        stride, padding = (4, 0) if name == "conv1" else (1, weight.shape[2] // 2)
        return F.relu(F.conv2d(maps, weight, bias, stride, padding, groups=GROUPS.get(name, 1)))

    def dense(units: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(units, *map(torch.from_numpy, weights[name]))

    a = torch.from_numpy(caffes(pictures, 227, np.array(CAFFE_MEAN, np.float32)))
    a = F.max_pool2d(F.local_response_norm(conv(a, "conv1"), 5, alpha=1e-4, beta=0.75, k=1.0), 3, 2, ceil_mode=True)
    a = F.max_pool2d(F.local_response_norm(conv(a, "conv2"), 3, alpha=2e-3, beta=0.75, k=2.0), 3, 2, ceil_mode=True)
    a = conv(conv(conv(a, "conv3"), "conv4"), "conv5")  # (3, 8, 13, 13)
    a = F.avg_pool2d(a, 2, 2)  # (3, 8, 6, 6)
    expected = dense(torch.sigmoid(dense(F.relu(dense(a.flatten(1), "fc6")), "fc7")), "fc8")
    torch.testing.assert_close(logits(model, pictures), expected, rtol=1e-4, atol=1e-4)


def caffe_layer(name: str, kind: str, more: bytes = b"") -> bytes:
    return message(100, message(1, name.encode()) + message(2, kind.encode()) + more)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (caffe_layer("bn0", "BatchNorm"), b"", "the image is followed by bn0, a BatchNorm layer"),
        (
            caffe_layer("data", "Data", message(100, settings(f1=0.00390625))),
            b"",
            "data scales the pixels, which cannot be imported",
        ),
        (
            b"",
            caffe_layer("extra", "InnerProduct", message(7, blob(np.zeros((2, 7), np.float32), old=False))),
            "fc8 is followed by extra, a InnerProduct layer",
        ),
    ],
)
def test_what_a_caffemodel_computes_besides_is_refused(before, after, reason, weights, tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(before + caffemodel(weights) + after)
    with pytest.raises(BadArtefact, match=reason):
        import_model(str(file), classes=CLASSES)


def test_the_data_layer_and_the_loss_of_a_caffemodel_change_nothing(weights, tmp_path):
    data = caffe_layer("data", "Data", message(100, settings(f2=1, f3=227)))
    (tmp_path / "net.caffemodel").write_bytes(data + caffemodel(weights) + caffe_layer("loss", "SoftmaxWithLoss"))
    (tmp_path / "bare.caffemodel").write_bytes(caffemodel(weights))
    one, other = (import_model(str(tmp_path / f"{name}.caffemodel"), classes=CLASSES) for name in ("net", "bare"))
    assert one.fingerprint == other.fingerprint


def test_caffes_norm_within_maps(weights, tmp_path):
    own = settings(f1=3, f2=9e-3, f3=0.5, f4=1)  # norm_region: WITHIN_CHANNEL
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, changed={"norm1": own}))
    net = import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES).net
    assert net.network.layers["conv1"].then == ["relu", "map_norm", "pooling"]
    maps = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0)) * 30
    wanted = maps / (1 + 9e-3 * F.avg_pool2d(maps**2, 3, 1, 1)).sqrt()
    torch.testing.assert_close(net.parts("conv1")[0].then[1](maps), wanted)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"relu2": "bn2"}, "conv2 is followed by a BatchNorm layer, which cannot be imported"),
        ({"pool1": settings(f2=3, f3=2, f1=2)}, "conv1 is followed by stochastic pooling, which cannot be imported"),
        ({"pool1": settings(f5=3, f6=2)}, "conv1 is followed by pooling with windows that are not square, which"),
        ({"pool1": settings(f12=1)}, "conv1 is followed by global pooling, which cannot be imported"),
        ({"norm1": settings(f1=0)}, "conv1 is followed by LRN over an even number of maps, which cannot be imported"),
        ({"conv3": settings(f4=3, f3=1, f18=2)}, "conv3 has dilated kernels, which cannot be imported"),
    ],
)
def test_what_a_caffemodel_may_not_have(changed, expected, weights, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, changed=changed))
    with pytest.raises(BadArtefact, match=f"net.caffemodel does not fit: {expected}"):
        import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES)


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


def assert_equal_in_onnx_runtime(model: Model, proto: onnx.ModelProto, pictures: np.ndarray) -> None:
    """The logits; the probabilities are 0 or 1, whatever the network."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    images = caffes(pictures, 224, np.array(CAFFE_MEAN, np.float32))
    wanted = np.concatenate([session.run(["fc8_1"], {"data_0": image[None]})[0] for image in images])
    np.testing.assert_allclose(logits(model, pictures).numpy(), wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


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
    assert_equal_in_onnx_runtime(model, proto, pictures)


@pytest.mark.parametrize(
    ("name", "kind", "attributes"),
    [
        ("conv1_p", "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),  # 54 -> 27 as well
        ("conv1_p", "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]}),
        ("conv5_p", "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
        ("conv2_n", "LRN", {"size": 3, "alpha": 2e-3, "bias": 2.0}),
        ("fc6_2", "Sigmoid", {}),
        ("conv3_1", "Conv", {"pads": [1, 1, 1, 1]}),  # the rest by default, kernel_shape from the weights
    ],
)
def test_each_node_of_the_zoos_graph_is_what_onnx_runtime_computes(name, kind, attributes, weights, pictures, tmp_path):
    proto = change(zoo(weights), name, kind, **attributes)
    onnx.checker.check_model(proto)
    onnx.save(proto, tmp_path / "net.onnx")
    model = import_model(str(tmp_path / "net.onnx"), classes=CLASSES)
    assert_equal_in_onnx_runtime(model, proto, pictures)


@pytest.mark.parametrize(
    ("name", "kind", "attributes", "expected"),
    [
        ("conv1_2", "LeakyRelu", {}, "conv1 is followed by LeakyRelu, which cannot be imported"),
        (
            "conv2_n",
            "LRN",
            {"size": 4},
            "conv2 is followed by LRN over an even number of maps, which.*",
        ),
        (
            "conv1_p",
            "MaxPool",
            {"kernel_shape": [3, 2], "strides": [2, 2]},
            "conv1 is followed by MaxPool with windows that are not square, which cannot be imported",
        ),
        (
            "conv5_p",
            "AveragePool",
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1},
            "conv5 is followed by AveragePool over padding, which cannot be imported",
        ),
        (
            "conv1_1",
            "Conv",
            {"kernel_shape": [11, 11], "strides": [4, 4], "auto_pad": "SAME_UPPER"},
            "conv1 has auto_pad = SAME_UPPER, which cannot be imported",
        ),
        (
            "fc7_1",
            "Gemm",
            {"transB": 1, "alpha": 2.0},
            "fc7 is a Gemm node with scaled or transposed inputs, which cannot be imported",
        ),
        ("fc7_1", "Gemm", {}, "fc7 is a Gemm node with scaled or transposed inputs, which cannot be imported"),
        ("conv4_2", "Softmax", {}, "conv4 is followed by Softmax, which cannot be imported"),
    ],
)
def test_what_the_zoos_graph_may_not_have(name, kind, attributes, expected, weights, tmp_path):
    onnx.save(change(zoo(weights), name, kind, **attributes), tmp_path / "net.onnx")
    with pytest.raises(BadArtefact, match=f"net.onnx does not fit: {expected}$"):
        import_model(str(tmp_path / "net.onnx"), classes=CLASSES)


def test_a_zoos_graph_that_changes_the_image_first_is_refused(weights, tmp_path):
    proto = zoo(weights)
    proto.graph.node[0].input[0] = "scaled"
    proto.graph.node.insert(0, helper.make_node("Neg", ["data_0"], ["scaled"]))
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(BadArtefact, match=r"does not fit: the image first goes through Neg, which cannot be imported$"):
        import_model(str(tmp_path / "net.onnx"), classes=CLASSES)


def test_an_input_of_the_zoos_graph_without_a_size_is_refused(weights, tmp_path):
    proto = zoo(weights)
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    onnx.save(proto, tmp_path / "net.onnx")
    expected = "net.onnx does not fit: its input must be square images of a fixed size$"
    with pytest.raises(BadArtefact, match=expected):
        import_model(str(tmp_path / "net.onnx"), classes=CLASSES)


def test_a_pooling_of_its_own_in_one_layer_of_the_zoos_graph(weights, pictures, tmp_path):
    proto = zoo(weights)
    change(proto, "conv5_p", kernel_shape=[2, 2], strides=[2, 2])  # 13 -> 6, as 3 with a stride of 2
    onnx.save(proto, tmp_path / "net.onnx")
    model = import_model(str(tmp_path / "net.onnx"), classes=CLASSES)
    assert model.recipe.network.layers["conv5"].then == ["relu", "pooling2"]
    assert model.recipe.network.operations["pooling2"].size == 2
    assert_equal_in_onnx_runtime(model, proto, pictures)


# By command


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A narrow net of 1000 classes, published on this machine as torchvision publishes its own; an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(torchvisions(classes=1000).state_dict(), "net.pth")
    digits = hashlib.sha256(Path("net.pth").read_bytes()).hexdigest()[:8]
    file = Path("net.pth").rename(tmp_path / f"alexnet-{digits}.pth")
    net = replace(torchvision.NETS["torchvision"], url=file.as_uri())
    monkeypatch.setitem(torchvision.NETS, "torchvision", net)
    return file


def test_the_addresses_are_torchvisions():
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    ours = {net.name: net.url for net in torchvision.NETS.values()}
    assert ours == {"alexnet": AlexNet_Weights.IMAGENET1K_V1.url, "vgg16": VGG16_Weights.IMAGENET1K_V1.url}


def test_torchvisions_weights_are_fetched_once(published, capsys):
    assert main(["import", "torchvision"]) == 0
    said = capsys.readouterr()
    assert f"fetching {published.as_uri()}" in said.err
    assert (
        said.out.splitlines()[-1]
        == "Next, with the folder of your pictures for FOLDER: alexnet index FOLDER --model torchvision"
    )
    model = Model.load(Path("models/torchvision"))
    assert model.classes == ilsvrc2012()
    assert model.provenance["source"] == published.name
    published.unlink()
    assert main(["import", "torchvision", "--out", "again"]) == 0
    assert "fetching" not in capsys.readouterr().err
    assert Model.load(Path("models/again")).fingerprint == model.fingerprint


def test_a_file_in_the_cache_that_is_damaged_is_fetched_again(published):
    cached = Path("cache/hub/checkpoints") / published.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(published.read_bytes()[:-1])
    assert main(["import", "torchvision"]) == 0
    assert cached.read_bytes() == published.read_bytes()


def test_what_comes_with_another_checksum_is_refused(published, capsys):
    published.write_bytes(published.read_bytes()[:-1])
    assert main(["import", "torchvision"]) == 1
    assert "invalid hash value" in capsys.readouterr().err
    assert main(["import", published.name]) == 1
    digits = published.stem.removeprefix("alexnet-")
    message = f"error: {published.name} is damaged: its SHA-256 does not begin with {digits}: fetch it again\n"
    assert capsys.readouterr().err.endswith(message)
    assert not Path("models").exists()
    assert [path for path in Path("cache").rglob("*") if path.is_file()] == []


def test_without_a_network_one_line_says_what_to_fetch(published, capsys):
    published.unlink()
    assert main(["import", "torchvision"]) == 1
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: cannot fetch {published.as_uri()} (<urlopen error ")
    assert said.endswith(
        "): fetch it where there is a network, and import the file by "
        f"`alexnet import {published.name} --out torchvision`"
    )


@pytest.mark.exports
def test_an_imported_model_is_exported_evaluated_and_fine_tuned(packed, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "colours").symlink_to(packed.path)
    torch.save(torchvisions(classes=3).state_dict(), "vision.pth")
    assert main(["import", "vision.pth", "--classes", "colours", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["classes"], said["recipe"]) == ("vision", 3, "torchvision")
    assert Model.load(Path("models/vision")).classes == packed.classes
    assert OnnxModel.open(Path("models/vision/model.onnx")).fingerprint == said["fingerprint"]
    assert "`vision.pth` (SHA-256 `" in Path("models/vision/MODEL_CARD.md").read_text()
    assert main(["info", "vision"]) == 0
    out = capsys.readouterr().out
    assert "vision.pth" in out
    assert main(["prep", str(source), "large", "--workers", "1"]) == 0
    tuned = ["train", "large", "--from", "vision", "--out", "tuned", "--epochs", "1", "--set", "training.batch=14"]
    assert main(tuned) == 0
    assert OnnxModel.open(Path("models/tuned/model.onnx")).fingerprint == Model.load(Path("models/tuned")).fingerprint
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
        ("net.caffemodel", b"", "net.caffemodel does not fit: conv1 is missing; found: no known layers"),
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
        BadArtefact, match="does not fit: fc6 is missing; found: conv1, conv2, conv3, conv4, conv5, fc7"
    ):
        import_model(str(tmp_path / "net.pth"), classes=CLASSES)


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        # a last window that lies in the padding alone
        ([0, 0, 2, 2], "conv2 leaves maps of 14×14, where its geometry here leaves 13×13"),
        ([1, 1, 1, 1], "fc6 is (16, 288) where recipe caffe-alexnet has (16, 392) in each column"),
    ],
)
def test_a_graph_of_another_geometry_is_refused(pads, expected, weights, tmp_path):
    onnx.save(change(zoo(weights), "conv2_p", kernel_shape=[3, 3], strides=[2, 2], pads=pads), tmp_path / "net.onnx")
    with pytest.raises(BadArtefact, match=f"does not fit: {re.escape(expected)}$"):
        import_model(str(tmp_path / "net.onnx"), classes=CLASSES)


@pytest.mark.parametrize(
    ("layer", "shapes", "expected"),
    [
        ("conv1", ((7, 3, 11, 11), (7,)), "columns = 2 cannot share the 7 kernels of conv1"),
        ("conv4", ((16, 8, 3, 3), (1,)), "conv4 is (1,) where recipe caffe-alexnet has (8,) in each column"),
    ],
)
def test_weights_that_cannot_be_shared_by_the_columns(layer, shapes, expected, weights, tmp_path):
    changed = weights | {layer: tuple(np.zeros(shape, np.float32) for shape in shapes)}
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(changed))
    with pytest.raises(BadArtefact, match=f"net.caffemodel does not fit: {re.escape(expected)}$"):
        import_model(str(tmp_path / "net.caffemodel"), classes=CLASSES)


def test_classes_must_be_as_many_as_there_are(weights, tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(weights))
    with pytest.raises(
        BadArtefact, match="has 7 classes and does not name them: name a file or dataset with --classes"
    ):
        import_model(str(file))
    with pytest.raises(BadArtefact, match="has 7 classes, but 2 are named"):
        import_model(str(file), classes=["a", "b"])
