"""Training runs of a workspace, finished or not, with their histories."""

import json
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import CHECKPOINT_FILE, HISTORY_FILE, MODEL_FILE, RECIPE_FILE
from alexnet_cli.errors import visible
from alexnet_cli.files import LOCK_FILE, open_regular
from alexnet_cli.workspace import Workspace

KEYS = ("epoch", "loss", "train_error", "validation_error", "learning_rate", "seconds")
LONGEST = 200  # letters of a recipe's name that are told
PATIENCE = 3  # times its last epoch that a run may take over the next before it counts as killed
FIRST_EPOCH = 3600.0  # seconds that it may take over the first


def all_runs(space: Workspace) -> list[dict[str, Any]]:
    """Name, state, recipe, number of epochs and history of each run in the workspace, the one that changed last first.

    The state is "training", "finished" or "stopped". A model that was imported is no run.
    """
    runs = []
    for file in space.home("model").glob(f"*/{RECIPE_FILE}"):
        folder = file.parent
        if (folder / HISTORY_FILE).exists() or (folder / CHECKPOINT_FILE).exists() or (folder / LOCK_FILE).exists():
            runs.append(_run(folder))
    return sorted(runs, key=lambda run: (-run["changed"], run["name"]))


def _run(folder: Path) -> dict[str, Any]:
    recipe, history = _recipe(folder), _history(folder)
    changed = max(_time(folder / name) for name in (HISTORY_FILE, RECIPE_FILE, CHECKPOINT_FILE))
    training = recipe.get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    return {
        "name": visible(folder.name),
        "state": _state(folder, changed, history, epochs),
        "recipe": name[:LONGEST] if isinstance(name := recipe.get("name"), str) else "",
        "epochs": epochs if _is_number(epochs) else None,
        "changed": changed,
        "history": history,
    }


def _state(folder: Path, changed: float, history: list[dict[str, Any]], epochs: object) -> str:
    """The lock is not tried: a process that starts to train just then would find it taken.

    A run with a model is finished if its history has all ``epochs``, or if its model is newer than its checkpoint: it
    may end early. A copy of the folder may have other times.
    """
    seconds = history[-1].get("seconds") if history else None
    epoch = seconds if isinstance(seconds, int | float) else FIRST_EPOCH / PATIENCE
    if (folder / LOCK_FILE).exists() and time.time() - changed < PATIENCE * max(epoch, 60):
        return "training"
    is_whole = bool(history) and _is_number(epochs) and history[-1].get("epoch", 0) >= epochs
    is_newer = _time(folder / MODEL_FILE) >= _time(folder / CHECKPOINT_FILE)
    return "finished" if (folder / MODEL_FILE).exists() and (is_whole or is_newer) else "stopped"


def _recipe(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), open(open_regular(folder / RECIPE_FILE), "rb") as file:
        return tomllib.load(file)
    return {}


def _history(folder: Path) -> list[dict[str, Any]]:
    """The rows that can be read, with numbers only."""
    rows = []
    with (
        suppress(OSError, ValueError, RecursionError),
        open(open_regular(folder / HISTORY_FILE), encoding="utf-8") as lines,
    ):
        for line in lines:
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append({key: row[key] for key in KEYS if _is_number(row.get(key))})
    return rows


def _is_number(value: object) -> bool:
    """Whether it is a number that JavaScript reads as a finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _time(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
