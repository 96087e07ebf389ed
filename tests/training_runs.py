"""What the tests of training share: how a run is stopped, and how two runs are compared."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from conftest import NARROW

from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.model import Model
from alexnet_cli.progress import Progress

TRAIN = ["train", "--recipe", "small-data", *(word for line in NARROW for word in ("--set", line))]
TIMES = ("seconds", "images_per_second")


class Listener(Progress):
    """Keeps notes, and at the n-th step asks the process to end."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.steps, self.stop_at = 0, stop_at

    def note(self, text: str, detail: str = "") -> None:
        self.notes.append(f"{text}  {detail}" if detail else text)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if task.startswith("epoch"):
            self.steps += 1
            if self.steps == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def terminated_after_the_start(folder: Path) -> Iterator[None]:
    """Sends this process SIGTERM once the run in ``folder`` (or the first below it) has its first checkpoint."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            if next(folder.rglob(CHECKPOINT_FILE), None):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def history(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def same_weights(one: Model, other: Model) -> bool:
    pairs = zip(one.net.state_dict().items(), other.net.state_dict().items(), strict=True)
    return all(name == also and torch.equal(a, b) for (name, a), (also, b) in pairs)


def temporary_files(folder: Path) -> list[Path]:
    """Hidden files in ``folder`` and below: locks and what is half written."""
    return [path for path in folder.rglob(".*") if path.is_file()]
