"""Ablations: the error without one part of the network or its training (§3, §4, §7); additions: with one more."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli import recipe as recipes
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadRecipe
from alexnet_cli.experiments.report import Report, measured_once
from alexnet_cli.figures.canvas import SUFFIXES, Size, drawing
from alexnet_cli.inference.evaluation import evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import parameter_count
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.settings import unknown
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options
from alexnet_cli.wording import counted

BASELINE = "baseline"
ABLATIONS = (
    "no-response-norm",
    "non-overlapping-pooling",
    "one-gpu",
    "no-communication",
    "no-colour-noise",
    "no-dropout",
    "tanh",
    "without-conv4",
    "without-conv5",
)
# What `augmentation` adds to a recipe's list: what comes first in it, and what comes last.
GEOMETRY, COLOURS = ("rotation", "shear", "stretch", "scale_jitter"), ("brightness", "contrast")
ADDITIONS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    **{name: ([name], []) for name in GEOMETRY},
    **{name: ([], [name]) for name in COLOURS},
    "geometry": (GEOMETRY, []),
    "geometry-and-colours": (GEOMETRY, COLOURS),
    "standardization": ([], []),  # of [image]
}
SIGNIFICANT = 0.05  # the probability that chance alone makes one such difference in the whole table


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A baseline and recipes that differ from it by one thing each."""

    name: str  # what `alexnet reproduce` calls it
    title: str
    recipes: Mapping[str, Recipe]  # that of BASELINE first
    base: str  # the recipe that all of them are made of
    width: float  # how many times as wide
    has_published: bool  # whether some differences are in the paper or its logs


def ablations(names: Sequence[str], base: str, width: float, settings: Sequence[str], epochs: int | None) -> Comparison:
    """The paper's network, and without one part each. ``names``: some of the ablations; all if there are none.

    ``base`` is a recipe whose differences from `paper` apply to every network, ``width`` multiplies the width of every
    layer, and ``settings`` are `section.key=value` lines that apply to every recipe. Raises BadRecipe.
    """
    return Comparison(
        name="ablations",
        title="Ablations",
        recipes={
            BASELINE: _baseline(_adjusted(variant("paper", base, width), settings, epochs), base),
            **{name: _adjusted(variant(name, base, width), settings, epochs) for name in names or ABLATIONS},
        },
        base=base,
        width=width,
        has_published=True,
    )


def additions(names: Sequence[str], base: str, width: float, settings: Sequence[str], epochs: int | None) -> Comparison:
    """The recipe ``base``, and with one entry more each of what is beyond the paper. The rest as for `ablations`."""
    for name in names:
        if name not in ADDITIONS:
            raise BadRecipe(unknown(name, ADDITIONS, "addition"))
    recipe = _baseline(_adjusted(recipes.load(base).scaled(width), settings, epochs), base)
    return Comparison(
        name="augmentation",
        title="Augmentation and standardization beyond the paper",
        recipes={BASELINE: recipe, **{name: _with(recipe, name) for name in names or ADDITIONS}},
        base=base,
        width=width,
        has_published=False,
    )


def _baseline(recipe: Recipe, base: str) -> Recipe:
    """``recipe``, made of recipe ``base``, as what others are compared with."""
    return replace(recipe, name=BASELINE, description=f"the baseline of a comparison: {base}")


def _with(recipe: Recipe, name: str) -> Recipe:
    """``recipe`` with addition ``name``, which becomes its name."""
    first, last = ADDITIONS[name]
    entries = [*first, *recipe.training.augmentation, *last]
    lines = [f"training.augmentation={json.dumps(entries)}"] if first or last else ["image.standardize=true"]
    return replace(recipes.adjust(recipe, lines), name=name)


def compare(
    comparison: Comparison,
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    seeds: int = 3,
    options: Options = Options(),
    size: Size = Size.page,
    progress: Progress = SILENT,
) -> Report:
    """Train each recipe with ``seeds`` seeds, and compare their ten-view top-1 errors; ``size`` is that of the figure.

    A run that ``folder`` already has is not repeated. Raises what `train` raises, and BadArtefact if the dataset has no
    validation images.
    """
    recipe_of = comparison.recipes
    dataset.split("val")  # raises before the training, not after it
    views = recipe_of[BASELINE].views
    errors: dict[str, list[float]] = {name: [] for name in recipe_of}
    for seed in range(seeds):  # seed by seed, so that a run that is stopped leaves a complete table of fewer seeds
        for name, recipe in recipe_of.items():
            number = 1 + sum(map(len, errors.values()))
            progress.note(f"run {number} of {seeds * len(recipe_of)}: {name}, seed {seed}")
            errors[name].append(_error(recipe, seed, views, dataset, folder, options, progress))
        report = _report(errors, comparison, dataset, command)
        for name in report.figures:
            draw_differences(report.facts, report.title, folder / name, size)
        report.write(folder, recipe_of)
    return report


def variant(name: str, base: str, width: float) -> Recipe:
    """Ablation ``name`` with ``base``'s changes to `paper` where it has none itself, and ``width`` times as wide.

    Raises BadRecipe if ``base`` has other layers than `paper`, or other widths: an ablation says what it changes of
    those.
    """
    paper, ablation, changed = recipes.load("paper"), recipes.load(name), recipes.load(base)
    if base in ABLATIONS:
        raise BadRecipe(f"--base {base}: it is an ablation itself: use paper or small-data")
    if list(changed.network.layers) != list(paper.network.layers):
        raise BadRecipe(
            f"--base {base}: its layers are {', '.join(changed.network.layers)}, and ablations are of paper's"
        )
    differences = recipes.differences(changed, paper)
    if any(key == "network.columns" or key.endswith((".kernels", ".units")) for key in differences):
        raise BadRecipe(
            f"--base {base}: its layers have other widths than paper's, and ablations change those: use --base "
            "small-data, and --width for all layers"
        )
    own = recipes.differences(ablation, paper)
    lines = {key: value for key, value in differences.items() if key not in own}
    sections = recipes.sections(ablation)
    kept = {key: value for key, value in lines.items() if key.split(".")[0] in sections}
    named = {step for key, value in kept.items() if key.endswith(".then") for step in value}  # operations of its own
    kept |= {key: value for key, value in lines.items() if key.split(".")[0] in named}
    return recipes.adjust(ablation, [f"{key}={json.dumps(value)}" for key, value in kept.items()]).scaled(width)


def _adjusted(recipe: Recipe, settings: Sequence[str], epochs: int | None) -> Recipe:
    recipe = recipes.adjust(recipe, list(settings))
    return recipe if epochs is None else recipe.with_training(epochs=epochs)


def _error(
    recipe: Recipe, seed: int, views: int, dataset: Dataset, folder: Path, options: Options, progress: Progress
) -> float:
    """Top-1 error of one run over ``views`` views."""

    def measure() -> dict[str, Any]:
        run = folder / "runs" / f"{recipe.name}-{seed}"
        train(dataset, recipe, run, seed=seed, options=options, progress=progress)
        model = NetworkModel.of(Model.load(run), options.devices[0])
        return {"top1_error": evaluate([model], dataset, "val", views=views, progress=progress).top1}

    inputs = {"dataset": dataset.fingerprint, "recipe": recipes.dumps(recipe), "seed": seed, "views": views}
    return float(measured_once(folder, inputs | {"precision": options.precision}, measure)["top1_error"])


def _report(errors: dict[str, list[float]], comparison: Comparison, dataset: Dataset, command: str) -> Report:
    rows, facts = [], {}
    width, base = comparison.width, comparison.base
    baseline = statistics.mean(errors[BASELINE])
    uncertainty, chances = by_chance(errors)
    for name, top1_errors in errors.items():
        mean = statistics.mean(top1_errors)
        deviation = statistics.stdev(top1_errors) if len(top1_errors) > 1 else None
        increase = recipes.published(name).get("top1_increase")
        difference, chance = mean - baseline, chances.get(name)
        facts[name] = {"top1_errors": top1_errors, "mean": mean, "deviation": deviation, "difference": difference}
        facts[name] |= {"standard_error": uncertainty, "p": chance}
        rows.append(
            [
                name,
                f"{_parameters(comparison.recipes[name], dataset):,}",
                f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}"),
                "" if name == BASELINE else _difference(difference, uncertainty, chance),
                "" if increase is None else f"+{100 * increase:.2g}",
            ]
        )
    training = comparison.recipes[BASELINE].training
    seeds = len(errors[BASELINE])
    columns = ["recipe", "parameters", "top-1 error, %", "difference to the baseline", "in the paper or its logs"]
    # A difference of single runs shows nothing.
    kept = [0, 1, 2, *([3] if seeds > 1 else []), *([4] if comparison.has_published else [])]
    columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
    if seeds == 1:
        claims = "One seed cannot show a difference, so none is given; --seeds 3 can. "
    else:
        claims = (
            "Differences with their standard error, from the deviation between seeds that all rows share; a star marks "
            "those of which chance alone makes one in twenty such tables (Dunnett's test); the others show nothing. "
        )
    scaled_down = column = ""
    if comparison.has_published:
        scaled_down = "A scaled-down version of the paper's experiment: "
        column = (
            "The paper's column is ILSVRC with the whole network, where the net is the published one: over 1 for "
            "colour noise, about 2 for a middle layer; that of one GPU is of ILSVRC-2010."
        )
    note = (
        f"{scaled_down}{'' if width == 1 else f'nets of {width:g} times the width, '}"
        f"trained for {counted(training.epochs, 'epoch')} on the {dataset.counts['train']:,} pictures of dataset "
        f"{dataset.name}"
        f"{'' if base == 'paper' else f', by the recipe {base}'}; {counted(seeds, 'seed')} each"
        f"{'' if seeds == 1 else ', mean ± standard deviation over seeds'}, top-1 error of "
        f"{counted(dataset.counts['val'], 'validation picture')}, "
        f"{counted(comparison.recipes[BASELINE].views, 'view')} each. {claims}"
        f"{column}"
    ).strip()
    narrow = "" if width == 1 else f", {width:g} times the width"
    title = f"{comparison.title} on {dataset.name}{narrow}, {counted(training.epochs, 'epoch')}"
    figures = [] if seeds == 1 else [f"{comparison.name}{suffix}" for suffix in SUFFIXES]
    return Report(
        name=comparison.name,
        title=title,
        columns=columns,
        rows=rows,
        note=note,
        command=command,
        facts=facts,
        figures=figures,
    )


def draw_differences(facts: dict[str, dict[str, Any]], title: str, path: Path, size: Size = Size.page) -> None:
    """Draw each recipe's difference to the baseline with its standard error as a bar, the largest on top.

    ``facts``: those of the report, with two seeds or more; the baseline's are the first.
    """
    baseline, *others = facts
    shown = sorted(others, key=lambda name: facts[name]["difference"])
    seeds = len(facts[baseline]["top1_errors"])
    with drawing(path, size, height=1.6 + 0.4 * len(shown)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="black", label=f"baseline, {100 * facts[baseline]['mean']:.1f} %")
        for is_marked, colour, label in (
            (True, "tab:orange", f"significant at 5 % ({counted(seeds, 'seed')}, Dunnett)"),
            (False, "lightsteelblue", "not significant"),
        ):
            rows = [
                (y, 100 * facts[name]["difference"], 100 * facts[name]["standard_error"])
                for y, name in enumerate(shown)
                if _is_beyond_chance(facts[name]["p"]) == is_marked
            ]
            if rows:
                y, differences, uncertainties = zip(*rows, strict=True)
                axes.barh(y, differences, xerr=uncertainties, color=colour, capsize=4, label=label)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_xlabel("top-1 error: difference to the baseline, percentage points, ± standard error")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        figure.suptitle(title)
        figure.legend(loc="outside lower center", ncols=3 if size is Size.page else 2)


def by_chance(errors: Mapping[str, Sequence[float]]) -> tuple[float | None, dict[str, float]]:
    """The standard error of a difference to the baseline's mean, and how probable one as large is by chance.

    ``errors``: of each recipe, of the seeds; that of BASELINE is what each other is compared with. All recipes are
    taken to have the same deviation between seeds, since three seeds say little of it. The probabilities are those of
    Dunnett's test, that any row of the table has such a difference; there are none if all seeds have the same error.
    With one seed there is neither.
    """
    from scipy import stats

    seeds = min(map(len, errors.values()))
    if seeds < 2:
        return None, {}
    variance = statistics.mean(statistics.variance(some[:seeds]) for some in errors.values())
    if variance == 0:
        return 0.0, {}
    others = {name: some[:seeds] for name, some in errors.items() if name != BASELINE}
    test = stats.dunnett(*others.values(), control=errors[BASELINE][:seeds], rng=np.random.default_rng(0))
    return (2 * variance / seeds) ** 0.5, dict(zip(others, test.pvalue.tolist(), strict=True))


def _difference(difference: float, uncertainty: float | None, chance: float | None) -> str:
    if uncertainty is None:
        return f"{100 * difference:+.1f}"
    return f"{100 * difference:+.1f} ± {100 * uncertainty:.1f}{'*' if _is_beyond_chance(chance) else ''}"


def _is_beyond_chance(chance: float | None) -> bool:
    return chance is not None and chance < SIGNIFICANT


def _parameters(recipe: Recipe, dataset: Dataset) -> int:
    return parameter_count(recipe.build(len(dataset.classes)))
