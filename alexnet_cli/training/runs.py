"""Which run a user means: from names and defaults to dataset, recipe and folder, for a new run or one to resume."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet_cli import recipe as recipes
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import World
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe
from alexnet_cli.model import FILE as MODEL_FILE
from alexnet_cli.model import Model
from alexnet_cli.progress import Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import Options, train
from alexnet_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user said a run should be; None where nothing was said."""

    dataset: str | None = None
    recipe: str | None = None
    settings: list[str]
    out: str | None = None
    epochs: int | None = None
    seed: int | None = None
    start: str | None = None


@dataclass(frozen=True, kw_only=True)
class Where:
    """Devices, processes, precision and checkpoints, as asked for."""

    devices: tuple[str, ...]
    world: World
    precision: str | None
    checkpoint_minutes: float


def begin(space: Workspace, asked: Asked, where: Where, progress: Progress) -> dict[str, Any]:
    """A new run. Raises BadArtefact if its folder is taken."""
    dataset = Dataset.open(space.find("dataset", asked.dataset))
    start = None if asked.start is None else Model.load(space.find("model", asked.start))
    recipe = _recipe(asked, start)
    folder = _new_folder(space, asked.out, f"{dataset.name}-{recipe.name}", progress)
    many = f" in each of {where.world.size} processes" if where.world.size > 1 else ""
    progress.note(
        f"training recipe {recipe.name} on {dataset.path} into {folder}, on {', '.join(where.devices)}" + many
    )
    return _train(dataset, recipe, folder, asked.seed or 0, start, where, where.precision or "fp32", progress)


def resume(space: Workspace, asked: Asked, where: Where, progress: Progress) -> dict[str, Any]:
    """Go on with the run called ``asked.out``, or the newest unfinished one, as it was begun.

    Only its number of epochs, its device and what depends on that may be changed. Raises BadRecipe for anything else.
    """
    folder = _unfinished(space) if asked.out is None else _folder(space, asked.out)
    settings = checkpoint.read_position(folder).settings
    recipe = recipes.loads(settings["recipe"])
    for option, given in {"--recipe": asked.recipe, "--set": asked.settings, "--from": asked.start}.items():
        if given:
            raise BadRecipe(f"{option} cannot change a run that is gone on with: leave it out, or start another run")
    for key, wanted in {"seed": asked.seed, "precision": where.precision}.items():
        if wanted is not None and wanted != settings[key]:
            raise BadRecipe(f"{folder} was begun with --{key} {settings[key]}: leave it out, or start another run")
    if asked.epochs is not None and asked.epochs != recipe.training.epochs:
        progress.note(f"{asked.epochs} epochs instead of {recipe.training.epochs}")
        recipe = _shortened(recipe, asked.epochs)
    dataset = Dataset.open(space.find("dataset", asked.dataset or settings["dataset_path"]))
    if dataset.fingerprint != settings["dataset"]:
        raise BadArtefact(f"{dataset.path} is not the dataset {folder} was begun with: name that one")
    start = None if settings["from"] is None else Model.load(space.find("model", settings["from_path"]))
    return _train(dataset, recipe, folder, settings["seed"], start, where, settings["precision"], progress)


def _train(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    seed: int,
    start: Model | None,
    where: Where,
    precision: str,
    progress: Progress,
) -> dict[str, Any]:
    options = Options(
        devices=where.devices, world=where.world, precision=precision, checkpoint_minutes=where.checkpoint_minutes
    )
    model = train(dataset, recipe, folder, seed=seed, start=start, options=options, progress=progress)
    last = (checkpoint.read_position(folder).history or [{}])[-1]
    return {"model": folder.name, "path": str(folder), "fingerprint": model.fingerprint} | {
        {"epoch": "epochs"}.get(key, key): value for key, value in last.items()
    }


def _recipe(asked: Asked, start: Model | None) -> Recipe:
    """The recipe asked for; fine-tuning goes on with the model's own unless another is named."""
    if start is not None and asked.recipe is None:
        recipe = recipes.adjust(start.recipe, asked.settings)
    else:
        recipe = recipes.load(asked.recipe or "paper", asked.settings)
    return recipe if asked.epochs is None else _shortened(recipe, asked.epochs)


def _shortened(recipe: Recipe, epochs: int) -> Recipe:
    return replace(recipe, training=replace(recipe.training, epochs=epochs))


def _folder(space: Workspace, named: str) -> Path:
    """A bare name lies in the workspace's models/; anything else is a path."""
    return space.home("model") / named if Path(named).name == named else Path(named)


def _new_folder(space: Workspace, named: str | None, default: str, progress: Progress) -> Path:
    """The folder of a new run: the one named if nothing is there, else the first free of default, default-2 ..."""
    if named is not None:
        folder = _folder(space, named)
        if (folder / checkpoint.FILE).exists() or (folder / MODEL_FILE).exists():
            raise BadArtefact(f"{folder} exists: go on with it (--resume --out {named}), or choose another --out")
        return folder
    number = 1
    while (folder := _folder(space, default if number == 1 else f"{default}-{number}")).exists():
        if _is_unfinished(folder):
            progress.note(f"{folder} is unfinished; to go on with it: alexnet train --resume --out {folder.name}")
        number += 1
    return folder


def _unfinished(space: Workspace) -> Path:
    """The newest run that has a checkpoint and no model yet."""
    runs = [file.parent.parent for file in space.home("model").glob(f"*/{checkpoint.FILE}")]
    runs = [folder for folder in runs if _is_unfinished(folder)]
    if not runs:
        raise AlexNetError(f"no unfinished run in {space.home('model')}: start one with `alexnet train`")
    return max(runs, key=lambda folder: (folder / checkpoint.FILE).stat().st_mtime_ns)


def _is_unfinished(folder: Path) -> bool:
    return (folder / checkpoint.FILE).exists() and not (folder / MODEL_FILE).exists()
