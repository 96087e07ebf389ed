"""Learning curves of a run."""

import json
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import HISTORY_FILE
from alexnet_cli.errors import BadArtefact, first_line
from alexnet_cli.figures.canvas import Size, drawing


def read_history(folder: Path) -> list[dict[str, Any]]:
    """A row for each epoch of the run in ``folder``. Raises BadArtefact if there is none, or if they are damaged."""
    path = folder / HISTORY_FILE
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)})") from None
    if not rows:
        raise BadArtefact(f"{path} has no epoch yet")
    return rows


def draw_curves(
    history: list[dict[str, Any]], path: Path, size: Size = Size.page, *, title: str, chance: float
) -> None:
    """Loss, training and validation error, and learning rate against epochs.

    ``chance``: the error of a guess, 0 to 1. The training error is measured during training, on augmented views and
    with dropout, so it can exceed the validation error.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    epochs = [row["epoch"] for row in history]
    with drawing(path, size, height=3.6) as figure:
        figure.suptitle(title)
        loss, error, rate = figure.subplots(1, 3)
        loss.plot(epochs, [row["loss"] for row in history], marker=".", color="tab:blue")
        loss.set(title="training loss", xlabel="epoch", ylim=(0, None))
        error.axhline(100 * chance, color="gray", ls="--", label=f"chance, {100 * chance:.3g} %")
        error.plot(epochs, [100 * row["train_error"] for row in history], marker=".", label="training")
        if "validation_error" in history[0]:
            validation = [100 * row["validation_error"] for row in history]
            error.plot(epochs, validation, marker=".", label="validation, one view")
        error.set(title="top-1 error, %", xlabel="epoch", ylim=(0, 100))
        rates = [row["learning_rate"] or float("nan") for row in history]  # 0, the end of "linear", has no logarithm
        rate.plot(epochs, rates, marker=".", color="tab:green")
        rate.set(title="learning rate", xlabel="epoch", yscale="log")
        rate.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        rate.yaxis.set_major_formatter("{x:g}")
        rate.yaxis.set_minor_formatter(NullFormatter())
        for axes in (loss, error, rate):
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        rate.set_xlim(loss.get_xlim())
        figure.legend(loc="outside lower center", ncols=3, title="training: on augmented views, with dropout")
