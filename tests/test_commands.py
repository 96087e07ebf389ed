"""What holds of every command: help with an example, a place in the README, exit codes, light imports; the wheel."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from pictures import files, write_folder
from safetensors.numpy import save_file

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
    assert main([*command.split(), "--help"]) == 0
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
    words = shlex.split(example)
    for _ in command.split():
        program = program.commands[words.pop(0)]
    with program.make_context(command, words) as context:
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
    assert main(["prep", "p", "--size", "32", "--workers", "1", *space]) == 0
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
        (
            ["eval"],
            "no model in {0}/models yet: make one with `alexnet train --workspace {0}` or "
            "`alexnet import torchvision --workspace {0}`, or name one",
        ),
        (["export"], "no model in {0}/models yet: make one with `alexnet train --workspace {0}` or `alexnet import"),
        (
            ["search", "x.jpg"],
            "no index in {0}/indexes yet: make one with `alexnet index FOLDER --workspace {0}`, or",
        ),
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


def model_of(folder: Path, dataset: str | None, classes: list[str]) -> Path:
    """What says of a model where it comes from."""
    provenance = {"imported": "Caffe"} if dataset is None else {"dataset": dataset}
    header = {"fingerprint": "f", "provenance": json.dumps(provenance), "classes": json.dumps(classes)}
    folder.mkdir(parents=True)
    save_file({"w": np.zeros(1)}, folder / "model.safetensors", header)
    return folder


def dataset_of(folder: Path, fingerprint: str, classes: list[str], age: int) -> Path:
    folder.mkdir(parents=True)
    file = folder / "dataset.json"
    file.write_text(json.dumps({"fingerprint": fingerprint, "classes": classes}))
    os.utime(file, (1e9 - age, 1e9 - age))
    return folder


def test_a_model_goes_with_its_own_dataset_and_a_dataset_with_its_own_model(tmp_path):
    space, (data, models) = Workspace(tmp_path), (tmp_path / "data", tmp_path / "models")
    animals, fruit = ["cat", "dog"], ["fig", "pear"]
    dataset_of(data / "newest", "333", fruit, 0)
    dataset_of(data / "similar", "222", animals, 1)
    dataset_of(data / "own", "111", animals, 2)
    (data / "damaged").mkdir()
    (data / "damaged" / "dataset.json").write_text("{")
    own = model_of(models / "m", "111", animals)
    assert space.dataset_of(own) == space.dataset_of(own / "model.onnx") == data / "own"
    assert space.dataset_of(own, "newest") == data / "newest"
    assert space.dataset_of(tmp_path / "lone.onnx") == data / "damaged"  # which nothing is known of
    assert space.dataset_of(model_of(models / "lost", "999", animals)) == data / "similar"
    imported = model_of(models / "imported", None, ["a"])
    with pytest.raises(AlexNetError) as error:
        space.dataset_of(imported)
    assert str(error.value) == (
        f"no dataset in {data} has the classes of {imported}: `alexnet prep` its pictures, or name a "
        "dataset with --data"
    )
    assert space.dataset_of(imported, of_its_classes=False) == space.all("dataset")[0]
    os.utime(own / "model.safetensors", (1e9, 1e9))  # the oldest model
    assert space.model_of(data / "own") == own
    assert space.model_of(data / "own", "lost") == models / "lost"
    assert space.model_of(tmp_path) == space.model_of(data / "newest") == space.find("model", None) != own
    assert space.imported() == imported


@pytest.mark.parametrize(
    ("place", "arguments", "message"),
    [
        (
            ".",
            ["eval", "demo-tny"],
            "there is neither demo-tny/model.safetensors nor models/demo-tny/model.safetensors; ",
        ),
        ("..", ["eval"], "no model in models yet; my work has one: add --workspace 'my work'"),
        ("..", ["info", "demo-tiny"], "demo-tiny is no dataset, model, index or .onnx file: my work has that"),
        ("photos", ["export", "demo-tiny"], ".. has that: add --workspace .."),
        ("photos", ["export", "models/demo-tiny"], "make one with `alexnet train` or `alexnet import torchvision`"),
    ],
)
def test_an_error_says_where_it_may_be_that_is_not_here(place, arguments, message, tmp_path, monkeypatch, capsys):
    model_of(tmp_path / "my work" / "models" / "demo-tiny", "111", [])
    (tmp_path / "my work" / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "my work" / place)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    if arguments[-1] == "demo-tny":
        assert said.endswith("did you mean 'demo-tiny'?\n")


def test_info_without_a_path_lists_the_workspace(searchable, packed, capsys):
    (searchable / "data").mkdir()
    (searchable / "data" / "colours").symlink_to(packed.path)
    (searchable / "models" / "run" / "checkpoint").mkdir(parents=True)
    (searchable / "models" / "run" / "checkpoint" / "state.safetensors").touch()
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["workspace"] == "."
    assert [(one["kind"], one["name"], one["path"]) for one in told["artefacts"]] == [
        ("dataset", "colours", "data/colours"),
        ("model", "pets", "models/pets"),
        ("index", "photos", "indexes/photos"),
        ("run", "run", "models/run"),
    ]
    dataset, model, index, run = [one["what"] for one in told["artefacts"]]
    assert dataset == "42 train, 21 val pictures of 72 pixels, classes: 3"
    assert model == "damaged, or of another version"  # it has no recipe
    assert index.startswith("12 pictures, model pets, flat, built ")
    assert run == "unfinished training"
    assert main(["info"]) == 0
    assert "│ dataset │ colours │ 42 train, 21 val pictures of 72 pixels" in capsys.readouterr().out
    assert main(["info", "--verify"]) == 2
    assert capsys.readouterr().err.startswith("error: --verify needs a PATH: what to verify (see ")
    assert main(["info", "--workspace", "no where"]) == 0
    expected = (
        "nothing in no where yet: begin with `alexnet import torchvision --workspace 'no where'`, to train with "
        "`alexnet prep FOLDER --workspace 'no where'`, or with `alexnet demo`\n"
    )
    assert capsys.readouterr().out == expected


def test_a_name_that_is_nearly_a_datasets_is_told_so(space, capsys):
    dataset_of(space / "data" / "holidays", "111", ["a"], 0)
    assert main(["index", "holiday", "--model", "m.onnx"]) == 1
    assert capsys.readouterr().err == "error: no folder, archive or dataset 'holiday'; did you mean 'holidays'?\n"


def test_without_arguments_there_is_help(capsys):
    for arguments in ([], ["--debug"]):
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert said.out.startswith("Usage: ")
        assert said.err == ""


def test_wrong_values_are_told_without_the_librarys_words(capsys):
    assert main(["eval", "--views", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: Invalid value for '--views': '3' is not one of '1', '10'")
    assert main(["train", "--gpus", "2", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: give one of --device, --devices and --gpus (see ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["reproduce", "figure1"], "did you mean 'figure-1'?"),
        (["duplicates", "--index", "pics"], "No such option: --index: type INDEX without --index (see "),
        (["duplicates", "--html", "d.html"], "No such option: --html (see "),
        (["export", "--model", "m"], "type MODEL without --model"),
    ],
)
def test_what_was_meant_is_told(words, meant, capsys):
    assert main(words) == 2
    assert meant in capsys.readouterr().err
    assert main(["reproduce", "nothing at all"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_the_beginning_of_a_name_is_enough_to_be_reminded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dataset_of(tmp_path / "data" / "photographs", "111", ["a"], 0)
    assert main(["info", "phot"]) == 1
    said = "error: phot is no dataset, model, index or .onnx file: did you mean 'photographs'?\n"
    assert capsys.readouterr().err == said


def test_a_contact_sheet_is_a_png_file(capsys):
    assert main(["search", "a.png", "--sheet", "new/x.jpg"]) == 1
    assert capsys.readouterr().err == "error: new/x.jpg: a contact sheet is a .png file, for example x.png\n"


def next_after(*words: str, capsys) -> list[str]:
    """What `prep` shows after its first line."""
    capsys.readouterr()
    assert main(["prep", *words, "--workers", "1"]) == 0
    return capsys.readouterr().out.splitlines()[1:]


def test_prep_names_what_makes_the_best_of_a_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("p"), files())
    write_folder(Path("one"), {"a.png": files()["cats/0.png"]})
    few = "8 training pictures are few to learn from alone: "
    assert next_after("p", capsys=capsys) == [
        f"{few}`alexnet import torchvision`, then `alexnet train p --from torchvision` starts from a model that has "
        "seen more",
        "Next: alexnet import torchvision",
    ]
    model_of(Path("models/big net"), None, [])
    assert next_after("p", "q", capsys=capsys) == [
        f"{few}`alexnet train q --from 'big net'` starts from a model that has seen more",
        "Next: alexnet train q --from 'big net'",
    ]
    assert next_after("p", "small", "--size", "32", capsys=capsys) == ["Next: alexnet train small"]
    assert next_after("one", capsys=capsys) == ["Next: alexnet index data/one"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a/"])
def test_a_new_artefact_has_a_plain_name(name, tmp_path):
    message = f"{name!r} is not a name for an index: it becomes a folder in indexes/, so give a plain name"
    with pytest.raises(AlexNetError) as error:
        Workspace(tmp_path).new("index", name)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["-rf", "--help"])
def test_a_new_artefact_has_a_name_that_commands_can_be_given(name, tmp_path):
    with pytest.raises(AlexNetError) as error:
        Workspace(tmp_path).new("model", name)
    assert str(error.value) == f"{name!r} is not a name for a model: it must not begin with -"


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
    page = [file.name for file in (ROOT / "alexnet_cli" / "serving" / "page").iterdir()]
    assert sorted(file.name for file in (place / "alexnet_cli" / "serving" / "page").iterdir()) == sorted(page)
    assert (place / "bin" / "alexnet").exists()
    program = (
        f"import sys; sys.path.insert(0, {str(place)!r}); import alexnet_cli; print(alexnet_cli.__file__); "
        "from alexnet_cli.commands import main; sys.exit(main(['recipes']))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(str(place))
    assert re.search(r"paper +│ +60,965,224 │ the network and the training of the 2012 paper", run.stdout)
