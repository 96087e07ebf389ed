"""What the user sees on a terminal of 60 columns, and off a terminal."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from alexnet_cli.bars import detail_lines
from alexnet_cli.console import JsonArray, fail, percent, show_json, show_table
from alexnet_cli.data.store import Dataset

COLUMNS = 60
DETAIL = "loss 6.908  top-1 error 99.9%  1234 images/s  learning rate 0.00013  2 h 10 min left at most"


def drawn_on_a_terminal(program: str, code: int = 0) -> str:
    """All that ``program``, which exits with ``code``, writes on a terminal of 60 columns."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 20, COLUMNS, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    run = subprocess.Popen(
        [sys.executable, "-c", program], stdout=inside, stderr=inside, env=environment | {"TERM": "xterm-256color"}
    )
    os.close(inside)
    drawn = b""
    try:
        while part := os.read(terminal, 65536):
            drawn += part
    except OSError:
        pass  # Linux reports the end of a terminal's output as an error
    finally:
        os.close(terminal)
    assert run.wait() == code
    return drawn.decode()


def lines_on_a_terminal(program: str) -> list[str]:
    """Every line that ``program`` draws on a terminal of 60 columns, those that it draws over later as well."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn_on_a_terminal(program))
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


@pytest.mark.parametrize("task", ["epoch 12/90", "embedding the training images"])
def test_a_bar_and_its_detail_fit_60_columns(task: str) -> None:
    lines = lines_on_a_terminal(
        "from alexnet_cli.console import Console\n"
        "console = Console()\n"
        f"for done in (640_000, 1_281_167): console.advance({task!r}, done, 1_281_167, {DETAIL!r})\n"
        "console.note('after')\n"
    )
    assert max(map(len, lines)) <= COLUMNS
    bars = [line for line in lines if line.startswith(task)]
    assert re.fullmatch(rf"{task} [━╸╺]+ +1,281,167/1,281,167 0:00:00", bars[-1])
    below = lines.index("  loss 6.908  top-1 error 99.9%  1234 images/s")
    assert lines[below + 1] == "  learning rate 0.00013  2 h 10 min left at most"
    assert lines[-2:] == ["after", ""]


def test_a_note_with_its_detail_fits_60_columns() -> None:
    program = (
        "from alexnet_cli.console import Console\n"
        "Console().note('epoch 36: loss 0.0780  training error 2.5%', "
        "'validation error 17.3%  learning rate 0.00013  117 images/s')\n"
    )
    assert lines_on_a_terminal(program) == [
        "epoch 36: loss 0.0780  training error 2.5%",
        "  validation error 17.3%  learning rate 0.00013",
        "  117 images/s",
        "",
    ]


def test_detail_breaks_only_at_double_spaces() -> None:
    assert detail_lines("top-1 error 10.0%  5 images/s", 60) == ["  top-1 error 10.0%  5 images/s"]
    assert detail_lines("top-1 error 10.0%  5 images/s", 25) == ["  top-1 error 10.0%", "  5 images/s"]


def test_cells_of_a_table_fold_at_60_columns() -> None:
    path = "train/n02102040/" + "a-long-name-" * 6 + "688.JPEG"
    lines = lines_on_a_terminal(
        "from alexnet_cli.console import show_table\n"
        f"show_table('nearest to x.jpg', ['', 'distance', 'picture'], [['1', '14.65', {path!r}]])\n"
    )
    assert max(map(len, lines)) <= COLUMNS
    assert not any("…" in line for line in lines)
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines if line.startswith("│")]
    assert rows[0][:2] == ["1", "14.65"]
    assert "".join(row[-1] for row in rows) == path


def test_a_table_in_a_pipe_is_wide_and_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "photos/:cat:/[bold]/" + "x" * 100 + ".jpg"
    show_table("", ["picture", "class"], [[name, ":dog:"]])
    printed = capsys.readouterr().out
    assert name in printed
    assert ":dog:" in printed


def test_a_note_above_a_bar_shows_names_as_they_are() -> None:
    lines = lines_on_a_terminal(
        "from alexnet_cli.console import Console\n"
        "console = Console()\n"
        "console.advance('packing', 1, 2)\n"
        "console.note('refused photos/:cat:/[bold].jpg')\n"
        "console.close()\n"
    )
    assert "refused photos/:cat:/[bold].jpg" in lines


def test_an_error_stands_below_the_bars_and_the_cursor_comes_back(packed: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed.path, tmp_path / "colours"))
    with open(folder / "val.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes(1))
    program = f"from alexnet_cli.commands import main; raise SystemExit(main(['info', '--verify', {str(folder)!r}]))"
    drawn = drawn_on_a_terminal(program, code=1)
    assert "checking" in drawn
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert drawn.count(hidden) == drawn.count(shown) == 1
    assert drawn.index("checking") < drawn.rindex(shown) < drawn.index("error: ")
    assert drawn.endswith(": prep the dataset again\r\n")


def test_an_error_names_its_rank(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail("the reason")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        fail("the reason")
    assert capsys.readouterr().err == "error: the reason\nerror: the reason\nerror (rank 1): the reason\n"


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(1.0, "100.0 %"), (0.428, "42.8 %"), (0.0012, "0.12 %"), (0.0001, "0.01 %"), (3e-7, "< 0.01 %"), (0.0, "0.0 %")],
)
def test_a_probability_in_per_cent(probability: float, shown: str) -> None:
    assert percent(probability) == shown


def test_json_that_waits_on_disk_is_that_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"path": "photos/é\n\udcff.jpg", "classes": [0.5, None]}, "x" * (1 << 21), []]
    for content in (items, []):
        array = JsonArray()
        for item in content:
            array.append(item)
        show_json({"model": "m", "answers": array, "failed": [1]})
        printed = capsys.readouterr().out
        show_json({"model": "m", "answers": content, "failed": [1]})
        assert printed == capsys.readouterr().out
        assert printed.count("\n") == 1
