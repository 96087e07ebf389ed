"""Figure 1: how many epochs a four-layer net needs to 25 % training error on CIFAR-10, with ReLU and with tanh."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.data.sample import Sample
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import Diverged
from alexnet_cli.experiments.report import Report
from alexnet_cli.figures.canvas import SUFFIXES, Size, drawing
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options
from alexnet_cli.wording import duration

TARGET = 0.25  # training error
NETS = ("figure-1-relu", "figure-1-tanh")
RATES = (0.03, 0.01, 0.003, 0.001, 0.0003)
EARLY = 5  # epochs, after which the better rates go first: each runs for at most as long as the best so far took
PUBLISHED_RATIO = 6.0
COLOURS = {"figure-1-relu": "tab:blue", "figure-1-tanh": "tab:orange"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What figure 1 is measured by."""

    rates: Mapping[str, Sequence[float]]  # net -> learning rates to try
    target: float = TARGET  # training error
    pictures: int | None = None  # of the dataset's training pictures; None: all
    epochs: int | None = None  # that a trial may take; None: as many as the recipe has
    seeds: int = 3


# For a lesson: some ten minutes on two cores of a laptop, that is about 900,000 pictures at 1,500 a second.
QUICK = Plan(
    rates={"figure-1-relu": (0.003,), "figure-1-tanh": (0.01,)},  # the best on all of CIFAR-10 (docs/reproduction.md)
    # On all of CIFAR-10 tanh is at 40 % after 3,300 updates, and at 25 % after 18,000, which takes half an hour.
    target=0.4,
    pictures=10_000,  # 79 updates an epoch: enough points for two curves
    epochs=60,  # 4,740 updates
    seeds=1,
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One net trained at one learning rate."""

    net: str
    rate: float
    seed: int
    errors: list[float]  # training error of each epoch, measured while training
    diverged: bool = False
    seconds: float = 0.0  # of its training
    target: float = TARGET

    @property
    def epochs(self) -> float | None:
        """Epochs to the target, linearly interpolated between two epochs; None if it was not reached."""
        before = 1.0
        for epoch, error in enumerate(self.errors):
            if error <= self.target:
                return epoch + (before - self.target) / (before - error)
            before = error
        return None


def figure1(
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    settings: Sequence[str] = (),
    plan: Plan = Plan(rates=dict.fromkeys(NETS, RATES)),
    options: Options = Options(),
    size: Size = Size.page,
    progress: Progress = SILENT,
) -> Report:
    """Train both nets at every learning rate of ``plan``, then with more seeds at the rate at which each is fastest.

    As in the paper, each net has the learning rate at which it is fastest, and there is no regularization.
    ``settings`` are `section.key=value` lines that apply to both recipes; ``size`` is that of the figure. A trial that
    ``folder`` already has is not repeated, except that one that diverged goes on from its last checkpoint, and diverges
    again. Raises what `train` raises, except Diverged: that a learning rate is too high is a result.
    """
    recipe_of = {net: recipes.load(net, list(settings)) for net in NETS}
    used = dataset if plan.pictures is None else Sample.of(dataset, plan.pictures)
    trials: list[Trial] = []
    runs: list[Trial] = []  # the early ones too
    trained: list[str] = []  # of these, the ones that were not complete already
    total = sum((2 * len(rates) if len(rates) > 1 else 1) + plan.seeds - 1 for rates in plan.rates.values())
    for net, recipe in recipe_of.items():
        limit = plan.epochs or recipe.training.epochs
        shortest, rates = limit, plan.rates[net]

        def run(recipe: Recipe, rate: float, seed: int, epochs: int, limit: int = limit) -> Trial:
            name = f"{recipe.name}-{rate:g}-{seed}"
            if not _is_complete(folder / "runs" / name, epochs, plan.target):
                trained.append(name)
                progress.note(_so_far(runs, len(trained), total - len(runs) + len(trained) - 1, limit))
            runs.append(_run_trial(recipe, rate, seed, epochs, used, folder, options, progress, plan.target))
            return runs[-1]

        if len(rates) > 1:
            early = [run(recipe, rate, 0, min(EARLY, limit)) for rate in rates]
            rates = [trial.rate for trial in sorted(early, key=lambda trial: min(trial.errors, default=1.0))]
        for rate in rates:
            trial = run(recipe, rate, 0, shortest)
            trials.append(trial)
            if trial.epochs is not None:
                shortest = min(shortest, len(trial.errors))
        rate = _fastest_rate(trials, net)
        for seed in range(1, plan.seeds):
            trials.append(run(recipe, rate, seed, limit))
    title = f"Figure 1: ReLU against tanh on {dataset.name}"
    if used is not dataset:
        title += f", quick version on {used.counts['train']:,} pictures"
    files = [folder / f"figure-1{suffix}" for suffix in SUFFIXES]
    for file in files:
        _draw(trials, plan.target, 1 - 1 / len(dataset.classes), title, file, size)
    report = _report(trials, used, dataset, plan, title, command, [file.name for file in files])
    chosen = {net: _fastest_rate(trials, net) for net in recipe_of}
    report.write(folder, {net: one.with_training(learning_rate=chosen[net]) for net, one in recipe_of.items()})
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
    target: float = TARGET,
) -> Trial:
    net = recipe.name
    run = folder / "runs" / f"{net}-{rate:g}-{seed}"
    progress.note(f"{net}, learning rate {rate:g}, seed {seed}")
    diverged = False
    try:
        recipe = recipe.with_training(learning_rate=rate, epochs=epochs)
        until = partial(_is_decided, limit=epochs, target=target)
        train(dataset, recipe, run, seed=seed, options=options, until=until, progress=progress)
    except Diverged as error:
        progress.note(str(error).split(":")[0])
        diverged = True
    # The folder may hold more epochs, of a command with a larger --epochs.
    history = _history(run)[:epochs]
    errors, seconds = [row["train_error"] for row in history], sum(row["seconds"] for row in history)
    return Trial(net=net, rate=rate, seed=seed, errors=errors, diverged=diverged, seconds=seconds, target=target)


def _so_far(before: Sequence[Trial], number: int, total: int, limit: int) -> str:
    """Which of ``total`` runs comes next, and how long those that are left take if each has ``limit`` epochs."""
    text, epochs = f"run {number} of {total}", sum(len(trial.errors) for trial in before)
    if not epochs:
        return text
    left = (total - number + 1) * limit * sum(trial.seconds for trial in before) / epochs
    return f"{text}, at most {duration(left)} left"


def _is_decided(errors: list[float], limit: int, target: float = TARGET) -> bool:
    """Whether ``target`` is reached, or will not be within ``limit`` epochs even at the pace of the later half of them.

    That is safe to say early: a training error falls more slowly from epoch to epoch. Over fewer epochs than half of
    all, though, the pace would be that of chance.
    """
    if not errors or errors[-1] <= target:
        return bool(errors)
    if len(errors) < EARLY:
        return False
    half = len(errors) // 2
    pace = (errors[-1 - half] - errors[-1]) / half
    return errors[-1] - pace * (limit - len(errors)) > target


def _is_complete(run: Path, epochs: int, target: float) -> bool:
    """Whether the trial in the folder ``run`` needs no more training. One that diverged is not complete."""
    errors = [row["train_error"] for row in _history(run)]
    return len(errors) >= epochs or _is_decided(errors, epochs, target)


def _history(run: Path) -> list[dict[str, Any]]:
    """A row for each epoch of a run."""
    return checkpoint.read_state(run).history if (run / CHECKPOINT_FILE).exists() else []


def _fastest_rate(trials: Sequence[Trial], net: str) -> float:
    """The learning rate that took the fewest epochs to the target; if none reached it, the one that came nearest."""

    def slowness(trial: Trial) -> tuple[float, float]:
        return (trial.epochs or float("inf"), min(trial.errors, default=1.0))

    return min((trial for trial in trials if trial.net == net), key=slowness).rate


def _report(
    trials: Sequence[Trial],
    used: Dataset,
    dataset: Dataset,
    plan: Plan,
    title: str,
    command: str,
    figures: list[str],
) -> Report:
    rows, epochs_of = [], {}
    for net in NETS:
        fastest = _fastest_rate(trials, net)
        for rate in sorted({trial.rate for trial in trials if trial.net == net}):
            same = [trial for trial in trials if trial.net == net and trial.rate == rate]
            rows.append([net, f"{rate:g}" + (" (chosen)" if rate == fastest else ""), str(len(same)), _summary(same)])
        epochs_of[net] = [trial.epochs for trial in trials if trial.net == net and trial.rate == fastest]
    reached = {net: [count for count in counts if count is not None] for net, counts in epochs_of.items()}
    target = f"{100 * plan.target:.0f}"
    facts: dict[str, Any] = {f"epochs_to_{target}_percent": epochs_of, "ratio": None}
    facts["published_ratio"] = PUBLISHED_RATIO  # to 25 %
    facts["runs"] = [
        {"net": t.net, "rate": t.rate, "seed": t.seed, "epochs": t.epochs, "errors": t.errors} for t in trials
    ]
    if all(reached.values()):
        facts["ratio"], facts["standard_error"] = _ratio(reached["figure-1-tanh"], reached["figure-1-relu"])
        error = "" if facts["standard_error"] is None else f" ± {facts['standard_error']:.1f}"
        published = "published: 6" + ("" if plan.target == TARGET else f", to {100 * TARGET:.0f} %")
        rows.append(["tanh / ReLU", "", "", f"{facts['ratio']:.1f}{error} times as many epochs ({published})"])
    quick = ""
    if used is not dataset:
        quick = (
            f"A quick version, for a lesson: {used.counts['train']:,} of the {dataset.counts['train']:,} training "
            "pictures, and for each net the one learning rate that was best on all of CIFAR-10. "
        )
    if plan.target != TARGET:
        quick += (
            f"The target is {target} % instead of the paper's {100 * TARGET:.0f} %, so the ratio is not the paper's. "
        )
    spread = (
        " Epochs are mean ± standard deviation over seeds, of which the first also chose the rate; the ratio has its "
        "standard error."
    )
    note = (
        f"{quick}Epochs until the training error, measured while training, is {target} %; {used.counts['train']:,} "
        f"training pictures of dataset {dataset.name} (CIFAR-10 has 50,000). The nets are the layers of cuda-convnet's "
        "net of 19 % (recipes figure-1-relu, figure-1-tanh), without weight decay or crops; the paper does not say "
        "which four-layer net it used. A rate is given up once the pace of its later half of epochs is too slow to "
        f"reach the target, or to beat the best so far.{spread if plan.seeds > 1 else ''}"
    )
    columns = ["net", "learning rate", "runs", f"epochs to {target} % training error"]
    return Report(
        name="figure-1",
        title=title,
        columns=columns,
        rows=rows,
        note=note,
        command=command,
        facts=facts,
        figures=figures,
    )


def _ratio(some: Sequence[float], others: Sequence[float]) -> tuple[float, float | None]:
    """Of two means over seeds, and its standard error; None if one of them has a single seed."""
    ratio = statistics.mean(some) / statistics.mean(others)
    if min(len(some), len(others)) < 2:
        return ratio, None
    squares = (statistics.variance(each) / len(each) / statistics.mean(each) ** 2 for each in (some, others))
    return ratio, ratio * float(sum(squares) ** 0.5)


def _summary(trials: Sequence[Trial]) -> str:
    """Mean and standard deviation of the epochs to the target of one net at one rate, or why there are none."""
    reached = [trial.epochs for trial in trials if trial.epochs is not None]
    if reached:
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.mean(reached):.1f}{spread}"
    if any(trial.diverged for trial in trials):
        return f"diverged in epoch {len(trials[0].errors) + 1}"
    return f"not in {len(trials[0].errors)} ({100 * trials[0].errors[-1]:.0f} % there)"


def _draw(
    trials: Sequence[Trial], target: float, chance: float, title: str, path: Path, size: Size = Size.page
) -> None:
    with drawing(path, size, height=6.0) as figure:
        axes = figure.subplots()
        for net, colour in COLOURS.items():
            fastest, width = _fastest_rate(trials, net), 2.5 if size is Size.page else 4
            for trial in (trial for trial in trials if trial.net == net and trial.errors):
                x, y = range(1, len(trial.errors) + 1), [100 * error for error in trial.errors]
                if trial.rate == fastest:
                    label = f"{net}, learning rate {fastest:g}" if trial.seed == 0 else None
                    axes.plot(x, y, color=colour, linewidth=width, marker=".", label=label)
                else:
                    label = f"{net}, other learning rates" if trial.rate == _others(trials, net)[0] else None
                    axes.plot(x, y, ":", color=colour, linewidth=width / 2, label=label)
        axes.axhline(100 * chance, color="gray", ls="--", label=f"chance, {100 * chance:.0f} %")
        axes.axhline(100 * target, color="black", ls="-.", label=f"target, {100 * target:.0f} %")
        axes.set(xlabel="epochs", ylabel="training error, %", xlim=(0, None), ylim=(0, 100), title=title)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3 if size is Size.page else 2)


def _others(trials: Sequence[Trial], net: str) -> list[float]:
    """The learning rates of ``net`` that were tried and not chosen."""
    rates = {trial.rate for trial in trials if trial.net == net and trial.errors}
    return sorted(rates - {_fastest_rate(trials, net)})
