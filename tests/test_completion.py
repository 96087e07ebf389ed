"""What a shell completes, asked as bash asks."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_cli.recipes import names


@pytest.fixture
def spaces(tmp_path: Path) -> Path:
    """Two workspaces with artefacts that are nothing but their markers."""
    for path in (
        "here/data/photos/dataset.json",
        "here/models/photos-tiny/model.safetensors",
        "here/models/unfinished/checkpoint/state.safetensors",
        "here/indexes/pictures/index.json",
        "there is/models/other/model.safetensors",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    return tmp_path


def completed(line: str, folder: Path) -> tuple[list[str], list[str]]:
    """The completions of the last word of ``line``, and the heavy modules that were imported to find them."""
    program = (
        "import atexit, sys; sys.argv = ['alexnet']\n"
        "heavy = ('torch', 'numpy', 'faiss', 'onnxruntime', 'PIL')\n"
        "atexit.register(lambda: print(*(name for name in heavy if name in sys.modules), file=sys.stderr))\n"
        "from alexnet_cli.commands import main; main()"
    )
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(shlex.split(line + "_")) - 1),
        "_ALEXNET_COMPLETE": "complete_bash",
    }
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env={**os.environ, **asked}, capture_output=True, text=True
    )
    return run.stdout.split(), run.stderr.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alexnet train --recipe cifar-1", [name for name in names() if name.startswith("cifar-1")]),
        ("alexnet recipes ti", ["tiny"]),
        ("alexnet train ", ["photos"]),
        ("alexnet eval ", ["photos-tiny"]),
        ("alexnet eval --workspace ../there\\ is ", ["other"]),
        ("alexnet search x.jpg --index p", ["pictures"]),
        ("alexnet info ", ["photos", "photos-tiny", "pictures"]),
        ("alexnet predict --model q", []),
    ],
)
def test_names_are_completed(line: str, expected: list[str], spaces: Path) -> None:
    words, heavy = completed(line, spaces / "here")
    assert words == expected
    assert heavy == []
