"""Learning curves of a run."""

from pathlib import Path
from typing import Any

from alexnet_cli.files import atomic_write


def draw_curves(history: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Loss, training and validation error, and learning rate against epochs, as PNG.

    The training error is measured during training, on augmented views and with dropout, so it can exceed the validation
    error.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(11, 3.6))
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    # A layout that measures all texts first would take twice as long, in every epoch of a short run.
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.14, top=0.82, wspace=0.28)
    loss, error, rate = figure.subplots(1, 3)
    loss.plot(epochs, [row["loss"] for row in history], marker=".", color="tab:blue")
    loss.set(title="training loss", xlabel="epoch", ylim=(0, None))
    error.plot(epochs, [100 * row["train_error"] for row in history], marker=".", label="training (augmented, dropout)")
    if "validation_error" in history[0]:
        error.plot(epochs, [100 * row["validation_error"] for row in history], marker=".", label="validation, one view")
    error.set(title="top-1 error, %", xlabel="epoch", ylim=(0, None))
    error.legend()
    rates = [row["learning_rate"] or float("nan") for row in history]  # 0, the end of "linear", has no logarithm
    rate.plot(epochs, rates, marker=".", color="tab:green")
    rate.set(title="learning rate", xlabel="epoch", yscale="log")
    rate.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    rate.yaxis.set_major_formatter("{x:g}")
    rate.yaxis.set_minor_formatter(NullFormatter())
    for axes in (loss, error, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
