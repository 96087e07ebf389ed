"""Figure 1: how many epochs a four-layer net needs to 25 % training error on CIFAR-10, with ReLU and with tanh."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE, atomic_write
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import Diverged
from alexnet_cli.experiments.report import Report
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options

TARGET = 0.25  # training error
NETS = ("cifar-relu", "cifar-tanh")
RATES = (0.003, 0.01, 0.001, 0.03)  # likely ones first: none is tried for longer than the best so far has taken
PUBLISHED_RATIO = 6.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One net trained at one learning rate."""

    net: str
    rate: float
    seed: int
    errors: list[float]  # training error of each epoch, measured while training
    diverged: bool = False

    @property
    def epochs(self) -> float | None:
        """Epochs to TARGET, between two by a straight line; None if it was not reached."""
        before = 1.0
        for epoch, error in enumerate(self.errors):
            if error <= TARGET:
                return epoch + (before - TARGET) / (before - error)
            before = error
        return None


def figure1(
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    settings: Sequence[str] = (),
    seeds: int = 3,
    epochs: int | None = None,
    options: Options = Options(),
    progress: Progress = SILENT,
) -> Report:
    """Train both nets at every learning rate, then with more seeds at the rate with which each is fastest.

    As in the paper, the rates of the two are chosen independently, to be as fast as possible, and there is no
    regularization. ``settings``: `section.key=value` on top of both recipes; ``epochs``: at most. Runs that are done
    already are not run again.
    Raises what `train` raises, but for Diverged: a rate too high is a result.
    """
    recipe_of = {net: recipes.load(net, list(settings)) for net in NETS}
    runs: list[Trial] = []
    for net, recipe in recipe_of.items():
        most = limit = epochs or recipe.training.epochs
        for rate in RATES:
            run = _try(recipe, rate, 0, most, dataset, folder, options, progress)
            runs.append(run)
            if run.epochs is not None:
                most = min(most, len(run.errors))
        rate = _fastest(runs, net)
        runs += [_try(recipe, rate, seed, limit, dataset, folder, options, progress) for seed in range(1, seeds)]
    _draw(runs, folder / "figure-1.png")
    report = _report(runs, dataset, command)
    report.write(folder, recipe_of)
    return report


def _try(
    recipe: Recipe,
    rate: float,
    seed: int,
    epochs: int,
    dataset: Dataset,
    folder: Path,
    options: Options,
    progress: Progress,
) -> Trial:
    net = recipe.name
    run = folder / "runs" / f"{net}-{rate:g}-{seed}"
    progress.note(f"{net}, learning rate {rate:g}, seed {seed}")
    diverged = False
    try:
        tried = recipe.with_training(learning_rate=rate, epochs=epochs)
        train(dataset, tried, run, seed=seed, options=options, until=_enough, progress=progress)
    except Diverged as error:
        progress.note(str(error).split(":")[0])
        diverged = True
    return Trial(net=net, rate=rate, seed=seed, errors=_errors(run), diverged=diverged)


def _enough(errors: list[float]) -> bool:
    """The target is reached, or it never will be: after five epochs a net that learns has left 85 % behind."""
    return bool(errors) and (errors[-1] <= TARGET or (len(errors) >= 5 and errors[-1] > 0.85))


def _errors(run: Path) -> list[float]:
    if not (run / CHECKPOINT_FILE).exists():
        return []
    return [row["train_error"] for row in checkpoint.read_state(run).history]


def _fastest(runs: Sequence[Trial], net: str) -> float:
    """The learning rate that took the fewest epochs to TARGET, or came nearest to it."""

    def slowness(run: Trial) -> tuple[float, float]:
        return (run.epochs or float("inf"), min(run.errors, default=1.0))

    return min((run for run in runs if run.net == net), key=slowness).rate


def _report(runs: Sequence[Trial], dataset: Dataset, command: str) -> Report:
    rows, chosen = [], {}
    for net in NETS:
        rate = _fastest(runs, net)
        for one in sorted({run.rate for run in runs if run.net == net}):
            same = [run for run in runs if run.net == net and run.rate == one]
            rows.append([net, f"{one:g}" + (" (chosen)" if one == rate else ""), str(len(same)), _summary(same)])
        chosen[net] = [run.epochs for run in runs if run.net == net and run.rate == rate]
    known = {net: [epochs for epochs in found if epochs is not None] for net, found in chosen.items()}
    facts: dict[str, Any] = {"epochs_to_25_percent": chosen, "ratio": None, "published_ratio": PUBLISHED_RATIO}
    facts["runs"] = [
        {"net": r.net, "rate": r.rate, "seed": r.seed, "epochs": r.epochs, "errors": r.errors} for r in runs
    ]
    if all(known.values()):
        facts["ratio"] = statistics.mean(known["cifar-tanh"]) / statistics.mean(known["cifar-relu"])
        rows.append(["tanh / ReLU", "", "", f"{facts['ratio']:.1f} times as many epochs (published: 6)"])
    pictures = dataset.counts["train"]
    note = (
        f"Epochs until the training error, measured while training, is {TARGET:.0%}; {pictures:,} training pictures of "
        f"dataset {dataset.name} (CIFAR-10 has 50,000), four-layer nets without regularization whose sizes are ours: "
        "the paper does not give them. A rate is tried for no more epochs than the best before it took."
    )
    columns = ["net", "learning rate", "runs", "epochs to 25 % training error"]
    title = "Figure 1: ReLU against tanh on CIFAR-10"
    return Report(
        name="figure-1",
        title=title,
        columns=columns,
        rows=rows,
        note=note,
        command=command,
        facts=facts,
        figures=["figure-1.png"],
    )


def _summary(runs: Sequence[Trial]) -> str:
    """Epochs to TARGET of the runs of one net at one rate, or why there are none."""
    reached = [run.epochs for run in runs if run.epochs is not None]
    if reached:
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.mean(reached):.1f}{spread}"
    if any(run.diverged for run in runs):
        return f"diverged in epoch {len(runs[0].errors) + 1}"
    return f"not in {len(runs[0].errors)} ({100 * runs[0].errors[-1]:.0f} % there)"


def _draw(runs: Sequence[Trial], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for net, colour, style in zip(NETS, ("tab:blue", "tab:orange"), ("-", "--"), strict=True):
        rate = _fastest(runs, net)
        for run in (run for run in runs if run.net == net and run.errors):
            best = run.rate == rate
            label = f"{net}, learning rate {rate:g}" if best and run.seed == 0 else None
            x, y = range(1, len(run.errors) + 1), [100 * error for error in run.errors]
            axes.plot(x, y, style, color=colour, linewidth=2 if best else 0.8, alpha=1 if best else 0.45, label=label)
    axes.axhline(100 * TARGET, color="gray", linewidth=0.8)
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 90), title="thin: other learning rates")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
