"""Folders that are splits are found by any usual name; what is not clear is asked, and the answer given works."""

from pathlib import Path

import pytest
from pictures import encoded, files, pixels, write_folder, write_zip
from test_sources import count, listed

from alexnet_cli.commands import main
from alexnet_cli.data.layouts.splits import looks_like_split, split_of
from alexnet_cli.errors import BadSource
from alexnet_cli.retrieval.collection import labels


def picture(name: str) -> dict[str, bytes]:
    return {name: encoded(pixels(len(name)))}


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "TRAINING", "trainset", "TrainingSet"]),
        ("val", ["val", "Val", "valid", "validation", "VALIDATION", "valset"]),
        ("test", ["test", "Testing", "testset"]),
        (None, ["training_set", "my-val", "trains", "eval", "cats", "valley", "contest", ""]),
    ],
)
def test_the_split_of_a_folder(split: str | None, names: list[str]) -> None:
    assert {split_of(name) for name in names} == {split}


def test_names_that_look_like_splits() -> None:
    for name in ("training_set", "my-val", "Validation images", "dev", "eval", "hold-out", "TrainImages", "train2017"):
        assert looks_like_split(name), name
    for name in ("trains", "valley", "contest", "protest", "devil", "cats"):
        assert not looks_like_split(name), name


@pytest.mark.parametrize(
    ("train", "val"),
    [("training", "validation"), ("Train", "Val"), ("train", "valid"), ("TRAIN", "VALIDATION"), ("trainset", "valset")],
)
@pytest.mark.parametrize("wrapper", ["", "photos/"])
def test_usual_names_of_splits(train: str, val: str, wrapper: str, tmp_path: Path) -> None:
    content = files(count=3, prefix=f"{wrapper}{train}/") | files(count=2, prefix=f"{wrapper}{val}/")
    content |= files(count=1, prefix=f"{wrapper}Testing/")
    listing = listed(write_zip(tmp_path / "s.zip", content))
    counts = {"train": 3, "val": 2, "test": 1}
    assert count(listing) == {(split, c): n for c in ("cats", "dogs") for split, n in counts.items()}
    assert all("fewer than 10 pictures" in note for note in listing.notes)


def test_folders_beside_splits_that_look_like_none_are_left_out_with_a_note(tmp_path: Path) -> None:
    content = files(prefix="train/") | files(count=2, prefix="val/") | picture("extras/1.png")
    listing = listed(write_folder(tmp_path / "s", content))
    assert listing.notes[0] == "1 pictures outside train/ and val/ are left out: extras/1.png"


def test_a_class_may_be_called_like_a_split_among_others(tmp_path: Path) -> None:
    content = files(("test-tube", "flask", "beaker"), 2)
    assert listed(write_folder(tmp_path / "s", content)).classes == ["beaker", "flask", "test-tube"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/a", "val/a", "my-val/a"],
            "in s, my-val/ may be a split: rename to train, val or test, or move out",
        ),
        (
            ["training/a", "hold-out/a"],
            "in s, hold-out/ may be a split: rename to train, val or test, or move out",
        ),
        (
            ["training_set/a", "test_set/a"],
            "in s, test_set/ and training_set/ may be splits: rename to train, val or test, or, if they are classes, "
            "move into a new folder train",
        ),
        (
            ["train/a", "Training/a", "val/a"],
            "in s, Training/ and train/ are the same split: move all into one folder train",
        ),
        (
            ["train", "bus", "car", "tram", "bike"],
            "in s, is train/ beside bike/, bus/, car/ and 1 more a split or a class? "
            "If a split, move the others out; if a class, move all into a new folder train",
        ),
        (
            ["wrap/test", "wrap/bus"],
            "in s/wrap, is test/ beside bus/ a split or a class? "
            "If a split, move the others out; if a class, move all into a new folder train",
        ),
        (
            ["cats/train", "cats/val", "dogs/train", "dogs/val"],
            "in s, the splits are inside the class folders (cats/train): swap the two",
        ),
        (["val/a"], "no training pictures: there is val/, but no folder train"),
    ],
)
def test_what_is_not_clear_is_asked(
    folders: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {f"{folder}/{i}.png": encoded(pixels(i)) for folder in folders for i in range(2)}
    write_folder(Path("s"), content)
    assert main(["prep", "s", "--size", "16"]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not any(Path("data").glob("*"))


def test_the_advice_works(tmp_path: Path) -> None:
    vehicles = write_folder(tmp_path / "vehicles", files(("train", "bus", "car"), 4))
    with pytest.raises(BadSource, match="move all into a new folder train"):
        listed(vehicles)
    folders = list(vehicles.iterdir())
    (vehicles / "new").mkdir()
    for folder in folders:
        folder.rename(vehicles / "new" / folder.name)
    (vehicles / "new").rename(vehicles / "train")
    assert listed(vehicles).classes == ["bus", "car", "train"]
    sets = write_folder(tmp_path / "sets", files(prefix="training_set/") | files(count=2, prefix="test_set/"))
    with pytest.raises(BadSource, match="rename to train, val or test"):
        listed(sets)
    (sets / "training_set").rename(sets / "train")
    (sets / "test_set").rename(sets / "val")
    assert count(listed(sets)) == {(s, c): n for c in ("cats", "dogs") for s, n in (("train", 5), ("val", 2))}


def test_a_message_names_a_split_as_its_folder_is_called(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", files(prefix="Training/"))
    (source / "Validation").mkdir()
    with pytest.raises(BadSource, match=r"^no pictures in Validation/: add some, or remove the folder$"):
        listed(source)
    write_folder(source, files(prefix="Validation/"))
    (source / "Training" / "cows").mkdir()
    assert listed(source).notes[0] == "no pictures in 1 class folder: Training/cows"


def test_labels_of_an_index_skip_splits() -> None:
    assert labels(["Training/cat/1.png", "validation/dog/2.png"]) == ["cat", "dog"]
    assert labels(["p/TRAIN/cat/1.png", "p/Test/cat/2.png", "p/valid/dog/2.png"]) == ["cat", "cat", "dog"]
    assert labels(["train/1.png", "bus/2.png"]) == ["train", "bus"]


def test_of_one_class_nothing_is_held_out(tmp_path, capsys) -> None:
    write_folder(tmp_path / "one", {f"cats/{i}.png": encoded(pixels(i, 16, 16)) for i in range(40)})
    assert main(["prep", str(tmp_path / "one"), "--size", "16", "--workspace", str(tmp_path)]) == 0
    assert "40 train pictures, 1 class, 0 rejected" in capsys.readouterr().out
