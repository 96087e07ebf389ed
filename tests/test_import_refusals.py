"""Hostile and damaged files of weights: one clear line, whatever they hold."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import helper, numpy_helper
from weight_files import (
    CLASSES,
    SHAPES,
    blob,
    caffemodel,
    change,
    message,
    random_weights,
    settings,
    torchvisions,
    varint,
    zoo,
)

from alexnet_cli.commands import main
from alexnet_cli.importing.protobuf import fields
from alexnet_cli.importing.torchvision import NETS
from alexnet_cli.importing.weights import LAYERS


@pytest.fixture
def weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return random_weights()


def refused(name: str, capsys) -> str:
    """What `alexnet import` says of a file that it refuses: one line that names the file, and no model."""
    assert main(["import", name, "--out", "m"]) == 1
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert name in said
    assert not said.startswith("error: unexpected")
    assert not Path("models").exists()
    return said


def saved(**changes: object) -> dict[str, object]:
    """torchvision's state dict, narrow, with some entries changed: `conv1_weight=...`."""
    state = dict(torchvisions().state_dict())
    for key, value in changes.items():
        layer, _, part = key.partition("_")
        state[f"{NETS['torchvision'].modules[layer]}.{part}"] = value
    return state


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"conv1_weight": torch.full((4, 3, 11, 11), float("nan"))}, "conv1 has weights that are not finite"),
        ({"fc8_bias": torch.full((7,), float("inf"))}, "fc8 has weights that are not finite"),
        ({"fc6_weight": torch.full((20, 288), 1e300, dtype=torch.float64)}, "fc6 has weights that are not finite"),
        ({"fc7_weight": torch.zeros(1).expand(65536, 65536)}, "fc7 does not hold the numbers that its shape needs"),
        ({"fc7_weight": torch.zeros(16, 20).to_sparse()}, "fc7 does not hold the numbers that its shape needs"),
        ({"conv2_weight": torch.zeros(0, 4, 5, 5)}, "kernels = 0 does not fit: it takes a whole number from 1 to"),
        ({"conv2_weight": torch.zeros(65537, 1, 1, 1)}, "kernels = 65537 does not fit: it takes a whole number"),
        ({"conv2_weight": torch.zeros(())}, "conv2 has weights of 0 dimensions, (), not 4"),
        ({"conv2_bias": torch.zeros(6, 1)}, "conv2 has biases of 2 dimensions, (6, 1), not 1"),
        ({"fc6_weight": torch.zeros(20, 289)}, "fc6 is (20, 289) where recipe torchvision has (20, 288)"),
        ({"fc6_weight": "text"}, "net.pth is not a state dict: save `model.state_dict()`"),
    ],
)
def test_what_a_state_dict_may_not_hold(state, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(saved(**state), "net.pth")
    assert reason in refused("net.pth", capsys)


def test_a_pth_that_claims_more_than_it_holds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(saved(), "whole.pth")
    with zipfile.ZipFile("whole.pth") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile("net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert "is not as torch.save writes it: save `model.state_dict()` with torch.save" in refused("net.pth", capsys)
    for protocol in (True, False):  # a zip file, and torch's older format
        torch.save(torch.zeros(2, 3), "net.pth", _use_new_zipfile_serialization=protocol)
        refused("net.pth", capsys)
    (name,) = (name for name in content if name.endswith("data.pkl"))
    claims = content | {name: content[name].replace(b"K\x04K\x03K\x0bK\x0b", b"J\xff\xff\xff\x7fK\x03K\x0bK\x0b")}
    assert claims != content
    with zipfile.ZipFile("net.pth", "w") as archive:
        for name, data in claims.items():
            archive.writestr(name, data)
    refused("net.pth", capsys)
    with open("net.pth", "wb") as file:
        file.truncate(10**13)  # a sparse file
    assert "has more than 4,000,000,000 bytes: it holds more than the weights of a network" in refused(
        "net.pth", capsys
    )


def caffe_blob(shape: list[int], data: bytes) -> bytes:
    return message(7, message(1, b"".join(map(varint, shape)))) + data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (caffe_blob([2**32, 2**32], b""), "0 bytes are no 4294967296×4294967296 numbers"),
        (caffe_blob([1] * 40, message(5, bytes(4))), "4 bytes are no 1×1×1×1×1×1×1×1 numbers"),
        (caffe_blob([10**18], message(5, bytes(4))), "4 bytes are no 1000000000000000000 numbers"),
        (message(7, message(1, b"\x80" * 11)), "net.caffemodel is damaged or cut short: fetch it again"),
        (b"\x08\x01" * 70_000, "net.caffemodel has more fields than a network: fetch it again"),
        (message(7, message(1, b"\x01" * 70_000)), "has more numbers in a list than a network: fetch it again"),
        (b"\x0b\x0c", "net.caffemodel is damaged or no protobuf: fetch it again"),
        (varint(5 << 3 | 5) + b"\x00", "net.caffemodel is damaged or cut short: fetch it again"),
    ],
)
def test_what_a_blob_may_not_hold(content, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.caffemodel").write_bytes(message(100, message(1, b"conv1") + message(7, content)))
    assert reason in refused("net.caffemodel", capsys)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pool1": settings(f2=3, f3=0)}, "pool1: stride = 0 does not fit: it takes a whole number from 1 to 4096"),
        ({"pool1": settings(f2=10**9)}, "pool1: size = 1000000000 does not fit"),
        ({"norm1": settings(f1=2**63 + 1)}, "norm1: n = 9223372036854775809 does not fit"),
        ({"norm1": settings(f1=5.0)}, "norm1: n = 5.0 does not fit: it takes a whole number from 1 to 4096"),
        ({"norm1": settings(f1=5, f2=float("nan"))}, "norm1: alpha = NaN does not fit"),
        ({"drop6": settings(f1=1.5)}, "drop6: p = 1.5 does not fit: it takes a number from 0 to 0.999"),
        ({"conv3": settings(f4=3, f3=2**40)}, "conv3: padding = 1099511627776 does not fit"),
        ({"conv3": settings(f4=3, f3=1, f6=0)}, "conv3: stride = 0 does not fit"),
    ],
)
def test_numbers_in_a_caffemodel_that_no_network_has(changed, reason, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.caffemodel").write_bytes(caffemodel(weights, changed=changed))
    assert reason in refused("net.caffemodel", capsys)


def test_a_caffemodel_of_wrong_weights(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = caffemodel(weights)
    Path("net.caffemodel").write_bytes(whole + caffemodel({"conv1": weights["conv1"]}))
    assert "has two layers called conv1: it is not of an AlexNet" in refused("net.caffemodel", capsys)
    for name, shape in (("fc6", (2, 3, 32, 48)), ("fc7", (24,)), ("conv2", (12, 100))):
        changed = weights | {name: (np.zeros(shape, np.float32), weights[name][1])}
        Path("net.caffemodel").write_bytes(caffemodel(changed))
        assert f"does not fit: {name} has weights of {len(shape)} dimensions" in refused("net.caffemodel", capsys)
    changed = weights | {"fc7": (np.full((24, 32), np.nan, np.float32), weights["fc7"][1])}
    Path("net.caffemodel").write_bytes(caffemodel(changed))
    assert "fc7 has weights that are not finite" in refused("net.caffemodel", capsys)
    Path("net.caffemodel").write_bytes(whole)
    mean = np.full((1, 3, 256, 256), np.inf, np.float32)
    Path("mean.binaryproto").write_bytes(blob(mean, old=False))
    Path("classes.txt").write_text("\n".join(CLASSES))
    assert main(["import", "net.caffemodel", "--classes", "classes.txt", "--mean", "mean.binaryproto"]) == 1
    assert "error: mean.binaryproto holds numbers that are not finite: fetch it again\n" in capsys.readouterr().err


def test_floats_that_are_not_packed_are_read_in_linear_time(tmp_path):
    """A field a number takes a second for a million; the millions of a whole net have to be read at once."""
    numbers = np.random.default_rng(0).random(3_000_000).astype(np.float32)
    records = np.empty((len(numbers), 5), np.uint8)
    records[:, 0], records[:, 1:] = 5 << 3 | 5, numbers.view(np.uint8).reshape(-1, 4)
    content = memoryview(records.tobytes() + varint(1 << 3) + varint(7) + records[:2].tobytes())
    found = list(fields(content, tmp_path))
    assert [(number, wire) for number, wire, _ in found] == [(5, 5), (1, 0), (5, 5)]
    assert np.array_equal(np.frombuffer(found[0][2], np.float32), numbers)
    assert np.array_equal(np.frombuffer(found[2][2], np.float32), numbers[:2])


def with_graph(proto: onnx.ModelProto, alter) -> onnx.ModelProto:
    alter(proto.graph)
    return proto


def external(graph) -> None:
    onnx.external_data_helper.set_external_data(graph.initializer[1], "../secret", 0, 4)
    graph.initializer[1].ClearField("raw_data")


def cycle(graph) -> None:
    graph.node[1].input[0] = "conv1_n"


def twice(graph) -> None:
    graph.initializer.append(graph.initializer[1])


def missing(graph) -> None:
    del graph.initializer[1]


def huge(graph) -> None:
    graph.initializer[1].dims[:] = [2**31, 2**31, 4, 4]


def negative(graph) -> None:
    graph.initializer[1].dims[0] = -8


def wide_input(graph) -> None:
    for one in graph.input[0].type.tensor_type.shape.dim[2:]:
        one.dim_value = 10**9


def not_finite(graph) -> None:
    array = np.full(SHAPES["conv1"], np.nan, np.float32)
    graph.initializer[1].CopyFrom(numpy_helper.from_array(array, graph.initializer[1].name))


def texts(graph) -> None:
    graph.initializer[1].CopyFrom(helper.make_tensor("conv1_w_0", onnx.TensorProto.STRING, [1], [b"text"]))


def nested(graph) -> None:
    graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))


def foreign(graph) -> None:
    graph.node[1].domain = "elsewhere"


def empty(graph) -> None:
    del graph.node[:]


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (external, "conv1_w_0 is in another file, which is never opened: save it as one file"),
        (cycle, "it is no valid ONNX graph (Nodes in a graph must be topologically sorted"),
        (twice, "it has two constants called conv1_w_0"),
        (missing, "it is no valid ONNX graph ("),
        (huge, "it is no valid ONNX graph ("),
        (negative, "it is no valid ONNX graph ("),
        (wide_input, "crop = 1000000000 does not fit: it takes a whole number from 1 to 4096"),
        (not_finite, "conv1 has weights that are not finite"),
        (texts, "conv1_w_0 holds no weights (type 8, shape [1])"),
        (nested, "it has functions or graphs inside of nodes"),
        (foreign, "it has a node of another origin than ONNX itself, Relu"),
        (empty, "it is no valid ONNX graph ("),
    ],
)
def test_hostile_onnx_graphs(alter, reason, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(with_graph(zoo(weights), alter).SerializeToString())
    assert reason in refused("net.onnx", capsys)


@pytest.mark.parametrize(
    ("name", "attributes", "reason"),
    [
        ("conv1_p", {"kernel_shape": [3, 3], "strides": [0, 0]}, "conv1: stride = 0 does not fit"),
        (
            "conv1_p",
            {"kernel_shape": [3], "strides": [2]},
            "conv1 is followed by MaxPool with windows that are not of",
        ),
        ("conv1_p", {"kernel_shape": [3, 3], "pads": [-1] * 4}, "conv1: padding = -1 does not fit"),
        ("conv1_p", {"kernel_shape": [2**40, 2**40]}, "conv1: size = 1099511627776 does not fit"),
        ("conv1_p", {}, "it is no valid ONNX graph ("),
        ("conv1_p", {"kernel_shape": 3}, "it is no valid ONNX graph ("),
        ("conv1_n", {"size": 2**62 + 1}, "conv1: n = 4611686018427387905 does not fit"),
        ("conv1_n", {"size": 5, "alpha": float("nan")}, "conv1: alpha = NaN does not fit"),
    ],
)
def test_numbers_in_a_graph_that_no_network_has(name, attributes, reason, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(change(zoo(weights), name, **attributes).SerializeToString())
    assert reason in refused("net.onnx", capsys)


def small_files(weights) -> dict[str, bytes]:
    """A valid file of each format, of few bytes."""
    state = {
        f"{NETS['torchvision'].modules[name]}.{part}": torch.zeros(2, 3)
        for name in LAYERS
        for part in ("weight", "bias")
    }
    zipped, older = io.BytesIO(), io.BytesIO()
    torch.save(state, zipped)
    torch.save(state, older, _use_new_zipfile_serialization=False)
    return {
        "net.pth": zipped.getvalue(),
        "older.pth": older.getvalue(),
        "net.safetensors": safetensors.torch.save(state),
        "net.caffemodel": caffemodel(weights),
        "old.caffemodel": caffemodel({"conv1": weights["conv1"]}, old=True),
        "net.onnx": zoo(weights).SerializeToString(),
    }


def test_damage_of_every_format_is_told_in_one_line(weights, tmp_path, monkeypatch, capfd):
    """Flips and cuts, most of them where a file tells its own structure: at its beginning and end."""
    monkeypatch.chdir(tmp_path)
    random, tried = np.random.default_rng(0), 0
    Path("classes.txt").write_text("\n".join(CLASSES))
    for name, whole in small_files(weights).items():
        near = [*random.integers(0, min(600, len(whole)), 25), *(len(whole) - 1 - random.integers(0, 300, 10))]
        for place in [*near, *random.integers(0, len(whole), 10)]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << random.integers(8)
            for content in (damaged, damaged[:place]):
                Path(name).write_bytes(content)
                code = main(["import", name, "--out", f"m{tried}", "--classes", "classes.txt"])
                said = capfd.readouterr().err.splitlines()
                assert code in (0, 1), (name, place)  # a bit of a weight may be another one
                assert "error: unexpected" not in said[-1], (name, place, said)
                assert code == 0 or name in said[-1], (name, place, said)
                assert len(said) == 1 + code, (name, place, said)
                tried += 1
    assert tried > 500
