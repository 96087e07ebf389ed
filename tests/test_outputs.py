"""Files that a user names: tables, figures, pages."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.outputs import write_csv, write_output


def test_every_line_break_in_a_cell_is_quoted(tmp_path):
    rows = [["a\rb", "c\nd", 'e"f', ","]]
    with write_csv(tmp_path / "t.csv", list("wxyz")) as write:
        for row in rows:
            write(row)
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == rows


def test_a_file_that_the_user_named_may_be_a_link(tmp_path):
    target, link = tmp_path / "elsewhere" / "a.csv", tmp_path / "link.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    left = target.parent / ".a.99999999-abcdef01.part.csv"
    left.write_bytes(b"of a killed run")
    for content in ("first", "second"):
        with write_output(link) as temporary:
            temporary.write_text(content)
        assert target.read_text() == content
    assert link.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--csv", "a.jpg", "b.jpg"], "a.jpg: a table is a .csv file, for example a.csv"),
        (["search", "-k", "1", "--csv", "a.jpg", "b.jpg"], "a.jpg: a table is a .csv file, for example a.csv"),
        (["duplicates", "--csv", "a.jpg"], "a.jpg: a table is a .csv file, for example a.csv"),
        (["search", "--html", "a.jpg", "b.jpg"], "a.jpg: a page is a .html or .htm file, for example a.html"),
        (["search", "--sheet", "a.jpg", "b.jpg"], "a.jpg: a contact sheet is a .png file, for example a.png"),
        (["search", "--sheet", "p.png", "b.jpg"], "p.png is a picture that alexnet did not draw: name another file"),
        (
            ["features", "--out", "a.jpg", "b.jpg"],
            "a.jpg: a file of features is a .npy or .csv file, for example a.npy",
        ),
        (["visualize", "kernels", "--out", "p.png"], "p.png is a picture that alexnet did not draw: name another file"),
        (["visualize", "kernels"], "kernels.png is a picture that alexnet did not draw: name another file"),
        (["visualize", "maps", "p.png", "--layer", "conv1"], "maps-conv1-steps.png is a picture that alexnet did not"),
        (["visualize", "kernels", "--out", ""], ".: a figure is a .png or .svg file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_no_photograph_is_overwritten(exported_folder, tmp_path, monkeypatch, capsys, words, message):
    """A photograph in the place of a file to write, as where a flag is expected: `--csv *.jpg`."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/m").symlink_to(exported_folder)
    names = ("a.jpg", "b.jpg", "p.png", "kernels.png", "maps-conv1-steps.png")
    for name in names:
        Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(name)
    before = [Path(name).read_bytes() for name in names]
    assert main(words) == 1
    assert message in capsys.readouterr().err
    assert [Path(name).read_bytes() for name in names] == before


@pytest.mark.parametrize("name", ["k.png", "k.svg"])
def test_what_was_drawn_here_is_drawn_again(exported_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()  # as `mktemp` leaves it
    for _ in range(2):
        assert main(["visualize", "kernels", "--model", str(exported_folder), "--out", name]) == 0
        assert Path(name).stat().st_size
