"""Augmentation: what is drawn, and that the fast paths compute what the plain definition does."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.data import augmentations
from alexnet_cli.data.augment import EpochPlan, apply_in_order, augment
from alexnet_cli.data.augmentations import (
    AUGMENTATIONS,
    Augmentation,
    ColourNoise,
    RandomCrop,
    Reflection,
    colour_shift,
)
from alexnet_cli.data.preprocess import LUMA, Crops, Preprocessor
from alexnet_cli.inference.views import ten_views
from alexnet_cli.training.train import train

IMAGE = replace(recipes.load("paper").image, size=72, crop=67)
PAPER = {"crop": RandomCrop(), "reflection": Reflection(), "noise": ColourNoise(deviation=0.1)}
PAPER |= {"crops of three": RandomCrop(shared_by=3), "reflections of three": Reflection(shared_by=3)}
PAPER |= {"divided noise": ColourNoise(deviation=0.1, divide_by=1.1)}
LISTS = {
    "as in the paper": ["crop", "reflection", "noise"],
    "colours first, crop last": ["noise", "reflection", "crop"],
    "no crop": ["reflection"],
    "nothing": [],
    "noise twice": ["noise", "crop", "noise"],
    "as in the code of 2012": ["crops of three", "reflections of three", "divided noise"],
    "divided noise twice": ["crop", "divided noise", "divided noise"],
}


@pytest.fixture
def images(packed) -> torch.Tensor:
    return torch.from_numpy(packed.split("train").read(np.arange(8)))


def plan(names: list[str], count: int = 8) -> list:
    return EpochPlan.draw(0, 0, count, IMAGE, {f"{i}": PAPER[name] for i, name in enumerate(names)}).rows(slice(None))


def test_every_place_and_both_reflections_are_drawn():
    recipe = recipes.load("paper")
    epoch = EpochPlan.draw(0, 0, 20_000, recipe.image, recipe.augmentations)
    crop, reflection, noise = (drawn for _, drawn in epoch.drawn)
    assert set(crop["top"]) == set(crop["left"]) == set(range(33))
    assert reflection["reflected"].mean() == pytest.approx(0.5, abs=0.02)
    assert noise["a"].std() == pytest.approx(0.1, rel=0.02)
    assert sorted(epoch.order) == list(range(20_000))
    again, other = (EpochPlan.draw(0, i, 20_000, recipe.image, recipe.augmentations) for i in (0, 1))
    assert np.array_equal(epoch.order, again.order)
    assert not np.array_equal(epoch.order, other.order)


def test_a_view_is_the_centred_picture_cropped_reflected_and_shifted(packed, images):
    facts = packed.statistics()
    drawn = plan(LISTS["as in the paper"])
    (_, crop), (_, reflection), (_, noise) = drawn
    shift = colour_shift(noise["a"], facts)
    views = augment(Preprocessor(IMAGE, facts.mean_image, "cpu"), images, drawn, facts)
    assert views.shape == (8, 3, 67, 67)
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert reflection["reflected"].any()
    for i in range(8):
        top, left = crop["top"][i], crop["left"][i]
        pixels = (images[i].numpy().astype(np.float64) - facts.mean_image)[top : top + 67, left : left + 67]
        pixels = (pixels[:, ::-1] if reflection["reflected"][i] else pixels) + shift[i]
        np.testing.assert_allclose(views[i].numpy(), pixels.transpose(2, 0, 1), atol=1e-4)


def test_crops_reflections_and_division_of_the_code_of_2012(packed, images):
    """Drawn for 32 images at a time, here for three; the mean's central crop; divided by 1.1 while there is noise."""
    recipe = recipes.load("original-2012", ["random_crop.shared_by=3", "reflection.shared_by=3"])
    image, facts = replace(recipe.image, size=72, crop=67), packed.statistics()
    preprocessor = Preprocessor(image, facts.mean_image, "cpu")
    for epoch, divide_by in ((65, 1.1), (66, 1.0)):  # counted from 0
        drawn = EpochPlan.draw(0, epoch, 8, image, recipe.augmentations).rows(slice(None))
        (_, crop), (_, reflection), *noise = drawn
        for values in (crop["top"], crop["left"], reflection["reflected"]):
            assert [len(set(values[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1]
        shift = colour_shift(noise[0][1]["a"], facts) if noise else np.zeros((8, 3))
        views = augment(preprocessor, images, drawn, facts)
        for i in range(8):
            top, left = crop["top"][i], crop["left"][i]
            pixels = images[i, top : top + 67, left : left + 67].numpy() - facts.mean_image[2:69, 2:69].astype(float)
            pixels = ((pixels[:, ::-1] if reflection["reflected"][i] else pixels) + shift[i]) / divide_by
            np.testing.assert_allclose(views[i].numpy(), pixels.transpose(2, 0, 1), atol=1e-4)
    for view in ten_views(72, 67):
        rows, columns = map(torch.from_numpy, view)
        crops = Crops(rows=np.tile(view.rows, (8, 1)), columns=np.tile(view.columns, (8, 1)))
        mean = facts.mean_image[2:69, 2:69][:, :: 1 if view.columns[0] < view.columns[-1] else -1]
        expected = torch.from_numpy(images.numpy()[:, view.rows][:, :, view.columns] - mean).permute(0, 3, 1, 2)
        torch.testing.assert_close(preprocessor(images, rows, columns), expected)
        torch.testing.assert_close(preprocessor.crop(images, crops), expected)


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize(
    ("names", "mean_crop"),
    [(names, "same") for names in LISTS.values()]
    + [(names, "central") for names in LISTS.values() if "crop" in str(names[:1])],
)
def test_the_fast_paths_are_the_plain_definition(packed, images, names, mean_crop, colour, monkeypatch):
    facts, image = packed.statistics(), replace(IMAGE, divide_by=58.0, colour=colour, mean_crop=mean_crop)
    preprocessor, drawn = Preprocessor(image, facts.mean_image, "cpu"), plan(names)
    plain = apply_in_order(preprocessor, images, drawn, facts)
    assert plain.shape == (8, 3 if colour == "rgb" else 1, 67, 67)
    torch.testing.assert_close(augment(preprocessor, images, drawn, facts), plain, atol=1e-5, rtol=0)
    monkeypatch.setattr(preprocessor, "_cut_one_by_one", preprocessor._cut_at_once)  # what a GPU does
    torch.testing.assert_close(augment(preprocessor, images, drawn, facts), plain, atol=1e-5, rtol=0)


def test_grey_is_the_luma_of_the_centred_colours(packed, images):
    facts = packed.statistics()
    preprocessor = Preprocessor(replace(IMAGE, colour="grey"), facts.mean_image, "cpu")
    grey = augment(preprocessor, images, [], facts)
    centred = (images.numpy().astype(np.float64) - facts.mean_image)[:, 2:69, 2:69]
    np.testing.assert_allclose(grey[:, 0].numpy(), centred @ np.array(LUMA), atol=1e-3)


def test_the_same_view_of_every_image_is_what_an_exported_graph_computes(packed, images):
    facts = packed.statistics()
    preprocessor = Preprocessor(replace(IMAGE, divide_by=58.0), facts.mean_image, "cpu")
    rows = torch.arange(2, 69)
    central = augment(preprocessor, images, [], facts)
    torch.testing.assert_close(preprocessor(images, rows, rows), central, atol=1e-6, rtol=0)


def test_another_augmentation_is_one_registered_class(packed, images):
    """It has no fast path: it is applied to the views that the crops before it read."""

    @AUGMENTATIONS.register("strength")
    @dataclass(frozen=True, kw_only=True)
    class Strength(Augmentation):
        most: float

        def draw(self, random, images, image):
            return {"factor": random.uniform(1, self.most, size=images).astype(np.float32)}

        def apply(self, pixels, drawn, image, statistics):
            return pixels * torch.from_numpy(drawn["factor"])[:, None, None, None]

    try:
        settings = ['training.augmentation=["random_crop", "strength"]', "strength.most=3.0"]
        recipe = recipes.load("paper", settings)
        assert recipe.augmentations["strength"] == Strength(most=3.0)
        assert recipes.loads(recipes.dumps(recipe)) == recipe
        drawn = EpochPlan.draw(0, 0, 8, IMAGE, recipe.augmentations).rows(slice(None))
        facts = packed.statistics()
        preprocessor = Preprocessor(replace(IMAGE, divide_by=58.0), facts.mean_image, "cpu")
        cropped = augment(preprocessor, images, drawn[:1], facts)
        factors = torch.from_numpy(drawn[1][1]["factor"])[:, None, None, None]
        torch.testing.assert_close(augment(preprocessor, images, drawn, facts), cropped * factors)
        torch.testing.assert_close(apply_in_order(preprocessor, images, drawn, facts), cropped * factors)
    finally:
        del AUGMENTATIONS["strength"]


def test_colour_noise_moves_along_the_principal_components_by_their_deviation(packed):
    facts = packed.statistics()
    for i in range(3):
        a = np.zeros((1, 3))
        a[0, i] = 0.1
        expected = 0.1 * np.sqrt(facts.eigenvalues[i]) * facts.eigenvectors[:, i]
        np.testing.assert_allclose(colour_shift(a, facts)[0], expected, rtol=1e-5, atol=1e-6)


def test_colour_noise_ends_where_the_recipe_says(packed, narrow, tmp_path, monkeypatch):
    noisy = []
    monkeypatch.setattr(augmentations, "colour_shift", lambda a, facts: noisy.append(len(a)) or colour_shift(a, facts))
    train(packed, recipes.adjust(narrow, ["colour_noise.until=2"]), tmp_path / "m")
    assert sum(noisy) == 42  # of the first epoch of two
