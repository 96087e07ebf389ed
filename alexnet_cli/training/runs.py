"""Runs by their folders: a new one from paths and names, one to resume, and which folder is meant if none is named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.data.order import WINDOW, fits_in_memory
from alexnet_cli.data.store import Dataset
from alexnet_cli.defaults import recipe_for
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace


def choose_recipe(
    named: str | Path | None,
    dataset: Dataset,
    settings: Sequence[str] = (),
    *,
    epochs: int | None = None,
    start: Model | None = None,
    progress: Progress = SILENT,
) -> Recipe:
    """The recipe called ``named``; if None, that of the model ``start`` that is fine-tuned, else the one for
    ``dataset``, which ``progress`` is told.

    ``settings``: `section.key=value` on top; ``epochs``: instead of the recipe's. Raises BadRecipe.
    """
    if named is None and start is not None:
        recipe = recipes.adjust(start.recipe, settings)
    else:
        recipe = recipes.load(named or recipe_for(dataset), settings)
    if named is None:
        why = f"for {dataset.counts['train']:,} pictures" if start is None else "that of the model it starts from"
        progress.note(f"recipe {recipe.name}, {why}; --recipe names another")
    return recipe if epochs is None else recipe.with_training(epochs=epochs)


def start_run(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    start: Model | None = None,
    options: Options = Options(),
    progress: Progress = SILENT,
) -> Model:
    """Start a run in ``folder``: with `training.window` if the dataset does not fit in memory and the recipe has none.

    Raises Resumable if the folder has an unfinished run, BadArtefact if it has a model, and what else `train` raises.
    """
    ranks = f" in each of {options.world.size} processes" if options.world.size > 1 else ""
    progress.note(
        f"training recipe {recipe.name} on {dataset.path} into {folder}, on {', '.join(options.devices)}{ranks}"
    )
    if options.precision == "bf16" and "cpu" in options.devices and torch.backends.cpu.get_cpu_capability() == "AVX2":
        progress.note("this processor has no instructions for bf16: --precision fp32 is several times as fast")
    split = dataset.split("train")
    if not recipe.training.window and not fits_in_memory(split):
        recipe = recipe.with_training(window=WINDOW)
        progress.note(
            f"its {split.bytes / 1e9:,.0f} GB of images do not fit in memory: they are shuffled within windows of "
            f"{WINDOW:,}, as they lie on disk; with --set training.window={len(split)}, all together, as in the paper"
        )
    return train(dataset, recipe, folder, seed=seed, start=start, new=True, options=options, progress=progress)


def resume_run(
    folder: Path,
    *,
    dataset: Path | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    precision: str | None = None,
    options: Options = Options(),
    progress: Progress = SILENT,
) -> Model:
    """Resume the run in ``folder`` with the settings it was started with.

    Only its number of ``epochs`` and its ``options`` may change, and ``dataset`` if it has moved. Raises BadRecipe if
    ``seed`` or ``precision`` are not the run's own; BadArtefact if there is nothing to resume.
    """
    settings = checkpoint.read_state(folder).settings
    recipe = recipes.loads(settings["recipe"])
    for key, wanted in {"seed": seed, "precision": precision}.items():
        if wanted is not None and wanted != settings[key]:
            raise BadRecipe(f"{folder} was started with --{key} {settings[key]}: leave it out, or start another run")
    if epochs is not None and epochs != recipe.training.epochs:
        progress.note(f"{counted(epochs, 'epoch')} instead of {recipe.training.epochs}")
        recipe = recipe.with_training(epochs=epochs)
    path = Path(settings["dataset_path"]) if dataset is None else dataset
    if dataset is None and not path.exists():
        raise BadArtefact(f"the dataset of {folder} is not at {path} any more: name the folder where it is now")
    found = Dataset.open(path)
    if found.fingerprint != settings["dataset"]:
        raise BadArtefact(f"{found.path} is not the dataset {folder} was started with: name that one")
    options = replace(options, precision=settings["precision"])
    return train(found, recipe, folder, seed=settings["seed"], options=options, progress=progress)


def run_facts(folder: Path, model: Model) -> dict[str, Any]:
    """What `alexnet train --json` prints of a run: its model, and the last row of its history."""
    last = (checkpoint.read_state(folder).history or [{}])[-1]
    facts = {"path": str(folder), "fingerprint": model.fingerprint}
    return facts | {{"epoch": "epochs"}.get(key, key): value for key, value in last.items()}


def new_folder(home: Path, name: str) -> tuple[Path, list[Path]]:
    """The first of ``home``/name, name-2, name-3 ... that is free, and the unfinished runs among those taken."""
    number, unfinished = 1, []
    while _is_taken(folder := home / (name if number == 1 else f"{name}-{number}")):
        if checkpoint.is_unfinished(folder):
            unfinished.append(folder)
        number += 1
    return folder, unfinished


def newest_unfinished(home: Path) -> Path:
    """The newest run in ``home`` that has not ended. Raises AlexNetError if there is none."""
    runs = [file.parent.parent for file in home.glob(f"*/{CHECKPOINT_FILE}")]
    runs = [folder for folder in runs if checkpoint.is_unfinished(folder)]
    if not runs:
        raise AlexNetError(f"no unfinished run in {home}: start one with `{Workspace(home.parent).command('train')}`")
    return max(runs, key=lambda folder: (folder / CHECKPOINT_FILE).stat().st_mtime_ns)


def _is_taken(folder: Path) -> bool:
    """Whether ``folder`` has a file that is not hidden. A run killed before its first checkpoint leaves hidden ones."""
    return any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
