"""What a command says last can be pasted, or says what to fill in."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import NARROW, SIZE, save_untrained
from pictures import encoded, write_folder

from alexnet_cli.commands import common, main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.model import Model
from alexnet_cli.workspace import Workspace

SMALL = [word for line in [*NARROW, "training.epochs=1"] for word in ("--set", line)]
TRAIN = ["train", "--recipe", "small-data", "--device", "cpu", *SMALL]
FILL_IN = "Next, with the folder of your pictures for FOLDER: "


def dataset_of(folder: Path, size: int) -> None:
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"image_size": size, "classes": ["a", "b"]}))


def test_words_to_fill_in_are_told_in_place_of_a_command_to_paste():
    assert common.next_line("eval", "m") == "Next: alexnet eval m"
    assert common.next_line("search", Path("PICTURE"), workspace=Path("w")) == (
        "Next, with a picture for PICTURE: alexnet search PICTURE --workspace w"
    )


def test_what_a_model_can_index_comes_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = Workspace(Path("."))
    assert common.next_index("m", 256, space) == FILL_IN + "alexnet index FOLDER --model m"
    dataset_of(Path("data/photos"), 256)
    assert common.next_index("m", 32, space) == FILL_IN + "alexnet index FOLDER --model m"
    assert common.next_index("m", 256, space) == "Next: alexnet index --model m"
    dataset_of(Path("data/small"), 32)
    assert common.next_index("m", 256, space) == "Next: alexnet index photos --model m"
    Path("indexes/photos").mkdir(parents=True)
    Path("indexes/photos/index.json").write_text(json.dumps({"model": "m"}))
    assert common.next_index("m", 256, space) == "Next: alexnet index photos --model m"
    assert common.next_index("other", 256, space) == "Next: alexnet index photos --model other --out photos-2"


def test_pictures_of_one_class_need_a_model_first(tmp_path, packed, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("three"), {f"{i}.png": encoded(packed.split("train").read([i])[0]) for i in range(3)})
    assert main(["prep", "three", "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "one class: not to train on, but to search, with a model: import one, then `alexnet index data/three`",
        "Next: alexnet import torchvision",
    ]
    assert main(["index", "data/three"]) == 1
    said = "error: no model in models yet: make one with `alexnet import torchvision`, or name one\n"
    assert capsys.readouterr().err == said
    save_untrained(packed, Path("models/m"))
    assert main(["prep", "three", "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["Next: alexnet index data/three"]
    assert main(["index", "data/three", "--model", "torchvision"]) == 1
    assert "; models has m; make one with `alexnet " in capsys.readouterr().err


def test_a_folder_in_the_place_of_a_dataset_is_to_be_packed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my pictures").mkdir()
    assert main(["train", "my pictures"]) == 1
    assert "; make one with `alexnet prep 'my pictures'`" in capsys.readouterr().err


def test_a_model_indexes_what_it_was_trained_on(tmp_path, packed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/its own").symlink_to(packed.path)
    Path("models").mkdir()
    untrained = Model.load(save_untrained(packed, Path("untrained")))
    replace(untrained, provenance={"dataset": packed.fingerprint}).save(Path("models/m"))
    dataset_of(Path("data/newer"), SIZE)
    assert Workspace(Path(".")).dataset_of_size(SIZE) == Path("data/newer")
    source = packed.source["absolute"]
    assert common.next_index("m", SIZE, Workspace(Path("."))) == f"Next: alexnet index {source} --model m"
    monkeypatch.chdir(Path(source).parent)  # all of its pictures, and not only those of a split
    assert common.next_index("m", SIZE, Workspace(tmp_path)) == (
        f"Next: alexnet index colours --model m --workspace {tmp_path}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Workspace, "folder_of", lambda *_: None)  # packed from an archive, or the folder is gone
    assert common.next_index("m", SIZE, Workspace(Path("."))) == "Next: alexnet index 'its own' --model m"
    Path("its own").mkdir()  # `index` would take a folder of that name
    assert common.next_index("m", SIZE, Workspace(Path("."))) == "Next: alexnet index 'data/its own' --model m"


@pytest.mark.parametrize("words", [["train", "unter", "--resume"], ["train", "unter"]], ids=" ".join)
def test_an_unfinished_model_in_the_place_of_a_dataset(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state = Path("models/unter/checkpoint/state.safetensors")
    state.parent.mkdir(parents=True)
    state.touch()
    assert main(words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: unter is no dataset, but an unfinished model: resume with: alexnet train --resume --out unter"
    )


def test_a_model_without_its_option(capsys):
    assert main(["visualize", "curves", "m"]) == 2
    assert "a model is named by --model m" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["Mein Lauf", "./models/Mein Lauf"])
def test_a_run_that_was_stopped_is_resumed_before_it_is_used(named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = Path("models/Mein Lauf/checkpoint/state.safetensors")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    for words in (["eval", named], ["predict", "a.png", "--model", named], ["visualize", "kernels", "--model", named]):
        assert main(words) == 1
        assert capsys.readouterr().err.splitlines()[-1] == (
            "error: models/Mein Lauf is unfinished: resume with: alexnet train --resume --out 'Mein Lauf'"
        )


@pytest.mark.parametrize("where", ["data", "else where"])
def test_a_model_without_validation_pictures_is_used_next(where, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare(source / "train", Path(where) / "tv", size=SIZE, workers=1, val_fraction=0)
    assert main([*TRAIN, f"{where}/tv"]) == 0
    following = capsys.readouterr().out.splitlines()[-1]
    if where == "data":
        assert following == f"Next: alexnet index {source / 'train'} --model tv-small-data"
        assert main(shlex.split(following)[2:]) == 0
    else:
        assert following == FILL_IN + "alexnet index FOLDER --model tv-small-data"
