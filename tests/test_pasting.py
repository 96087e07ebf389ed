"""Every command that is printed can be pasted: the chain, by nothing but the commands that the last one printed."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import NARROW, SIZE
from training_runs import terminated_after_the_start

from alexnet_cli.commands import main

COMMAND = re.compile(r"(?:: |`)(alexnet [^`\n]*)")
SPACE = '../it\'s my "work" #1'
SETTINGS = ["--recipe", "small-data", *(word for line in NARROW for word in ("--set", line)), "--epochs", "1"]
EXTRA = {"prep": ["--size", str(SIZE), "--workers", "1"], "train": SETTINGS, "eval": ["--views", "1"]}  # to be quick


class Shell:
    """Runs commands, and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.printed = capsys, ""

    def run(self, *words: str, code: int = 0) -> list[str]:
        """The commands that it prints, in order."""
        self.capsys.readouterr()
        assert main(list(words)) == code
        out, err = self.capsys.readouterr()
        self.printed += out + err
        return COMMAND.findall(err + out)

    def paste(self, command: str, code: int = 0, **placeholders: object) -> list[str]:
        """Run a ``command`` that was printed, with values for words such as PICTURE."""
        _, name, *words = [str(placeholders.get(word, word)) for word in shlex.split(command)]
        return self.run(name, *words, *([] if "--resume" in words else EXTRA.get(name, [])), code=code)


def test_the_chain_by_pasting(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shell, space = Shell(capsys), ["--workspace", SPACE]
    # What is missing is made by the command in the error.
    assert len(shell.run("info", "nothing", *space, code=1)) == 1
    train, _import_torchvision = shell.run("eval", *space, code=1)
    (prep,) = shell.paste(train, code=1)
    (train,) = shell.paste(prep, FOLDER=source)
    with terminated_after_the_start(tmp_path):
        (resume,) = shell.paste(train, code=130)
    (evaluate,) = shell.paste(resume)
    (index,) = shell.paste(evaluate)
    assert shell.run("export", *space) == [index]
    (search,) = shell.paste(index)
    picture = source / "val" / "red" / "00.png"
    assert shell.paste(search, PICTURE=picture) == []
    assert shell.run("predict", str(picture), *space) == []
    (remedy,) = shell.run("search", str(picture), "--workspace", "../other", code=1)
    assert remedy == "alexnet index FOLDER --workspace ../other"
    assert sorted(path.name for path in Path(SPACE).iterdir()) == ["data", "indexes", "models"]
    assert list(Path().iterdir()) == []  # nothing in the current folder
    assert not re.search(r"\b1 (pictures|epochs|classes|images|views)\b", shell.printed)


def test_a_run_that_moved_its_dataset_is_resumed_with_it(
    packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").symlink_to(packed.path.parent)
    shell = Shell(capsys)
    words = ["train", "there/colours", "--out", "m", *SETTINGS]
    with terminated_after_the_start(tmp_path):
        shell.run(*words, code=130)
    (tmp_path / "there").rename(tmp_path / "my data")
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_cli.training.trainer.Trainer.epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        (resume,) = shell.run("train", "my data/colours", "--resume", "--out", "m", code=130)
    assert resume == "alexnet train 'my data/colours' --resume --out m"
    assert shell.paste(resume) == [f"alexnet eval m --data {packed.path}"]
