"""Augmentation beyond the paper, and standardization: against torchvision, scikit-image and NumPy in float64."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_untrained
from skimage.transform import warp
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from alexnet_cli import recipe as recipes
from alexnet_cli.data.augment import EpochPlan, apply_in_order, augment
from alexnet_cli.data.augmentations import (
    Augmentation,
    Brightness,
    Contrast,
    Geometric,
    RandomCrop,
    Reflection,
    Rotation,
    ScaleJitter,
    Shear,
    Stretch,
)
from alexnet_cli.data.preprocess import LUMA, Crops, Preprocessor
from alexnet_cli.errors import BadRecipe
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.views import ten_views
from alexnet_cli.model import Model

IMAGE = replace(recipes.load("paper").image, size=72, crop=67)
GEOMETRY = {"rotation": Rotation(), "shear": Shear(), "stretch": Stretch(), "scale": ScaleJitter()}
ALL = GEOMETRY | {"crop": RandomCrop(), "reflection": Reflection(), "brightness": Brightness(), "contrast": Contrast()}
LEVELS = 0.02  # tolerance in grey levels of 0 to 255: float32 positions, times steps of some hundred levels a pixel


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Eight smooth pictures, so that resampling twice is not far from once."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.uniform(0, 255, (8, 3, 7, 7)))
    smooth = torch.nn.functional.interpolate(coarse, size=(72, 72), mode="bicubic", align_corners=True)
    return smooth.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def facts(packed):
    return packed.statistics()


def drawn_of(steps: dict[str, Augmentation], count: int = 8, seed: int = 0) -> list:
    return EpochPlan.draw(seed, 0, count, IMAGE, steps).rows(slice(None))


def warped(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """scikit-image's resampling, in float64, of (h, w, 3) after ``matrix`` about the centre."""
    centre = (np.array(pixels.shape[1::-1]) - 1) / 2
    inverse = np.eye(3)
    inverse[:2, :2] = np.linalg.inv(matrix)
    inverse[:2, 2] = centre - inverse[:2, :2] @ centre
    return warp(pixels, inverse, order=1, mode="symmetric", preserve_range=True)


@pytest.mark.parametrize("name", GEOMETRY)
def test_each_geometric_augmentation_is_scikit_images_warp(name, images, facts):
    step = GEOMETRY[name]
    ((_, values),) = drawn = drawn_of({name: step})
    views = augment(Preprocessor(replace(IMAGE, crop=72), facts.mean_image, "cpu"), images, drawn, facts)
    for image, matrix, view in zip(images.numpy(), step.matrix(values), views, strict=True):
        expected = warped(image.astype(np.float64) - facts.mean_image, matrix)
        np.testing.assert_allclose(view.permute(1, 2, 0).numpy(), expected, atol=LEVELS)


@pytest.mark.parametrize(
    ("step", "values", "angle", "scale", "shear"),
    [
        (Rotation(), {"degrees": np.array([9.0])}, 9.0, 1.0, 0.0),
        (Shear(), {"degrees": np.array([8.0])}, 0.0, 1.0, -8.0),
        (ScaleJitter(), {"factor": np.array([1.2])}, 0.0, 1.2, 0.0),
    ],
)
def test_angles_and_factors_mean_what_torchvision_means(step, values, angle, scale, shear, images, facts):
    """torchvision fills what it has no pixel for with zeros, so that only the middle is compared."""
    pixels = images[:1].double().permute(0, 3, 1, 2)
    expected = reference.affine(pixels, angle, [0, 0], scale, [shear, 0.0], InterpolationMode.BILINEAR)
    found = step.apply(images[:1].float(), values, IMAGE, facts).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found[..., 14:58, 14:58], expected[..., 14:58, 14:58], atol=LEVELS)


def test_a_stretch_keeps_the_area_and_multiplies_the_ratio_of_width_to_height():
    ((width, sheared), (leaning, height)) = Stretch().matrix({"ratio": np.array([1.25])})[0]
    assert (sheared, leaning) == (0, 0)
    assert width / height == pytest.approx(1.25)
    assert width * height == pytest.approx(1)


def test_brightness_adds_and_contrast_is_torchvisions_of_each_colour(images, facts):
    pixels = images.float() - torch.from_numpy(facts.mean_image)
    ((_, levels),) = drawn_of({"brightness": Brightness()})
    brighter = Brightness().apply(pixels, levels, IMAGE, facts)
    np.testing.assert_allclose(brighter, pixels.double().numpy() + levels["levels"][:, None, None, None], atol=1e-4)
    ((_, factors),) = drawn_of({"contrast": Contrast()})
    changed = Contrast().apply(pixels, factors, IMAGE, facts)
    for i in range(8):
        for colour in range(3):  # torchvision's takes 0 to 1, cuts off beyond, and has one mean for all colours
            scaled = pixels[i, None, :, :, colour].double() / 4000 + 0.5
            expected = (reference.adjust_contrast(scaled, float(factors["factor"][i])) - 0.5) * 4000
            np.testing.assert_allclose(changed[i, :, :, colour], expected[0], atol=1e-3)


def test_what_is_drawn_is_within_the_bounds_and_spread_over_them():
    drawn = {name: values for name, (_, values) in zip(ALL, drawn_of(ALL, 20_000), strict=True)}
    for values, low, high in (
        (drawn["rotation"]["degrees"], -10, 10),
        (drawn["shear"]["degrees"], -10, 10),
        (np.log(drawn["stretch"]["ratio"]), np.log(0.8), np.log(1.25)),
        (np.log(drawn["scale"]["factor"]), np.log(0.8), np.log(1.25)),
        (drawn["brightness"]["levels"], -63, 63),
        (drawn["contrast"]["factor"], 0.2, 1.8),
    ):
        shares, _ = np.histogram(values, 10, (low, high))
        assert shares.sum() == 20_000
        np.testing.assert_allclose(shares, 2000, atol=200)


def test_several_are_one_matrix_in_their_order_and_one_resampling(images, facts):
    preprocessor = Preprocessor(IMAGE, facts.mean_image, "cpu")
    drawn = drawn_of(GEOMETRY | {"crop": RandomCrop(), "reflection": Reflection()})
    matrices = np.eye(2)
    for step, values in drawn[:4]:
        matrices = step.matrix(values) @ matrices
    views = augment(preprocessor, images, drawn, facts).permute(0, 2, 3, 1)
    assert drawn[5][1]["reflected"].any()
    for i in range(8):
        top, left = drawn[4][1]["top"][i], drawn[4][1]["left"][i]
        whole = warped(images[i].numpy() - facts.mean_image.astype(np.float64), matrices[i])
        expected = whole[top : top + 67, left : left + 67]
        expected = expected[:, ::-1] if drawn[5][1]["reflected"][i] else expected
        np.testing.assert_allclose(views[i], expected, atol=LEVELS)
    in_order = apply_in_order(preprocessor, images, drawn, facts).permute(0, 2, 3, 1)
    once, four_times = views[:, 12:55, 12:55], in_order[:, 12:55, 12:55]  # each resampling has its own reflection
    assert (once - four_times).abs().mean() < 1.5  # grey levels
    other_order = augment(preprocessor, images, [drawn[1], drawn[0], *drawn[2:]], facts)
    assert (other_order.permute(0, 2, 3, 1) - views).abs().max() > 1


def test_one_resampling_after_another_is_what_the_list_means_where_there_is_one(images, facts):
    preprocessor = Preprocessor(replace(IMAGE, divide_by=58.0), facts.mean_image, "cpu")
    for name in GEOMETRY:
        drawn = drawn_of({key: ALL[key] for key in (name, "crop", "reflection", "brightness", "contrast")})
        plain = apply_in_order(preprocessor, images, drawn, facts)
        torch.testing.assert_close(augment(preprocessor, images, drawn, facts), plain, atol=LEVELS / 58, rtol=0)
        for part in (drawn[:1], drawn[:3]):
            plain = apply_in_order(preprocessor, images, part, facts)
            torch.testing.assert_close(augment(preprocessor, images, part, facts), plain, atol=LEVELS / 58, rtol=0)


def test_nothing_changes_at_strength_zero_and_hardly_at_all_if_nothing_was_drawn(images, facts):
    preprocessor = Preprocessor(IMAGE, facts.mean_image, "cpu")
    off = {"rotation": Rotation(degrees=0), "shear": Shear(degrees=0), "stretch": Stretch(max_ratio=1)}
    off |= {
        "scale": ScaleJitter(max_factor=1),
        "brightness": Brightness(max_delta=0),
        "contrast": Contrast(low=1, high=1),
    }
    paper = {"crop": ALL["crop"], "reflection": ALL["reflection"]}
    drawn = drawn_of(paper | off)
    assert [step.type for step, _ in drawn] == ["random_crop", "reflection"]
    assert torch.equal(augment(preprocessor, images, drawn, facts), augment(preprocessor, images, drawn[:2], facts))
    assert torch.equal(augment(preprocessor, images, drawn_of(off), facts), augment(preprocessor, images, [], facts))
    for step in (each for each in off.values() if isinstance(each, Geometric)):
        values = step.draw(np.random.default_rng(0), 8, IMAGE)
        np.testing.assert_array_equal(step.matrix(values), np.broadcast_to(np.eye(2), (8, 2, 2)))
        np.testing.assert_allclose(step.apply(images.float(), values, IMAGE, facts), images, atol=LEVELS)


def test_what_is_drawn_for_an_image_does_not_depend_on_the_batch():
    plan = EpochPlan.draw(3, 5, 60, IMAGE, ALL)
    for batch in (7, 60):
        parts = [plan.rows(slice(start, start + batch)) for start in range(0, 60, batch)]
        for i, (_, whole) in enumerate(EpochPlan.draw(3, 5, 60, IMAGE, ALL).drawn):
            for name, values in whole.items():
                np.testing.assert_array_equal(np.concatenate([part[i][1][name] for part in parts]), values)
    assert not np.array_equal(plan.drawn[0][1]["degrees"], EpochPlan.draw(3, 6, 60, IMAGE, ALL).drawn[0][1]["degrees"])


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        ("paper", "5e75c6de0939dc9c"),
        ("small-data", "5e75c6de0939dc9c"),
        ("original-2012", "cc322a21c614b7ae"),
        ("caffe-alexnet", "f385b98764edce4d"),
        ("cifar-11", "9fd97ec5d7888ee9"),
        ("cifar-19", "310d68884cd17e12"),
    ],
)
def test_recipes_that_list_none_of_it_draw_what_they_drew_before_it_was_there(recipe, digest):
    """The digests are of 2026-11-29. They hold on every machine: NumPy keeps its generators' streams of these."""
    recipe = recipes.load(recipe)
    assert not any(isinstance(each, Geometric | Brightness | Contrast) for each in recipe.augmentations.values())
    assert not recipe.image.standardize
    plan = EpochPlan.draw(7, 3, 500, recipe.image, recipe.augmentations)
    found = hashlib.sha256(plan.order.tobytes())
    for _, values in plan.drawn:
        for name in sorted(values):
            found.update(values[name].tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ['training.augmentation=["random_crop", "rotation", "shear"]'],
            "training.augmentation: rotation and shear must come first, so that a picture is resampled once, and "
            "before it is cropped",
        ),
        (
            ['training.augmentation=["rotation", "random_crop"]', "image.mean_crop=central"],
            'training.augmentation: rotation needs image.mean_crop = "same"',
        ),
        (
            ['training.augmentation=["rotation"]', "rotation.degrees=181"],
            "rotation.degrees = 181 does not fit: it takes a number from 0 to 180",
        ),
        (
            ['training.augmentation=["contrast"]', "contrast.low=2"],
            "contrast.low must not be more than high",
        ),
        (
            ['training.augmentation=["stretch"]', "stretch.max_ratio=0.8"],
            "stretch.max_ratio = 0.8 does not fit: it takes a number from 1 to 10",
        ),
        (
            ["image.standardize=true", "image.mean_crop=central"],
            'image.mean_crop = "central" has no meaning with standardize = true: drop one',
        ),
        (["image.standardize=1"], "image.standardize = 1 does not fit: it takes true or false"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_line(settings, message):
    with pytest.raises(BadRecipe) as refusal:
        recipes.load("paper", settings)
    assert str(refusal.value) == message


def standardized(pixels: np.ndarray) -> np.ndarray:
    """TensorFlow's definition, in float64, of one view."""
    pixels = pixels.astype(np.float64)
    return (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("divide_by", [1.0, 58.0])
def test_a_view_is_standardized_by_its_own_mean_and_deviation(images, facts, colour, divide_by):
    image = replace(IMAGE, colour=colour, divide_by=divide_by, standardize=True)
    preprocessor = Preprocessor(image, facts.mean_image, "cpu")
    uniform = torch.full_like(images[:2], 77)
    uniform[1, 40, 40] = 78  # a deviation below 1/sqrt(N)
    images = torch.cat([images, uniform])
    seen = images.numpy() if colour == "rgb" else images.numpy() @ np.array(LUMA).reshape(3, 1)
    for view in ten_views(72, 67):
        expected = np.stack([standardized(one[np.ix_(*view)]) for one in seen]).transpose(0, 3, 1, 2)
        crops = Crops(rows=np.tile(view.rows, (10, 1)), columns=np.tile(view.columns, (10, 1)))
        for found in (preprocessor.crop(images, crops), preprocessor(images, *map(torch.from_numpy, view))):
            np.testing.assert_allclose(found[:8], expected[:8], atol=1e-4)
            np.testing.assert_allclose(found[8:], expected[8:], atol=0.02)
    drawn = drawn_of({"rotation": Rotation(), "crop": RandomCrop(), "brightness": Brightness()})
    dull = augment(preprocessor, images[:8], drawn[:2], facts)
    torch.testing.assert_close(augment(preprocessor, images[:8], drawn, facts), dull, atol=1e-4, rtol=0)
    torch.testing.assert_close(apply_in_order(preprocessor, images[:8], drawn, facts), dull, atol=1e-3, rtol=0)


def test_the_onnx_file_standardizes_every_view(packed, tmp_path):
    folder = save_untrained(packed, tmp_path / "m", 0, ["image.standardize=true"])
    done = export_model(folder, pictures=packed.split("val").read(np.arange(9)))
    network, exported = NetworkModel.of(Model.load(folder), "cpu"), OnnxModel.open(done.path, device="cpu")
    pictures = packed.split("val").read(np.arange(4))
    darker = pictures // 2 + 20  # of half the contrast
    for view in ten_views(72, 67):
        inputs = np.stack([standardized(one[np.ix_(*view)]) for one in pictures]).transpose(0, 3, 1, 2)
        with torch.no_grad():
            logits, features = network.net(torch.from_numpy(inputs.astype(np.float32)))
        for model in (network, exported):
            probabilities, found = model.run(pictures, view)
            np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)
            np.testing.assert_allclose(found, features.numpy(), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(model.run(darker, view)[1], found, rtol=0.05, atol=0.02)
