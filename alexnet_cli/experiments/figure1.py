"""Figure 1: how many epochs a four-layer net needs to 25 % training error on CIFAR-10, with ReLU and with tanh."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import Diverged
from alexnet_cli.experiments.report import Report
from alexnet_cli.files import atomic_write
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options
from alexnet_cli.wording import duration

TARGET = 0.25  # training error
NETS = ("figure-1-relu", "figure-1-tanh")
RATES = (0.01, 0.003, 0.001, 0.0003)
EARLY = 5  # epochs, after which the better rates go first: each runs for at most as long as the best so far took
PUBLISHED_RATIO = 6.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One net trained at one learning rate."""

    net: str
    rate: float
    seed: int
    errors: list[float]  # training error of each epoch, measured while training
    diverged: bool = False
    seconds: float = 0.0  # of its training

    @property
    def epochs(self) -> float | None:
        """Epochs to TARGET, linearly interpolated between two epochs; None if it was not reached."""
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
    """Train both nets at every learning rate, then with more seeds at the rate at which each is fastest.

    As in the paper, each net has the learning rate at which it is fastest, and there is no regularization.
    ``settings`` are `section.key=value` lines that apply to both recipes; ``epochs`` is the most that a trial may take.
    A trial that ``folder`` already has is not repeated, except that one that diverged goes on from its last checkpoint,
    and diverges again. Raises what `train` raises, except Diverged: that a learning rate is too high is a result.
    """
    recipe_of = {net: recipes.load(net, list(settings)) for net in NETS}
    trials: list[Trial] = []
    runs: list[Trial] = []  # the early ones too
    for net, recipe in recipe_of.items():
        limit = epochs or recipe.training.epochs
        shortest = limit

        def run(recipe: Recipe, rate: float, seed: int, epochs: int, limit: int = limit) -> Trial:
            progress.note(_so_far(runs, len(NETS) * (2 * len(RATES) + seeds - 1), limit))
            runs.append(_run_trial(recipe, rate, seed, epochs, dataset, folder, options, progress))
            return runs[-1]

        early = [run(recipe, rate, 0, min(EARLY, limit)) for rate in RATES]
        for rate in [trial.rate for trial in sorted(early, key=lambda trial: min(trial.errors, default=1.0))]:
            trial = run(recipe, rate, 0, shortest)
            trials.append(trial)
            if trial.epochs is not None:
                shortest = min(shortest, len(trial.errors))
        rate = _fastest_rate(trials, net)
        for seed in range(1, seeds):
            trials.append(run(recipe, rate, seed, limit))
    _draw(trials, folder / "figure-1.png")
    report = _report(trials, dataset, command)
    report.write(folder, recipe_of)
    return report


def _run_trial(
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
        recipe = recipe.with_training(learning_rate=rate, epochs=epochs)
        until = partial(_is_decided, limit=epochs)
        train(dataset, recipe, run, seed=seed, options=options, until=until, progress=progress)
    except Diverged as error:
        progress.note(str(error).split(":")[0])
        diverged = True
    # The folder may hold more epochs, of a command with a larger --epochs.
    history = _history(run)[:epochs]
    errors, seconds = [row["train_error"] for row in history], sum(row["seconds"] for row in history)
    return Trial(net=net, rate=rate, seed=seed, errors=errors, diverged=diverged, seconds=seconds)


def _so_far(before: Sequence[Trial], total: int, limit: int) -> str:
    """Which of ``total`` runs comes next, and how long those that are left take if each has ``limit`` epochs."""
    text, epochs = f"run {len(before) + 1} of {total}", sum(len(trial.errors) for trial in before)
    if not epochs:
        return text
    left = (total - len(before)) * limit * sum(trial.seconds for trial in before) / epochs
    return f"{text}, at most {duration(left)} left"


def _is_decided(errors: list[float], limit: int) -> bool:
    """Whether TARGET is reached, or will not be within ``limit`` epochs even at the pace of the later half of them.

    That is safe to say early: a training error falls more slowly from epoch to epoch. Over fewer epochs than half of
    all, though, the pace would be that of chance.
    """
    if not errors or errors[-1] <= TARGET:
        return bool(errors)
    if len(errors) < EARLY:
        return False
    half = len(errors) // 2
    pace = (errors[-1 - half] - errors[-1]) / half
    return errors[-1] - pace * (limit - len(errors)) > TARGET


def _history(run: Path) -> list[dict[str, Any]]:
    """A row for each epoch of a run."""
    return checkpoint.read_state(run).history if (run / CHECKPOINT_FILE).exists() else []


def _fastest_rate(trials: Sequence[Trial], net: str) -> float:
    """The learning rate that took the fewest epochs to TARGET; if none reached it, the one that came nearest."""

    def slowness(trial: Trial) -> tuple[float, float]:
        return (trial.epochs or float("inf"), min(trial.errors, default=1.0))

    return min((trial for trial in trials if trial.net == net), key=slowness).rate


def _report(trials: Sequence[Trial], dataset: Dataset, command: str) -> Report:
    rows, epochs_of = [], {}
    for net in NETS:
        fastest = _fastest_rate(trials, net)
        for rate in sorted({trial.rate for trial in trials if trial.net == net}):
            same = [trial for trial in trials if trial.net == net and trial.rate == rate]
            rows.append([net, f"{rate:g}" + (" (chosen)" if rate == fastest else ""), str(len(same)), _summary(same)])
        epochs_of[net] = [trial.epochs for trial in trials if trial.net == net and trial.rate == fastest]
    reached = {net: [count for count in counts if count is not None] for net, counts in epochs_of.items()}
    facts: dict[str, Any] = {"epochs_to_25_percent": epochs_of, "ratio": None, "published_ratio": PUBLISHED_RATIO}
    facts["runs"] = [
        {"net": t.net, "rate": t.rate, "seed": t.seed, "epochs": t.epochs, "errors": t.errors} for t in trials
    ]
    if all(reached.values()):
        facts["ratio"], facts["standard_error"] = _ratio(reached["figure-1-tanh"], reached["figure-1-relu"])
        error = "" if facts["standard_error"] is None else f" ± {facts['standard_error']:.1f}"
        rows.append(["tanh / ReLU", "", "", f"{facts['ratio']:.1f}{error} times as many epochs (published: 6)"])
    pictures = dataset.counts["train"]
    note = (
        f"Epochs until the training error, measured while training, is {TARGET:.0%}; {pictures:,} training pictures of "
        f"dataset {dataset.name} (CIFAR-10 has 50,000). The nets are the layers of cuda-convnet's net of 19 % (recipes "
        "figure-1-relu, figure-1-tanh), without weight decay or crops; the paper does not say which four-layer net it "
        "used. A rate is given up once the pace of its later half of epochs is too slow to beat the best so far. "
        "Epochs are mean ± standard deviation over seeds, of which the first also chose the rate; the ratio has its "
        "standard error."
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


def _ratio(some: Sequence[float], others: Sequence[float]) -> tuple[float, float | None]:
    """Of two means over seeds, and its standard error; None if one of them has a single seed."""
    ratio = statistics.mean(some) / statistics.mean(others)
    if min(len(some), len(others)) < 2:
        return ratio, None
    squares = (statistics.variance(each) / len(each) / statistics.mean(each) ** 2 for each in (some, others))
    return ratio, ratio * float(sum(squares) ** 0.5)


def _summary(trials: Sequence[Trial]) -> str:
    """Mean and standard deviation of the epochs to TARGET of one net at one rate, or why there are none."""
    reached = [trial.epochs for trial in trials if trial.epochs is not None]
    if reached:
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.mean(reached):.1f}{spread}"
    if any(trial.diverged for trial in trials):
        return f"diverged in epoch {len(trials[0].errors) + 1}"
    return f"not in {len(trials[0].errors)} ({100 * trials[0].errors[-1]:.0f} % there)"


def _draw(trials: Sequence[Trial], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for net, colour, style in zip(NETS, ("tab:blue", "tab:orange"), ("-", "--"), strict=True):
        fastest = _fastest_rate(trials, net)
        for trial in (trial for trial in trials if trial.net == net and trial.errors):
            best = trial.rate == fastest
            label = f"{net}, learning rate {fastest:g}" if best and trial.seed == 0 else None
            x, y = range(1, len(trial.errors) + 1), [100 * error for error in trial.errors]
            axes.plot(x, y, style, color=colour, linewidth=2 if best else 0.8, alpha=1 if best else 0.45, label=label)
    axes.axhline(100 * TARGET, color="gray", linewidth=0.8)
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 90), title="thin: other learning rates")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
