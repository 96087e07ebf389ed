"""The experiments by the names of `alexnet reproduce`, with their datasets and models from the workspace."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alexnet_cli import recipe as recipes
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe
from alexnet_cli.experiments.ablations import Comparison, ablations, additions, compare
from alexnet_cli.experiments.baselines import baselines
from alexnet_cli.experiments.figure1 import NETS, QUICK, RATES, Plan, figure1
from alexnet_cli.experiments.figure3 import figure3
from alexnet_cli.experiments.figure4 import figure4
from alexnet_cli.experiments.neocognitron import neocognitron
from alexnet_cli.experiments.report import Report
from alexnet_cli.experiments.tables import table1, table2
from alexnet_cli.figures.canvas import Size
from alexnet_cli.progress import Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training.trainer import Options
from alexnet_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `alexnet reproduce`."""

    data: str | None
    models: list[str]
    pretrained: list[str]
    recipes: list[str]
    base: str
    width: float
    settings: list[str]
    epochs: int | None
    seeds: int
    quick: bool
    size: Size
    options: Options
    command: str

    @property
    def device(self) -> str:
        return self.options.devices[0]


def _dataset(space: Workspace, request: Request, models: Sequence[Path], progress: Progress) -> Dataset:
    """The dataset that --data names; else that of the first of ``models``. ``progress`` is told which it is."""
    return _told(Dataset.open(space.dataset_of(models[0], request.data)), progress)


def _dataset_to_train(space: Workspace, request: Request, recipe: Recipe, progress: Progress) -> Dataset:
    """The dataset that --data names; else the newest of the size that ``recipe`` takes, digits for a grey network.

    ``progress`` is told which it is. Raises BadArtefact if there is none, BadRecipe if its pictures have another size.
    """
    size, grey = recipe.image.size, recipe.image.colour == "grey"
    folder = space.find("dataset", request.data)
    if request.data is None:
        fitting = space.dataset_of_size(size, grey=grey)
        if fitting is None and grey:
            raise BadArtefact("no digits here: pack some with `alexnet prep digits`, or name a dataset with --data")
        folder = fitting or folder
    dataset = Dataset.open(folder)
    if dataset.image_size != size:
        named = space.dataset_of_size(size, grey=grey)
        other = "" if named is None else f", or take {named} with --data {shlex.quote(named.name)}"
        raise BadRecipe(
            f"recipe {recipe.name} takes pictures of {size} pixels, dataset {dataset.name} has {dataset.image_size}: "
            f"prep them with --size {size}{other}"
        )
    return _told(dataset, progress)


def _told(dataset: Dataset, progress: Progress) -> Dataset:
    progress.note(f"on dataset {dataset.path}")
    return dataset


def _models(space: Workspace, request: Request) -> list[Path]:
    """The models that --model names; the newest one if neither --model nor --pretrained is given."""
    if not request.models and not request.pretrained:
        return [space.find("model", None)]
    return [space.find("model", name) for name in request.models]


def _figure1(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    plan = Plan(rates=dict.fromkeys(NETS, RATES), epochs=request.epochs, seeds=request.seeds)
    if request.quick:
        plan = replace(QUICK, epochs=request.epochs or QUICK.epochs)
    return figure1(
        _dataset_to_train(space, request, recipes.load(NETS[0], request.settings), progress),
        folder,
        request.command,
        settings=request.settings,
        plan=plan,
        options=request.options,
        size=request.size,
        progress=progress,
    )


def _figure3(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    return figure3(_models(space, request)[0], folder, request.command, size=request.size)


def _figure4(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    models = _models(space, request)
    return figure4(
        models[0],
        _dataset(space, request, models, progress),
        folder,
        request.command,
        device=request.device,
        size=request.size,
        progress=progress,
    )


def _table1(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    models = _models(space, request)
    return table1(
        models,
        _dataset(space, request, models, progress),
        folder,
        request.command,
        device=request.device,
        progress=progress,
    )


def _table2(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    models = _models(space, request)
    pretrained = [space.find("model", name) for name in request.pretrained]
    dataset = _dataset(space, request, [*models, *pretrained], progress)
    return table2(models, pretrained, dataset, folder, request.command, device=request.device, progress=progress)


def _ablations(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    return _compared(ablations, space, request, folder, progress)


def _augmentation(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    return _compared(additions, space, request, folder, progress)


def _compared(
    recipes_of: Callable[..., Comparison], space: Workspace, request: Request, folder: Path, progress: Progress
) -> Report:
    return compare(
        recipes_of(request.recipes, request.base, request.width, request.settings, request.epochs),
        _dataset_to_train(space, request, recipes.load(request.base, request.settings), progress),
        folder,
        request.command,
        seeds=request.seeds,
        options=request.options,
        size=request.size,
        progress=progress,
    )


def _neocognitron(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    recipe = recipes.load("lenet-5")
    if request.epochs is not None:
        recipe = recipe.with_training(epochs=request.epochs)
    return neocognitron(
        _dataset_to_train(space, request, recipe, progress),
        recipe,
        folder,
        request.command,
        seeds=request.seeds,
        options=request.options,
        size=request.size,
        progress=progress,
    )


def _baselines(space: Workspace, request: Request, folder: Path, progress: Progress) -> Report:
    dataset = _told(Dataset.open(space.find("dataset", request.data)), progress)
    return baselines(dataset, folder, request.command, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment of the paper, or of what came before or after it."""

    run: Callable[[Workspace, Request, Path, Progress], Report]
    uses: set[str]  # the options of `alexnet reproduce` that apply to it
    of_one_model: bool = False  # takes exactly one --model

    def check(self, name: str, given: set[str], request: Request) -> None:
        """Raises AlexNetError if an option in ``given`` does not apply, or if it gets several models instead of one."""
        if useless := sorted(given - self.uses):
            raise AlexNetError(f"{', '.join(useless)} {'does' if len(useless) == 1 else 'do'} not apply to {name}")
        if request.quick and "--seeds" in given:
            raise AlexNetError("--quick has one seed: leave --seeds out")
        if self.of_one_model and len(request.models) > 1:
            raise AlexNetError(f"{name} takes a single --model")


TRAINS = {"--data", "--set", "--epochs", "--seeds", "--device", "--precision"}
COMPARES = {"--recipe", "--base", "--width", "--size"}
EXPERIMENTS = {
    "figure-1": Experiment(run=_figure1, uses=TRAINS | {"--quick", "--size"}),
    "figure-3": Experiment(run=_figure3, uses={"--model", "--size"}, of_one_model=True),
    "figure-4": Experiment(run=_figure4, uses={"--data", "--model", "--device", "--size"}, of_one_model=True),
    "table-1": Experiment(run=_table1, uses={"--data", "--model", "--device"}, of_one_model=True),
    "table-2": Experiment(run=_table2, uses={"--data", "--model", "--pretrained", "--device"}),
    "ablations": Experiment(run=_ablations, uses=TRAINS | COMPARES),
    "augmentation": Experiment(run=_augmentation, uses=TRAINS | COMPARES),
    "neocognitron": Experiment(run=_neocognitron, uses=(TRAINS - {"--set"}) | {"--size"}),
    "baselines": Experiment(run=_baselines, uses={"--data"}),
}
