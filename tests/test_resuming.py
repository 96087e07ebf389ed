"""How a run goes on after Ctrl-C, kills and full disks: by the command that was printed, to the very same weights."""

import json
import multiprocessing
import random
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import NARROW
from training_runs import TRAIN, Listener, history, temporary_files, terminated_after_the_start

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.commands import main
from alexnet_cli.data.store import Dataset
from alexnet_cli.model import Model
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options

EPOCHS = 2


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.load("small-data", NARROW).with_training(epochs=EPOCHS)


@pytest.fixture(scope="module")
def whole(packed, recipe, tmp_path_factory) -> Model:
    """The run that was never stopped."""
    return train(packed, recipe, tmp_path_factory.mktemp("whole") / "m")


def trained(folder: Path) -> str:
    return Model.load(folder).fingerprint


# What is printed can be pasted


@pytest.mark.parametrize(
    ("out", "workspace", "folder", "resume", "named"),
    [
        ([], [], "models/colours-small-data", "--out colours-small-data", "colours-small-data"),
        (["--out", "my model"], [], "models/my model", "--out 'my model'", "'my model'"),
        (
            ["--out", "$m"],
            ["--workspace", "../my work"],
            "../my work/models/$m",
            "--out '$m' --workspace '../my work'",
            "'$m' --workspace '../my work'",
        ),
        (
            ["--out", "a b/c"],
            ["--workspace", "../my work"],
            "a b/c",
            "--out 'a b/c' --workspace '../my work'",
            "'a b/c' --workspace '../my work'",
        ),
        (["--out", "../up"], [], "../up", "--out ../up", "../up"),
        (["--out", "./up"], [], "up", "--out ./up", "./up"),
        (["--out", "{tmp}/else where"], [], "{tmp}/else where", "--out '{tmp}/else where'", "'{tmp}/else where'"),
    ],
)
def test_the_printed_commands_resume_the_run_and_find_its_model(
    out, workspace, folder, resume, named, packed, whole, tmp_path, monkeypatch, capsys
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    out, folder, resume, named = [
        [word.format(tmp=tmp_path) for word in text] if isinstance(text, list) else text.format(tmp=tmp_path)
        for text in (out, folder, resume, named)
    ]
    with terminated_after_the_start(tmp_path):
        code = main([*TRAIN, str(packed.path), *out, *workspace, "--epochs", str(EPOCHS)])
    last = capsys.readouterr().err.splitlines()[-1]
    reason, command = last.split("; resume with: ")
    assert reason in ("error: stopped and saved in epoch 1", "error: interrupted")  # in training, or before it
    assert command == f"alexnet train --resume {resume}"
    assert code == 130
    assert main(shlex.split(command)[1:]) == 0
    *_, done, following = capsys.readouterr().out.splitlines()
    assert done == f"trained {folder}: {EPOCHS} epochs"
    name, *space = shlex.split(named)
    assert following == f"Next: {shlex.join(['alexnet', 'eval', name, '--data', str(packed.path), *space])}"
    assert trained(Path(folder)) == whole.fingerprint
    assert main([*shlex.split(following)[2:], "--views", "1"]) == 0


def test_the_printed_command_in_a_shell(packed, whole, tmp_path):
    """A new process from another folder than the tests', as a user has it."""
    program = f'alexnet() {{ {shlex.quote(sys.executable)} -m alexnet_cli "$@"; }}\n'

    def shell(line: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(["bash", "-c", program + line], cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    words = shlex.join([*TRAIN, str(packed.path), "--epochs", "500", "--workspace", "my work", "--out", "$m"])
    run = shell(f"exec {shlex.quote(sys.executable)} -m alexnet_cli {words}")
    for line in run.stderr:
        if line.startswith("epoch 1:"):
            run.send_signal(signal.SIGINT)
            break
    *_, last = run.stderr.read().splitlines()
    assert run.wait() == 130
    assert last.startswith("error: stopped and saved in epoch ")
    command = last.split("resume with: ")[1]
    assert command == "alexnet train --resume --out '$m' --workspace 'my work'"
    folder = tmp_path / "my work" / "models" / "$m"
    assert not (folder / "model.safetensors").exists()
    again = shell(f"{command} --epochs {max(len(history(folder)), EPOCHS)}")
    assert again.wait() == 0, again.stderr.read()
    assert temporary_files(folder) == []


def test_a_name_that_means_another_folder_is_not_printed(packed, recipe, tmp_path, monkeypatch, capsys):
    """`m` in the current folder comes before the workspace's, which is named by its path."""
    monkeypatch.chdir(tmp_path)
    train(packed, recipe.with_training(epochs=1), Path("m"))
    assert main([*TRAIN, str(packed.path), "--out", "m", "--epochs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "models/m"


@pytest.mark.exports
def test_an_export_that_is_interrupted_leaves_the_model_and_says_how_to_go_on(packed, tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alexnet_cli.interface.export", interrupted)
    assert main([*TRAIN, str(packed.path), "--out", "m", "--epochs", "1"]) == 130
    said = capsys.readouterr()
    assert said.out == "trained models/m: 1 epoch\n"
    assert said.err.splitlines()[-1] == "error: interrupted; resume with: alexnet export m"
    assert Model.load(Path("models/m")).provenance["epochs"] == 1


def test_no_name_is_no_folder(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, str(packed.path), "--out", ""]) == 1
    message = "error: '' is not a name for a model: it becomes a folder in models/, so give a plain name\n"
    assert capsys.readouterr().err == message


def test_a_folder_with_a_run_or_a_model_is_kept(packed, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    once = [*TRAIN, str(packed.path), "--epochs", "1"]
    assert main([*once, "--out", "m"]) == 0
    capsys.readouterr()
    assert main([*once, "--out", "m"]) == 1
    another = "choose another name for a new one"
    message = f"error: models/m holds a finished run already: {another}, such as m-2"
    assert capsys.readouterr().err.splitlines()[-1] == message
    (tmp_path / "models" / "m" / "model.safetensors").rename("model.safetensors")
    assert main([*once, "--out", "m"]) == 1
    message = f"error: models/m holds a run already: {another}; resume with: alexnet train --resume --out m"
    assert capsys.readouterr().err.splitlines()[-1] == message
    Path("model.safetensors").rename("models/m/model.safetensors")
    (tmp_path / "models" / "m" / CHECKPOINT_FILE).unlink()
    assert main([*once, "--out", "m"]) == 1
    message = f"error: models/m holds a model already: {another}, such as m-2"
    assert capsys.readouterr().err.splitlines()[-1] == message
    Path("models/m").rename("models/colours-small-data")
    assert main(once) == 0
    note = "models/colours-small-data exists, so the new model is models/colours-small-data-2; --out names another\n"
    assert note in capsys.readouterr().err


def test_a_run_that_was_left_is_named_and_the_next_gets_a_new_name(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TRAIN, str(packed.path), "--epochs", "1"]
    (tmp_path / "models" / "colours-small-data" / "checkpoint").mkdir(parents=True)  # killed before it had saved
    (tmp_path / "models" / "colours-small-data" / "checkpoint" / ".state.1-ab.part.safetensors").touch()
    with terminated_after_the_start(tmp_path):
        assert main(words) == 130
    assert temporary_files(tmp_path / "models") == []
    capsys.readouterr()
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[:2] == [
        "models/colours-small-data exists, so the new model is models/colours-small-data-2; --out names another",
        "models/colours-small-data is unfinished; to resume it: alexnet train --resume --out colours-small-data",
    ]
    assert "trained models/colours-small-data-2: 1 epoch\n" in shown.out


def test_what_resuming_cannot_change(packed, narrow, tmp_path, capsys):
    train(packed, narrow, tmp_path / "models" / "m")
    resume = ["train", "--resume", "--out", "m", "--workspace", str(tmp_path)]
    assert main([*resume, "--set", "training.batch=4"]) == 1
    assert "error: --set cannot change a run that is resumed: leave it out" in capsys.readouterr().err
    assert main([*resume, "--seed", "3"]) == 1
    assert "m was started with --seed 0: leave it out, or start another run" in capsys.readouterr().err
    assert main(["train", "--resume", "--workspace", str(tmp_path)]) == 1
    assert "error: no unfinished run in" in capsys.readouterr().err


def test_reproduce_says_itself_how_to_resume(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["image.size=72", "image.crop=67", "training.batch=8"]
    words = ["reproduce", "ablations", "--data", str(packed.path), "--out", "my results", "--base", "small-data"]
    words += ["--width", "0.02", "--recipe", "tanh", "--seeds", "1", "--epochs", "1"]
    words += [word for line in settings for word in ("--set", line)]
    monkeypatch.setattr(sys, "argv", ["alexnet", *words])
    with terminated_after_the_start(tmp_path):
        assert main() == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.split("; ")[1] == f"resume with: {shlex.join(['alexnet', *words])}"
    assert main(shlex.split(last.split("resume with: ")[1])[1:]) == 0
    assert (tmp_path / "my results" / "table.json").exists()
    assert temporary_files(tmp_path) == []


@pytest.mark.parametrize("command", ["reproduce", "demo"])
def test_what_runs_in_one_process_refuses_torchrun(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [command, *(["figure-3"] if command == "reproduce" else [])]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(words) == 1
    assert capsys.readouterr().err == f"error: alexnet {command} runs in one process: start it without torchrun\n"
    monkeypatch.setenv("RANK", "1")
    assert main(words) == 0  # the first one tells
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


# Two at once, kills


class Sender(Listener):
    """Tells another process of every step."""

    def __init__(self, to: Connection) -> None:
        super().__init__()
        self.to = to

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        with suppress(BrokenPipeError):  # nobody listens any more
            self.to.send(task)


def run_apart(path: Path, recipe: Recipe, folder: Path, to: Connection) -> None:
    train(Dataset.open(path), recipe, folder, options=Options(checkpoint_minutes=0), progress=Sender(to))


@pytest.fixture(scope="module")
def apart() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have torch already: it takes seconds to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet_cli.training.train", "alexnet_cli.training.curves"])
    return context


def test_a_second_training_into_the_folder_is_refused(packed, recipe, apart, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ours, theirs = apart.Pipe()
    first = apart.Process(
        target=run_apart, args=(packed.path, recipe.with_training(epochs=3000), Path("models/m"), theirs)
    )
    first.start()
    try:
        ours.recv()
        message = "error: another process is writing the model models/m: wait for it to end, or choose another name"
        for words in ([*TRAIN, str(packed.path), "--out", "m"], ["train", "--resume", "--out", "m"]):
            assert main(words) == 1
            assert capsys.readouterr().err.splitlines()[-1] == message
    finally:
        first.kill()
        first.join()
    assert main(["train", "--resume", "--out", "m", "--epochs", "1"]) == 0
    assert temporary_files(tmp_path) == []


def test_no_kill_changes_the_weights_or_leaves_anything(packed, recipe, whole, apart, tmp_path):
    """Checkpoints follow on each other, so that most kills meet one."""
    dice = random.Random()
    for kill in (True, True, True, True, False):
        ours, theirs = apart.Pipe()
        process = apart.Process(target=run_apart, args=(packed.path, recipe, tmp_path / "m", theirs))
        process.start()
        theirs.close()
        if kill:
            with suppress(EOFError):  # it had fewer steps left
                for _ in range(dice.randrange(1, 5)):
                    ours.recv()
            ours.poll(dice.uniform(0, 0.03))
            process.kill()
        process.join()
    assert process.exitcode == 0
    assert trained(tmp_path / "m") == whole.fingerprint
    assert len(history(tmp_path / "m")) == EPOCHS
    assert temporary_files(tmp_path) == []


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many KB on a folder. For root alone."""
    mounted = []

    def mount(folder: Path, size: int, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remount = ["remount"] if folder in mounted else []
        words = ["mount", "-t", "tmpfs", "-o", ",".join([*remount, f"size={size}k", *options]), "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("disk", "share", "full"),
    [
        ("m/checkpoint", 1.5, "m/checkpoint/state.safetensors"),  # there is room for one checkpoint, not for two
        ("m", 0.32, "m/curves.png"),  # 38 KB, after a recipe of 2 KB and kernels of 6 KB thrice
        ("m", 0.9, "m/model.safetensors"),  # 94 KB, after the curves twice
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(
    disk, share, full, packed, recipe, whole, small_disk, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    room = (whole.path / CHECKPOINT_FILE).stat().st_size / 1000
    small_disk(tmp_path / "models" / disk, int(share * room))
    if disk == "m":  # the checkpoint alone lies elsewhere
        (tmp_path / "large").mkdir()
        (tmp_path / "models" / "m" / "checkpoint").symlink_to(tmp_path / "large")
    assert main([*TRAIN, str(packed.path), "--out", "m", "--epochs", str(EPOCHS)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: the disk is full (models/{full}): free some space; resume with: alexnet train --resume --out m"
    )
    assert temporary_files(tmp_path) == []
    checkpoint.read_state(tmp_path / "models" / "m")
    small_disk(tmp_path / "models" / disk, 50_000)
    assert main(["train", "--resume", "--out", "m"]) == 0
    assert trained(tmp_path / "models" / "m") == whole.fingerprint
    assert temporary_files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(packed, small_disk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_disk(tmp_path / "models", 1000, "ro")
    words = [*TRAIN, str(packed.path), "--out", "m", "--epochs", "1"]
    assert main(words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: models/m: Read-only file system"
    small_disk(tmp_path / "models", 50_000, "rw")
    assert main(words) == 0
    small_disk(tmp_path / "models", 50_000, "ro")
    assert main(["train", "--resume", "--out", "m", "--epochs", "2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: models/m/.alexnet.lock: Read-only file system; resume with: alexnet train --resume --out m"
    )
    assert main(["export", "m"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: models/m/model.onnx: Read-only file system"
