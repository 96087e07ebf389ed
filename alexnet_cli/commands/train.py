"""`alexnet train`."""

import os
import shlex
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli.artefacts import TENSORBOARD
from alexnet_cli.commands import completion
from alexnet_cli.commands.common import (
    HERE,
    DeviceOption,
    JsonOption,
    Precision,
    WorkspaceOption,
    better_start,
    name_of,
    next_index,
    next_line,
    processes,
    resumable,
    write_onnx,
)
from alexnet_cli.console import show, show_json
from alexnet_cli.errors import BadArtefact, BadRecipe
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
    from alexnet_cli.model import Model


class Log(StrEnum):
    """What `--log` writes."""

    tensorboard = "tensorboard"


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET",
            help="Name or path of a dataset. Default: the newest.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Name of a recipe, or a .toml file. Default: by the dataset's size.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value of the recipe: section.key=value. Repeatable."
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model, or a path. Default: DATASET-RECIPE.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of epochs. Default: the recipe's.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Seed of all random numbers. Default: 0.")
    ] = None,
    device: DeviceOption = None,
    devices: Annotated[
        str | None, typer.Option(metavar="LIST", help="One device per column, as in 2012: cuda:0,cuda:1 or cpu,cpu.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of GPUs: 2 means --devices cuda:0,cuda:1.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Precision of the network's arithmetic. Default: fp32.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Fine-tune this model: start from all of its layers but the last.",
            autocompletion=completion.models,
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, metavar="N", help="Minutes between checkpoints within an epoch.")
    ] = 10,
    log: Annotated[
        Log | None, typer.Option(metavar="tensorboard", help="Also write a log that TensorBoard shows.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train a network by the paper's rules.

    You can stop training at any time: Ctrl-C writes a checkpoint, and --resume continues from it. Under torchrun the
    processes share each batch; the recipe's batch size and learning rate stay as they are.

    Example: alexnet train photos --recipe small-data
    """
    import alexnet_cli as alexnet
    from alexnet_cli.inference.devices import pick_devices
    from alexnet_cli.model import Model
    from alexnet_cli.training import runs
    from alexnet_cli.training.tensorboard import TensorBoard

    if sum(given is not None for given in (device, devices, gpus)) > 1:
        raise typer.BadParameter("give one of --device, --devices and --gpus")
    if resume:
        for option, given in {"--recipe": recipe, "--set": settings, "--from": start}.items():
            if given:
                raise BadRecipe(f"{option} cannot change a run that is resumed: leave it out, or start another run")
    space, home = Workspace(workspace), Workspace(workspace).home("model")
    placed = pick_devices(device, devices, gpus)
    folder = None if out is None else _folder(out, space)
    loggers = [] if log is None else [TensorBoard()]
    with processes(placed[0]) as (world, console):
        where: dict[str, Any] = {
            "devices": placed,
            "world": world,
            "checkpoint_minutes": checkpoint_minutes,
            "loggers": loggers,
            "progress": console,
        }
        if resume:
            folder = folder or runs.newest_unfinished(home)
            moved = None if dataset is None else space.find("dataset", dataset)
            if log:
                console.note(f"to follow it: {_to_look(folder)}")
            with resumable(space.to_resume(folder, moved, log), folder, world):
                model = alexnet.resume(folder, dataset=moved, epochs=epochs, seed=seed, precision=precision, **where)
        else:
            data = space.find("dataset", dataset)
            tuned = None if start is None else Model.load(space.find("model", start))
            packed = alexnet.open_dataset(data)
            chosen = runs.choose_recipe(recipe, packed, settings or (), epochs=epochs, start=tuned, progress=console)
            if recipe is None and tuned is None and (advice := better_start(packed, space)[0]):
                console.note(advice)
            if folder is None:
                name = f"{data.resolve().name}-{chosen.name}"
                folder, unfinished = runs.new_folder(home, name)
                if folder.name != name:
                    console.note(f"{home / name} exists, so the new model is {folder}; --out names another")
                for run in unfinished:
                    console.note(f"{run} is unfinished; to resume it: {space.to_resume(run)}")
            if log:
                console.note(f"to follow it: {_to_look(folder)}")
            with resumable(space.to_resume(folder, log=log), folder, world):
                model = alexnet.train(
                    data, folder, recipe=chosen, seed=seed or 0, start=tuned, precision=precision or "fp32", **where
                )
        result = {"model": name_of(folder, "model", space), **runs.run_facts(folder, model)}
    if not world.is_main:
        return
    if not as_json:
        show(f"trained {folder}: {counted(result['epochs'], 'epoch')}")
        if log:
            show(f"Its log: {_to_look(folder)}")
    write_onnx(folder, space)
    if as_json:
        show_json(result)
    else:
        show(_next(result, model, space))


def _next(result: dict[str, Any], model: "Model", space: Workspace) -> str:
    """What to do with the new ``model``: measure it, if its dataset has pictures for that, else index with it."""
    if "validation_error" not in result:
        return next_index(result["model"], model.recipe.image.size, space)
    dataset = _on_its_dataset(Path(result["path"]), model, space)
    return next_line("eval", result["model"], *dataset, workspace=space.root)


def _on_its_dataset(folder: Path, model: "Model", space: Workspace) -> list[str]:
    """The option that names the dataset of the run in ``folder``, if `eval` would not find it without."""
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.training import checkpoint

    with suppress(BadArtefact):
        if Dataset.open(space.dataset_of(folder)).fingerprint == model.provenance["dataset"]:
            return []
    return ["--data", checkpoint.read_state(folder).settings["dataset_path"]]


def _to_look(folder: Path) -> str:
    """The command that shows the log of the run in ``folder``."""
    return shlex.join(["tensorboard", "--logdir", path_of(folder / TENSORBOARD)])


def _folder(out: str, space: Workspace) -> Path:
    """The folder that --out names: a name is one in the workspace, a path is that path."""
    return Path(out) if os.sep in out or out in (os.curdir, os.pardir) else space.new("model", out)
