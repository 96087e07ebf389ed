"""`visualize curves`: what is drawn are the rows of history.jsonl, with chance as a line."""

import json
from pathlib import Path

import pytest
from conftest import save_untrained
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.figures.canvas import Size
from alexnet_cli.training import curves

ROWS = [
    {"epoch": i, "loss": 2 / i, "train_error": 0.8 / i, "validation_error": 0.7 / i, "learning_rate": 0.01 * (2 - i)}
    for i in (1, 2)
]


@pytest.fixture
def model(packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return save_untrained(packed, Path("models/m"))


def test_the_curves_are_the_history_with_chance_as_a_line(tmp_path, figures):
    curves.draw_curves(ROWS, tmp_path / "c.svg", Size.slide, title="m", chance=2 / 3)
    loss, error, _ = figures[0].axes
    assert list(loss.lines[0].get_ydata()) == [2, 1]
    shown = {line.get_label(): list(line.get_ydata()) for line in error.lines}
    assert shown == {
        "chance, 66.7 %": pytest.approx([200 / 3, 200 / 3]),
        "training": [80, 40],
        "validation, one view": pytest.approx([70, 35]),
    }
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == list(shown)


def test_curves_for_a_projector(model, capsys):
    (model / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert main(["visualize", "curves", "--size", "slide", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": ["curves.png"], "model": "models/m"}
    assert Image.open("curves.png").size == (1920, 1080)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "models/m has no history.jsonl: only a model that was trained here has learning curves"),
        ("", "models/m/history.jsonl has no epoch yet"),
        ("{", "models/m/history.jsonl is damaged (Expecting property name"),
    ],
)
def test_what_has_no_curves_is_said_in_one_line(content, expected, model, capsys):
    if content is not None:
        (model / "history.jsonl").write_text(content)
    assert main(["visualize", "curves"]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it stands which model is drawn
    assert line.startswith(f"error: {expected}")
    assert not Path("curves.png").exists()
