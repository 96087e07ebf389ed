"""The maps of a model's convolutional layers, from its ONNX file: those of its network."""

import io

import numpy as np
import pytest
import torch
from onnx_files import write_onnx
from PIL import Image

from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.maps import GAP, draw_maps
from alexnet_cli.inference.onnx_maps import OnnxMaps
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.opening import open_network


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


def test_a_layer_that_is_not_there_is_refused(exported_folder, tmp_path):
    unnamed = OnnxMaps(OnnxModel.open(write_onnx(tmp_path / "m.onnx"), device="cpu"))
    assert unnamed.layers == []
    with pytest.raises(AlexNetError, match="no convolutional layer 'conv1': its file names none"):
        unnamed.run(np.zeros((32, 32, 3), np.uint8), "conv1")
    maps = OnnxMaps(OnnxModel.open(exported_folder / "model.onnx", device="cpu"))
    with pytest.raises(AlexNetError, match=r"no convolutional layer 'fc6': conv1, conv2"):
        maps.run(np.zeros((72, 72, 3), np.uint8), "fc6")


def test_a_drawing_of_maps_has_one_scale_and_every_kernel():
    maps = np.zeros((5, 12, 12), np.float32)
    maps[4] = 3.0
    drawn = np.asarray(Image.open(io.BytesIO(draw_maps(maps))))
    assert drawn.shape == (48, 5 * 48 + 4 * GAP)
    assert set(np.unique(drawn)) == {0, 128, 255}
    assert (drawn == 255).sum() == 48 * 48
