"""The strongest patches against brute force over whole maps, and what is kept of them with the model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, save_untrained
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.opening import open_network
from alexnet_cli.visualization import strongest
from alexnet_cli.visualization.strongest import find_units, strongest_places, units_of
from alexnet_cli.visualization.units import patches_of, read_units, units_file

CROP = 67  # of the narrow model


@pytest.fixture(scope="module")
def folder(packed, tmp_path_factory) -> Path:
    """A model that keeps nothing yet; each test that keeps something makes a copy."""
    return save_untrained(packed, tmp_path_factory.mktemp("units") / "m", settings=["conv1.weights=he"])


@pytest.fixture(scope="module")
def found(folder, packed):
    return find_units(open_network(folder, "cpu"), packed, "train")


def brute_force(folder: Path, images: np.ndarray, layer: str) -> np.ndarray:
    """The maps of ``layer`` after ReLU, (N, K, H, W), in another way: from the inputs and weights of its module."""
    network, maps = open_network(folder, "cpu"), []
    for module in network.net.weighted(layer):
        module.register_forward_hook(lambda _module, _inputs, output: maps.append(output.relu().numpy()))
    network.activations(images, layer)
    return np.concatenate(maps, axis=1)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv5"])
def test_the_strongest_patches_equal_brute_force(folder, found, packed, layer):
    images = packed.split("train").read(np.arange(42))
    maps = brute_force(folder, images, layer)
    units = found[layer]
    for unit in range(maps.shape[1]):
        peaks = sorted(
            (-maps[row, unit].max(), row, maps[row, unit].argmax()) for row in range(42) if maps[row, unit].max() > 0
        )[:9]
        count, width = len(peaks), maps.shape[3]
        assert units.rows[unit].tolist() == [row for _, row, _ in peaks] + [-1] * (9 - count)
        np.testing.assert_array_equal(units.responses[unit, :count], [-peak for peak, _, _ in peaks])
        np.testing.assert_array_equal(units.places[unit, :count], [divmod(place, width) for _, _, place in peaks])
    assert (units.rows >= 0).any()


def test_the_result_does_not_depend_on_the_batch(folder, packed, found):
    other = find_units(open_network(folder, "cpu"), packed, "train", batch=5)
    for layer, units in found.items():
        np.testing.assert_allclose(other[layer].responses, units.responses, rtol=1e-4, atol=1e-4)
    maps = torch.tensor([[[[1.0, 3.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    values, places = strongest_places(maps)
    assert (values.tolist(), places.tolist()) == ([[3, 0]], [[[0, 1], [0, 0]]])  # the first of equal places


def test_equal_pictures_stand_in_the_order_of_the_split():
    best = strongest._Best(2)
    for start in (0, 4, 8, 12):
        best.add(np.arange(start, start + 4), torch.tensor([1.0, 0.0]).expand(4, 2)[:, :, None, None])
    assert best.rows.tolist() == [list(range(9)), [-1] * 9]  # what gives 0 excites nothing
    best.add(np.arange(16, 17), torch.tensor([[5.0, -1.0]])[:, :, None, None])
    assert best.rows.tolist() == [[16, *range(8)], [-1] * 9]


def test_a_patch_is_the_field_in_the_central_view(found, packed):
    images, border = packed.split("train"), (SIZE - CROP) // 2
    conv1, conv5 = found["conv1"], found["conv5"]
    unit = conv1.strongest(1)[0]
    patches = patches_of(conv1, unit, images)
    row, (y, x) = conv1.rows[unit, 0], conv1.places[unit, 0]
    top, left = border + 4 * y, border + 4 * x
    expected = images.read(np.array([row]))[0][top : top + 11, left : left + 11]
    np.testing.assert_array_equal(patches[0], expected[: border + CROP - top, : border + CROP - left])
    whole = patches_of(conv5, conv5.strongest(1)[0], images)[0]  # its field of 163 pixels reaches past every border
    view = images.read(conv5.rows[conv5.strongest(1)[0], :1])[0][border : border + CROP, border : border + CROP]
    np.testing.assert_array_equal(whole, view)


def test_what_was_found_is_kept_until_the_model_or_the_dataset_changes(folder, packed, tmp_path, monkeypatch):
    model = Path(shutil.copytree(folder, tmp_path / "m"))
    runs, find = [], find_units
    monkeypatch.setattr(strongest, "find_units", lambda *given: runs.append(given[2]) or find(*given))
    network = open_network(model, "cpu")
    first = units_of(model, network, packed, "train", "conv5")
    again = units_of(model, network, packed, "train", "conv2")
    assert runs == ["train"]
    assert (again.layer, again.columns, again.column(0), again.column(7)) == ("conv2", 2, 0, 1)
    np.testing.assert_array_equal(read_units(model, "conv5").rows, first.rows)
    assert read_units(model, "conv5").dataset == str(packed.path)
    units_of(model, network, packed, "val", "conv5")
    assert runs == ["train", "val"]
    network.fingerprint = "of other weights"
    assert units_of(model, network, packed, "val", "conv5").model_fingerprint == "of other weights"
    assert runs == ["train", "val", "val"]


def test_damage_is_told_in_one_line(folder, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = Path(shutil.copytree(folder, tmp_path / "m"))
    words = ["visualize", "units", "--model", str(model), "--data", str(packed.path)]
    assert main([*words, "--layer", "conv2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    kept = read_units(model, "conv2")
    assert [unit["unit"] for unit in said["units"]] == kept.strongest(24)
    assert said["units"][0]["patches"][0]["path"] == packed.split("train").names[kept.rows[kept.strongest(1)[0], 0]]
    assert (said["files"], said["field"]["size"]) == (["units-conv2.png"], 51)
    assert Image.open("units-conv2.png").width == 1500
    assert main(["info", "--verify", str(model), "--json"]) == 0
    assert "units/conv2.safetensors: checksum" in json.loads(capsys.readouterr().out)["verified"]
    file = units_file(model, "conv2")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert main([*words, "--layer", "conv2"]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it stands which model is drawn
    assert line.endswith(f"{file} is damaged (its checksum differs): remove it")
    file.unlink()
    with pytest.raises(BadArtefact, match=r"it has no conv2.safetensors"):
        read_units(model, "conv2")
    for more, expected in {
        ("--layer", "fc6"): "the model has no layer 'fc6' with maps: it has conv1, conv2, conv3, conv4, conv5",
        ("--unit", "8"): "conv5 has the units 0 to 7",
        ("--split", "test"): "has no split 'test'",
        ("--data", "nothing"): "no dataset 'nothing'",
    }.items():
        assert main([*words, *more]) == 1
        assert expected in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.zeros((8, 9), np.int32)},
        {"rows": np.full((8, 9), -2)},
        {"rows": np.zeros((0, 9), np.int64)},
        {"responses": np.full((8, 9), np.nan, np.float32)},
        {"places": np.zeros((8, 9), np.int64)},
        {"places": np.full((8, 9, 2), 2**40)},
        {"field": {}},
        {"field": [1, 2, 3]},
        {"field": {"size": 10**9, "stride": 1, "start": 0}},
        {"field": {"size": -1, "stride": 1, "start": 0}},
        {"crop": "67"},
        {"columns": 0},
    ],
    ids=str,
)
def test_forged_units_are_refused(found, tmp_path, change):
    replace(found["conv2"] if isinstance(found, dict) else found, **change).save(tmp_path)
    with pytest.raises(BadArtefact, match="is damaged"):
        read_units(tmp_path, "conv2")
