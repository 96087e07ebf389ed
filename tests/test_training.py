"""Training runs: what they write, and that a run which was stopped is the run that was not."""

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import NARROW

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact, BadRecipe, Diverged, Interrupted
from alexnet_cli.model import Model
from alexnet_cli.progress import Progress
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options, Trainer

TIMES = ("seconds", "images_per_second")


class Listener(Progress):
    """Keeps notes, and at the n-th step asks the process to end."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.steps, self.stop_at = 0, stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if task.startswith("epoch"):
            self.steps += 1
            if self.steps == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)


def history(folder) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def same_weights(one: Model, other: Model) -> bool:
    pairs = zip(one.net.state_dict().items(), other.net.state_dict().items(), strict=True)
    return all(name == also and torch.equal(a, b) for (name, a), (also, b) in pairs)


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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop_at", [2, 6, 9])
def test_a_stopped_run_is_bit_for_bit_the_one_that_was_not(packed, narrow, tmp_path, stop_at, precision):
    options = Options(precision=precision)
    whole = train(packed, narrow, tmp_path / "whole", options=options)
    with pytest.raises(Interrupted, match=r"^stopped and saved in epoch \d; resume with: alexnet train --resume"):
        train(packed, narrow, tmp_path / "stopped", options=options, progress=Listener(stop_at))
    state = checkpoint.read_state(tmp_path / "stopped")
    assert 6 * state.epoch + state.step == stop_at
    resumed = train(packed, narrow, tmp_path / "stopped", options=options)
    assert same_weights(whole, resumed)
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")


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
    assert "start again with a lower learning rate, for example --set training.learning_rate=1e+11" in str(error.value)
    assert not (tmp_path / "m" / "model.safetensors").exists()
    if (tmp_path / "m" / CHECKPOINT_FILE).exists():
        tensors = checkpoint.read_tensors(tmp_path / "m" / CHECKPOINT_FILE, what="checkpoint")[1]
        assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("weight/"))


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
    with pytest.raises(Diverged, match=r"the loss is not finite at epoch 1, update 4; nothing was saved yet"):
        train(packed, wild, tmp_path / "m", options=Options(checkpoint_minutes=0))
    assert not (tmp_path / "m" / CHECKPOINT_FILE).exists()


def test_a_stop_waits_for_the_next_look_and_resumes_exactly(packed, narrow, tmp_path, rare_looks):
    whole = train(packed, narrow, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "stopped", progress=Listener(1))
    assert checkpoint.read_state(tmp_path / "stopped").step == 4
    assert same_weights(whole, train(packed, narrow, tmp_path / "stopped"))
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")


def test_another_run_in_the_same_folder_is_refused(packed, narrow, tmp_path):
    train(packed, narrow, tmp_path / "m")
    with pytest.raises(BadRecipe, match=r"m holds another run \(different seed\): resume it unchanged with"):
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


def test_on_little_data_the_initial_weights_of_the_paper_get_a_warning(packed, narrow, tmp_path):
    listener = Listener()
    paper = recipes.load("paper", [*NARROW, "training.epochs=1"])
    train(packed, paper, tmp_path / "paper", progress=listener)
    (note,) = [note for note in listener.notes if "0.01²" in note]
    assert "the loss stays at ln(3) = 1.10 for about 300 updates, 50.0 epochs of this dataset" in note
    assert "--recipe small-data starts at once" in note
    listener = Listener()
    train(packed, narrow, tmp_path / "small", progress=listener)
    assert not any("0.01²" in note for note in listener.notes)


def test_fine_tuning_starts_from_all_layers_but_the_last(packed, narrow, tmp_path):
    start = train(packed, narrow, tmp_path / "start")
    still = narrow.with_training(learning_rate=1e-30, weight_decay=0.0)
    tuned = train(packed, still, tmp_path / "tuned", seed=5, start=Model.load(tmp_path / "start"))
    for name, weight in start.net.state_dict().items():
        assert torch.equal(weight, tuned.net.state_dict()[name]) != name.startswith("fc8."), name
    wider = recipes.load("small-data", [*NARROW, "conv2.kernels=16"])
    with pytest.raises(BadRecipe, match=r"^--from: columns.0.conv2.weighted.weight is \(8, 4, 5, 5\) in this recipe"):
        train(packed, wider, tmp_path / "wider", start=start)


def test_a_crash_while_saving_leaves_the_last_checkpoint(packed, narrow, tmp_path, monkeypatch):
    train(packed, narrow, tmp_path / "m")
    before = (tmp_path / "m" / CHECKPOINT_FILE).read_bytes()

    def crash(tensors, path, metadata) -> None:
        path.write_bytes(b"half of it")
        raise OSError("no space")

    monkeypatch.setattr(checkpoint, "save_file", crash)
    with pytest.raises(OSError, match="no space"):
        train(packed, narrow.with_training(epochs=3), tmp_path / "m")
    assert (tmp_path / "m" / CHECKPOINT_FILE).read_bytes() == before
    assert [file.name for file in (tmp_path / "m" / "checkpoint").iterdir()] == ["state.safetensors"]


def test_the_command_stops_saves_and_resumes(packed, tmp_path):
    settings = [word for setting in NARROW for word in ("--set", setting)]
    asked = ["train", str(packed.path), "--recipe", "small-data", *settings, "--workspace", str(tmp_path), "--out", "m"]
    program = "import sys; from alexnet_cli.commands import main; sys.exit(main())"
    run = subprocess.Popen(
        [sys.executable, "-c", program, *asked, "--epochs", "500"], stderr=subprocess.PIPE, text=True
    )
    for line in run.stderr:
        if line.startswith("epoch 1:"):
            run.send_signal(signal.SIGTERM)
            break
    said = run.stderr.read()
    assert run.wait() == 130
    assert "error: stopped and saved in epoch" in said
    command = said.split("resume with: ")[1].splitlines()[0]
    done = len(history(tmp_path / "models" / "m"))
    assert main([*shlex.split(command)[1:], "--epochs", str(done + 1)]) == 0  # as printed, from another folder
    assert len(history(tmp_path / "models" / "m")) == done + 1


def test_what_resuming_cannot_change(packed, narrow, tmp_path, capsys):
    train(packed, narrow, tmp_path / "models" / "m")
    resume = ["train", "--resume", "--out", "m", "--workspace", str(tmp_path)]
    assert main([*resume, "--set", "training.batch=4"]) == 1
    assert "error: --set cannot change a run that is resumed: leave it out" in capsys.readouterr().err
    assert main([*resume, "--seed", "3"]) == 1
    assert "m was started with --seed 0: leave it out, or start another run" in capsys.readouterr().err
    assert main(["train", "--resume", "--workspace", str(tmp_path)]) == 1
    assert "error: no unfinished run in" in capsys.readouterr().err
