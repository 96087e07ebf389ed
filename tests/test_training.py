"""Training runs: what they write, and that a run which was stopped is the run that was not."""

import errno
import math
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NARROW
from training_runs import Listener, history, same_weights, temporary_files

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE, KERNELS
from alexnet_cli.data.augment import INITIAL, seed_of, stream
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import World
from alexnet_cli.errors import BadArtefact, BadRecipe, Diverged, Interrupted
from alexnet_cli.files import read_tensors
from alexnet_cli.inference.evaluation import count_errors
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.training import checkpoint, runs
from alexnet_cli.training.runs import choose_recipe, resume_run
from alexnet_cli.training.train import check_batches, train
from alexnet_cli.training.trainer import Options, Trainer


def test_learns_and_writes_what_it_did(packed, narrow, tmp_path):
    recipe = narrow.with_training(epochs=8)
    model = train(packed, recipe, tmp_path / "m")
    rows = history(tmp_path / "m")
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["validation_error"] <= 0.2  # chance is 0.67
    assert (tmp_path / "m" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert recipes.load(tmp_path / "m" / "recipe.toml") == replace(recipe, name="recipe")
    again = Model.load(tmp_path / "m")
    assert same_weights(model, again)
    assert again.fingerprint == model.fingerprint
    assert again.classes == ["blue", "green", "red"]
    assert again.provenance["dataset"] == packed.fingerprint


def test_a_run_that_is_stopped_after_its_last_epoch_names_no_other(packed, narrow, tmp_path):
    with pytest.raises(Interrupted, match=r"^stopped and saved after the last epoch$"):
        train(packed, narrow.with_training(epochs=1), tmp_path / "m", progress=Listener(6))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop_at", [2, 6, 9])
def test_a_stopped_run_is_bit_for_bit_the_one_that_was_not(packed, narrow, tmp_path, stop_at, precision):
    options = Options(precision=precision)
    whole = train(packed, narrow, tmp_path / "whole", options=options)
    with pytest.raises(Interrupted, match=r"^stopped and saved in epoch \d$"):
        train(packed, narrow, tmp_path / "stopped", options=options, progress=Listener(stop_at))
    state = checkpoint.read_state(tmp_path / "stopped")
    assert 6 * state.epoch + state.step == stop_at
    resumed = train(packed, narrow, tmp_path / "stopped", options=options)
    assert same_weights(whole, resumed)
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")


def test_the_kernels_of_the_first_layer_are_kept_from_the_start_on(packed, narrow, tmp_path):
    whole = train(packed, narrow, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "stopped", progress=Listener(9))
    train(packed, narrow, tmp_path / "stopped")
    kept = {file.name: np.load(file) for file in (tmp_path / "whole" / KERNELS).iterdir()}
    assert sorted(kept) == ["0000.npy", "0001.npy", "0002.npy"]
    start = initialize(narrow.build(3), seed_of(stream(0, INITIAL)))
    for name, net in (("0000.npy", start), ("0002.npy", whole.net)):
        expected = torch.cat([module.weight for module in net.weighted("conv1")]).detach().half().numpy()
        np.testing.assert_array_equal(kept[name], expected)
    for name, kernels in kept.items():
        np.testing.assert_array_equal(np.load(tmp_path / "stopped" / KERNELS / name), kernels)


def test_the_cap_on_epochs_is_told_where_a_plateau_schedule_has_not_come_to_its_end(packed, narrow, tmp_path):
    listener = Listener()
    recipe = narrow.with_training(schedule="plateau", warmup_epochs=0.0, epochs=1)
    train(packed, recipe, tmp_path / "m", progress=listener)
    assert listener.notes[-1] == (
        "ended by training.epochs = 1, after 0 of 3 drops of the learning rate: the validation error had not stalled "
        "once more"
    )


def test_a_kill_goes_back_to_the_last_checkpoint(packed, narrow, tmp_path, monkeypatch):
    whole = train(packed, narrow, tmp_path / "whole")

    class Killed(Listener):
        def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
            self.steps += task.startswith("epoch")
            if self.steps == 5:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(packed, narrow, tmp_path / "killed", options=Options(checkpoint_minutes=0), progress=Killed())
    assert checkpoint.read_state(tmp_path / "killed").step == 4
    assert same_weights(whole, train(packed, narrow, tmp_path / "killed"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(packed, narrow, tmp_path):
    wild = narrow.with_training(learning_rate=1e12, warmup_epochs=1.0)
    with pytest.raises(Diverged) as error:
        train(packed, wild, tmp_path / "m", options=Options(checkpoint_minutes=0))
    assert "the loss is not finite at epoch 1, update" in str(error.value)
    assert "start another run with a lower learning rate, for example --set training.learning_rate=1e+11" in str(
        error.value
    )
    assert not (tmp_path / "m" / "model.safetensors").exists()
    assert checkpoint.read_state(tmp_path / "m").epoch <= 1
    tensors = read_tensors(tmp_path / "m" / CHECKPOINT_FILE, what="checkpoint")[1]
    assert all(np.isfinite(tensor).all() for name, tensor in tensors.items() if name.startswith("weight/"))


def test_a_divergence_in_the_last_update_of_an_epoch_says_so_too(packed, narrow, tmp_path):
    wild = narrow.with_training(learning_rate=1e30, warmup_epochs=0.0, batch=64)  # one update an epoch
    with pytest.raises(Diverged) as error:
        train(packed, wild, tmp_path / "m")
    assert str(error.value) == (
        "an output in the validation is not finite at epoch 1, update 1; the checkpoint in "
        f"{tmp_path}/m is the last good one: start another run with a lower learning rate, for example "
        "--set training.learning_rate=1e+29"
    )
    assert checkpoint.read_state(tmp_path / "m").step == 0


def test_a_weight_that_is_not_finite_after_the_last_update_is_noticed_without_a_validation(
    packed, narrow, tmp_path, monkeypatch
):
    update = Trainer._update

    def last_update(self, batch, plan, rate):
        update(self, batch, plan, rate)
        if self.state.step == 5:
            with torch.no_grad():
                self.net.fc8.bias[0] = math.inf

    monkeypatch.setattr(Trainer, "_update", last_update)
    unvalidated = replace(packed, counts={"train": packed.counts["train"]})
    with pytest.raises(Diverged, match=r"^a weight is not finite at epoch 1, update 6; the checkpoint in"):
        train(unvalidated, narrow, tmp_path / "m")


def test_what_an_epoch_trained_is_saved_before_its_validation(packed, narrow, tmp_path, monkeypatch):
    whole = train(packed, narrow, tmp_path / "whole")
    monkeypatch.setattr("alexnet_cli.training.trainer.count_errors", lambda *models, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # as if it was killed there
        train(packed, narrow, tmp_path / "m", options=Options(checkpoint_minutes=0))
    state = checkpoint.read_state(tmp_path / "m")
    assert (state.epoch, state.step) == (0, 6)
    monkeypatch.undo()
    listener = Listener()
    assert same_weights(whole, train(packed, narrow, tmp_path / "m", progress=listener))
    assert listener.notes[0] == f"resuming {tmp_path}/m in epoch 1 before its validation"
    assert history(tmp_path / "whole") == history(tmp_path / "m")


@pytest.fixture
def rare_looks(monkeypatch):
    """As on a GPU: the loss is read at every fourth update and at the end of an epoch, of six updates."""
    monkeypatch.setattr(Trainer, "_is_time_to_look", lambda self, stop: self.state.step % 4 == 0)


def test_reading_the_loss_rarely_changes_nothing(packed, narrow, tmp_path, monkeypatch):
    whole = train(packed, narrow, tmp_path / "often")
    looks = []
    look = Trainer._look
    monkeypatch.setattr(Trainer, "_is_time_to_look", lambda self, stop: self.state.step % 4 == 0)
    monkeypatch.setattr(Trainer, "_look", lambda self, stop: looks.append(self.state.step) or look(self, stop))
    assert same_weights(whole, train(packed, narrow, tmp_path / "rarely"))
    assert history(tmp_path / "often") == history(tmp_path / "rarely")
    assert looks == [4, 6, 4, 6]


def test_a_loss_that_is_not_finite_is_noticed_at_the_next_look(packed, narrow, tmp_path, rare_looks):
    wild = narrow.with_training(learning_rate=1e12, warmup_epochs=1.0)
    with pytest.raises(Diverged, match=r"the loss is not finite at epoch 1, update 4; the checkpoint in"):
        train(packed, wild, tmp_path / "m", options=Options(checkpoint_minutes=0))
    assert checkpoint.read_state(tmp_path / "m").step == 0


def test_a_stop_waits_for_the_next_look_and_resumes_exactly(packed, narrow, tmp_path, rare_looks):
    whole = train(packed, narrow, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "stopped", progress=Listener(1))
    assert checkpoint.read_state(tmp_path / "stopped").step == 4
    assert same_weights(whole, train(packed, narrow, tmp_path / "stopped"))
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")


def test_another_run_in_the_same_folder_is_refused(packed, narrow, tmp_path):
    train(packed, narrow, tmp_path / "m")
    with pytest.raises(BadRecipe, match=r"m holds another run \(different seed\): remove it, or choose another --out$"):
        train(packed, narrow, tmp_path / "m", seed=1)
    other = narrow.with_training(momentum=0.5)
    with pytest.raises(BadRecipe, match=r"\(different recipe\)"):
        train(packed, other, tmp_path / "m")
    longer = narrow.with_training(epochs=3)
    train(packed, longer, tmp_path / "m")
    assert len(history(tmp_path / "m")) == 3


def test_seeds_make_different_models(packed, narrow, tmp_path):
    models = [train(packed, narrow, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    assert not same_weights(*models)


def test_pictures_of_another_size_and_a_single_class_are_refused(packed, narrow, tmp_path):
    with pytest.raises(BadRecipe, match="recipe paper takes pictures of 256 pixels, dataset colours has 72: prep with"):
        train(packed, recipes.load("paper"), tmp_path / "m")
    with pytest.raises(BadArtefact, match="dataset colours has one class, so there is nothing to tell apart"):
        train(replace(packed, classes=["red"]), narrow, tmp_path / "m")
    with pytest.raises(
        BadRecipe, match=r"dataset colours has 32: prep with --size 256, or choose another .*: cifar-11, "
    ):
        train(replace(packed, image_size=32), recipes.load("paper"), tmp_path / "m")


@pytest.mark.parametrize(
    ("size", "pictures", "name"),
    [(256, 10, "small-data"), (256, 99_999, "small-data"), (256, 100_000, "paper"), (32, 50_000, "cifar-18")],
)
def test_the_recipe_goes_by_the_size_of_the_dataset(packed, size, pictures, name):
    dataset, listener = replace(packed, image_size=size, counts={"train": pictures}), Listener()
    assert choose_recipe(None, dataset, progress=listener).name == name
    assert listener.notes == [f"recipe {name}, for {pictures:,} pictures; --recipe names another"]
    assert choose_recipe("tiny", dataset, progress=listener).name == "tiny"
    assert len(listener.notes) == 1


def test_without_a_recipe_for_the_size_one_has_to_be_named(packed, narrow):
    with pytest.raises(BadRecipe) as error:
        choose_recipe(None, packed)
    assert str(error.value) == (
        "dataset colours has pictures of 72 pixels, and no recipe here takes such: prep with --size 256 or --size 32, "
        "or name a recipe of your own with --recipe"
    )


def test_a_model_that_is_fine_tuned_has_the_recipe(packed, narrow):
    net, listener = initialize(narrow.build(3), 0), Listener()
    start = Model(net=net, recipe=narrow, classes=["a"], mean_image=np.zeros(()), provenance={})
    assert choose_recipe(None, packed, start=start, progress=listener) == narrow
    assert listener.notes == ["recipe small-data, that of the model it starts from; --recipe names another"]


NORMALIZED = [*NARROW, 'fc6.then=["batch_norm", "relu"]', "training.epochs=1"]


@pytest.mark.parametrize(
    ("batch", "processes", "refused"),
    [
        (8, 1, None),  # 5 updates of 8, one of 2
        (41, 1, "leaves 1 of 42 pictures for its last batch: use --set training.batch=40"),
        (1, 1, "leaves 1 of 42 pictures for its last batch: use --set training.batch=2"),
        (8, 2, "leaves 2 of 42 pictures for its last batch: use --set training.batch=7 or fewer processes"),
        (13, 2, "leaves 3 of 42 pictures for its last batch: use --set training.batch=12 or fewer processes"),
        (14, 2, None),
    ],
)
def test_a_batch_of_which_batch_norm_has_one_picture_is_refused_before_training(
    packed, tmp_path, batch, processes, refused
):
    recipe = recipes.load("small-data", [*NORMALIZED, f"training.batch={batch}"])
    world = World(size=processes)
    if refused is None:
        check_batches(packed, recipe, world)
    else:
        with pytest.raises(BadRecipe) as error:
            check_batches(packed, recipe, world)
        each = "" if processes == 1 else " in every process"
        assert str(error.value) == f"batch norm of fc6 needs 2 pictures{each}, and training.batch={batch} {refused}"
        wanted = int(refused.split("=")[1].split()[0])
        check_batches(packed, recipe.with_training(batch=wanted), world)
        if processes == 1:
            with pytest.raises(BadRecipe, match=r"^batch norm of fc6 needs 2 pictures, and"):
                train(packed, recipe, tmp_path / "m")
            assert not (tmp_path / "m" / CHECKPOINT_FILE).exists()
            train(packed, recipe.with_training(batch=wanted), tmp_path / "m")


def test_batch_norm_over_maps_does_with_one_picture_but_not_with_none(packed):
    maps = [*NARROW, 'conv1.then=["batch_norm", "relu"]', "training.batch=41"]
    check_batches(packed, recipes.load("small-data", maps), World())
    check_batches(packed, recipes.load("small-data", [*NARROW, "training.batch=41"]), World(size=2))  # no batch norm
    with pytest.raises(
        BadRecipe, match=r"^batch norm of conv1 needs 1 picture in every process, and training.batch=41"
    ):
        check_batches(packed, recipes.load("small-data", maps), World(size=2))
    one = replace(packed, counts={"train": 1})
    with pytest.raises(BadRecipe, match=r"^batch norm of fc6 needs 2 pictures, and 1 picture is all there is: "):
        check_batches(one, recipes.load("small-data", NORMALIZED), World())


def test_fine_tuning_starts_from_all_layers_but_the_last(packed, narrow, tmp_path):
    start = train(packed, narrow, tmp_path / "start")
    still = narrow.with_training(learning_rate=1e-30, weight_decay=0.0)
    listener = Listener()
    tuned = train(packed, still, tmp_path / "tuned", seed=5, start=Model.load(tmp_path / "start"), progress=listener)
    for name, weight in start.net.state_dict().items():
        same = torch.allclose(weight, tuned.net.state_dict()[name], rtol=0, atol=1e-25)
        assert same != name.startswith("fc8."), name
    assert "fc8 starts anew" in listener.notes
    wider = recipes.load("small-data", [*NARROW, "conv2.kernels=16"])
    with pytest.raises(BadRecipe, match=r"^--from: columns.0.conv2.weighted.weight is \(8, 4, 5, 5\) in this recipe"):
        train(packed, wider, tmp_path / "wider", start=start)


def test_fine_tuning_names_the_layers_that_only_one_of_both_has(packed, narrow, tmp_path):
    start = train(packed, narrow.with_training(epochs=1), tmp_path / "start")
    others = ["fc5", "fc6", "fc7", "fc8"]
    layers = [f"conv{i}" for i in range(1, 5)] + others
    more = [f"network.layers={layers}", 'fc5.type="dense"', "fc5.units=288", 'fc5.weights="he"', "fc5.bias=0"]
    own = [line for line in NARROW if "conv5" not in line]
    recipe = recipes.load("small-data", [*own, "training.epochs=1", *more, 'fc5.then=["relu"]', 'fc6.input="own"'])
    listener = Listener()
    with pytest.raises(
        BadRecipe, match=r"^--from: columns\.0\.fc6\.weighted\.weight is .* take the model's own, small-data$"
    ):
        train(packed, recipe, tmp_path / "m", start=start, progress=listener)
    assert listener.notes[-2:] == [
        f"conv5 of {tmp_path}/start is not in this recipe: left out",
        "fc5 and fc8 start anew",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "image.divide_by=1.0",
            "--from: the model's image.divide_by is 58.0, recipe small-data's is 1.0: leave --recipe out to take "
            "the model's, small-data, or use --set image.divide_by=58.0",
        ),
        (
            "image.colour=grey",
            '--from: the model\'s image.colour is "rgb", recipe small-data\'s is "grey": leave --recipe out to take '
            'the model\'s, small-data, or use --set image.colour="rgb"',
        ),
    ],
)
def test_fine_tuning_needs_pictures_prepared_as_the_models(packed, narrow, tmp_path, line, message):
    start = train(packed, narrow.with_training(epochs=1), tmp_path / "start")
    without_noise = 'training.augmentation=["random_crop", "reflection"]'
    other = recipes.load("small-data", [*NARROW, "training.epochs=1", without_noise, line])
    with pytest.raises(BadRecipe) as error:
        train(packed, other, tmp_path / "m", start=start)
    assert str(error.value) == message
    advised = recipes.adjust(other, [message.split("--set ")[1]])
    assert train(packed, advised, tmp_path / "m", start=start).provenance["from"] == start.fingerprint


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(packed, narrow, tmp_path):
    whole = train(packed, narrow, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", progress=Listener(3))
    before = (tmp_path / "m" / CHECKPOINT_FILE).read_bytes()
    with small_files(20_000), pytest.raises(OSError, match="File too large") as error:
        train(packed, narrow, tmp_path / "m", options=Options(checkpoint_minutes=0))
    assert error.value.filename == str(tmp_path / "m" / CHECKPOINT_FILE)
    assert (tmp_path / "m" / CHECKPOINT_FILE).read_bytes() == before
    assert temporary_files(tmp_path / "m") == []
    assert same_weights(whole, train(packed, narrow, tmp_path / "m"))


@pytest.mark.parametrize("place", ["seconds", -1000])  # the state, in the header; a weight
def test_a_damaged_checkpoint_is_refused(packed, narrow, tmp_path, place):
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", progress=Listener(3))
    path = tmp_path / "m" / CHECKPOINT_FILE
    content = bytearray(path.read_bytes())
    content[content.index(place.encode()) if isinstance(place, str) else place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadArtefact, match=r" is damaged \(.*\): remove .*/m and start the training again$"):
        train(packed, narrow, tmp_path / "m")
    path.write_bytes(content[:5000])
    with pytest.raises(BadArtefact, match=r" is damaged \(.*\): remove .*/m and start the training again$"):
        resume_run(tmp_path / "m")


def test_a_fine_tuned_run_is_resumed_without_the_model_it_started_from(packed, narrow, tmp_path):
    with pytest.raises(Interrupted):  # a start with a mean image of its own
        train(packed, narrow, tmp_path / "start", progress=Listener(1))
    start = train(packed, narrow, tmp_path / "start")
    start = replace(start, mean_image=start.mean_image + 3, saved_fingerprint=None)
    whole = train(packed, narrow, tmp_path / "whole", start=start)
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", start=start, progress=Listener(3))
    shutil.rmtree(tmp_path / "start")
    resumed = resume_run(tmp_path / "m")
    assert resumed.fingerprint == whole.fingerprint
    assert resumed.provenance["from"] == whole.provenance["from"] == start.fingerprint
    assert np.array_equal(Model.load(tmp_path / "m").mean_image, start.mean_image)


def test_a_dataset_that_has_moved_is_named(packed, narrow, tmp_path):
    moved = Dataset.open(Path(shutil.copytree(packed.path, tmp_path / "old")))
    with pytest.raises(Interrupted):
        train(moved, narrow, tmp_path / "m", progress=Listener(3))
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(BadArtefact, match=r"^the dataset of .*/m is not at .*/old any more: name the folder where it"):
        resume_run(tmp_path / "m")
    assert resume_run(tmp_path / "m", dataset=tmp_path / "new").provenance["epochs"] == 2


# The paper's schedule


def plateau_rates(errors: list[float], patience: int, drops: int, first: float) -> list[float]:
    """The learning rate of every epoch, from the validation errors by the paper's words: divided by 10 when the error
    stopped improving, three times; here the end is the fourth time."""
    rates, rate, best, waited = [], first, math.inf, 0
    for error in errors:
        rates.append(rate)
        waited = 0 if error < best else waited + 1
        best = min(best, error)
        if waited == patience:
            rate, waited = rate / 10, 0
    assert rate == pytest.approx(first / 10 ** (drops + 1))  # it ended by itself
    return rates


def test_the_papers_schedule_from_the_first_epoch_to_its_own_end(packed, tmp_path):
    paper = recipes.load("paper").training
    assert (paper.schedule, paper.drops, paper.learning_rate, paper.epochs) == ("plateau", 3, 0.01, 90)
    lines = ['training.schedule="plateau"', "training.warmup_epochs=0", "training.epochs=90", "training.patience=3"]
    recipe = recipes.load("small-data", [*NARROW, *lines])
    whole = train(packed, recipe, tmp_path / "whole")
    rows = history(tmp_path / "whole")
    errors, rates = [row["validation_error"] for row in rows], [row["learning_rate"] for row in rows]
    assert min(errors) < errors[0]  # it learns: the drops wait for that
    assert rates == pytest.approx(plateau_rates(errors, patience=3, drops=3, first=0.01))
    assert {f"{rate:.0e}" for rate in rates} == {"1e-02", "1e-03", "1e-04", "1e-05"}
    dropped = rates.index(pytest.approx(1e-3))
    for stop_at in (6 * dropped - 1, 4):  # before the first drop and after it; the second counts from the first
        with pytest.raises(Interrupted):
            train(packed, recipe, tmp_path / "m", progress=Listener(stop_at))
    assert same_weights(whole, train(packed, recipe, tmp_path / "m"))
    assert history(tmp_path / "m") == rows


# bf16


def test_two_logits_that_bf16_cannot_tell_apart_are_no_tie(packed, narrow):
    net = initialize(narrow.build(3), 0).eval()
    with torch.no_grad():
        net.fc8.weight.zero_()
        net.fc8.bias.copy_(torch.tensor([100.0, 100.1, 99.9]))  # 100 in bf16, all of them
    preprocessor = Preprocessor(narrow.image, packed.statistics().mean_image, torch.device("cpu"))
    network = NetworkModel(net, preprocessor, packed.classes, precision="bf16")
    split = packed.split("val")
    top1, _ = count_errors([network], split, views=1)
    assert top1 == (split.labels != 1).sum()


def test_a_model_holds_no_path_of_this_machine(packed, narrow, tmp_path):
    model = train(packed, narrow.with_training(epochs=1), tmp_path / "model")
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert str(packed.path.resolve().parent.parent).encode() not in content
    assert model.provenance["dataset_name"] == packed.name


def test_nothing_is_left_of_a_run_whose_first_checkpoint_cannot_be_written(packed, narrow, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space"):
        train(packed, narrow, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("capability", "precision", "told"), [("AVX2", "bf16", 1), ("AVX2", "fp32", 0), ("AVX512", "bf16", 0)]
)
def test_a_processor_without_bf16_is_told(packed, narrow, tmp_path, monkeypatch, capability, precision, told):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(runs, "train", lambda *_, **__: None)
    listener = Listener()
    runs.start_run(packed, narrow, tmp_path / "m", options=Options(precision=precision), progress=listener)
    expected = "this processor has no instructions for bf16: --precision fp32 is several times as fast"
    assert listener.notes.count(expected) == told
