"""The maps of a model's convolutional layers, from its ONNX file: those of its network."""

import io

import numpy as np
import pytest
import torch
from conftest import exported_as, save_untrained
from onnx_files import write_onnx
from PIL import Image

from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.maps import GAP, draw_maps, zero_of
from alexnet_cli.inference.onnx_maps import OnnxMaps
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.nets.responses import recording
from alexnet_cli.opening import open_network

EACH_ITS_OWN = [  # activation functions, batch norm, nothing, and a local layer with dropout
    *(f"conv{i}.weights=he" for i in range(1, 6)),
    'conv1.then=["scaled_tanh", "response_norm", "pooling"]',
    'conv2.then=["sigmoid", "response_norm", "pooling"]',
    'conv3.then=["batch_norm", "tanh"]',
    "conv4.then=[]",
    "conv5.type=local",
    *(f"conv5.{setting}" for setting in ("input=own", "kernels=8", "size=3", "weights=he", "bias=0.0")),
    'conv5.then=["relu", "batch_norm", "dropout"]',
]


def test_maps_are_the_activations_of_the_network(exported_folder, packed):
    image = packed.split("train").read(np.arange(1))[0]  # (S, S, 3)
    maps, network = (
        OnnxMaps(OnnxModel.open(exported_folder / "model.onnx", device="cpu")),
        open_network(exported_folder),
    )
    assert maps.layers == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    seen = []
    for weighted in network.net.weighted("conv1"):
        weighted.register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.inference_mode():
        network.run(image[None])
    expected = torch.cat([one[0] for one in seen]).relu().numpy()
    found = maps.run(image, "conv1")
    assert found.shape == (8, *expected.shape[1:])
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max())
    assert maps.run(image, "conv5").shape[0] == 8


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_maps_of_any_net_are_the_responses_of_its_units(packed, tmp_path, precision):
    folder = save_untrained(packed, tmp_path / "m", settings=EACH_ITS_OWN)
    path = exported_as(precision, folder, packed).export.path
    maps, network = OnnxMaps(OnnxModel.open(path, device="cpu")), open_network(folder, "cpu")
    layers = [f"conv{i}" for i in range(1, 6)]
    assert maps.layers == layers
    image = packed.split("train").read(np.arange(1))
    with recording(network.net, layers) as recorded:
        network.run(image)
    for layer in layers:
        expected = torch.cat(recorded[layer], dim=1)[0].numpy()
        found = maps.run(image[0], layer)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        close = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}[precision] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=close, err_msg=layer)


def test_a_layer_that_is_not_there_is_refused(exported_folder, tmp_path):
    unnamed = OnnxMaps(OnnxModel.open(write_onnx(tmp_path / "m.onnx"), device="cpu"))
    assert unnamed.layers == []
    with pytest.raises(AlexNetError, match=r"no layer 'conv1' with maps: its file names none; .* export it again"):
        unnamed.run(np.zeros((32, 32, 3), np.uint8), "conv1")
    maps = OnnxMaps(OnnxModel.open(exported_folder / "model.onnx", device="cpu"))
    with pytest.raises(AlexNetError, match=r"no layer 'fc6' with maps: conv1, conv2"):
        maps.run(np.zeros((72, 72, 3), np.uint8), "fc6")


def test_a_drawing_of_maps_has_one_scale_and_every_kernel():
    maps = np.zeros((5, 12, 12), np.float32)
    maps[4] = 3.0
    drawn = np.asarray(Image.open(io.BytesIO(draw_maps(maps))))
    assert drawn.shape == (48, 5 * 48 + 4 * GAP)
    assert set(np.unique(drawn)) == {0, 128, 255}
    assert (drawn == 255).sum() == 48 * 48


def test_where_some_responses_are_negative_middle_grey_is_0():
    maps = np.zeros((3, 48, 48), np.float32)
    maps[1], maps[2] = 1.7, -1.7
    drawn = np.asarray(Image.open(io.BytesIO(draw_maps(maps))))
    assert [int(drawn[0, i * (48 + GAP)]) for i in range(3)] == [128, 255, 1]
    assert (zero_of(maps), zero_of(np.abs(maps))) == (128, 0)
