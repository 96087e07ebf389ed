"""Errors over views: ranks, intervals and averages against plain NumPy, and ONNX files against their models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded

from alexnet_cli.commands import main
from alexnet_cli.commands.evaluate import as_table
from alexnet_cli.errors import BadArtefact
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.evaluation import (
    Evaluation,
    average_probabilities,
    count_errors,
    evaluate,
    interval,
    label_ranks,
)
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import BATCH, Predictor
from alexnet_cli.inference.views import ten_views
from alexnet_cli.model import Model
from alexnet_cli.opening import open_model, open_network
from alexnet_cli.training.train import train


@pytest.fixture(scope="module")
def workspace(packed, tmp_path_factory):
    """Two models and the ONNX file of one."""
    from conftest import NARROW

    from alexnet_cli import recipe as recipes

    root = tmp_path_factory.mktemp("evaluated")
    recipe = recipes.load("small-data", [*NARROW, "training.epochs=4", "training.warmup_epochs=0.5"])
    for seed in (0, 1):
        train(packed, recipe, root / "models" / f"m{seed}", seed=seed)
    export_model(root / "models" / "m0", pictures=packed.split("val").read(np.arange(5)))
    return root


def test_the_rank_of_the_label_is_that_of_a_sort():
    probabilities = np.random.default_rng(0).random((50, 20))
    labels = np.arange(50) % 20
    by_sorting = [list(np.argsort(-line)).index(label) for line, label in zip(probabilities, labels, strict=True)]
    assert label_ranks(probabilities, labels).tolist() == by_sorting


def test_a_tie_counts_against_the_label():
    assert label_ranks(np.array([[0.5, 0.5, 0.0]]), np.array([0])).tolist() == [1]
    assert label_ranks(np.full((1, 7), 1 / 7), np.array([3])).tolist() == [6]


@pytest.mark.parametrize(
    ("errors", "total", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (200, 1000, (0.1764, 0.2259)), (1000, 1000, (0.9962, 1.0))],
)
def test_the_interval_is_wilsons(errors, total, expected):
    assert interval(errors, total) == pytest.approx(expected, abs=1e-4)


class FirstPixel(Predictor):
    """Its prediction is the value of the picture's first pixel."""

    classes = ("blue", "green", "red")
    image_size, crop = 72, 67

    def run(self, images, view=None):
        return np.eye(3, dtype=np.float32)[images[:, 0, 0, 0] % 3], np.empty((len(images), 0), np.float32)


class OneColour:
    """A split of N one-colour pictures."""

    def __init__(self, count: int) -> None:
        self.labels = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions):
        return np.tile((positions % 3).astype(np.uint8)[:, None, None, None], (1, 72, 72, 3))


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7])
def test_every_image_counts_once(count):
    top1, top5 = count_errors([FirstPixel()], OneColour(count), views=10)
    assert top1 == sum(i % 3 != 0 for i in range(count))
    assert top5 == 0  # of three classes


def test_several_models_are_averaged(packed, workspace):
    both = [open_network(workspace / "models" / name, "cpu") for name in ("m0", "m1")]
    images = packed.split("val").read(np.arange(4))
    views = ten_views(72, 67)
    mean = sum(model.run(images, view)[0].astype(np.float64) for model in both for view in views) / 20
    np.testing.assert_allclose(average_probabilities(both, images, views=10), mean, rtol=1e-12)
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("views", [1, 10])
def test_an_onnx_file_agrees_with_its_model_on_every_image(packed, workspace, views):
    images = packed.split("val").read(np.arange(21))
    model = open_network(workspace / "models" / "m0", "cpu")
    onnx = open_model(workspace / "models" / "m0" / "model.onnx", device="cpu")
    found, expected = (average_probabilities([one], images, views=views) for one in (onnx, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert evaluate([model], packed, views=views) == evaluate([onnx], packed, views=views)


def test_other_classes_or_picture_sizes_are_refused(packed, workspace):
    model = open_network(workspace / "models" / "m0", "cpu")
    many = ["blue", "green", "red", *map(str, range(5))]
    for classes, expected in [
        (["cat", "dog"], "the model does not know cat, dog of dataset colours, which does not have blue, green, red"),
        (["blue", "green"], "dataset colours does not have red"),
        (many, "the model does not know 0, 1, 2 and 2 more of dataset colours"),
        (["red", "green", "blue"], "dataset colours has the model's classes in another order"),
    ]:
        with pytest.raises(BadArtefact, match=f"^{expected}: evaluate on a dataset with the model's 3 classes$"):
            evaluate([model], replace(packed, classes=classes))
    with pytest.raises(BadArtefact, match=r"takes pictures of 72 pixels, dataset colours has 256: prep it with --size"):
        evaluate([model], replace(packed, image_size=256))
    with pytest.raises(BadArtefact, match="has no split 'test'"):
        evaluate([model], packed, "test")


def test_the_command_prints_fractions_as_json(packed, workspace, capsys):
    asked = ["eval", "m0", "--data", str(packed.path), "--workspace", str(workspace)]
    assert main([*asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [
        "models",
        "dataset",
        "store",
        "split",
        "views",
        "images",
        "top1_error",
        "top5_error",
        "top1_error_ci95",
        "top5_error_ci95",
    ]
    assert (said["models"], said["dataset"], said["split"]) == (["m0"], "colours", "val")
    assert (said["views"], said["images"], said["top5_error"]) == (10, 21, 0.0)
    assert main([*asked, "m0/model.onnx", "--views", "1"]) == 0
    out = capsys.readouterr().out
    assert "│ m0 + m0 │" in out
    assert "predictions are averaged" in " ".join(out.split())


def test_published_rows_stand_beside_ours_on_ilsvrc_only(packed, tmp_path):
    errors = Evaluation(images=10, views=10, top1=0.4, top5=0.2, top1_ci95=(0.3, 0.5), top5_ci95=(0.1, 0.3))
    _, _, rows, note = as_table(errors, [tmp_path / "m0"], packed, "val")
    assert len(rows) == 1
    assert note == ""
    part = replace(packed, source={"layout": "ilsvrc-2012"})
    ilsvrc = replace(part, counts={"val": 50_000})
    for dataset, views in ((part, 10), (ilsvrc, 1)):
        _, _, rows, note = as_table(replace(errors, views=views), [tmp_path / "m0"], dataset, "val")
        assert (len(rows), note) == (1, "")
    _, _, rows, note = as_table(errors, [tmp_path / "m0"], ilsvrc, "val")
    assert rows[0] == ["1 CNN (published)", "40.7", "18.2"]
    assert rows[-1][0] == "m0 (measured here)"
    assert "published" in note


def test_bf16_is_close_to_fp32(packed, workspace):
    model = Model.load(workspace / "models" / "m0")
    network = NetworkModel.of(model, torch.device("cpu"))
    images = packed.split("val").read(np.arange(8))
    exact = average_probabilities([network], images, views=1)
    network.precision = "bf16"
    np.testing.assert_allclose(average_probabilities([network], images, views=1), exact, atol=0.05)


def test_an_onnx_file_is_evaluated_on_the_device_that_was_named(packed, workspace, capsys):
    file = str(workspace / "models" / "m0" / "model.onnx")
    asked = ["eval", file, "--data", str(packed.path), "--workspace", str(workspace), "--views", "1"]
    assert main([*asked, "--device", "cpu", "--json"]) == 0
    on_cpu = json.loads(capsys.readouterr().out)
    for wrong in ("cuda:99", "nowhere", "meta"):
        assert main([*asked, "--device", wrong]) == 1
        assert capsys.readouterr().err == f"error: this machine has no device {wrong!r}: try --device cpu\n"
    if torch.cuda.is_available():
        assert main([*asked, "--device", "cuda:0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == on_cpu
        assert (open_model(file, device="cpu").device, open_model(file, device="cuda:0").device) == ("cpu", "cuda")


def test_a_model_of_weights_that_are_not_finite_is_an_error_everywhere(packed, workspace, tmp_path, capsys):
    model = Model.load(workspace / "models" / "m0")
    with torch.no_grad():
        model.net.get_parameter("columns.1.conv3.weighted.weight")[0, 0, 0, 0] = float("nan")
    replace(model, saved_fingerprint=None).save(tmp_path / "models" / "bad")
    picture, data = str(tmp_path / "a.png"), str(packed.path)
    Path(picture).write_bytes(encoded(packed.split("val").read(np.arange(1))[0]))
    for command in (["eval", "bad", "--data", data], ["export", "bad"], ["predict", picture], ["index", data]):
        assert main([*command, "--workspace", str(tmp_path)]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said == (
            "error: the outputs of model bad are not finite: its weights are damaged, or its training has diverged"
        )
    assert not (tmp_path / "models" / "bad" / "model.onnx").exists()
