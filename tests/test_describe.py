"""The table of layers against the paper's numbers, and receptive fields against what a single pixel reaches."""

import json
from math import prod

import numpy as np
import pytest
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.describe import LayerRow, layer_table
from alexnet_cli.nets.network import parameter_count
from alexnet_cli.nets.normalization import MapNorm
from alexnet_cli.recipes import names


def table(name: str, *settings: str) -> dict[str, LayerRow]:
    recipe = recipes.load(name, settings)
    return {row.name: row for row in layer_table(recipe.network, recipe.image.shape, 1000)}


def test_the_numbers_are_those_of_the_paper():
    rows = table("paper")
    assert (rows["conv1"].neurons, rows["conv1"].connections) == (290_400, 105_415_200)
    assert [row.field.size for row in rows.values() if row.field] == [11, 51, 99, 131, 163]
    assert [row.weights + row.biases for row in rows.values()] == [
        34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000,
    ]  # fmt: skip
    assert sum(row.weights + row.biases for row in rows.values()) == 60_965_224
    assert [row.output for row in rows.values()][:5] == [
        (96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13),
    ]  # fmt: skip
    assert [rows[name].leaves for name in ("conv1", "conv2", "conv5", "fc6", "fc8")] == [
        (96, 27, 27), (256, 13, 13), (256, 6, 6), (4096,), (1000,),
    ]  # fmt: skip
    # As in the caption of figure 2, where conv1 has 253,440, which is not 55 × 55 × 96
    assert [row.neurons for row in rows.values()][1:] == [186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    # By hand: positions × kernels × size² × the maps that a kernel reads
    assert rows["conv2"].connections == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["conv3"].connections == 13 * 13 * 384 * 3 * 3 * 256
    assert rows["fc6"].connections == 4096 * 6 * 6 * 256
    assert (rows["fc8"].columns, rows["fc8"].field, rows["fc8"].size) == (1, None, None)


def test_a_locally_connected_layer_uses_each_weight_once():
    local = table("cifar-13")["local3"]
    assert local.connections == local.weights == prod(local.output) * 3 * 3 * 64
    assert local.biases == local.neurons


@pytest.mark.parametrize("name", names())
def test_the_parameters_add_up(name):
    recipe = recipes.load(name)
    rows = layer_table(recipe.network, recipe.image.shape, 10)
    assert sum(row.weights + row.biases for row in rows) == parameter_count(recipe.build(10))


RECIPES = [
    ("paper",),
    ("torchvision",),
    ("original-2012",),  # with a norm over windows of positions
    ("non-overlapping-pooling",),
    ("cifar-13",),  # with locally connected layers
    ("paper", "pooling.padding=1", "pooling.ceil_mode=false", "conv2.ceil_mode=true", "conv2.stride=2"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_a_unit_sees_exactly_the_pixels_of_its_field(recipe):
    """All weights are positive and all biases 0, so a picture of zeros gives 0 everywhere, and one bright pixel gives
    more than 0 in exactly the units that see it."""
    narrow = recipes.load(*recipe[:1], recipe[1:]).scaled(1e-6)  # one kernel a column
    net = narrow.build(3).to_empty(device="cpu").eval()
    for parameter_name, parameter in net.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if parameter_name.endswith("bias") else 0.1)
    for part in (part for name in net.hidden for part in net.parts(name)):
        for step, module in enumerate(part.then):
            if isinstance(module, MapNorm):  # which multiplies by what its window holds: of zeros that shows nothing
                part.then[step] = torch.nn.AvgPool2d(module.size, 1, module.size // 2)
    seen = {}
    for name in net.hidden:
        net.weighted(name)[0].register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out[:, 0]}))
    for row in layer_table(narrow.network, narrow.image.shape, 3):
        if row.field is None:
            continue
        for place in {(0, 0), (row.output[1] // 2, row.output[2] // 2), (row.output[1] - 1, 0)}:
            pictures = lit(row, place, narrow.image.shape)
            with torch.no_grad():
                net.activations(torch.from_numpy(pictures), row.name)
            outside, *inside = seen[row.name][:, place[0], place[1]].tolist()
            assert outside == 0, (row.name, place)
            assert min(inside) > 0, (row.name, place)


def lit(row: LayerRow, place: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """(B, C, H, W): all pixels outside the field are lit; then one pixel each inside: on its edges, and at random."""
    field, crop = row.field, shape[1]
    (top, bottom), (left, right) = (
        (max(0, start), min(crop, start + field.size)) for start in (field.start + i * field.stride for i in place)
    )
    random = np.random.default_rng(0)
    some = [(int(y), int(x)) for y, x in zip(random.integers(top, bottom, 12), random.integers(left, right, 12))]  # noqa: B905
    some += [(top, left), (top, right - 1), (bottom - 1, left), (bottom - 1, right - 1)]
    pictures = np.zeros((1 + len(some), *shape), np.float32)
    pictures[0] = 1
    pictures[0, :, top:bottom, left:right] = 0
    for i, (y, x) in enumerate(some, 1):
        pictures[i, :, y, x] = 1
    return pictures


def test_the_onnx_file_has_the_table(exported_folder):
    model = Model.load(exported_folder)
    rows = layer_table(model.recipe.network, model.recipe.image.shape, 3)
    layers = OnnxModel.open(exported_folder / "model.onnx", device="cpu").layers
    assert layers == [row.as_json() for row in rows]
    assert layers[0]["field"] == {"size": 11, "stride": 4, "start": 0}
    assert (layers[0]["output"], layers[0]["then"][0]) == ([8, 15, 15], "relu")


def test_info_shows_the_table(exported_folder, capsys):
    assert main(["info", str(exported_folder)]) == 0
    said = capsys.readouterr().out
    assert main(["info", str(exported_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["info", str(exported_folder / "model.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == facts["layers"]
    assert main(["info", str(exported_folder / "model.onnx")]) == 0
    shown = capsys.readouterr().out
    assert " a network as an ONNX file, fp32, for pictures of 72×72 pixels " in shown
    assert " 3 classes: colour of the sky, green, red " in shown
    for layer in facts["layers"]:
        (line,) = [line for line in said.splitlines() if line.startswith(layer["name"])]
        assert f"{layer['neurons']:,}" in line.split()
        assert f"{layer['connections']:,}" in line.split()


def test_the_table_of_a_recipe_fits_80_columns(capsys):
    assert main(["recipes", "paper"]) == 0
    lines = [line[2:] for line in capsys.readouterr().out.splitlines()[-12:]]
    assert max(map(len, lines)) <= 80
    assert lines[1] == "conv1       96    11       4   96×55×55  290,400      34,848  105,415,200     11"
    assert lines[9].split() == ["all", "659,272", "60,954,656", "724,406,816"]
    assert main(["recipes", "paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["connections"] == 105_415_200
