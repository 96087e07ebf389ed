"""The first layer's kernels: the numbers for colour and structure against other formulas, and what is drawn of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.figures.canvas import Size
from alexnet_cli.figures.mosaic import as_colours, mosaic, squarest
from alexnet_cli.model import Model
from alexnet_cli.visualization.kernels import (
    draw_kernels,
    growth_of,
    kernels_of,
    saturation,
    structure,
)


def test_saturation_is_0_for_grey_and_1_for_opponent_colours():
    random = np.random.default_rng(0)
    grey = np.repeat(random.standard_normal((1, 11, 11)), 3, axis=0)
    opponent = random.standard_normal((1, 11, 11)) * np.array([1.0, -2.0, 1.0])[:, None, None]
    axis = np.ones(3) / 3**0.5
    any_kernel = random.standard_normal((3, 11, 11))
    along = np.einsum("c,chw->hw", axis, any_kernel)  # the grey part of the colour at each position
    expected = 1 - (along**2).sum() / (any_kernel**2).sum()
    np.testing.assert_allclose(saturation(np.stack([grey, opponent, any_kernel])), [0, 1, expected], atol=1e-12)


@pytest.mark.parametrize("side", [11, 8])
def test_structure_is_1_for_a_wave_and_little_for_noise(side):
    y, x = np.mgrid[:side, :side]
    colours = np.array([1.0, -0.5, 0.2])[:, None, None]
    waves = [np.cos(2 * np.pi * (u * x + v * y) / side + phase) for u, v, phase in ((1, 2, 0.3), (0, 3, 1), (0, 0, 0))]
    np.testing.assert_allclose(structure(np.stack([colours * wave for wave in waves])), [1, 1, 0], atol=1e-12)
    on_a_colour = colours * waves[0] / np.linalg.norm(waves[0]) + 2 * colours * waves[2] / side
    np.testing.assert_allclose(structure(on_a_colour[None]), 1 / 5, atol=1e-12)
    two = waves[0] / np.linalg.norm(waves[0]) + 0.5 * waves[1] / np.linalg.norm(waves[1])
    np.testing.assert_allclose(structure((colours * two)[None]), 1 / 1.25, atol=1e-12)
    noise = np.random.default_rng(0).standard_normal((500, 3, side, side))
    assert structure(noise).mean() < 0.1
    power = (np.abs(np.fft.fft2(noise[0])) ** 2).sum(axis=0)  # by a loop over frequencies
    pairs = {frozenset([(u, v), (-u % side, -v % side)]) for u in range(side) for v in range(side) if u or v}
    largest = max(sum(power[place] for place in pair) for pair in pairs)
    assert structure(noise)[0] == pytest.approx(largest / power.sum())


def test_saturation_of_random_kernels_is_two_thirds():
    kernels = np.random.default_rng(0).standard_normal((200, 3, 11, 11))
    assert saturation(kernels).mean() == pytest.approx(2 / 3, abs=0.01)


def test_kernels_of_one_channel_are_drawn_grey():
    kernels = np.linspace(-1, 1, 2 * 25, dtype=np.float32).reshape(2, 1, 5, 5)
    np.testing.assert_array_equal(as_colours(kernels), as_colours(np.repeat(kernels, 3, axis=1)))


def test_a_kernel_is_drawn_on_its_own_scale_with_grey_for_0():
    kernels = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32) * [[[[3]]], [[[0.1]]]]
    expected = 127.5 + 127.5 * kernels[1].transpose(1, 2, 0) / np.abs(kernels[1]).max()
    np.testing.assert_allclose(as_colours(kernels)[1], expected, atol=0.51)


def test_a_mosaic_has_its_pictures_in_rows():
    pictures = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    sheet = mosaic(pictures, 3, gap=1, background=200)
    assert sheet.shape == (5, 11)
    np.testing.assert_array_equal(sheet[3:, 4:7], pictures[4])
    assert (sheet[2] == 200).all()
    assert (sheet[3:, 8:] == 200).all()
    assert [squarest(count) for count in (1, 2, 6, 96, 256)] == [1, 2, 3, 12, 32]


@pytest.mark.parametrize(("size", "pixels"), [(Size.page, 1500), (Size.slide, 1920)])
def test_a_figure_has_the_size_that_was_asked_for(tmp_path, size, pixels):
    kernels = np.random.default_rng(0).standard_normal((2, 8, 3, 5, 5))
    draw_kernels(list(kernels), tmp_path / "k.png", size)
    assert Image.open(tmp_path / "k.png").width == pixels


def test_the_same_figure_is_the_same_file(tmp_path):
    kernels = np.random.default_rng(0).standard_normal((1, 8, 3, 5, 5))
    for name in ("a.svg", "b.svg"):
        draw_kernels(list(kernels), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_kernels_of_a_model(exported_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["visualize", "kernels", "--model", str(exported_folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["kernels.png"]
    weights = [part.weight.detach().numpy() for part in Model.load(exported_folder).net.weighted("conv1")]
    np.testing.assert_allclose(said["structure"], [structure(each).mean() for each in weights])
    assert Path("kernels.png").exists()


def test_what_cannot_be_drawn_is_said_in_one_line(exported_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(exported_folder)]
    for words, expected in {
        ("--over-time", *model): "kept no kernels of its epochs",
        ("--out", "k.jpg", *model): "k.jpg: a figure is a .png or .svg file, for example k.png",
        ("--model", "m.onnx"): "m.onnx has no layers to look into: name the folder of its model",
        ("--model", "nothing"): "nothing",
    }.items():
        assert main(["visualize", "kernels", *words]) in (1, 2)
        *_, line = capsys.readouterr().err.splitlines()  # before it stands which model is drawn
        assert expected in line
    assert not list(tmp_path.iterdir())


def test_growth_is_read_column_by_column(exported_folder, tmp_path):
    columns = kernels_of(Model.load(exported_folder))
    (tmp_path / "kernels").mkdir()
    for epoch in (0, 2):
        np.save(tmp_path / "kernels" / f"{epoch:04d}.npy", (epoch + np.concatenate(columns)).astype(np.float16))
    growth = growth_of(tmp_path, columns)
    assert growth.epochs == [0, 2]
    np.testing.assert_allclose(growth.kernels[1][1], columns[1] + 2, atol=2e-3)
    np.save(tmp_path / "kernels" / "0003.npy", np.zeros((1, 3, 2, 2), np.float16))
    with pytest.raises(BadArtefact, match="kernels of another network"):
        growth_of(tmp_path, columns)
    good = (tmp_path / "kernels" / "0002.npy").read_bytes()
    for content in (b"no array", b"", b"PK\x03\x04junk", good[:40], good[:-1], good[:10] + b"{" * 60 + good[70:]):
        (tmp_path / "kernels" / "0003.npy").write_bytes(content)
        with pytest.raises(BadArtefact, match="is damaged"):
            growth_of(tmp_path, columns)
    for kept in (np.full((8, 3, 11, 11), np.nan, np.float16), np.zeros((8, 3, 11, 11)), np.array([{}], object)):
        np.save(tmp_path / "kernels" / "0003.npy", kept)
        with pytest.raises(BadArtefact, match="is damaged"):
            growth_of(tmp_path, columns)
