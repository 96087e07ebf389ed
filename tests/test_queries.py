"""Queries of `alexnet search` and `alexnet predict` that are no pictures, alone and among others."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import CLASSES
from PIL import Image
from test_index import error_of
from test_search import answer

from alexnet_cli.commands import main
from alexnet_cli.data.inputs import find_inputs
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.inference import predictor
from alexnet_cli.inference.onnx_model import OnnxModel


def test_a_query_that_is_no_picture(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.jpg").write_text("hello")
    for command in ("search", "predict"):
        for bad, reason in (("gone.jpg", "no such file"), ("text.jpg", "not a picture")):
            assert error_of(command, bad, capsys=capsys).startswith(f"{bad}: {reason}")
    shutil.rmtree("indexes")
    assert error_of("search", "photos/dog/2.png", capsys=capsys) == (
        "no index in indexes yet: make one with `alexnet index FOLDER`, or name one"
    )
    assert main(["search"]) == 2


@pytest.mark.parametrize("command", ["search", "predict"])
def test_bad_pictures_do_not_take_the_answers_of_the_others(
    searchable: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.jpg").write_text("hello")
    good, pictures = "photos/dog/2.png", ["gone.jpg", "photos/dog/2.png", "text.jpg", "photos/cat/1.png"]
    failed = [
        {"path": "gone.jpg", "reason": "no such file"},
        {"path": "text.jpg", "reason": "not a picture that can be read"},
    ]
    told = (
        "failed gone.jpg: no such file\nfailed text.jpg: not a picture that can be read\n"
        "error: 2 of 4 pictures could not be read: gone.jpg, text.jpg\n"
    )
    key, results = ("queries", "neighbours") if command == "search" else ("predictions", "classes")
    (alone,) = answer(command, good, capsys=capsys)[key]
    assert main([command, *pictures, "--json"]) == 1
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert [one["path"] for one in printed[key]] == ["photos/dog/2.png", "photos/cat/1.png"]
    assert [one.get("label") for one in printed[key][0][results]] == [one["label"] for one in alone[results]]
    assert printed["failed"] == failed
    assert err.endswith(told)
    assert main([command, *pictures]) == 1
    out, err = capsys.readouterr()
    assert "photos/dog/2.png" in out
    assert "photos/cat/1.png" in out
    assert err.endswith(told)
    assert (
        main([command, "gone.jpg", "text.jpg", "--json", *(["--sheet", "s.png"] if command == "search" else [])]) == 1
    )
    out, err = capsys.readouterr()
    assert (json.loads(out)[key], json.loads(out)["failed"]) == ([], failed)
    assert err.endswith("error: 2 of 2 pictures could not be read: gone.jpg, text.jpg\n")
    assert answer(command, good, capsys=capsys)["failed"] == []


@pytest.mark.parametrize("command", ["predict", "search"])
def test_a_query_whose_name_is_not_utf8(searchable: Path, command: str) -> None:
    """On an output that takes nothing but UTF-8."""
    query = os.fsdecode(b"\xff.png")
    try:
        shutil.copy("photos/cat/0.png", query)
    except OSError:
        pytest.skip("the file system takes no such name")
    for options in (["--json"], *([["--html", "page.html", "--sheet", "sheet.png"]] if command == "search" else [[]])):
        done = subprocess.run(
            [sys.executable, "-m", "alexnet_cli", command, query, *options],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        )
        assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
        assert r"\udcff.png" in done.stdout


def lines_of(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put ``lines`` on standard input."""
    content = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


CATS = [f"photos/cat/{i}.png" for i in range(6)]
DOGS = [f"photos/dog/{i}.png" for i in range(6)]


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("photos/cat/1.png", ["photos/cat/1.png"]),
        ("./photos/cat/1.png", ["photos/cat/1.png"]),
        ("gone.jpg", ["gone.jpg"]),  # told when it is read
        ("photos", CATS + DOGS),
        ("photos/dog/", DOGS),
        ("photos/*/1.png", ["photos/cat/1.png", "photos/dog/1.png"]),
        ("photos/**", CATS + DOGS),
        ("ph*", CATS + DOGS),
        ("photos/cat/[12].png", ["photos/cat/1.png", "photos/cat/2.png"]),
        ("odd/[1].png", ["odd/[1].png"]),  # a file of this name
    ],
)
def test_what_a_name_leads_to(space: Path, name: str, pictures: list[str]) -> None:
    Path("photos/notes.txt").write_text("no picture")
    Path("photos/.hidden").mkdir()
    shutil.copy("photos/cat/0.png", "photos/.hidden/0.png")
    Path("odd").mkdir()
    for file in ("1.png", "[1].png"):
        shutil.copy("photos/cat/0.png", f"odd/{file}")
    found = find_inputs([name])
    assert (found.pictures, found.empty) == (pictures, [])


def test_a_list_holds_files_and_folders(space: Path) -> None:
    lines = [b"photos/dog\n", b"\n", b"photos/cat/1.png\r\n", b"\xff.png"]
    found = find_inputs(["photos/cat/0.png", "-"], lines)
    assert found.pictures == ["photos/cat/0.png", *DOGS, "photos/cat/1.png", os.fsdecode(b"\xff.png")]
    assert len(found) == 9


@pytest.mark.parametrize("command", ["predict", "search"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "no pictures in this folder"),
        ("none/*.jpg", "no picture matches this pattern"),
        ("-", "no paths on standard input: write one a line"),
    ],
)
def test_what_leads_to_no_picture(
    searchable: Path,
    command: str,
    name: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    lines_of(monkeypatch)
    assert error_of(command, name, capsys=capsys) == f"{name}: {reason}"
    lines_of(monkeypatch)
    assert main([command, name, "photos/cat/1.png", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"] == [{"path": name, "reason": reason}]
    assert f"failed {name}: {reason}\n" in err
    assert err.endswith(f"error: 1 of 2 pictures could not be read: {name}\n")


@pytest.mark.parametrize(("command", "key"), [("predict", "predictions"), ("search", "queries")])
def test_folders_patterns_and_lists_are_answered_in_batches(
    searchable: Path,
    command: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(predictor, "BATCH", 5)
    counts, run = list[int](), OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda model, images: counts.append(len(images)) or run(model, images))
    lines_of(monkeypatch, "photos/cat/1.png")
    printed = answer(command, "photos/dog", "photos/cat/[23].png", "-", capsys=capsys)
    assert [one["path"] for one in printed[key]] == [*DOGS, *CATS[2:4], CATS[1]]
    assert counts == [5, 4]


def rows_of(file: str) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_predictions_as_csv(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = answer("predict", "photos", "--top", "2", "--csv", "out/both.csv", capsys=capsys)["predictions"]
    assert main(["predict", "photos", "gone.jpg", "--top", "2", "--csv", "out/classes.csv"]) == 1
    out, err = capsys.readouterr()
    assert out == "wrote out/classes.csv: 12 pictures\n"
    assert err.endswith("failed gone.jpg: no such file\nerror: 1 of 13 pictures could not be read: gone.jpg\n")
    rows = rows_of("out/classes.csv")
    assert list(rows[0]) == ["path", "rank", "label", "name", "probability"]
    wanted = [
        (one["path"], str(rank), best["label"], best["name"], best["probability"])
        for one in expected
        for rank, best in enumerate(one["classes"], 1)
    ]
    assert [(*list(row.values())[:4], float(row["probability"])) for row in rows] == wanted
    assert len(wanted) == 24
    assert Path("out/both.csv").read_bytes() == Path("out/classes.csv").read_bytes()
    assert sorted(os.listdir("out")) == ["both.csv", "classes.csv"]


def test_ten_views_are_averaged(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = OnnxModel.open(Path("models/pets/model.onnx"))
    images = np.stack([model._load(["photos/dog/2.png"])[1][0]])
    (one,) = answer("predict", "photos/dog/2.png", "--views", "10", "--top", "6", capsys=capsys)["predictions"]
    mean = np.mean([model.run(images, view)[0][0] for view in predictor.views_of(10, 32, 28)], axis=0)
    assert {best["label"]: pytest.approx(best["probability"], rel=1e-4) for best in one["classes"]} == dict(
        zip(CLASSES, mean.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "photos", "--top", "0"], "'--top': Input should be greater than or equal to 1"),
        (["predict", "photos", "--views", "3"], "'3' is not one of"),
        (["predict", "photos", "--dry-run"], "--at-least and --dry-run belong to --sort-into FOLDER"),
        (["predict", "photos", "--at-least", "0.5"], "--at-least and --dry-run belong to --sort-into FOLDER"),
        (["predict", "photos", "--sort-into", "s", "--at-least", "50"], "less than or equal to 1"),
        (["predict", "photos", "--csv", "-"], "- is no name for a file: name one such as answers.csv"),
        (["search", "photos", "--csv", "-"], "- is no name for a file: name one such as answers.csv"),
        (["search", "photos", "-k", "0"], "greater than or equal to 1"),
        (["search", "photos", "--max-distance", "-1"], "greater than or equal to 0"),
        (["search", "photos", "--paths", "--json"], "give one of --paths and --json"),
    ],
)
def test_options_that_make_no_sense(
    searchable: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("command", ["predict", "search"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    searchable: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(command, "photos", "--csv", "photos/cat/0.png/x.csv", capsys=capsys)
    assert message.startswith("photos/cat/0.png")


def test_search_within_a_distance(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (query,) = answer("search", "photos/dog/2.png", capsys=capsys)["queries"]
    distances = [one["distance"] for one in query["neighbours"]]
    (near,) = answer("search", "photos/dog/2.png", "--max-distance", str(distances[3]), capsys=capsys)["queries"]
    assert near["neighbours"] == query["neighbours"][:4]
    (itself,) = answer("search", "photos/dog/2.png", "--max-distance", "0.001", capsys=capsys)["queries"]
    assert [one["path"] for one in itself["neighbours"]] == ["photos/dog/2.png"]


def test_search_prints_paths_for_a_pipe(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = answer("search", *CATS[:2], "-k", "3", capsys=capsys)["queries"]
    command = [sys.executable, "-m", "alexnet_cli", "search", *CATS[:2], "-k", "3", "--paths"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == "searching indexes/photos (12 pictures) with model models/pets\n"
    assert done.stdout.splitlines() == [one["path"] for query in queries for one in query["neighbours"]]


@pytest.mark.parametrize("pictures", [CATS[:1], CATS])
def test_a_reader_that_has_read_enough_ends_the_command_quietly(searchable: Path, pictures: list[str]) -> None:
    receiver, sender = os.pipe()
    os.close(receiver)
    command = [sys.executable, "-m", "alexnet_cli", "search", *pictures, "--paths"]
    done = subprocess.run(command, stdout=sender, stderr=subprocess.PIPE, text=True)
    os.close(sender)
    assert (done.returncode, done.stderr) == (0, "searching indexes/photos (12 pictures) with model models/pets\n")


def test_several_pictures_as_one_query(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, pictures = OnnxModel.open(Path("models/pets/model.onnx")), [*CATS[:3], "gone.jpg"]
    assert main(["search", *pictures, "--mean", "--json", "--sheet", "sheet.png"]) == 1
    out, err = capsys.readouterr()
    (query,) = json.loads(out)["queries"]
    assert (query["path"], query["pictures"]) == ("the mean of 3 pictures", CATS[:3])
    mean = model.features(CATS[:3]).mean(axis=0)
    everything = CATS + DOGS
    distances = np.linalg.norm(model.features(everything) - mean, axis=1)
    assert [one["path"] for one in query["neighbours"]] == [everything[i] for i in np.argsort(distances)[:10]]
    np.testing.assert_allclose([one["distance"] for one in query["neighbours"]], np.sort(distances)[:10], rtol=1e-4)
    assert err.endswith("error: 1 of 4 pictures could not be read: gone.jpg\n")
    sheet = np.asarray(Image.open("sheet.png").convert("RGB")).astype(int)
    for i, path in enumerate(CATS[:3]):  # the three pictures, each in a quarter of the query's place
        top, left = 12 + 64 * (i // 2), 12 + 64 * (i % 2)
        small = load_picture(Path(path), 16)
        shown = sheet[top : top + 64, left : left + 64]
        assert np.abs(shown.mean(axis=(0, 1)) - small.mean(axis=(0, 1))).max() < 6, path
    assert (sheet[12 + 64 + 4 : 12 + 128 - 4, 12 + 64 + 4 : 12 + 128 - 4] == 255).all()


def test_search_as_csv(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = answer("search", "photos/cat", "-k", "2", "--csv", "near.csv", capsys=capsys)["queries"]
    rows = rows_of("near.csv")
    assert list(rows[0]) == ["query", "rank", "path", "label", "name", "distance"]
    assert [(row["query"], row["path"], float(row["distance"])) for row in rows] == [
        (query["path"], one["path"], one["distance"]) for query in queries for one in query["neighbours"]
    ]
