"""What in a picture speaks for a class: each map against another computation, and a net that looks at one corner."""

import base64
import io
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NARROW
from PIL import Image
from torch import nn

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size, drawing
from alexnet_cli.inference.classes import find_class
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Prediction
from alexnet_cli.inference.views import centre_view
from alexnet_cli.model import Model
from alexnet_cli.nets.describe import Field, fields
from alexnet_cli.nets.network import ColumnNetwork, initialize
from alexnet_cli.nets.operations import Operation, Shape, Window
from alexnet_cli.opening import open_model
from alexnet_cli.visualization.occlusion import POSITIONS, hidden_rows, hide, occlusion
from alexnet_cli.visualization.saliency import (
    Saliency,
    class_activation,
    draw_saliency,
    enlarged,
    gradients_of,
    saliency,
    title_of,
)

CORNER = [  # one convolution of 8 × 8 squares side by side, and the classes
    "image.size=72",
    "image.crop=64",
    "image.divide_by=2.0",
    'network.layers=["conv1", "fc8"]',
    "conv1.kernels=2",
    "conv1.size=8",
    "conv1.stride=8",
    "conv1.ceil_mode=false",
    'conv1.then=["relu"]',
]


def narrow_net(seed: int = 0) -> ColumnNetwork:
    """Float64, with weights that are large enough for gradients to be far from 0."""
    layers = [*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7", "fc8"]
    recipe = recipes.load("paper", [*NARROW, *(f'{layer}.weights="he"' for layer in layers)])
    return initialize(recipe.build(3), seed).double().eval()


@pytest.fixture
def corner(tmp_path) -> NetworkModel:
    """The logit of class b grows with the light in the top right square; nothing else matters."""
    recipe = recipes.load("paper", CORNER)
    net = initialize(recipe.build(3), 0)
    with torch.no_grad():
        for part in net.parts("conv1"):
            part.weighted.weight.fill_(1 / 192)
        last = net.get_submodule("fc8")
        last.weight.zero_()
        last.weight[1].view(2, 8, 8)[:, 0, 7] = 0.05
    mean_image = np.full((72, 72, 3), 100, np.float32)
    model = Model(net=net, recipe=recipe, classes=["a", "b", "c"], mean_image=mean_image, provenance={})
    return NetworkModel.of(model, "cpu")


@pytest.fixture
def picture() -> np.ndarray:
    """Dim noise, and light in the top right of the central view."""
    image = np.random.default_rng(0).integers(90, 120, (72, 72, 3), dtype=np.uint8)
    image[4:12, 60:68] = 200
    return image


def test_all_three_maps_have_their_maximum_where_the_class_is_decided(corner, picture):
    told = saliency(corner, corner, picture)
    assert (told.shown.label, told.layer) == ("b", "conv1")
    assert told.best == told.shown
    np.testing.assert_array_equal(told.view, picture[4:68, 4:68])
    expected = np.zeros((64, 64))
    expected[:8, 56:] = 2 * 0.05 / 192 / 2  # two columns; pixels are divided by 2
    np.testing.assert_allclose(told.gradient, expected, rtol=1e-5)
    row, column = np.unravel_index(told.activation.argmax(), told.activation.shape)
    assert row < 8
    assert column >= 56
    lowest = np.argwhere(told.occlusion <= told.occlusion.min() + 1e-6).tolist()
    assert lowest == [[0, 12], [0, 13], [1, 12], [1, 13]]  # the squares that hide all of it
    assert told.occlusion.min() == pytest.approx(1 / 3, abs=1e-6)
    assert told.occlusion[8, 4] == pytest.approx(told.shown.probability, abs=1e-6)


def test_a_class_that_is_not_the_most_probable_can_be_explained(corner, picture):
    told = saliency(corner, corner, picture, "C")
    assert (told.shown.label, told.best.label) == ("c", "b")
    assert told.occlusion.max() == pytest.approx(1 / 3, abs=1e-6)
    assert not told.gradient.any()
    assert title_of(told).startswith("c: ")
    assert "(most probable: b, " in title_of(told)


def test_occlusion_in_batches_equals_one_picture_at_a_time(exported_folder, packed):
    predictor, image = open_model(exported_folder), packed.split("val").read(np.arange(1))[0]
    mean_image = packed.statistics().mean_image
    some, crop, border = [(0, 0), (3, 13), (13, 0), (7, 6)], predictor.crop, 2
    measured = occlusion(predictor, image, mean_image, 2)
    for row, column in some:
        one = image.copy()
        top, left = ((i - 1) * crop / POSITIONS for i in (row, column))
        bottom, right = (min(round(start + 3 * crop / POSITIONS), crop) for start in (top, left))
        square = (
            slice(border + max(round(top), 0), border + bottom),
            slice(border + max(round(left), 0), border + right),
        )
        one[square] = mean_image[square].round()
        np.testing.assert_allclose(measured[row, column], predictor.run(one[None])[0][0, 2], atol=1e-6)


def test_the_square_is_of_the_mean_image_and_goes_over_the_whole_view():
    rows = hidden_rows(224)
    assert [rows[i] for i in (0, 1, 13)] == [slice(0, 32), slice(0, 48), slice(192, 224)]
    image, mean_image = np.zeros((80, 80, 3), np.uint8), np.full((80, 80, 3), 99.6)
    pictures = hide(image, mean_image, 67)
    assert set(np.unique(pictures)) == {0, 100}
    seen = pictures.any(axis=(0, 3))
    assert seen[6:73, 6:73].all()  # the central view
    assert seen.sum() == 67**2
    assert not image.any()


@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_the_input_under_the_square_is_0_for_a_network_that_standardizes_its_views(colour, picture):
    image = replace(recipes.load("paper", CORNER).image, colour=colour, standardize=True)
    preprocessor = Preprocessor(image, np.full((72, 72, 3), 30, np.float32), "cpu")
    tinted = np.clip(picture + np.array([0, 40, -20]), 0, 255).astype(np.uint8)
    view = centre_view(72, 64)
    pictures = hide(tinted, preprocessor.mean_image.numpy(), 64, standardized=image.weights)
    inputs = preprocessor(torch.from_numpy(pictures), *map(torch.from_numpy, view)).numpy()
    half = 0.5 / tinted[4:68, 4:68].mean(axis=2).std()  # a grey level; the deviation with a square is about the same
    for i, (row, column) in enumerate(itertools.product(hidden_rows(64), repeat=2)):
        assert np.abs(inputs[i, :, row, column]).max() < 1.2 * half


def test_the_gradient_equals_finite_differences():
    net, random = narrow_net(), np.random.default_rng(0)
    image = torch.from_numpy(random.normal(0, 50, (1, 3, 67, 67)))
    gradient = gradients_of(net, image, 2).inputs
    assert gradient.dtype == np.float64
    step = 1e-5
    for channel, row, column in [(0, 0, 0), (1, 33, 30), (2, 66, 66), (0, 5, 60), (2, 40, 12)]:
        ends = []
        for sign in (-1, 1):
            moved = image.clone()
            moved[0, channel, row, column] += sign * step
            with torch.no_grad():
                ends.append(float(net(moved)[0][0, 2]))
        expected = (ends[1] - ends[0]) / (2 * step)
        assert expected != 0
        assert gradient[channel, row, column] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_class_activation_equals_what_hooks_and_loops_give():
    net = narrow_net(1)
    image = torch.from_numpy(np.random.default_rng(1).normal(0, 50, (1, 3, 67, 67)))
    given = gradients_of(net, image, 1)
    kept: list[torch.Tensor] = []
    for part in net.parts("conv5"):
        assert isinstance(part.then[0], nn.ReLU)

        def keep(module: nn.Module, entering: object, maps: torch.Tensor) -> None:
            maps.retain_grad()
            kept.append(maps)

        part.then[0].register_forward_hook(keep)
    net(image)[0][0, 1].backward()
    total = np.zeros((3, 3))
    for column in kept:
        for map_, gradient in zip(column[0].detach().numpy(), column.grad[0].numpy(), strict=True):
            total += gradient.sum() / 9 * map_
    assert total.any()
    np.testing.assert_allclose(class_activation(given.maps, given.to_maps), np.where(total > 0, total, 0), rtol=1e-10)


@pytest.mark.parametrize(("recipe", "expected"), [("paper", (17, 16)), ("cifar-19", (3, 4)), ("torchvision", (15, 16))])
def test_units_are_where_they_look(recipe, expected):
    layer = {"paper": "conv5", "cifar-19": "conv3", "torchvision": "conv5"}[recipe]
    field = fields(recipes.load(recipe).network)[layer]
    assert (field.centre, field.stride) == expected


def test_a_unit_looks_at_the_pixels_around_its_place():
    net = narrow_net()
    with torch.no_grad():
        for name in net.hidden:
            for module in net.weighted(name):
                module.weight.abs_()  # so that nothing cancels
    image = torch.rand(1, 3, 67, 67, dtype=torch.float64, requires_grad=True)
    pool2 = net.activations(image, "conv2")  # (1, 8, 3, 3); those of conv5 see beyond the picture
    (gradient,) = torch.autograd.grad(pool2[0, :, 1, 1].sum(), image)
    rows = np.flatnonzero(gradient.abs().amax(dim=(0, 1, 3)).numpy())
    field = fields(net.network)["conv5"]
    first, distance = field.centre, field.stride
    assert (first, distance) == (17, 16)
    assert abs((rows[0] + rows[-1]) / 2 - (first + distance)) <= 4  # max-pooling takes one place of each window


def test_enlarged_maps_are_bilinear_between_units():
    values = np.array([[0.0, 4.0], [8.0, 12.0]])
    large = enlarged(values, Field(size=3, stride=4, start=0), 8)
    assert large.shape == (8, 8)
    np.testing.assert_allclose(large[1], [0, 0, 1, 2, 3, 4, 4, 4])
    np.testing.assert_allclose(large[:, 1], [0, 0, 2, 4, 6, 8, 8, 8])
    assert large[3, 3] == 6


def test_dropout_after_the_last_convolution_is_no_part_of_its_responses():
    net = initialize(recipes.load("paper", [*CORNER, 'conv1.then=["relu", "dropout"]']).build(3), 0).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = gradients_of(net, image, 1)
    with torch.no_grad():
        expected = torch.cat([part.weighted(image) for part in net.parts("conv1")], dim=1)[0].relu()
    np.testing.assert_array_equal(found.maps, expected.numpy())


@dataclass(frozen=True, kw_only=True)
class EveryOther(Operation):
    """A stride without pooling."""

    needs_maps = True

    @property
    def window(self) -> Window:
        return Window(1, 2, 0)

    def build(self, shape: Shape) -> nn.Module:
        return nn.MaxPool2d(1, 2)


def test_an_operation_of_a_new_kind_moves_the_units_apart():
    network = recipes.load("paper").network
    layers = network.layers | {"conv4": replace(network.layers["conv4"], then=["relu", "every_other"])}
    seen = fields(replace(network, layers=layers, operations=network.operations | {"every_other": EveryOther()}))
    assert [seen[layer].stride for layer in ("conv4", "conv5")] == [16, 32]


LABELS = ["n02012849", "n03126707", "n01440764", "dog", "Dog", "spaniels"]
NAMES = ["crane (wading bird)", "crane (lifting device)", "tench, Tinca tinca", "dog", "Dog", "spaniels"]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("n02012849", 0),
        ("N03126707", 1),
        ("Crane (Lifting Device)", 1),
        ("TENCH", 2),
        ("tinca tinca", 2),
        ("tench, tinca tinca", 2),
        ("dog", 3),
        ("Dog", 4),
        (" Spaniels", 5),
    ],
)
def test_a_class_is_found_by_label_or_name(wanted, number):
    assert find_class(wanted, LABELS, NAMES) == number


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "Crane",
            "2 classes are called 'Crane', name one by its label: "
            "n02012849 is crane (wading bird), n03126707 is crane (lifting device)",
        ),
        ("tensh", "the model has no class 'tensh': near are tench, Tinca tinca"),
        ("bird", "the model has no class 'bird': near are crane (wading bird)"),
        ("xyz", "the model has no class 'xyz': it has Dog, crane (lifting device), crane (wading bird), dog, spaniels"),
        ("", "the model has no class '': it has Dog, crane (lifting device), crane (wading bird), dog, spaniels"),
    ],
)
def test_an_unknown_class_is_said_with_near_ones(wanted, message):
    with pytest.raises(AlexNetError) as caught:
        find_class(wanted, LABELS, NAMES)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("size", "pixels"), [(Size.page, 1500), (Size.slide, 1920)])
def test_maps_that_are_the_same_all_over_are_drawn_and_long_names_are_not_cut(tmp_path, size, pixels, recwarn):
    name = "the " + "very " * 40 + "long name"
    shown, best = Prediction("x", name, 0.01), Prediction("y", "another", 0.5)
    told = Saliency(
        view=np.full((32, 32, 3), 90, np.uint8),
        shown=shown,
        best=best,
        occlusion=np.full((14, 14), 0.01),
        gradient=np.zeros((32, 32)),
        activation=np.zeros((32, 32)),
        layer="conv5",
    )
    draw_saliency(told, tmp_path / "s.png", size)
    with Image.open(tmp_path / "s.png") as drawn:
        assert drawn.width == pixels
    assert not [str(each.message) for each in recwarn.list]


def test_the_command(exported_folder, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(packed.split("val").read(np.arange(1))[0]).save("p.png")
    model = ["--model", str(exported_folder)]
    assert main(["visualize", "saliency", "p.png", "--class", "Colour of the sky", *model, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["saliency.png"]
    assert (said["class"]["label"], said["class"]["name"]) == ("blue", "colour of the sky")
    image, mean_image = packed.split("val").read(np.arange(1))[0], packed.statistics().mean_image
    predictor = open_model(exported_folder)
    assert said["class"]["probability"] == pytest.approx(predictor.run(image[None])[0][0, 0], abs=1e-6)
    lowest = occlusion(predictor, image, mean_image, 0).min()
    assert said["least_probability_occluded"] == pytest.approx(lowest, abs=1e-6)
    assert Path("saliency.png").exists()
    Path("saliency.png").unlink()
    for words, expected in {
        ("p.png", "--class", "redd"): "error: the model has no class 'redd': near are red",
        ("none.png",): "none.png",
        ("p.png", "--out", "s.jpg"): "s.jpg: a figure is a .png or .svg file, for example s.png",
    }.items():
        assert main(["visualize", "saliency", *words, *model]) == 1
        assert expected in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_network_without_a_convolution_is_refused():
    recipe = recipes.load("paper", ['network.layers=["fc7", "fc8"]', 'fc7.input="own"', "fc7.units=4"])
    with pytest.raises(AlexNetError, match=r"^the network has no convolutional layer, and so no class activation$"):
        gradients_of(recipe.build(2), torch.zeros(1, 3, 224, 224), 0)


def test_what_lies_over_a_picture_has_the_same_opacity_in_an_svg(tmp_path):
    path = tmp_path / "a.svg"
    with drawing(path) as figure:
        axes = figure.subplots()
        axes.imshow(np.zeros((4, 4, 3)))
        axes.imshow(np.ones((4, 4, 3)), alpha=0.5)
    encoded = re.findall(r"base64,([^\"]+)", path.read_text())
    images = [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGBA") for one in encoded]
    assert [image.getchannel("A").getextrema()[1] for image in images] == [255, pytest.approx(127, abs=1)]
