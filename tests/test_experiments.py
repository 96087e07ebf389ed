"""Figures 3 and 4 and tables 1 and 2 of trained models, compared with brute force and with `evaluate`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NARROW
from PIL import Image

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.augment import INITIAL, seed_of, stream
from alexnet_cli.data.prepare import prepare
from alexnet_cli.errors import BadArtefact
from alexnet_cli.experiments import figure4 as figure4_module
from alexnet_cli.experiments import tables
from alexnet_cli.experiments.figure3 import figure3
from alexnet_cli.experiments.figure4 import (
    NEAREST,
    QUERIES,
    SHOWN,
    Classified,
    Retrieved,
    classify,
    figure4,
    retrieve,
    spread,
)
from alexnet_cli.experiments.tables import table1, table2
from alexnet_cli.figures.canvas import Size
from alexnet_cli.inference.evaluation import average_probabilities, evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.training.train import train
from alexnet_cli.visualization.kernels import saturation, structure

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(packed, tmp_path_factory) -> list[Path]:
    """Two models of the same recipe with different seeds."""
    recipe, folder = (
        recipes.load("small-data", [*NARROW, "training.warmup_epochs=0"]),
        tmp_path_factory.mktemp("models"),
    )
    for seed in (0, 1):
        train(packed, recipe, folder / f"m{seed}", seed=seed)
    return [folder / "m0", folder / "m1"]


def test_figure_3_has_a_block_for_each_column(models, tmp_path):
    report = figure3(models[0], tmp_path, "c")
    kernels = [part.weight.detach().numpy() for part in Model.load(models[0]).net.weighted("conv1")]
    assert [row[:2] for row in report.rows] == [["0", "4"], ["1", "4"]]
    np.testing.assert_allclose(report.facts["saturation"], [saturation(each) for each in kernels])
    untrained = initialize(recipes.load(models[0] / "recipe.toml").build(3), seed_of(stream(0, INITIAL)))
    begun = [structure(part.weight.detach().numpy()) for part in untrained.weighted("conv1")]
    np.testing.assert_allclose(report.facts["structure_at_the_start"], begun, rtol=2e-3)  # they are kept in float16
    assert Image.open(tmp_path / "figure-3.png").size[0] == 1500
    assert (tmp_path / "figure-3.svg").exists()


@pytest.mark.parametrize("count", [160, 1000, 50_000])
def test_figure_4_queries_are_not_the_images_it_classifies(count):
    assert set(spread(count, SHOWN)).isdisjoint(spread(count, QUERIES, shift=count // (4 * SHOWN)))


def test_figure_4_has_the_predictions_and_the_nearest_images(models, packed, tmp_path):
    report = figure4(models[0], packed, tmp_path, "c")
    network, test, train_split = NetworkModel.of(Model.load(models[0]), CPU), packed.split("val"), packed.split("train")
    positions = spread(len(test), 8)
    probabilities = average_probabilities([network], test.read(positions), views=10)
    for row, position, expected in zip(report.rows, positions, probabilities, strict=True):
        best = packed.classes[expected.argmax()]
        assert row[0] == packed.classes[test.labels[position]]
        assert row[1] == ("right" if best == row[0] else "wrong")
        assert row[2] == f"{best} {100 * expected.max():.0f} %"
    everything = network.features(train_split.read(np.arange(len(train_split)))).astype(float)
    for found in retrieve(network, test, train_split, packed.classes):
        query = network.features(found.image[None]).astype(float)
        distances = np.sort(np.linalg.norm(everything - query, axis=1))[:NEAREST]
        np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
    for name, height in zip(report.figures, (1350, 1515), strict=True):
        assert Image.open(tmp_path / name).size == (1500, height)
    assert len(classify(network, test, packed.classes)) == 8


def test_figure_4_names_the_layer_that_the_features_are_of(packed, tmp_path, figures):
    layers = 'network.layers=["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8"]'
    recipe = recipes.load("small-data", [*(line for line in NARROW if "fc7" not in line), layers])
    mean_image = packed.statistics().mean_image
    net = initialize(recipe.build(3), 0)
    model = Model(net=net, recipe=recipe, classes=packed.classes, words={}, mean_image=mean_image, provenance={})
    model.save(tmp_path / "m")
    report = figure4(tmp_path / "m", packed, tmp_path, "c")
    told = [report.note, *(figure.get_suptitle() for figure in figures)]
    assert ("Euclidean distance of fc6" in told[0], "nearest in fc6" in told[2]) == (True, True), told
    assert not any("fc7" in text for text in told)


@pytest.mark.parametrize("size", Size)
def test_figure_4_has_all_names_whole(size, tmp_path, figures):
    """No text leaves the figure, and none of a picture's texts runs into its neighbour's."""
    image = np.zeros((8, 8, 3), np.uint8)
    names = [
        "tench",
        "American Staffordshire terrier",
        "a name of more than sixty letters, all of which are to be read",
    ]
    five = [*names, "soft-coated wheaten terrier", "black-and-tan coonhound"]
    one = Classified(image=image, label=names[2], classes=five, probabilities=[0.5, 0.2, 0.1, 0.1, 0.1])
    figure4_module.draw_predictions([one] * SHOWN, tmp_path / "p.png", size)
    found = Retrieved(image=image, label=names[1], neighbours=[image] * 6, labels=names * 2, distances=[1.0] * 6)
    figure4_module.draw_neighbours([found] * QUERIES, "fc7", tmp_path / "n.png", size)
    for figure in figures:
        figure.draw_without_rendering()
        own = [[axes.title, axes._left_title, *axes.texts] for axes in figure.axes]
        shown = [text for texts in own for text in texts if text.get_text()]
        written = [" ".join(text.get_text().split()) for text in shown]
        assert all(any(name in each for each in written) for name in names)
        boxes = [text.get_window_extent() for text in shown]
        for i, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert not any(box.padded(-1).overlaps(other) for other in boxes[:i])


def test_table_2_has_published_and_measured_rows(models, packed, tmp_path, monkeypatch):
    report = table2(models, [], packed, tmp_path, "c")
    rows = {row[0]: row[1:] for row in report.rows}
    assert rows["1 CNN (published)"] == ["10", "40.7", "18.2", "–"]
    assert rows["7 CNNs* (published)"] == ["10", "36.7", "15.4", "15.3"]
    assert rows["SIFT + FVs (published)"] == ["", "–", "–", "26.2"]
    networks = [NetworkModel.of(Model.load(model), CPU) for model in models]
    assert report.facts["1 CNN"]["top1"] == evaluate(networks[:1], packed, views=10).top1
    assert report.facts["2 CNNs"]["top1"] == evaluate(networks, packed, views=10).top1
    assert rows["2 CNNs (measured here)"][1].startswith(f"{100 * report.facts['2 CNNs']['top1']:.1f} (")
    assert rows["1 CNN* (measured here)"] == ["10", "", "", ""]  # not measured: the cells are empty
    assert "These are other images than the published rows'" in report.note
    monkeypatch.setattr(tables, "evaluate", lambda *_args, **_kwargs: pytest.fail("measured again"))
    assert table2(models, [], packed, tmp_path, "c") == report
    with pytest.raises(pytest.fail.Exception):
        table2(models[::-1], [], packed, tmp_path, "c")


def test_table_1_has_ten_views_and_the_centre_view(models, packed, tmp_path):
    report = table1(models, packed, tmp_path, "c")
    rows = {row[0]: row[1:] for row in report.rows}
    assert rows["Sparse coding (published)"][1:3] == ["47.1", "28.2"]
    assert rows["CNN, centre view (published)"] == ["1", "39.0", "18.3", ""]
    network = NetworkModel.of(Model.load(models[0]), CPU)
    assert report.facts["CNN, centre view"]["top1"] == evaluate([network], packed, views=1).top1


def test_alexnet_reproduce_runs_figures_and_tables(models, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(packed.path.parent)
    (tmp_path / "models").symlink_to(models[0].parent)
    for name in ("figure-3", "figure-4", "table-1"):
        assert main(["reproduce", name, "--model", "m0"]) == 0
        assert f"Written to reproduced/{name}: table.md, table.json, recipes/" in capsys.readouterr().out
        assert json.loads(Path(f"reproduced/{name}/table.json").read_text())["name"] == name
    assert main(["reproduce", "table-2", "--pretrained", "m1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["facts"]) == {"1 CNN*"}
    assert main(["reproduce", "figure-3", "--set", "a.b=1", "--seeds", "2"]) == 1
    assert "error: --seeds, --set do not apply to figure-3\n" in capsys.readouterr().err
    for name, useless in (("figure-3", "--data"), ("figure-4", "--precision"), ("table-2", "--epochs")):
        value = {"--precision": "bf16", "--epochs": "1"}.get(useless, "colours")
        assert main(["reproduce", name, useless, value]) == 1
        assert f"error: {useless} does not apply to {name}\n" in capsys.readouterr().err
    assert main(["reproduce", "figure-4", "--model", "m0", "--model", "m1"]) == 1
    assert "error: figure-4 takes a single --model" in capsys.readouterr().err
    assert main(["reproduce", "table-3"]) == 2
    assert main(["reproduce", "figure-3", "--model", "none"]) == 1
    assert "no model 'none'" in capsys.readouterr().err


def test_a_model_with_other_classes_is_refused(models, packed, source, tmp_path):
    two = prepare(source, tmp_path / "data" / "two", size=packed.image_size, workers=1).dataset
    other = replace(two, classes=["a", "b", "c"])
    with pytest.raises(BadArtefact, match="evaluate on a dataset with the model's 3 classes"):
        figure4(models[0], other, tmp_path / "f", "c")
