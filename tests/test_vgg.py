"""VGG-16 (Simonyan and Zisserman, 2014) as a recipe, and torchvision's weights of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_import import logits, torchvisions_input
from torch import nn
from torchvision.models.vgg import VGG, make_layers, vgg16

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.importing.model import import_model
from alexnet_cli.importing.torchvision import NETS
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.describe import layer_table
from alexnet_cli.nets.network import parameter_count
from alexnet_cli.training.schedule import finished, learning_rate
from alexnet_cli.training.train import train

CLASSES = [f"class {i}" for i in range(7)]
NARROW = [2, 3, "M", 4, 3, "M", 4, 5, 4, "M", 6, 5, 4, "M", 5, 6, 4, "M"]  # all unlike, so that none can be mistaken


def torchvisions() -> VGG:
    """torchvision's module, narrow: it has an argument for the kernels, and none for the units."""
    torch.manual_seed(0)
    net = VGG(make_layers(NARROW), init_weights=False)
    for place, layer in {0: nn.Linear(4 * 49, 20), 3: nn.Linear(20, 16), 6: nn.Linear(16, 7)}.items():
        net.classifier[place] = layer
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return net.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A file of its weights; not to be changed."""
    path = tmp_path_factory.mktemp("vgg") / "narrow.pth"
    torch.save(torchvisions().state_dict(), path)
    return path


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)


def test_its_layers_are_those_of_torchvisions_module():
    with torch.device("meta"):
        theirs = vgg16().state_dict()
    recipe = recipes.load("vgg-16")
    net = recipe.build(1000)
    assert parameter_count(net) == sum(weight.numel() for weight in theirs.values()) == 138_357_544
    for layer, module in NETS["vgg-16"].modules.items():
        assert net.weighted(layer)[0].weight.shape == theirs[f"{module}.weight"].shape
    assert list(NETS["vgg-16"].modules) == list(recipe.network.layers)
    assert len(theirs) == 2 * len(recipe.network.layers)
    assert net.features_name == "fc7"


def test_a_unit_of_the_last_convolution_sees_196_pixels_and_after_its_pooling_212():
    network = recipes.load("vgg-16").network
    rows = {row.name: row for row in layer_table(network, (3, 224, 224), 1000)}
    assert [row.field.size for row in rows.values() if row.field] == [
        3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196,
    ]  # fmt: skip
    pooled = rows["conv5_3"].field.through(network.operations["pooling"].window)
    assert (pooled.size, pooled.stride, pooled.start) == (212, 32, -90)
    assert (rows["conv5_3"].output, rows["conv5_3"].leaves) == ((512, 14, 14), (512, 7, 7))


def test_its_training_rules_are_those_of_the_authors():
    recipe = recipes.load("vgg-16")
    training, image = recipe.training, recipe.image
    assert (training.batch, training.momentum, training.weight_decay) == (256, 0.9, 5e-4)
    assert (image.size, image.crop, image.mean) == (256, 224, "colour")
    assert list(recipe.augmentations) == ["random_crop", "reflection", "colour_noise"]
    assert [name for name, layer in recipe.network.layers.items() if "dropout" in layer.then] == ["fc6", "fc7"]
    stalled = [0.5] * 21  # divided by 10 three times, each after five epochs that were no better; then the end
    rates = [learning_rate(training, epochs, stalled[:epochs]) for epochs in (1, 6, 11, 16)]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    assert [finished(training, stalled[:epochs]) for epochs in (20, 21)] == [False, True]
    assert finished(training, [1 / epoch for epoch in range(1, 75)])


def test_torchvisions_weights_give_what_torchvisions_module_gives(file, pictures):
    model = import_model(str(file), classes=CLASSES)
    with torch.no_grad():
        theirs = torchvisions()(torchvisions_input(pictures))
    assert theirs.std() > 0.1
    torch.testing.assert_close(logits(model, pictures), theirs, rtol=1e-4, atol=1e-4)
    assert model.recipe.name == "vgg-16"
    assert [layer.width for layer in model.recipe.network.layers.values()][:13] == [n for n in NARROW if n != "M"]


def test_a_state_dict_of_another_vgg_is_refused(tmp_path):
    from torchvision.models.vgg import cfgs

    layers = make_layers([step if step == "M" else 2 for step in cfgs["E"]])
    torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, tmp_path / "vgg19.pth")
    with pytest.raises(BadArtefact, match=r"vgg19.pth does not fit: torchvision's vgg16 has no features.16.bias$"):
        import_model(str(tmp_path / "vgg19.pth"))


def test_a_word_that_fetches_nothing_is_answered_with_those_that_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", "vgg16"]) == 1
    said = "error: no file vgg16: give one, or the word torchvision or vgg-16, which fetches torchvision's weights\n"
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.exports
def test_it_is_exported_indexed_and_searched(file, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("\n".join(CLASSES))
    Path("photos").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(f"photos/{i}.png")
    assert main(["import", str(file), "--classes", "classes.txt"]) == 0
    with torch.no_grad():
        theirs = torchvisions()(torchvisions_input(pictures)).softmax(1).numpy()
    exported = OnnxModel.open(Path("models/narrow/model.onnx"), device="cpu")
    np.testing.assert_allclose(exported.run(pictures)[0], theirs, atol=1e-5)
    assert exported.feature_name == "fc7"
    assert main(["index", "photos"]) == 0
    capsys.readouterr()
    assert main(["search", "photos/1.png", "--json"]) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert Path(query["neighbours"][0]["path"]).name == "1.png"
    assert query["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-3)


def test_one_eighth_as_wide_takes_a_finite_step_and_subtracts_the_mean_colour(packed, tmp_path):
    settings = ["network.width=0.125", "image.size=72", "image.crop=64", "training.batch=21", "training.epochs=1"]
    recipe = recipes.load("vgg-16", settings)
    assert [layer.width for layer in recipe.network.layers.values()] == [
        8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64, 512, 512, "classes",
    ]  # fmt: skip
    model = train(packed, recipe, tmp_path / "m")
    (row,) = [json.loads(line) for line in (tmp_path / "m" / "history.jsonl").read_text().splitlines()]
    assert 0 < row["loss"] < np.inf
    facts = packed.statistics()
    colour = facts.mean_image.mean(axis=(0, 1))
    np.testing.assert_allclose(model.mean_image, np.broadcast_to(colour, (72, 72, 3)), rtol=1e-5)
    assert np.ptp(facts.mean_image, axis=(0, 1)).min() > 1  # the mean image is another
    assert np.isfinite(np.concatenate([weight.detach().numpy().ravel() for weight in model.net.parameters()])).all()
    assert Model.load(tmp_path / "m").recipe.image.mean == "colour"
