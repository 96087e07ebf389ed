"""`train --log tensorboard`: TensorBoard's own reader finds in the log what history.jsonl and `kernels/` hold."""

import importlib.util
import io
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_runs import TRAIN, Listener, terminated_after_the_start

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.distributed import World
from alexnet_cli.errors import Interrupted
from alexnet_cli.figures.mosaic import as_colours
from alexnet_cli.training.checkpoint import TrainingState, read_state
from alexnet_cli.training.tensorboard import SCALARS, TensorBoard
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options

pytest.importorskip("tensorboard")


def read(folder: Path):
    """All events of the log in ``folder``: nothing is sampled."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def check_scalars(run: Path, epochs: int) -> None:
    """The log has each epoch of history.jsonl once, with its numbers."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    log = read(run / "tensorboard")
    assert set(log.Tags()["scalars"]) == set(SCALARS.values())
    for key, name in SCALARS.items():
        events = log.Scalars(name)
        assert [event.step for event in events] == list(range(1, epochs + 1))
        assert [event.value for event in events] == [np.float32(row[key]) for row in rows]
        pauses = np.diff([event.wall_time for event in events])
        assert (pauses > 0).all()


def test_the_log_has_the_history_the_kernels_and_the_hyperparameters(packed, tmp_path, monkeypatch, capsys):
    from tensorboard.plugins.hparams import metadata

    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, str(packed.path), "--out", "a b", "--seed", "3", "--log", "tensorboard"]) == 0
    printed = capsys.readouterr()
    to_look = "tensorboard --logdir 'models/a b/tensorboard'"
    assert f"to follow it: {to_look}\n" in printed.err
    assert f"Its log: {to_look}\n" in printed.out
    run = Path("models/a b")
    check_scalars(run, 2)
    log = read(Path(shlex.split(to_look)[-1]))
    pictures = log.Images("kernels")
    assert [picture.step for picture in pictures] == [0, 1, 2]
    shown = np.asarray(Image.open(io.BytesIO(pictures[2].encoded_image_string)))
    kept = as_colours(np.load(run / "kernels" / "0002.npy").astype(np.float32))
    np.testing.assert_array_equal(shown[::4, ::4][:11, 12:23], kept[1])
    plugin = log.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(plugin).hparams
    assert values["seed"].number_value == 3
    assert values["training.batch"].number_value == 8
    assert values["conv1.then"].string_value == str(recipes.load(run / "recipe.toml").network.layers["conv1"].then)
    assert values["dataset"].string_value == "colours"


def test_a_resumed_run_has_each_epoch_once(packed, tmp_path, monkeypatch, capsys):
    """It was stopped in its first epoch and in its second, was resumed without a log, and given an epoch more."""
    monkeypatch.chdir(tmp_path)
    run, logged = Path("models/m"), ["--log", "tensorboard"]
    with terminated_after_the_start(run):
        assert main([*TRAIN, str(packed.path), "--out", "m", *logged]) == 130
    again = "alexnet train --resume --out m --log tensorboard"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"; resume with: {again}")
    resumed = shlex.split(again)[1:]
    assert main(resumed) == 0
    check_scalars(run, 2)
    assert main([*resumed[:-2], "--epochs", "3"]) == 0
    assert len(read(run / "tensorboard").Scalars("loss/training")) == 2
    assert main([*resumed, "--epochs", "4"]) == 0
    check_scalars(run, 4)
    assert [picture.step for picture in read(run / "tensorboard").Images("kernels")] == [0, 1, 2, 3, 4]


def test_an_open_tensorboard_forgets_what_a_resumed_run_writes_anew(packed, narrow, tmp_path):
    """The reader follows the folder; epoch 1 was logged, and what came after its checkpoint is written again."""
    options = Options(loggers=(TensorBoard(),))
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", options=options, progress=Listener(8))
    state = read_state(tmp_path / "m")
    log = TensorBoard()  # as if the run had been killed between the log and the checkpoint of epoch 2
    log.log(tmp_path / "m", replace(state, history=[*state.history, state.history[0] | {"epoch": 2}]))
    follower = read(tmp_path / "m" / "tensorboard")
    assert [event.step for event in follower.Scalars("loss/training")] == [1, 2]
    train(packed, narrow, tmp_path / "m", options=options)
    log.close()
    check_scalars(tmp_path / "m", 2)
    events = follower.Reload().Scalars("loss/training")
    assert [event.step for event in events] == [1, 2]
    assert events[1].value == read(tmp_path / "m" / "tensorboard").Scalars("loss/training")[1].value


class Calls:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[int | str] = []

    def log(self, folder: Path, state: TrainingState) -> None:
        assert (folder / "kernels" / f"{len(state.history):04d}.npy").exists()
        assert read_state(folder).history == state.history
        self.told.append(len(state.history))

    def close(self) -> None:
        self.told.append("closed")


def test_any_logger_is_told_of_the_start_and_of_each_epoch(packed, narrow, tmp_path):
    calls = Calls()
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", options=Options(loggers=(calls,)), progress=Listener(8))
    train(packed, narrow, tmp_path / "m", options=Options(loggers=(calls,)))
    assert calls.told == [0, 1, "closed", 1, 2, "closed"]


def test_rank_0_alone_is_logged(packed, narrow, tmp_path):
    from alexnet_cli.progress import SILENT
    from alexnet_cli.training.trainer import Trainer

    calls = Calls()
    trainer = Trainer(
        packed, narrow, tmp_path / "m", seed=0, start=None, options=Options(loggers=(calls,)), progress=SILENT
    )
    for rank in (0, 1):
        trainer.world = World(rank=rank, size=2)
        trainer.log()
    assert calls.told == [0]


def test_without_the_package_one_line_says_what_to_install(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "alexnet_cli.training.tensorboard.find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    assert main([*TRAIN, str(packed.path), "--out", "m", "--log", "tensorboard"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: --log tensorboard needs a package more: install alexnet-cli[tensorboard]"
    assert not list(tmp_path.iterdir())
    assert main(["train", "--log", "wandb"]) == 2
