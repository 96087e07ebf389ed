"""Figure 1 and the ablations: the recipes they train, the tables they write, and that no run is repeated."""

import json
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import NARROW, SIZE
from PIL import Image
from training_runs import Listener

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import content_checksum
from alexnet_cli.errors import BadArtefact, BadRecipe
from alexnet_cli.experiments import ablations as ablations_module
from alexnet_cli.experiments import figure1 as figure1_module
from alexnet_cli.experiments import reproduction
from alexnet_cli.experiments.ablations import ABLATIONS, ADDITIONS, ablations, additions, compare, variant
from alexnet_cli.experiments.figure1 import NETS, QUICK, RATES, Plan, Trial, figure1
from alexnet_cli.experiments.reproduction import Request
from alexnet_cli.figures.canvas import Size
from alexnet_cli.progress import SILENT
from alexnet_cli.workspace import Workspace

FULL = Plan(rates=dict.fromkeys(NETS, RATES))
SMALL = ["conv1.kernels=4", "conv2.kernels=4", "conv3.kernels=4", "training.batch=8", "image.divide_by=58"]


@pytest.fixture(scope="module")
def small_pictures(source, tmp_path_factory):
    return prepare(source, tmp_path_factory.mktemp("small") / "data" / "colours", size=32, workers=1).dataset


def never(*_args, **_kwargs):
    raise AssertionError("trained again")


def test_epochs_to_the_target_are_interpolated_linearly():
    def epochs(*errors: float) -> float | None:
        return Trial(net="n", rate=1, seed=0, errors=list(errors)).epochs

    assert epochs(0.5, 0.3, 0.2) == pytest.approx(2.5)
    assert epochs(0.25) == 1
    assert epochs(0.5, 0.26) is None
    assert epochs() is None


def test_epochs_beyond_the_limit_are_not_of_this_experiment(small_pictures, tmp_path):
    """The folder has them from a command with more epochs."""
    plans = [replace(FULL, seeds=1, epochs=epochs) for epochs in (3, 1)]
    more, fewer = (figure1(small_pictures, tmp_path / "f", "the command", settings=SMALL, plan=plan) for plan in plans)
    assert {len(run["errors"]) for run in fewer.facts["runs"]} == {1}
    assert fewer.facts["runs"][0]["errors"] == more.facts["runs"][0]["errors"][:1]


def test_only_runs_that_are_trained_are_counted(small_pictures, tmp_path):
    plan = replace(FULL, rates=dict.fromkeys(NETS, (0.01,)), seeds=1, epochs=1)
    figure1(small_pictures, tmp_path / "f", "the command", settings=SMALL, plan=plan)
    console, more = Listener(), replace(plan, seeds=2)
    figure1(small_pictures, tmp_path / "f", "the command", settings=SMALL, plan=more, progress=console)
    counts = [note.split(",")[0] for note in console.notes if note.startswith("run ")]
    assert counts == ["run 1 of 3", "run 2 of 2"]  # what is complete is known when its turn comes


def test_the_newest_dataset_that_fits_is_taken_and_told(small_pictures, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/small").symlink_to(small_pictures.path)
    Path("data/large").symlink_to(packed.path)
    (packed.path / "dataset.json").touch()
    taken = []
    monkeypatch.setattr(reproduction, "figure1", lambda dataset, *_args, **_options: taken.append(dataset) or never())
    assert main(["reproduce", "figure-1"]) == 1
    assert "on dataset data/small\n" in capsys.readouterr().err
    assert taken[0].fingerprint == small_pictures.fingerprint
    wrong = f"error: recipe figure-1-relu takes pictures of 32 pixels, dataset colours has {SIZE}: prep them with "
    assert main(["reproduce", "figure-1", "--data", "large"]) == 1
    assert capsys.readouterr().err.endswith(f"{wrong}--size 32, or take data/small with --data small\n")
    Path("data/small").unlink()
    assert main(["reproduce", "figure-1"]) == 1
    assert capsys.readouterr().err.endswith(f"{wrong}--size 32\n")


def test_a_trial_is_given_up_when_its_pace_is_too_slow() -> None:
    is_decided = figure1_module._is_decided
    assert not is_decided([], 100)
    assert is_decided([0.6, 0.25], 100)  # it is there
    assert not is_decided([0.9, 0.9, 0.9, 0.9], 100)  # too early to say
    assert is_decided([0.9, 0.9, 0.9, 0.9, 0.9], 100)  # it does not learn
    falling = [0.75, 0.65, 0.55, 0.50, 0.45]  # at 0.05 an epoch it needs 4 more
    assert not is_decided(falling, 10)
    assert is_decided(falling, 8)
    by_chance = [0.60, 0.55, 0.50, 0.45, 0.40, 0.35, 0.33, 0.31, 0.31, 0.31, 0.31]  # in the last three no pace at all
    assert not is_decided(by_chance, 30)
    assert is_decided(by_chance, 15)


def test_figure_1_tries_every_rate_and_chooses_the_fastest(small_pictures, tmp_path, monkeypatch):
    plan = replace(FULL, target=0.67, seeds=2, epochs=3)  # of three classes: some run reaches it
    report = figure1(small_pictures, tmp_path / "f", "the command", settings=SMALL, plan=plan)
    runs = report.facts["runs"]
    for net in figure1_module.NETS:
        rates = [run["rate"] for run in runs if run["net"] == net and run["seed"] == 0]
        assert rates == list(RATES)
        reached = {run["rate"]: run["epochs"] for run in runs if run["net"] == net and run["epochs"] is not None}
        again = [run["rate"] for run in runs if run["net"] == net and run["seed"] == 1]
        assert len(again) == 1
        assert reached
        first = {run["rate"]: run["epochs"] for run in runs if run["net"] == net and run["seed"] == 0}
        assert first[again[0]] == min(count for count in first.values() if count is not None)
    assert report.figures == ["figure-1.png", "figure-1.svg"]
    assert Image.open(tmp_path / "f" / "figure-1.png").size == (1500, 900)
    assert (tmp_path / "f" / "table.md").read_text().count("![") == 1
    assert recipes.load(tmp_path / "f" / "recipes" / "figure-1-tanh.toml").network.layers["conv1"].then == [
        "pooling",
        "tanh",
    ]
    assert "Made by `the command` on 2" in (tmp_path / "f" / "table.md").read_text()
    monkeypatch.setattr("alexnet_cli.training.trainer.Trainer.epoch", never)
    console = Listener()
    again = figure1(small_pictures, tmp_path / "f", "the command", settings=SMALL, plan=plan, progress=console)
    assert not [note for note in console.notes if note.startswith("run ")]
    assert again == report


def test_the_quick_figure_1_says_what_it_is(small_pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduction, "QUICK", replace(QUICK, pictures=24, epochs=2))
    monkeypatch.chdir(small_pictures.path.parent.parent)
    words = ["reproduce", "figure-1", "--quick", *(word for line in SMALL for word in ("--set", line))]
    assert main([*words, "--size", "slide"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"run 2 of 2, at most \d+ s left", printed.err)
    folder = Path("reproduced/figure-1-quick")
    report = json.loads((folder / "table.json").read_text())
    assert report["title"] == f"Figure 1: ReLU against tanh on {small_pictures.name}, quick version on 24 pictures"
    assert report["note"].startswith(
        "A quick version, for a lesson: 24 of the 42 training pictures, and for each net the one learning rate that "
        "was best on all of CIFAR-10. The target is 40 % instead of the paper's 25 %, so the ratio is not the paper's."
    )
    assert [(run["net"], run["rate"], run["seed"]) for run in report["facts"]["runs"]] == [
        ("figure-1-relu", 0.003, 0),
        ("figure-1-tanh", 0.01, 0),
    ]
    assert report["columns"][-1] == "epochs to 40 % training error"
    assert Image.open(folder / "figure-1.png").size == (1920, 1080)
    monkeypatch.setattr("alexnet_cli.training.trainer.Trainer.epoch", never)
    assert main(words) == 0
    assert main(["reproduce", "figure-1", "--quick", "--seeds", "2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: --quick has one seed: leave --seeds out"
    assert main(["reproduce", "ablations", "--quick"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: --quick does not apply to ablations"


def test_the_quick_figure_1_has_the_updates_that_tanh_took_on_all_of_cifar_10():
    """About 3,300, to 40 %."""
    assert QUICK.epochs * QUICK.pictures > 3_300 * recipes.load("figure-1-tanh").training.batch


def test_figure_1_says_how_far_it_is_and_how_long_it_may_take() -> None:
    def trial(seconds: float) -> Trial:
        return Trial(net="n", rate=0.1, seed=0, errors=[0.5], seconds=seconds)

    so_far = figure1_module._so_far
    assert so_far([], 1, 20, 4) == "run 1 of 20"
    assert so_far([trial(600), trial(1200)], 3, 20, 4) == "run 3 of 20, at most 18 h 00 min left"


def test_figure_1_goes_on_after_a_rate_that_diverges_in_the_last_update_of_an_epoch(small_pictures, tmp_path):
    plan = replace(FULL, rates=dict.fromkeys(NETS, (0.01, 1e30)), seeds=1, epochs=1)
    settings = [*SMALL, "training.batch=1000"]  # one update an epoch
    report = figure1(small_pictures, tmp_path / "f", "the command", settings=settings, plan=plan)
    assert ["figure-1-relu", "1e+30", "1", "diverged in epoch 1"] in report.rows


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_keeps_its_own_lines_and_takes_the_other_lines_from_the_base(name):
    paper, made = recipes.load("paper"), variant(name, "small-data", 1.0)
    own = recipes.differences(recipes.load(name), paper)
    changed = recipes.differences(made, paper)
    assert own.items() <= changed.items()
    assert changed["image.divide_by"] == 58
    assert {layer.weights for layer in list(made.network.layers.values())[1:-1]} == {"he"}
    expected = recipes.load("small-data").training
    if name == "no-colour-noise":
        expected = replace(expected, augmentation=["random_crop", "reflection"])
    assert made.training == expected


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("base", ["paper", "original-2012", "caffenet", "small-data"])
def test_every_ablation_of_every_base_is_a_network(name, base):
    made = variant(name, base, 1.0)
    assert recipes.differences(recipes.load(name), recipes.load("paper")).items() <= (
        recipes.differences(made, recipes.load("paper")).items()
    )
    if name == "no-response-norm":
        assert "map_norm" not in made.network.operations
    if name == "tanh" and base == "original-2012":
        assert "relu" not in made.network.layers["conv2"].then
    made.build(10)


@pytest.mark.parametrize("base", ["cnn-star", "cifar-11", "figure-1-relu"])
def test_a_base_with_other_layers_is_refused(base):
    with pytest.raises(BadRecipe, match=rf"^--base {base}: its layers are conv1, .*, and ablations are of paper's$"):
        variant("tanh", base, 1.0)


@pytest.mark.parametrize("base", ["tiny", "torchvision"])
def test_a_base_with_other_widths_is_refused(base):
    with pytest.raises(
        BadRecipe, match=rf"^--base {base}: its layers have other widths .* --base small-data, and --width"
    ):
        variant("one-gpu", base, 1.0)


def test_chance_is_that_of_the_whole_table():
    """Held to tables of as many rows in which nothing makes a difference."""
    random = np.random.default_rng(0)
    measured = random.normal(0.4, 0.01, (6, 3)) + np.array([0, 0.02, -0.03, 0, 0.01, 0])[:, None]  # (rows, seeds)
    names = ["one", "baseline", "two", "three", "four", "five"]
    error, chances = ablations_module.by_chance(dict(zip(names, measured.tolist(), strict=True)))

    def largest(tables: np.ndarray) -> np.ndarray:  # of (tables, rows, seeds): each row's difference in standard errors
        means, variances = tables.mean(axis=2), tables.var(axis=2, ddof=1).mean(axis=1)
        return np.abs(means - means[:, [1]]) / np.sqrt(2 * variances / 3)[:, None]

    by_chance = largest(random.normal(size=(200_000, 6, 3))).max(axis=1)
    (observed,) = largest(measured[None])
    assert error == pytest.approx(np.sqrt(2 * measured.var(axis=1, ddof=1).mean() / 3))
    assert list(chances) == ["one", "two", "three", "four", "five"]
    for name, own in zip(names, observed, strict=True):
        if name != "baseline":
            assert chances[name] == pytest.approx((by_chance >= own).mean(), abs=0.005)
    assert ablations_module.by_chance({"baseline": [0.1], "one": [0.2]}) == (None, {})
    assert ablations_module.by_chance({"baseline": [0.1, 0.1], "one": [0.2, 0.2]}) == (0.0, {})


def test_a_star_needs_more_than_chance():
    assert ablations_module._difference(0.0277, 0.01, 0.05) == "+2.8 ± 1.0"
    assert ablations_module._difference(-0.0279, 0.01, 0.049) == "-2.8 ± 1.0*"
    assert ablations_module._difference(0.1, 0.0, None) == "+10.0 ± 0.0"
    assert ablations_module._difference(0.1, None, None) == "+10.0"


def test_the_ratio_of_two_means_has_a_standard_error():
    random = np.random.default_rng(0)
    some, others = random.normal(60, 1.2, 4), random.normal(8, 0.3, 4)
    ratio, error = figure1_module._ratio(list(some), list(others))
    assert ratio == pytest.approx(some.mean() / others.mean())
    simulated = random.normal(some.mean(), some.std(ddof=1) / 2, 100_000) / random.normal(
        others.mean(), others.std(ddof=1) / 2, 100_000
    )
    assert error == pytest.approx(simulated.std(), rel=0.03)
    assert figure1_module._ratio([60.0], [8.0, 9.0])[1] is None


@pytest.mark.parametrize("size", Size)
def test_the_chart_of_ablations_has_all_names_and_marks_what_is_significant(size, tmp_path, figures):
    differences = {name: 0.01 * (-1) ** i * (i + 1) for i, name in enumerate(ABLATIONS)}  # up to as many points
    facts = {"baseline": {"top1_errors": [0.4, 0.4, 0.4], "mean": 0.4}}
    facts |= {
        name: {"difference": d, "standard_error": 0.01, "p": 0.04 if abs(d) > 0.0278 else 0.06}
        for name, d in differences.items()
    }
    ablations_module.draw_differences(facts, "Ablations on d", tmp_path / "a.png", size)
    (figure,) = figures
    (axes,) = figure.axes
    figure.draw_without_rendering()
    for text in (*axes.get_yticklabels(), *figure.legends[0].get_texts()):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
    names = axes.get_yticklabels()
    assert [name.get_text() for name in names] == sorted(ABLATIONS, key=lambda name: differences[name])
    bars = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in axes.patches}
    shown = [bars[y] for y in sorted(bars)]
    assert shown == pytest.approx([100 * differences[name.get_text()] for name in names])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["baseline, 40.0 %", "significant at 5 % (3 seeds, Dunnett)", "not significant"]
    significant = [bar.get_width() for bar in axes.patches if bar.get_facecolor() == axes.patches[0].get_facecolor()]
    beyond = set(range(3, len(ABLATIONS) + 1))  # more than 2.78 standard errors
    assert {round(abs(width)) for width in significant} == beyond


def test_one_gpu_at_half_width():
    layers = variant("one-gpu", "paper", 0.5).network.layers
    assert [layer.kernels for layer in list(layers.values())[:5]] == [24, 64, 96, 96, 128]
    assert layers["fc6"].units == 2048


def test_ablations_end_to_end_and_no_run_is_repeated(packed, tmp_path, monkeypatch, capsys):
    space = ["--workspace", str(packed.path.parent.parent)]
    settings = [
        word for line in [f"image.size={SIZE}", "image.crop=67", "training.batch=8"] for word in ("--set", line)
    ]
    command = ["reproduce", "ablations", "--out", str(tmp_path / "a"), "--base", "small-data", "--width", "0.02"]
    command += ["--recipe", "no-response-norm", "--seeds", "2", "--epochs", "1", "--json", *settings, *space]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    facts = printed["facts"]
    assert set(facts) == {"baseline", "no-response-norm"}
    assert all(len(one["top1_errors"]) == 2 for one in facts.values())
    means = {name: statistics.mean(one["top1_errors"]) for name, one in facts.items()}
    assert facts["no-response-norm"]["difference"] == pytest.approx(means["no-response-norm"] - means["baseline"])
    assert [row[0] for row in printed["rows"]] == ["baseline", "no-response-norm"]
    assert Image.open(tmp_path / "a" / "ablations.png").width == 1500
    assert (tmp_path / "a" / "ablations.svg").exists()
    assert [row[4] for row in printed["rows"]] == ["", "+1.4"]  # the paper's difference
    text = (tmp_path / "a" / "table.md").read_text()
    assert "nets of 0.02 times the width" in text
    assert "2 seeds each" in text
    assert "21 validation pictures, 10 views each" in text
    monkeypatch.setattr(ablations_module, "train", never)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == printed


def test_a_table_is_written_after_every_seed(packed, tmp_path, monkeypatch):
    def stop_at_the_second(recipe, seed, *_rest):
        if seed == 1:
            raise KeyboardInterrupt
        return 0.5

    monkeypatch.setattr(ablations_module, "_error", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        compare(ablations(["tanh"], "paper", 1.0, NARROW, None), packed, tmp_path / "a", "c", seeds=2)
    table = (tmp_path / "a" / "table.md").read_text()
    assert "1 seed each, top-1 error of 21 validation pictures" in table
    assert "ablations.png" not in table
    assert "One seed cannot show a difference, so none is given; --seeds 3 can." in table
    assert "| recipe | parameters | top-1 error, % | in the paper or its logs |" in table


def test_a_dataset_without_validation_images_is_refused_before_the_training(source, tmp_path, monkeypatch):
    dataset = prepare(source / "train", tmp_path / "data" / "t", size=SIZE, workers=1, val_fraction=0.0).dataset
    monkeypatch.setattr(ablations_module, "train", never)
    with pytest.raises(
        BadArtefact, match="dataset t has no split 'val': it has train; prep its pictures under another"
    ):
        compare(ablations(["tanh"], "paper", 1.0, [], None), dataset, tmp_path / "a", "c")


def test_each_addition_differs_from_its_base_by_one_line_of_the_list_or_of_the_image():
    made = additions([], "small-data", 0.25, ["training.batch=32"], 12).recipes
    base = made["baseline"]
    assert base.name == "baseline"
    assert base.description == "the baseline of a comparison: small-data"
    assert list(made) == ["baseline", *ADDITIONS]
    assert (base.training.epochs, base.training.batch, base.network.layers["conv1"].kernels) == (12, 32, 24)
    theirs = ["random_crop", "reflection", "colour_noise"]
    expected = {
        "rotation": ["rotation", *theirs],
        "contrast": [*theirs, "contrast"],
        "geometry": ["rotation", "shear", "stretch", "scale_jitter", *theirs],
        "geometry-and-colours": [
            *("rotation", "shear", "stretch", "scale_jitter", *theirs, "brightness", "contrast"),
        ],
    }
    for name in ADDITIONS:
        recipe = made[name]
        assert recipe.name == name
        changed = {
            key
            for key in recipes.differences(recipe, base)
            if key.split(".")[0] not in recipe.augmentations  # a section that the base does not have
        }
        assert changed == {"image.standardize" if name == "standardization" else "training.augmentation"}
        if name in expected:
            assert recipe.training.augmentation == expected[name]
    with pytest.raises(BadRecipe, match=r"^unknown addition 'rotations': did you mean 'rotation'\?$"):
        additions(["rotations"], "paper", 1.0, [], None)


def test_augmentation_end_to_end_has_no_column_of_the_paper(packed, tmp_path, capsys):
    settings = [word for line in NARROW for word in ("--set", line)]
    command = ["reproduce", "augmentation", "--out", str(tmp_path / "a"), "--base", "small-data", "--epochs", "1"]
    command += ["--recipe", "geometry-and-colours", "--recipe", "standardization", "--seeds", "2", "--json", *settings]
    assert main([*command, "--workspace", str(packed.path.parent.parent)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["experiment"] == "augmentation"
    assert [row[0] for row in printed["rows"]] == ["baseline", "geometry-and-colours", "standardization"]
    assert {len(row) for row in printed["rows"]} == {4}
    text = (tmp_path / "a" / "table.md").read_text()
    assert "# Augmentation and standardization beyond the paper on colours" in text
    assert "the paper" not in text.split("\n\n")[1]
    assert (tmp_path / "a" / "augmentation.png").is_file()
    kept = recipes.loads((tmp_path / "a" / "recipes" / "standardization.toml").read_text())
    assert kept.image.standardize


def test_digits_are_no_photographs_and_photographs_no_digits(small_pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/colours").symlink_to(small_pictures.path)
    assert main(["reproduce", "neocognitron"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: no digits here: pack some with `alexnet prep digits`, or name a dataset with --data"
    )
    digits = Path("data/digits")  # newer
    shutil.copytree(small_pictures.path, digits)
    facts = json.loads((digits / "dataset.json").read_text())
    facts["source"]["layout"] = "digits"
    (digits / "dataset.json").write_text(json.dumps(facts | {"checksum": content_checksum(facts)}))
    space, request = Workspace(Path(".")), Request(**dict.fromkeys(Request.__dataclass_fields__))
    for net, name in (("figure-1-relu", "colours"), ("lenet-5", "digits")):
        recipe = recipes.adjust(recipes.load(net), [f"image.size={small_pictures.image_size}", "image.crop=32"])
        assert reproduction._dataset_to_train(space, request, recipe, SILENT).path == Path("data") / name
