"""What is drawn of a picture on its way through a network, against forward hooks and loops."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import save_untrained
from matplotlib import colormaps
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.errors import NoSuchLayer
from alexnet_cli.figures.canvas import Size
from alexnet_cli.figures.mosaic import as_colours
from alexnet_cli.nets.operations import Dropout
from alexnet_cli.opening import open_network
from alexnet_cli.visualization import maps as module
from alexnet_cli.visualization.maps import (
    Activations,
    Step,
    activations_of,
    draw_layer,
    draw_overview,
    draw_steps,
    mean_activation,
    strongest_first,
)


@pytest.fixture(scope="module")
def network(packed, tmp_path_factory):
    """The paper's dropout, which multiplies by 0.5 in testing, in a narrow network."""
    folder = save_untrained(packed, tmp_path_factory.mktemp("m") / "m", 3, ["dropout.inverted=false"])
    return open_network(folder, "cpu")


@pytest.fixture(scope="module")
def picture(packed) -> np.ndarray:
    return packed.split("val").read(np.array([2]))[0]


@pytest.fixture(scope="module")
def seen(network, picture) -> Activations:
    return activations_of(network, picture)


def images(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_the_activations_after_each_step_are_those_of_forward_hooks(network, picture, seen):
    net, expected, hooks = network.net, {}, []
    for layer in net.hidden:
        for column, part in enumerate(net.parts(layer)):
            for step, each in enumerate([part.weighted, *part.then]):

                def keep(_module, _inputs, output, where=(layer, step, column)):
                    expected[where] = output[0].numpy()

                hooks.append(each.register_forward_hook(keep))
    probabilities, _ = network.run(picture[None])
    for hook in hooks:
        hook.remove()
    compared = 0
    for layer, steps in seen.layers.items():
        assert [step.operation for step in steps] == ["", *net.hidden[layer].then]
        for place, step in enumerate(steps):
            for column, found in enumerate(step.columns):
                if step.operation == "dropout":  # its module is not run: the network multiplies
                    wanted = 0.5 * expected[layer, place - 1, column]
                else:
                    wanted = expected[layer, place, column]
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
                compared += 1
    assert compared == 2 * (4 + 4 + 2 + 2 + 3 + 3 + 3)
    fc8 = net.get_submodule("fc8")
    logits = fc8(torch.from_numpy(np.concatenate(seen.leaving("fc7")))[None])
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), probabilities, atol=1e-6)


def test_the_last_step_of_a_network_are_the_logits(network):
    inputs = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        *_, (layer, operation, parts) = network.net.steps(inputs)
        logits, features = network.net(inputs)
        before = next(parts for name, step, parts in network.net.steps(inputs) if (name, step) == ("fc7", "relu"))
    assert (layer, operation, len(parts)) == ("fc8", "", 1)
    assert torch.equal(parts[0], logits)
    assert torch.equal(torch.cat(before, 1), features)
    assert isinstance(network.net.operations("fc7")[-1], Dropout)


def test_the_view_is_the_centre_less_the_mean_image(network, picture, packed, seen):
    mean = packed.statistics().mean_image
    centred = picture[2:69, 2:69].astype(float) - mean[2:69, 2:69]
    np.testing.assert_allclose(seen.view, np.clip(127.5 + centred, 0, 255), atol=0.51)
    assert seen.view.shape == (67, 67, 3)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_view_says_what_is_subtracted(standardize, packed, picture, figures, tmp_path):
    settings = ["image.standardize=true"] if standardize else []
    seen = activations_of(open_network(save_untrained(packed, tmp_path / "m", settings=settings), "cpu"), picture)
    draw_overview(seen, tmp_path / "m.png")
    assert f"less {'its own mean' if standardize else 'the mean image'}: grey is 0" in titles(figures[0])


def test_the_strongest_maps_come_first():
    maps = np.random.default_rng(0).standard_normal((7, 3, 4)).astype(np.float32) * np.arange(7)[:, None, None]
    means = [np.mean([abs(x) for x in one.ravel()]) for one in maps]
    np.testing.assert_allclose(mean_activation(maps), means, rtol=1e-6)
    expected = [one for _, one in sorted(zip(means, maps, strict=True), key=lambda pair: -pair[0])]
    np.testing.assert_array_equal(strongest_first(maps), expected)
    np.testing.assert_array_equal(strongest_first(np.array([1.0, -3, 2])), [-3, 2, 1])


def test_all_maps_of_a_layer_have_one_scale(figures, tmp_path):
    weak, strong = np.full((2, 4, 4), 1.0, np.float32), np.full((2, 4, 4), 4.0, np.float32)
    blank = np.zeros((8, 8, 3), np.uint8)
    layers = {"conv1": [Step(operation="", columns=[weak, strong])]}
    draw_layer(Activations(picture=blank, view=blank, layers=layers), "conv1", tmp_path / "m.png")
    first, second, bar = figures[0].axes[2:]
    colours = [np.asarray(axes.images[0].get_array())[10, 10] for axes in (first, second)]
    expected = [np.asarray(colormaps["magma"](share, bytes=True)[:3]) for share in (0.25, 1.0)]
    np.testing.assert_array_equal(colours, expected)
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "4.00"]
    assert titles(figures[0])[2:4] == ["column 0", "column 1"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["2"]  # maps are counted over both columns
    assert figures[0].get_suptitle() == "conv1: 4 maps of 4 × 4"


def test_negative_activations_have_colours_on_both_sides_of_0(figures, seen, tmp_path):
    draw_steps(seen, "conv1", tmp_path / "m.png")
    ends = [
        [label.get_text() for label in axes.get_xticklabels()]
        for axes in figures[0].axes
        if axes.get_label() == "<colorbar>"
    ]
    assert [len(each) for each in ends] == [3, 2, 2, 2]  # the weighted sums, then what ReLU leaves
    assert float(ends[0][0].replace("−", "-")) == -float(ends[0][2])


def test_steps_show_the_strongest_maps_with_their_numbers(figures, seen, tmp_path):
    draw_steps(seen, "conv1", tmp_path / "m.png", Size.slide)
    panels = [axes for axes in figures[0].axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 3 * 5  # the kernel first
    leaving = np.concatenate(seen.leaving("conv1"))
    order = sorted(range(len(leaving)), key=lambda i: -leaving[i].mean())[:3]
    assert [axes.get_ylabel() for axes in panels[::5]] == [f"map {i}" for i in order]
    for axes, kernel in zip(panels[::5], as_colours(seen.kernels[order]), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), kernel)
    relu = np.concatenate(seen.layers["conv1"][1].columns)
    side = relu.shape[1]
    assert panels[2].get_title().startswith(f"relu\n{side} × {side}, {np.mean(relu == 0):.0%} are 0\n")
    one = relu[order[1]]
    words = re.fullmatch("max (.*), mean (.*)", panels[7].get_title())
    np.testing.assert_allclose([float(word) for word in words.groups()], [one.max(), one.mean()], rtol=0.1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.86333, "0.86"), (-2.591, "−2.59"), (12.44, "12.4"), (1234.5, "1,234"), (0.00314, "0.0031")],
)
def test_numbers_have_two_or_three_digits(value, expected):
    assert module._number(value) == expected


def test_a_dense_layer_is_a_bar_a_unit(figures, seen, tmp_path):
    draw_layer(seen, "fc6", tmp_path / "m.png", strongest=True)
    draw_steps(seen, "fc6", tmp_path / "m.png")
    (shown,) = figures[0].axes[2].patches
    units = seen.leaving("fc6")[0]
    np.testing.assert_array_equal(shown.get_data().values, sorted(units, reverse=True))
    assert len(figures[1].axes) == 2 * 3
    assert [axes.get_title().split("\n")[0] for axes in figures[1].axes[:3]] == ["weighted sum", "relu", "dropout"]


def test_the_overview_has_every_map_of_every_layer(figures, seen, tmp_path):
    for size in Size:
        draw_overview(seen, tmp_path / "m.png", size)
    for figure in figures:
        assert len(images(figure)) == 2 + 2 * 7
        assert sum(axes.get_label() == "<colorbar>" for axes in figure.axes) == 7
    white = [(image == 255).all(axis=-1).mean() for image in images(figures[0])[2:12]]
    assert max(white) < 0.2  # gaps alone: every place has a map


def test_grey_pictures_in_one_column_are_drawn_too(figures, packed, picture, tmp_path):
    settings = ["image.colour=grey", "network.columns=1", "training.augmentation=[]"]
    network = open_network(save_untrained(packed, tmp_path / "m", 0, settings), "cpu")
    seen = activations_of(network, picture)
    for size in Size:
        draw_overview(seen, tmp_path / "m.png", size)
        for layer in ("conv2", "fc7"):
            draw_layer(seen, layer, tmp_path / "m.png", size)
            draw_steps(seen, layer, tmp_path / "m.png", size)
    assert "column 1" not in " ".join(title for figure in figures for title in titles(figure))


def test_a_layer_that_is_not_there_is_refused(seen, tmp_path):
    for draw in (draw_layer, draw_steps):
        with pytest.raises(NoSuchLayer, match=r"no hidden layer 'fc8': it has conv1, .*, fc7"):
            draw(seen, "fc8", tmp_path / "m.png")


def test_the_command_writes_one_overview_or_two_figures_a_layer(exported_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)).save("p.png")
    words = ["visualize", "maps", "p.png", "--model", str(exported_folder), "--json"]
    for more, expected in {
        (): ["maps.png"],
        ("--layer", "conv1", "--layer", "fc7", "--layer", "conv1"): [
            "maps-conv1.png",
            "maps-conv1-steps.png",
            "maps-fc7.png",
            "maps-fc7-steps.png",
        ],
        ("--layer", "conv2", "--out", "a.svg", "--strongest", "--size", "slide"): ["a.svg", "a-steps.svg"],
    }.items():
        assert main([*words, *more]) == 0
        assert json.loads(capsys.readouterr().out)["files"] == expected
        assert all((tmp_path / file).is_file() for file in expected)
    assert Image.open("maps.png").width == 1500


def test_what_cannot_be_drawn_is_said_in_one_line(exported_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (80, 80)).save("p.png")
    for words, expected in {
        ("text.jpg",): "text.jpg: not a picture that can be read",
        ("none.jpg",): "none.jpg: ",
        ("p.png", "--layer", "conv1", "--layer", "conv9"): "no hidden layer 'conv9': it has conv1, conv2",
    }.items():
        assert main(["visualize", "maps", *words, "--model", str(exported_folder)]) == 1
        *_, line = capsys.readouterr().err.splitlines()  # before it stands which model is drawn
        assert expected in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "text.jpg"]
