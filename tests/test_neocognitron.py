"""The neocognitron against loops in NumPy, and its winner rule on examples that were worked out by hand."""

import json

import numpy as np
import pytest
import torch
from pictures import encoded, write_folder
from PIL import Image

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.layouts.digits import enlarged
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.experiments import neocognitron as module
from alexnet_cli.experiments.neocognitron import (
    LAYERS,
    copied_planes,
    draw_shifts,
    grey,
    neocognitron,
    shifted,
    shifted_errors,
)
from alexnet_cli.experiments.planes import favourites
from alexnet_cli.figures.canvas import Size
from alexnet_cli.nets.neocognitron import (
    INITIAL_WEIGHT,
    RATE,
    SCLayer,
    Weights,
    c_cells,
    learn,
    receptive_field,
    representatives,
    run,
    s_cells,
    self_organize,
    untrained,
)
from alexnet_cli.wording import duration

TINY = SCLayer(planes=2, kernel=2, selectivity=1.0, column=3, region=2, stride=2)


def random_weights(planes: int, channels: int, kernel: int, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    excitation = torch.rand((planes, channels, kernel, kernel), generator=generator, dtype=torch.float64)
    return Weights(excitation=excitation, inhibition=torch.rand(planes, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("selectivity", [0.5, 4.0])
def test_s_cells_are_a_loop_over_places_and_planes(selectivity):
    z = torch.rand((2, 3, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights, r = random_weights(4, 3, 3, seed=1), selectivity
    weights.inhibition.mul_(torch.tensor([0, 1, 2, 100]))  # from no inhibition to silence
    outputs = np.empty((2, 4, 4, 5))
    for image, plane, row, column in np.ndindex(outputs.shape):
        seen = z[image, :, row : row + 3, column : column + 3].numpy()
        excitation = (weights.excitation[plane].numpy() * seen).sum()
        inhibition = 2 * r / (1 + r) * float(weights.inhibition[plane]) * np.sqrt((seen**2).sum())
        outputs[image, plane, row, column] = r * max(0.0, (1 + excitation) / (1 + inhibition) - 1)
    assert (outputs == 0).any()
    assert (outputs > 0).any()
    np.testing.assert_allclose(s_cells(z, weights, selectivity).numpy(), outputs, rtol=1e-12, atol=1e-14)


def test_a_plane_that_has_learned_responds_by_the_cosine_to_its_pattern():
    pattern, z = torch.rand((2, 1, 5, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pattern, large = pattern[:1], 1e9
    weights = Weights(excitation=large * pattern, inhibition=large * pattern.flatten(1).norm(dim=1) / 2)
    cosine = float((pattern * z).sum() / (pattern.norm() * z.norm()))
    assert float(s_cells(z, weights, 1.5)) == pytest.approx(max(0.0, 2.5 * cosine - 1.5), abs=1e-6)
    assert float(s_cells(pattern * 0.1, weights, 1.5)) == pytest.approx(1.0, abs=1e-6)  # a fainter pattern is the same


@pytest.mark.parametrize(("region", "stride"), [(2, 2), (4, 2), (3, 3)])
def test_c_cells_are_the_largest_of_a_region(region, stride):
    y = torch.rand((2, 3, 9, 8), generator=torch.Generator().manual_seed(0))
    expected = np.array(
        [
            [
                [
                    [float(plane[i : i + region, j : j + region].max()) for j in range(0, 8 - region + 1, stride)]
                    for i in range(0, 9 - region + 1, stride)
                ]
                for plane in picture
            ]
            for picture in y
        ],
        np.float32,
    )
    assert (c_cells(y, region, stride).numpy() == expected).all()


def test_a_shift_within_a_region_leaves_the_c_planes_as_they_are():
    """And a shift by the stride shifts them by one cell."""
    layer = SCLayer(planes=3, kernel=3, selectivity=1.0, column=3, region=4, stride=4)
    generator = torch.Generator().manual_seed(0)
    weights = untrained(layer, 1, generator)
    picture = torch.zeros(1, 1, 22, 22)
    picture[0, 0, 11, 11] = 1  # S-cells at 9 to 11 see it, and the C-cell of 8 to 11
    at = [run(picture.roll(shift, (2, 3)), [layer], [weights]) for shift in ((0, 0), (-1, 0), (0, -1), (4, 0))]
    assert at[0].count_nonzero() == 3
    assert torch.equal(at[1], at[0])
    assert torch.equal(at[2], at[0])
    assert torch.equal(at[3], at[0].roll(1, 2))


def winners(y: list[list[list[float]]], column: int) -> list[tuple[int, ...]]:
    return list(zip(*(each.tolist() for each in representatives(torch.tensor(y), column)), strict=True))


def test_one_winner_for_each_column_and_one_representative_for_each_plane():
    """Three planes of one row of seven cells, columns of three places."""
    y = [
        [[5, 0, 0, 0, 0, 0, 7]],  # wins the columns at both ends: only its 7 represents it
        [[0, 4, 0, 0, 6, 0, 0]],  # its 6 wins three columns, its 4 the one around place 2
        [[0, 0, 3, 0, 0, 0, 0]],  # its 3 is in the columns around 1, 2 and 3, with 5, 4 and 6: it wins none
    ]
    assert winners(y, 3) == [(0, 0, 6), (1, 0, 4)]
    assert winners(y, 1) == [(0, 0, 6), (1, 0, 4), (2, 0, 2)]  # a column for each place
    assert winners(y, 15) == [(0, 0, 6)]  # one column


def test_of_equal_cells_one_wins_and_silent_planes_learn_nothing():
    assert winners([[[2.0, 2.0]], [[2.0, 2.0]], [[0.0, 0.0]]], 3) == [(0, 0, 0)]
    assert winners([[[0.0, 0.0]]], 3) == []


def test_a_representative_learns_output_times_input_and_its_plane_with_it():
    """Worked out by hand: plane 0 weighs the left pixels, plane 1 the right ones; r = 1, no inhibition yet."""
    z = torch.tensor([[[0.0, 1, 0.0], [0, 3, 4]]])
    excitation = torch.tensor([[[[1.0, 0], [1, 0]]], [[[0.0, 1], [0, 1]]]])
    weights = Weights(excitation=excitation, inhibition=torch.zeros(2))
    # Two places. Plane 0: 0 and 1 + 3 = 4. Plane 1: 1 + 3 = 4 and 4.
    assert s_cells(z[None], weights, 1.0).tolist() == [[[[0, 4]], [[4, 4]]]]
    # All are in the same columns, where the first of the equal cells wins: plane 1 at place 0, which sees 0 1 / 0 3.
    learned = learn(z, weights, TINY)
    assert learned.excitation[0].equal(excitation[0])
    assert (learned.excitation[1] - excitation[1]).tolist() == [[[0, RATE * 4 * 1], [0, RATE * 4 * 3]]]
    assert learned.inhibition[0] == 0
    assert float(learned.inhibition[1]) == pytest.approx(RATE * 4 * 10**0.5 / 2)
    # With a column for each place plane 0 wins at place 1, by being first, and plane 1 at place 0.
    learned = learn(z, weights, SCLayer(planes=2, kernel=2, selectivity=1.0, column=1, region=2, stride=2))
    assert (learned.excitation[0] - excitation[0]).tolist() == [[[RATE * 4 * 1, 0], [RATE * 4 * 3, RATE * 4 * 4]]]
    assert (learned.excitation[1] - excitation[1]).tolist() == [[[0, RATE * 4 * 1], [0, RATE * 4 * 3]]]
    assert float(learned.inhibition[0]) == pytest.approx(RATE * 4 * 26**0.5 / 2)


def test_two_patterns_are_learned_by_two_planes():
    """A horizontal and a vertical bar, each somewhere else in every picture."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(30, 1, 9, 9)
    for i, picture in enumerate(pictures):
        at = int(torch.randint(2, 7, (), generator=generator))
        (picture[0, at] if i % 2 else picture[0, :, at])[:] = 1
    layer = SCLayer(planes=2, kernel=3, selectivity=4.0, column=15, region=2, stride=2)
    (weights,) = self_organize(pictures, [layer], seed=0)
    bars = torch.zeros(2, 3, 3)
    bars[0, 1], bars[1, :, 1] = 1, 1
    learned = weights.excitation[:, 0]
    # A bar that a cell sees off its centre is the same feature one place further on.
    sums = torch.stack([learned.sum(2), learned.sum(1)], 1)  # (planes, along rows and columns, 3)
    bars_of = (sums.amax(2) / sums.sum(2) > 0.999).tolist()
    assert sorted(bars_of) == [[False, True], [True, False]]


def test_the_same_seed_gives_the_same_planes_and_another_seed_others():
    pictures = torch.rand((12, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    layers = [TINY, SCLayer(planes=3, kernel=3, selectivity=0.5, column=3, region=2, stride=1)]
    first, again, other = (self_organize(pictures, layers, seed) for seed in (0, 0, 1))
    for ours, same, others in zip(first, again, other, strict=True):
        assert ours.excitation.equal(same.excitation)
        assert ours.inhibition.equal(same.inhibition)
        assert not ours.excitation.equal(others.excitation)
        assert ours.excitation.max() > INITIAL_WEIGHT  # it has learned
    assert first[1].excitation.shape == (3, 2, 3, 3)
    assert run(pictures, layers, first).shape == (12, 3, 4, 4)
    assert torch.cat([run(one[None], layers, first) for one in pictures]).allclose(run(pictures, layers, first))


def test_the_receptive_field_is_what_changes_a_cell():
    layers = [TINY, SCLayer(planes=3, kernel=3, selectivity=0.5, column=3, region=3, stride=2)]
    generator = torch.Generator().manual_seed(0)
    weights = [untrained(layers[0], 1, generator), untrained(layers[1], 2, generator)]
    for depth in (1, 2):
        seen = torch.zeros(20, dtype=torch.bool)
        for _ in range(30):  # which cell of a region is the largest depends on the picture
            other = torch.rand(1, 1, 20, 20, generator=generator, requires_grad=True)
            z = run(other, layers[: depth - 1], weights[: depth - 1])
            y = s_cells(z, weights[depth - 1], 0.5)
            (gradient,) = torch.autograd.grad(y[0, :, 1, 1].sum(), other)
            seen |= gradient[0, 0].abs().sum(0) > 0
        field = receptive_field(layers[:depth])
        assert seen.nonzero().flatten().tolist() == list(range(field.stride, field.stride + field.size))


def test_favourites_are_where_a_plane_responds_most():
    picture = torch.zeros(1, 1, 16, 16)
    picture[0, 0, 6:9, 4:7] = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 1, 1]])
    layer = SCLayer(planes=2, kernel=3, selectivity=4.0, column=15, region=2, stride=2)
    pattern = picture[0, :, 6:9, 4:7]
    weights = Weights(
        excitation=torch.stack([1e6 * pattern, torch.zeros(1, 3, 3)]),
        inhibition=torch.tensor([1e6 * float(pattern.norm()) / 2, 0.0]),
    )
    shown = favourites(picture, [layer], [weights])
    np.testing.assert_allclose(shown[0] / shown[0].max(), pattern[0].numpy())
    assert (shown[1] == 0).all()


@pytest.mark.parametrize("rows", [-2, 0, 1])
@pytest.mark.parametrize("columns", [-1, 0, 3])
def test_shifted_pictures_pixel_by_pixel(rows, columns):
    images = np.random.default_rng(0).integers(1, 256, (2, 5, 5, 3), dtype=np.uint8)
    moved = shifted(images, rows, columns)
    for i, j in np.ndindex(5, 5):
        from_i, from_j = i - rows, j - columns
        inside = 0 <= from_i < 5 and 0 <= from_j < 5
        assert (moved[:, i, j] == (images[:, from_i, from_j] if inside else 0)).all()


def test_the_error_of_shifted_pictures_in_each_direction():
    """A classifier that says where the only white pixel is: it is wrong by just the shift."""
    images = np.zeros((1, 9, 9, 3), np.uint8)
    images[0, 4, 4] = 255
    errors = shifted_errors(lambda shown: np.array([int(shown[0, 4, 4:, 0].any())]), images, np.array([1]))
    assert errors.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_copied_planes_are_places_of_the_pictures():
    pictures = torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    weights = copied_planes(pictures, LAYERS, seed=0)
    places = pictures.unfold(2, 5, 1).unfold(3, 5, 1).reshape(-1, 25)
    places = places / places.norm(dim=1, keepdim=True)
    kernels = weights[0].excitation.flatten(1)
    cosines = kernels / kernels.norm(dim=1, keepdim=True) @ places.T
    assert cosines.max(1).values.numpy() == pytest.approx(1, abs=1e-5)
    assert [each.excitation.shape[0] for each in weights] == [layer.planes for layer in LAYERS]


def test_grey_weighs_colours_as_pillow_does():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(image).convert("L")) / 255
    np.testing.assert_allclose(grey(image[None])[0, 0].numpy(), pillow, atol=1 / 255)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Dataset:
    """Zeros and ones, as prep enlarges them: 8 of each to train on, 3 to validate."""
    from sklearn.datasets import load_digits

    bunch, content = load_digits(), {}
    for digit in (0, 1):
        for i, values in enumerate(bunch.images[bunch.target == digit][:11]):
            content[f"{'train' if i < 8 else 'val'}/{digit}/{i:02d}.png"] = encoded(enlarged(values))
    root = tmp_path_factory.mktemp("digits")
    return prepare(write_folder(root / "source", content), root / "data" / "few", size=32, workers=1).dataset


def test_the_experiment_end_to_end_and_lenet_is_not_trained_again(digits, tmp_path, capsys):
    folder = tmp_path / "n"
    command = ["reproduce", "neocognitron", "--data", "few", "--workspace", str(digits.path.parent.parent)]
    command += ["--out", str(folder), "--epochs", "1", "--seeds", "2", "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row[0] for row in printed["rows"]] == [
        "neocognitron",
        "copied planes",
        "random planes",
        "raw pixels",
        "LeNet-5",
    ]
    facts = printed["facts"]
    assert np.shape(facts["neocognitron"]["errors"]["left"]) == (2, 5)  # seeds, shifts
    assert np.shape(facts["raw pixels"]["errors"]["up"]) == (1, 5)
    assert facts["raw pixels"]["parameters"] == 32 * 32 + 1  # of two classes
    assert printed["rows"][-1][3] == duration(facts["LeNet-5"]["training_seconds"])
    unshifted = [each[0] for each in facts["LeNet-5"]["errors"]["down"]]
    standard_error = abs(unshifted[0] - unshifted[1]) / 2
    assert printed["rows"][-1][4] == f"{50 * sum(unshifted):.1f} ± {100 * standard_error:.1f}"
    for name in ("planes", "shifts"):
        assert Image.open(folder / f"{name}.png").width == 1500
        assert (folder / f"{name}.svg").exists()
    assert "6 validation pictures of dataset few" in (folder / "table.md").read_text()
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert [[*row[:3], *row[4:]] for row in again["rows"]] == [[*row[:3], *row[4:]] for row in printed["rows"]]
    assert again["facts"]["LeNet-5"] == facts["LeNet-5"]  # with the seconds of its training


@pytest.fixture
def pretended(monkeypatch):
    """A read-out and a LeNet-5 that call everything 0."""
    made = module.Classifier(predict=lambda images: np.zeros(len(images)), parameters=1, seconds=0.0)
    monkeypatch.setattr(module, "read_out", lambda *_words: (made.predict, 1))
    monkeypatch.setattr(module, "_network", lambda *_words: made)


def test_the_planes_of_a_seed_learn_once(digits, tmp_path, monkeypatch, pretended):
    seeds, learned = [], module.self_organize
    monkeypatch.setattr(module, "self_organize", lambda *words: seeds.append(words[2]) or learned(*words))
    neocognitron(digits, recipes.load("lenet-5"), tmp_path, "c", seeds=2)
    assert seeds == [0, 1]
    assert (tmp_path / "planes.png").exists()


def test_columns_and_note_say_how_far_pictures_are_shifted(digits, tmp_path, monkeypatch, pretended):
    monkeypatch.setattr(module, "LARGEST_SHIFT", 2)
    report = neocognitron(digits, recipes.load("lenet-5"), tmp_path, "c", seeds=1)
    assert report.columns[3:] == ["time to learn", "error, %", "shifted by 1", "shifted by 2"]
    assert {len(row) for row in report.rows} == {7}
    assert "shifted by 1 to 2 pixels" in report.note


def test_photographs_of_another_size_are_refused(packed, capsys):
    command = ["reproduce", "neocognitron", "--data", "colours", "--workspace", str(packed.path.parent.parent)]
    assert main(command) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: recipe lenet-5 takes pictures of 32 pixels, dataset colours has 72: prep them with --size 32"
    )
    assert main([*command, "--set", "training.batch=2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: --set does not apply to neocognitron"


@pytest.mark.parametrize("size", Size)
def test_the_chart_has_a_panel_for_each_direction(size, tmp_path, figures):
    errors = {name: [np.full((4, 5), 0.1 * i + seed / 100) for seed in range(3)] for i, name in enumerate("ab")}
    draw_shifts(errors, "Shifted", tmp_path / "s.png", size)
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == ["up", "down", "left", "right"]
    for axes in figure.axes:
        means = [container.lines[0].get_ydata() for container in axes.containers]
        np.testing.assert_allclose(means, [[1.0] * 5, [11.0] * 5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
