"""Gradient ascent: its inputs excite their units far more than noise does, and are the same for the same seed."""

import json

import numpy as np
import pytest
import torch
from conftest import save_untrained
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.errors import NoSuchLayer
from alexnet_cli.nets.responses import recording
from alexnet_cli.opening import open_network
from alexnet_cli.visualization.ascent import ascend


@pytest.fixture(scope="module")
def folder(packed, tmp_path_factory):
    settings = [f"conv{i}.weights=he" for i in range(1, 6)]
    return save_untrained(packed, tmp_path_factory.mktemp("ascent") / "m", settings=settings)


@pytest.fixture(scope="module")
def network(folder):
    return open_network(folder, "cpu")


@pytest.mark.parametrize("layer", ["conv1", "conv4"])
def test_it_excites_far_more_than_noise(network, layer):
    found = ascend(network, layer, [1, 5])
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (40, network.image_size, network.image_size, 3), dtype=np.uint8)
    with recording(network.net, [layer]) as recorded:
        network.activations(noise, layer)
    maps = torch.cat(recorded[layer], dim=1).numpy()
    middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]  # (40, K)
    for i, unit in enumerate((1, 5)):
        assert found.responses[i] > 3 * found.started[i]
        assert layer != "conv1" or found.responses[i] > 3 * middle[:, unit].mean()  # later layers have positive biases
        assert found.responses[i] > middle[:, unit].max()
    side = {"conv1": 11, "conv4": 67}[layer]  # the field of conv4 is larger than the view
    assert [picture.shape for picture in found.pictures] == [(side, side, 3)] * 2


def test_it_is_a_function_of_the_seed_whichever_units_are_with_it(network):
    first, again, other = (
        ascend(network, "conv2", [3]),
        ascend(network, "conv2", [3]),
        ascend(network, "conv2", [3], seed=1),
    )
    np.testing.assert_array_equal(first.pictures[0], again.pictures[0])
    assert (first.pictures[0] != other.pictures[0]).any()
    both = ascend(network, "conv2", [0, 3])
    np.testing.assert_allclose(both.responses[1], first.responses[0], rtol=0.05)


def test_it_changes_nothing_of_the_network(network):
    before = {name: tensor.clone() for name, tensor in network.net.state_dict().items()}
    ascend(network, "conv1", [0])
    assert all(parameter.grad is None for parameter in network.net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.net.state_dict().items())


def test_a_unit_that_is_not_there_is_refused(network):
    with pytest.raises(NoSuchLayer, match="conv1 has the units 0 to 7"):
        ascend(network, "conv1", [8])
    with pytest.raises(NoSuchLayer, match="no layer 'fc6' with maps"):
        ascend(network, "fc6", [0])


def test_the_command_draws_them_beside_the_patches(folder, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", str(folder), "--data", str(packed.path), "--layer", "conv1", "--unit", "2", "--ascent"]
    assert main(["visualize", "units", *words, "--size", "slide", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [unit["unit"] for unit in said["units"]] == [2]
    assert said["ascent"]["responses"][0] > said["ascent"]["started"][0]
    assert Image.open("units-conv1.png").size == (1920, 1080)
