"""`alexnet predict --sort-into`: copies by class, never over a file, never twice."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from onnx_files import write_onnx
from pictures import picture
from test_index import error_of
from test_search import answer

from alexnet_cli.commands import main
from alexnet_cli.sorting import LONGEST, folder_names, safe_name


def tree(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_each_picture_is_copied_into_the_folder_of_its_class(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree("photos")
    printed = answer("predict", "photos", "--sort-into", "out/sorted", capsys=capsys)
    best = {one["path"]: one["classes"][0]["label"] for one in printed["predictions"]}
    assert {one["path"]: Path(one["copy"]).parent.name for one in printed["copies"]} == best
    assert all(one["new"] for one in printed["copies"])
    copies = {one["copy"]: Path(one["path"]).read_bytes() for one in printed["copies"]}
    assert {f"out/sorted/{name}": content for name, content in tree("out/sorted").items()} == copies
    assert len(copies) == 12  # photos/cat/0.png and photos/dog/0.png have one name
    assert Path(printed["copies"][0]["copy"]).stat().st_mtime_ns == Path("photos/cat/0.png").stat().st_mtime_ns
    assert tree("photos") == before


def test_run_again_nothing_is_copied_twice(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer("predict", "photos", "--sort-into", "sorted", capsys=capsys)
    before = tree("sorted")
    again = answer("predict", "photos", "sorted/*", "--sort-into", "sorted", capsys=capsys)
    assert not any(one["new"] for one in again["copies"])
    assert len(again["copies"]) == 24
    assert tree("sorted") == before


def test_another_picture_of_the_same_name_gets_a_number(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(searchable / "one.onnx", classes=["all"])
    for folder in "abc":
        picture(Path(folder, "x.png"), ord(folder))
    shutil.copy("a/x.png", "c/x.png")
    Path("sorted/all").mkdir(parents=True)
    Path("sorted/all/x.png").write_text("mine")
    for _ in range(2):
        answer("predict", "a", "b", "c", "--sort-into", "sorted", "--model", "one.onnx", capsys=capsys)
        expected = {
            "x.png": b"mine",
            "x (2).png": Path("a/x.png").read_bytes(),
            "x (3).png": Path("b/x.png").read_bytes(),
        }
        assert tree("sorted/all") == expected


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_onnx(searchable / "one.onnx", classes=["all"])
    for folder in "ab":
        picture(Path(folder, "x.png"), ord(folder))
    picture(Path("sorted/all/y.png"), 7)
    shutil.copy("sorted/all/y.png", "b/y.png")
    capsys.readouterr()
    words = ["predict", "a", "b", "--sort-into", "sorted", "--model", "one.onnx"]
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "would copy a/x.png to sorted/all/x.png (100.0 %)",
        "would copy b/x.png to sorted/all/x (2).png (100.0 %)",
        "there already: b/y.png as sorted/all/y.png (100.0 %)",
    ]
    assert lines[-1] == "sorted: 2 pictures would be copied, 1 is there already"
    assert list(tree("sorted")) == ["all/y.png"]
    assert main([*words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sorted: 2 pictures copied, 1 is there already"
    assert sorted(tree("sorted/all")) == ["x (2).png", "x.png", "y.png"]


def test_what_is_not_probable_enough_is_unsure(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = answer("predict", "photos", "--sort-into", "sorted", "--at-least", "0.6", capsys=capsys)
    best = {one["path"]: one["classes"][0] for one in printed["predictions"]}
    folders = {one["path"]: Path(one["copy"]).parent.name for one in printed["copies"]}
    assert folders == {path: one["label"] if one["probability"] >= 0.6 else "unsure" for path, one in best.items()}
    assert 0 < Counter(folders.values())["unsure"] < 12


def test_a_bad_picture_does_not_stop_the_others(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/cat/bad.png").write_text("no picture")
    assert main(["predict", "photos", "--sort-into", "sorted"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "sorted: 12 pictures copied, 0 are there already"
    assert err.endswith("error: 1 of 13 pictures could not be read: photos/cat/bad.png\n")
    assert len(tree("sorted")) == 12


def test_a_folder_that_is_a_file(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of("predict", "photos", "--sort-into", "photos/cat/0.png", capsys=capsys)
    assert message == "photos/cat/0.png is a file: name a folder to sort into"


def test_what_a_killed_run_left_is_no_picture(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy has another name until it is whole."""
    import alexnet_cli.sorting as sorting

    def cut_short(picture: Path, path: Path) -> None:
        path.write_bytes(picture.read_bytes()[:10])
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting.shutil, "copyfile", cut_short)
        assert main(["predict", "photos", "--sort-into", "sorted"]) == 130
    assert tree("sorted") == {}


def test_what_another_process_copies_meanwhile_is_not_copied_again(
    searchable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import alexnet_cli.sorting as sorting

    def by_another(picture: Path, path: Path) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.read_bytes() if picture.name != "0.png" else b"another picture")
        monkeypatch.setattr(sorting, "_copy", copy)
        return False

    copy = sorting._copy
    monkeypatch.setattr(sorting, "_copy", by_another)
    assert main(["predict", "photos/cat/1.png", "--sort-into", "sorted"]) == 0
    assert sorted(Path(path).name for path in tree("sorted")) == ["1.png"]
    monkeypatch.setattr(sorting, "_copy", by_another)
    assert main(["predict", "photos/cat/0.png", "--sort-into", "sorted"]) == 0
    assert sorted(Path(path).name for path in tree("sorted")) == ["0 (2).png", "0.png", "1.png"]


def test_what_a_killed_run_left_is_removed(searchable: Path) -> None:
    left = Path("sorted/cat/.1.99999999-abcdef01.part.png")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert main(["predict", "photos/cat/1.png", "--sort-into", "sorted"]) == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("golden retriever", "golden retriever"),
        ("a/b\\c:d*e?f", "a_b_c_d_e_f"),
        ("..", "_"),
        ("../../etc", "_.._etc"),
        ("", "_"),
        (" .hidden. ", "hidden"),
        ("a\nb\x1b", "a_b_"),
        ("CON", "_CON"),
        ("aux.photos", "_aux.photos"),
        ("Krkonoše", "Krkonoše"),
        ("š" * 200, "š" * (LONGEST // 2)),
    ],
)
def test_a_class_becomes_a_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert os.path.basename(name) == name


def test_no_two_classes_share_a_folder() -> None:
    labels = ["n1", "n2", "n3", "n4", "n5", "a/b", "a_b"]
    names = ["crane", "Crane", "unsure", "owl", "owl n4", "a/b", "a_b"]
    folders = folder_names(labels, names)
    assert folders == ["crane n1", "Crane n2", "unsure n3", "owl", "owl n4", "a_b a_b", "a_b a_b (2)"]


def test_copies_that_an_earlier_run_put_elsewhere_are_told(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_onnx(searchable / "one.onnx", classes=["all"])
    for folder in "ab":  # two pictures of one name, and one of another
        picture(Path(folder, "x.png"), ord(folder))
    picture(Path("a/y.png"), 7)
    picture(Path("sorted/mine/y.png"), 8)  # another picture
    words = ["predict", "a", "b", "--sort-into", "sorted", "--model", "one.onnx"]
    answer(*words, capsys=capsys)
    assert main(words) == 0
    assert "another folder" not in capsys.readouterr().err
    Path("sorted/all").rename("sorted/unsure")  # as with a threshold of more than 1
    before = tree("sorted")
    told = (
        "3 pictures also lie in another folder of sorted: "
        "sorted/unsure/x (2).png, sorted/unsure/x.png, sorted/unsure/y.png"
    )
    for options in (["--dry-run"], [], []):
        assert main([*words, *options]) == 0
        assert capsys.readouterr().err.splitlines()[-1] == told
    copies = answer(*words, capsys=capsys)["copies"]
    assert [one["others"] for one in copies] == [[f"sorted/unsure/{name}"] for name in ("x.png", "y.png", "x (2).png")]
    assert before.items() <= tree("sorted").items()
    Path("sorted/unsure/x.png").unlink()
    Path("sorted/unsure/y.png").unlink()
    assert main(words) == 0
    assert "\n1 picture also lies in another folder of sorted: " in capsys.readouterr().err


def test_what_was_sorted_within_its_source_is_not_sorted_again(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        for name in ("photos", "photos/**"):
            copies = answer("predict", name, "--sort-into", "photos/sorted", capsys=capsys)["copies"]
            assert [Path(one["path"]).parent.name for one in copies] == ["cat"] * 6 + ["dog"] * 6
    assert main(["predict", "photos", "--sort-into", "photos/../photos/sorted"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == (
        "left out: 12 pictures in photos/../photos/sorted: sorted already"
    )
    folder = os.path.dirname(copies[0]["copy"])
    for name in (folder, f"{folder}/*"):  # named
        assert answer("predict", name, "--sort-into", "photos/sorted", capsys=capsys)["copies"]
