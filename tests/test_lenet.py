"""LeNet-5: its sizes, the same network in plain torch, and a training on scikit-learn's digits."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.preprocess import LUMA
from alexnet_cli.data.store import Dataset
from alexnet_cli.defaults import recipe_for
from alexnet_cli.errors import BadRecipe
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.evaluation import evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.views import ten_views
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize, parameter_count, parameters_by_layer
from alexnet_cli.opening import open_network

BOTH = ["lenet-5", "lenet-5-1998"]


@pytest.mark.parametrize("name", BOTH)
def test_the_parameters_are_those_of_lenet_5_with_a_dense_c3(name):
    net = recipes.load(name).build(10)
    assert parameters_by_layer(net) == {  # inputs of a unit, and a bias, times units or kernels
        "conv1": (25 + 1) * 6,
        "conv2": (6 * 25 + 1) * 16,
        "fc3": (16 * 25 + 1) * 120,
        "fc4": (120 + 1) * 84,
        "fc5": (84 + 1) * 10,
    }
    assert parameter_count(net) == 61_706


class ScaledTanh(nn.Module):
    def forward(self, x):
        return 1.7159 * (1 - 2 / (torch.exp(4 * x / 3) + 1))


@pytest.mark.parametrize(
    ("name", "unit", "pooling"), [("lenet-5", nn.ReLU, nn.MaxPool2d), ("lenet-5-1998", ScaledTanh, nn.AvgPool2d)]
)
def test_the_network_is_a_sequence_of_plain_modules(name, unit, pooling):
    net = initialize(recipes.load(name).build(10), seed=1).double()
    plain = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), unit(), pooling(2), nn.Conv2d(6, 16, 5), unit(), pooling(2), nn.Flatten()),
        *(nn.Linear(400, 120), unit(), nn.Linear(120, 84), unit(), nn.Linear(84, 10)),
    ).double()
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
            theirs.copy_(ours.normal_(0, 0.1))
    images = torch.randn(3, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits, features = net(images)
    torch.testing.assert_close(logits, plain(images), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(features, plain[:-1](images), rtol=1e-12, atol=1e-12)
    assert plain[:3](images).shape[1:] == (6, 14, 14)
    assert plain[:6](images).shape[1:] == (16, 5, 5)


def test_colour_noise_and_grey_do_not_go_together():
    with pytest.raises(BadRecipe) as raised:
        recipes.load("paper", ["image.colour=grey"])
    assert str(raised.value) == (
        'training.augmentation: colour_noise needs colours, and image.colour is "grey": drop one of them'
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("digits")
    assert main(["prep", "digits", "--workspace", str(folder), "--workers", "1"]) == 0
    return folder


@pytest.mark.parametrize("name", BOTH)
def test_grey_is_the_same_in_network_and_exported_file_in_every_view(name, workspace, tmp_path):
    dataset = Dataset.open(workspace / "data" / "digits")
    recipe = recipes.load(name)
    net = initialize(recipe.build(10), seed=0)
    mean_image = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
    Model(net=net, recipe=recipe, classes=dataset.classes, mean_image=mean_image, provenance={}).save(tmp_path / "m")
    network = open_network(tmp_path / "m", "cpu")
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    grey = (images.astype(np.float64) - mean_image) @ np.array(LUMA) / 38
    seen = network.preprocessor(torch.from_numpy(images), torch.arange(32), torch.arange(32))
    np.testing.assert_allclose(seen[:, 0].numpy(), grey, atol=1e-5)
    exported = OnnxModel.open(export_model(tmp_path / "m").path)
    for view in ten_views(32, 32)[::5]:  # as it is, and mirrored
        for ours, theirs in zip(network.run(images, view), exported.run(images, view), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_digits_are_learned_and_every_command_takes_the_grey_network(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    assert recipe_for(Dataset.open(workspace / "data" / "digits")) == "lenet-5"
    assert main(["train", "digits", "--epochs", "4", "--out", "net", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("Next: alexnet eval net\n")
    assert main(["export", "net"]) == 0
    for model in ("net", "models/net/model.onnx"):
        capsys.readouterr()
        assert main(["eval", model, "--json", "--device", "cpu"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["views"] == 1  # a mirrored 2 is no 2
        assert result["top1_error"] < 0.15
    assert "One view, since it saw no mirrored pictures: `alexnet eval net" in (
        workspace / "models" / "net" / "MODEL_CARD.md"
    ).read_text(encoding="utf-8")
    assert main(["export", "net", "--precision", "int8"]) == 0
    assert main(["info", "models/net"]) == 0
    picture = Dataset.open(workspace / "data" / "digits").split("val").read(np.arange(1))[0]
    Image.fromarray(picture).save(tmp_path / "digit.png")
    for words in (["kernels"], ["maps", str(tmp_path / "digit.png")], ["saliency", str(tmp_path / "digit.png")]):
        assert main(["visualize", *words, "--model", "net", "--out", str(tmp_path / f"{words[0]}.png")]) == 0
        assert Image.open(tmp_path / f"{words[0]}.png").width == 1500


def test_recipes_of_digits_are_compared_over_one_view(workspace, tmp_path, capsys):
    digits = str(workspace / "data" / "digits")
    command = ["reproduce", "augmentation", "--data", digits, "--base", "lenet-5", "--recipe", "rotation", "--json"]
    command += ["--seeds", "1", "--epochs", "1", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert len(facts) == 2
    for name, one in facts.items():
        run = tmp_path / "a" / "runs" / f"{name}-0"
        assert main(["eval", str(run), "--data", digits, "--views", "1", "--json", "--device", "cpu"]) == 0
        assert one["top1_errors"] == [json.loads(capsys.readouterr().out)["top1_error"]]
    assert "1 view each" in (tmp_path / "a" / "table.md").read_text(encoding="utf-8")


def test_models_are_measured_together_over_the_views_that_all_have_seen(workspace):
    def of(recipe):
        net = initialize(recipe.build(10), seed=0)
        mean = np.zeros((32, 32, 3), np.float32)
        return NetworkModel.of(
            Model(net=net, recipe=recipe, classes=digits.classes, mean_image=mean, provenance={}), "cpu"
        )

    digits = Dataset.open(workspace / "data" / "digits")
    plain = recipes.load("lenet-5")
    mirrored = recipes.adjust(plain, ['training.augmentation=["reflection"]'])
    assert evaluate([of(mirrored)], digits).views == 10
    assert evaluate([of(mirrored), of(plain)], digits).views == 1
    assert evaluate([of(plain)], digits, views=10).views == 10
