"""Queries of `alexnet search` and `alexnet predict` that are no pictures, alone and among others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_index import error_of
from test_search import answer

from alexnet_cli.commands import main


def test_a_query_that_is_no_picture(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.jpg").write_text("hello")
    for command in ("search", "predict"):
        for bad, reason in (("gone.jpg", "no such file"), ("photos", "a folder"), ("text.jpg", "not a picture")):
            assert error_of(command, bad, capsys=capsys).startswith(f"{bad}: {reason}")
    shutil.rmtree("indexes")
    assert error_of("search", "photos/dog/2.png", capsys=capsys) == (
        "no index in indexes yet: make one with `alexnet index`, or name one"
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
        "error: 2 of 4 pictures could not be read\n"
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
    assert err.endswith("error: 2 of 2 pictures could not be read\n")
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
