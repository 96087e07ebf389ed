"""The ten views with their votes, and random training views, against the definitions of both."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_untrained
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.data.augment import EpochPlan, apply_in_order
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Prediction
from alexnet_cli.model import Model
from alexnet_cli.visualization.augmentation import draw_training_views, training_views
from alexnet_cli.visualization.views import PLACES, draw_votes, votes_of


@pytest.fixture(scope="module")
def model(packed, tmp_path_factory) -> Model:
    return Model.load(save_untrained(packed, tmp_path_factory.mktemp("m") / "m", 3))


@pytest.fixture(scope="module")
def picture(packed) -> np.ndarray:
    return packed.split("val").read(np.array([2]))[0]


def test_the_ten_view_answer_is_that_of_predict(model, picture):
    network = NetworkModel.of(model, "cpu")
    votes = votes_of(network, picture)
    expected = network.average(picture[None], 10)[0]
    np.testing.assert_array_equal(votes.average, expected)
    assert votes.answer == network.predict(picture, views=10)[0]
    for vote, probabilities in zip(votes.best, votes.probabilities, strict=True):
        i = max(range(3), key=lambda i: probabilities[i])
        assert (vote.label, vote.probability) == (network.classes[i], pytest.approx(float(probabilities[i])))
    winner = network.classes[int(expected.argmax())]
    assert votes.agreeing == [vote.label for vote in votes.best].count(winner)


def test_frames_lie_where_the_views_are_and_names_are_whole(figures, model, picture, tmp_path):
    votes = votes_of(NetworkModel.of(model, "cpu"), picture)
    name = "a class of things whose name is so long that it needs more than two lines of the figure to be read"
    best = [Prediction(label="x", name=name, probability=0.5), *votes.best[1:]]
    draw_votes(replace(votes, best=best), picture, tmp_path / "v.png")
    frames, bars = figures[0].axes[:2]
    assert [frame.get_label() for frame in frames.patches] == PLACES
    found = {frame.get_label(): frame.get_bbox().extents for frame in frames.patches}
    for place, (top, left) in {"top left": (0, 0), "bottom right": (5, 5), "centre": (2, 2)}.items():
        np.testing.assert_allclose(found[place], [left - 0.5, top - 0.5, left + 66.5, top + 66.5], atol=3)  # inset
    assert bars.texts[0].get_text().replace("\n", " ") == f"50% {name}"
    assert len(bars.texts) == 11
    assert any(line.get_label() == "chance" and line.get_xdata()[0] == 1 / 3 for line in bars.lines)
    (first, *_) = bars.child_axes
    np.testing.assert_array_equal(first.images[0].get_array(), picture[:67, :67])
    np.testing.assert_array_equal(bars.child_axes[5].images[0].get_array(), picture[:67, :67][:, ::-1])


def test_training_views_are_what_training_makes_of_the_picture(model, packed, picture):
    statistics, recipe = packed.statistics(), model.recipe
    found = training_views(model, statistics, picture, count=6, seed=4)
    plan = EpochPlan.draw(4, 0, 6, recipe.image, recipe.augmentations)
    images = torch.from_numpy(np.repeat(picture[None], 6, axis=0))
    expected = apply_in_order(
        Preprocessor(recipe.image, model.mean_image, "cpu"), images, plan.rows(slice(6)), statistics
    )
    np.testing.assert_allclose(found.inputs, expected.numpy(), atol=1e-5)
    assert {True, False} == set(found.reflected)


def test_training_views_show_the_crop_reflected_with_its_shift(model, packed, picture):
    flat = replace(model, mean_image=np.full_like(model.mean_image, 90.0))  # so that nothing but a colour is added back
    found = training_views(flat, packed.statistics(), picture, count=8)
    assert np.abs(found.shifts).max() > 1
    for pixels, (top, left), reflected, shift in zip(
        found.pixels, found.corners, found.reflected, found.shifts, strict=True
    ):
        crop = picture[top : top + 67, left : left + 67].astype(float) + shift
        expected = np.clip(crop[:, ::-1] if reflected else crop, 0, 255)
        np.testing.assert_allclose(pixels, expected, atol=0.51)


def test_views_that_training_crops_alike_are_not_all_that_is_shown(packed, picture, tmp_path):
    settings = ["random_crop.shared_by=32", "reflection.shared_by=32"]
    shared = Model.load(save_untrained(packed, tmp_path / "m", 0, settings))
    assert len(set(training_views(shared, packed.statistics(), picture).corners)) > 4


def test_a_recipe_without_augmentation_is_refused(packed, picture, tmp_path):
    plain = Model.load(save_untrained(packed, tmp_path / "m", 0, ["training.augmentation=[]"]))
    with pytest.raises(AlexNetError, match="has no augmentation: it trains on the centre view"):
        training_views(plain, packed.statistics(), picture)


def test_each_training_view_has_a_frame_of_its_colour(figures, model, packed, picture, tmp_path):
    found = training_views(model, packed.statistics(), picture, count=6)
    draw_training_views(found, picture, tmp_path / "a.png", Size.slide)
    whole, *panels = figures[0].axes
    for frame, axes, (top, left), reflected in zip(whole.patches, panels, found.corners, found.reflected, strict=True):
        assert frame.get_edgecolor() == axes.spines["left"].get_edgecolor()
        expected = np.add([[0, 0], [67, 0], [67, 67], [0, 67]], [left - 0.5, top - 0.5])
        np.testing.assert_array_equal(frame.get_xy()[:4], expected)
        place = f"at {top}, {left}" + (", reflected" if reflected else "")
        assert axes.get_title().startswith(f"{place}\nRGB ")


def test_what_is_beyond_the_paper_is_told_above_each_view_and_framed_where_it_is_from(figures, packed, tmp_path):
    entries = ["rotation", "shear", "stretch", "scale_jitter", "random_crop", "reflection", "brightness", "contrast"]
    settings = [f"training.augmentation={json.dumps(entries)}", "image.standardize=true"]
    model = Model.load(save_untrained(packed, tmp_path / "m", 0, settings))
    side = np.arange(72, dtype=np.uint8)
    picture = np.stack([np.tile(side, (72, 1)), np.tile(side[:, None], 72), np.full((72, 72), 90)], 2).astype(np.uint8)
    flat = replace(model, mean_image=np.full_like(model.mean_image, 90.0))
    found = training_views(flat, packed.statistics(), picture, count=6)
    assert found.inputs.std(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-4)
    for words in found.words:
        kinds = [word.split()[0] for word in words if word and word != "reflected"]
        assert kinds == ["rotated", "sheared", "stretched", "scaled", "at", "brightness", "contrast"]
    draw_training_views(found, picture, tmp_path / "a.png")
    whole, *panels = figures[0].axes
    for frame, axes, words in zip(whole.patches, panels, found.words, strict=True):
        assert axes.get_title().replace("−", "-").replace("\n", ", ") == ", ".join(filter(None, words))
        assert frame.get_edgecolor() == axes.spines["left"].get_edgecolor()
    # Of this picture red is a pixel's column and green its row, so that a view says where it is from.
    plain = Model.load(save_untrained(packed, tmp_path / "p", 0, [f"training.augmentation={json.dumps(entries[:6])}"]))
    plain = replace(plain, mean_image=flat.mean_image)
    found = training_views(plain, packed.statistics(), picture, count=6)
    for pixels, (upper_left, upper_right, lower_right, lower_left), reflected in zip(
        found.pixels.astype(float), found.outlines, found.reflected, strict=True
    ):
        middle = (upper_left + lower_right) / 2 - 0.5
        np.testing.assert_allclose(pixels[33, 33, :2], middle, atol=1)
        across, down = (upper_right - upper_left) / 67, (lower_left - upper_left) / 67
        np.testing.assert_allclose(pixels[33, 43, :2], middle + 10 * across * (-1 if reflected else 1), atol=1)
        np.testing.assert_allclose(pixels[43, 33, :2], middle + 10 * down, atol=1)


def test_the_commands(exported_folder, packed, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("p.png")
    model, data = ["--model", str(exported_folder)], ["--data", str(packed.path)]
    assert main(["visualize", "views", "p.png", *model, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["views.png"]
    assert main(["predict", "p.png", "--views", "10", *model, "--json"]) == 0
    assert said["classes"] == json.loads(capsys.readouterr().out)["predictions"][0]["classes"]
    assert main(["visualize", "augmentation", "p.png", *model, *data, "--json", "--out", "a.svg", "--seed", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["a.svg"]
    expected = training_views(Model.load(exported_folder), packed.statistics(), picture, 8, 2)
    assert [(view["top"], view["left"]) for view in said["views"]] == expected.corners
    assert (tmp_path / "views.png").is_file()
    assert (tmp_path / "a.svg").is_file()
    for command in ("views", "augmentation"):
        assert main(["visualize", command, "none.jpg", *model, *(data if command == "augmentation" else [])]) == 1
        assert "none.jpg: " in capsys.readouterr().err
    assert main(["visualize", "augmentation", "p.png", *model]) == 1
    assert "no dataset" in capsys.readouterr().err
