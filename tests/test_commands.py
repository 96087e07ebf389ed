"""What holds of every command: help with an example, a place in the README, exit codes, light imports; the wheel."""

import errno
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from pictures import files, write_folder

from alexnet_cli.commands import COMMANDS, build_app, common, main
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import AlexNetError
from alexnet_cli.workspace import Workspace

ROOT = Path(__file__).parent.parent
RECIPES = import_module("alexnet_cli.commands.recipes")
HEAVY = ("torch", "torchvision", "faiss", "onnxruntime", "onnx", "numpy", "PIL", "matplotlib", "scipy", "rich")


def test_the_commands_are_those_of_the_design():
    assert {"prep", "train", "eval", "export", "predict", "index", "search", "recipes", "info", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(command, capsys):
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"Example: alexnet {command}\b", said)
    assert "--json" in said
    (arguments,) = re.findall(rf"Usage: .* {command} \[OPTIONS\](.*)", said)
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `alexnet ")]
    assert any(f"`alexnet {command}{arguments}`" in row for row in rows)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_60_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main([*command.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert not any(line.endswith("...") for line in lines[1:])  # no description is cut off
    if command:
        (example,) = re.findall(r"Example: (.*)", COMMANDS[command].__doc__)
        assert f"  Example: {example}" in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_the_help_can_be_parsed(command):
    (example,) = re.findall(r"Example: alexnet (.*)", COMMANDS[command].__doc__)
    program = typer.main.get_command(build_app(COMMANDS))
    name, *words = shlex.split(example)
    with program.commands[name].make_context(name, words) as context:
        assert context.params


def test_another_command_is_one_function_in_the_table(capsys):
    def count(things: list[str], as_json: common.JsonOption = False) -> None:
        """Count things.

        Example: alexnet count 1 2
        """
        show_json({"things": len(things)}) if as_json else show(f"{len(things)} things")

    app = build_app({**COMMANDS, "count": count})
    assert main(["count", "--help"], app) == 0
    assert "Example: alexnet count 1 2" in capsys.readouterr().out
    assert main(["count", "a", "b", "--json"], app) == 0
    assert capsys.readouterr().out == '{"things": 2}\n'
    assert main(["count", "a"], app) == 0
    assert capsys.readouterr().out == "1 things\n"
    assert main(["count"], app) == 2


def test_a_command_for_the_user_is_quoted_and_names_the_workspace():
    assert common.command_line("eval", "photos-tiny") == "alexnet eval photos-tiny"
    printed = common.command_line("eval", "a model", workspace=Path("my photos"))
    assert printed == "alexnet eval 'a model' --workspace 'my photos'"


def test_the_next_command_can_be_pasted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("p"), files())
    space = ["--workspace", "my work"]
    assert main(["prep", "p", "--size", "8", "--workers", "1", *space]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "Next: alexnet train p --workspace 'my work'"
    assert main([*shlex.split(last)[2:], "--set", "a.b=1"]) == 1  # the dataset is found: only the setting is wrong
    assert "dataset" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    program = (
        f"import sys; from alexnet_cli.commands import main; main({arguments!r}); "
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("HEAVY []")


def test_importing_the_package_imports_nothing_heavy():
    program = f"import sys, alexnet_cli; print([name for name in {(*HEAVY, 'typer')!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["train", "--nonsense"], ["search"], ["reproduce"], ["eval", "--views", "3"]]
)
def test_wrong_usage_exits_2_with_one_line(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no dataset in {0}/data yet: make one with `alexnet prep FOLDER --workspace {0}`, or name"),
        (["eval"], "no model in {0}/models yet: make one with `alexnet train --workspace {0}`, or name one"),
        (["export"], "no model in {0}/models yet: make one with `alexnet train --workspace {0}`, or name one"),
        (["search", "x.jpg"], "no index in {0}/indexes yet: make one with `alexnet index --workspace {0}`, or name"),
        (
            ["train", "--recipe", "papr", "data"],
            "no dataset 'data': there is neither data/dataset.json nor {0}/data/data/dataset.json",
        ),
        (["info", "nothing"], "nothing is no dataset, model, index or .onnx file: `alexnet prep --help` tells how to"),
        (["eval", "no.onnx"], "no file no.onnx: make one with `alexnet export --workspace {0}`"),
        (["prep", "nowhere"], "no folder or archive at nowhere"),
    ],
)
def test_what_is_missing_is_one_line_that_says_what_to_do(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--workspace", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message.format(tmp_path)}")
    assert said.count("\n") == 1


def test_the_newest_artefact_is_taken_where_none_is_named(tmp_path):
    import os

    for age, name in ((30, "new"), (20, "newest"), (40, "old")):
        marker = tmp_path / "models" / name / "model.safetensors"
        marker.parent.mkdir(parents=True)
        marker.touch()
        os.utime(marker, (1e9 - age, 1e9 - age))
    (tmp_path / "models" / "unfinished").mkdir()
    space = Workspace(tmp_path)
    assert space.find("model", None).name == "newest"
    assert space.find("model", "old").name == "old"
    assert space.find("model", str(tmp_path / "models" / "new")).name == "new"


def test_a_path_that_exists_means_that_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "data/photos", "models/net", "net"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data" / "photos" / "dataset.json").touch()
    space = Workspace(Path("."))
    assert space.find_pictures("photos") == Path("photos")
    assert space.find("dataset", "photos") == Path("data/photos")  # the folder of pictures is no dataset
    (tmp_path / "photos").rmdir()
    assert space.find_pictures("photos") == Path("data/photos")
    for folder in ("models/net", "net"):
        (tmp_path / folder / "model.safetensors").touch()
    assert space.find("model", "net") == Path("net")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a/"])
def test_a_new_artefact_has_a_plain_name(name, tmp_path):
    message = f"{name!r} is not a name for an index: it becomes a folder in indexes/, so give a plain name"
    with pytest.raises(AlexNetError) as error:
        Workspace(tmp_path).new("index", name)
    assert str(error.value) == message


def test_unforeseen_errors_are_one_line_unless_debugging(monkeypatch, capsys):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(RECIPES, "show_json", broken)
    assert main(["recipes", "--json"]) == 1
    assert capsys.readouterr().err == (
        "error: unexpected ZeroDivisionError: by zero (run again with --debug for the traceback)\n"
    )
    with pytest.raises(ZeroDivisionError):
        main(["recipes", "--json", "--debug"])


def test_a_full_disk_is_said_plainly(monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "data/x")

    monkeypatch.setattr(RECIPES, "show_json", full)
    assert main(["recipes", "--json"]) == 1
    expected = "error: the disk is full (data/x): free some space and run the command again\n"
    assert capsys.readouterr().err == expected


def test_ctrl_c_exits_130(monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RECIPES, "show_json", interrupted)
    assert main(["recipes", "--json"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_wheel_works_without_the_checkout(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    assert (place / "alexnet_cli" / "py.typed").exists()
    assert (place / "bin" / "alexnet").exists()
    program = (
        f"import sys; sys.path.insert(0, {str(place)!r}); import alexnet_cli; print(alexnet_cli.__file__); "
        "from alexnet_cli.commands import main; sys.exit(main(['recipes']))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(str(place))
    assert re.search(r"paper +│ 60,965,224 │ the network and the training of the 2012 paper", run.stdout)
