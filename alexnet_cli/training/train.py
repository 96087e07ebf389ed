"""Training (§5): from a recipe and a dataset to a model. A run can be stopped at any time and resumed."""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE, KERNELS, MODEL_FILE
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import World
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe, Resumable
from alexnet_cli.files import free_name, one_writer, sweep
from alexnet_cli.inference.devices import use_exact_fp32
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.nets.operations import BatchNorm
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.recipes import names as packaged_recipes
from alexnet_cli.training import checkpoint
from alexnet_cli.training.loggers import closing_all
from alexnet_cli.training.schedule import capped
from alexnet_cli.training.trainer import Options, Trainer


def train(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    start: Model | None = None,
    new: bool = False,
    options: Options = Options(),
    until: Callable[[list[float]], bool] | None = None,
    progress: Progress = SILENT,
) -> Model:
    """Train ``recipe`` on ``dataset`` into ``folder`` and return the model, which is also saved there.

    If ``folder`` holds a checkpoint of this same run, it is resumed: with the same batches, augmentation, dropout and
    learning rates as if it had not stopped. On a CPU, with the same number of threads and processes, it so ends with
    the very weights of a run that did not stop; on a GPU, which adds numbers in an order that varies, with nearly
    those. ``start``: a model whose layers, all but the last, a new run starts from; a resumed one has no need of it.
    ``new``: refuse a folder that holds a run or a model. ``until``: whether to end before the last epoch, given the
    training error of each epoch so far.

    Raises BadRecipe or BadArtefact if recipe, dataset, start and checkpoint do not fit together; AlexNetError if
    another process is training into ``folder``, or for a negative seed; Resumable or BadArtefact if ``new`` is refused;
    Diverged at a loss that is not finite, with the last good checkpoint kept; Interrupted after Ctrl-C or SIGTERM, with
    a checkpoint saved.
    """
    if seed < 0:
        raise AlexNetError(f"seed is {seed}: it must be 0 or more")
    keep_freed_memory()
    use_exact_fp32()
    _check(dataset, recipe, start, progress)
    check_batches(dataset, recipe, options.world)
    with _only_writer(folder, options.world):
        if new:
            _check_free(folder)
        trainer = Trainer(dataset, recipe, folder, seed=seed, start=start, options=options, progress=progress)
        trainer.may_end_early |= until is not None
        with closing_all(options.loggers), _stop_on_signal(options.world) as stop:
            trainer.log()
            while not (trainer.finished or (until and until(trainer.training_errors))):
                trainer.epoch(stop)
        trainer.draw()
        if capped(recipe.training, trainer.validation_errors):
            progress.note(
                f"ended by training.epochs = {recipe.training.epochs}, after {trainer.drops} of "
                f"{recipe.training.drops} drops of the learning rate: the validation error had not stalled once more"
            )
        model = trainer.model()
        if options.world.is_main:
            model.save(folder)
        options.world.barrier()
    return model


@contextmanager
def _only_writer(folder: Path, world: World) -> Iterator[None]:
    """Rank 0 holds the lock of the model in ``folder``, and removes what killed runs left there."""
    if not world.is_main:
        yield
        return
    with one_writer(folder, "model"):
        sweep((folder / CHECKPOINT_FILE).parent)
        sweep(folder / KERNELS)
        yield


def _check_free(folder: Path) -> None:
    """Refuse a folder in which a new run would replace something."""
    if checkpoint.is_unfinished(folder):
        raise Resumable(f"{folder} holds a run already: choose another name for a new one")
    if (folder / MODEL_FILE).exists():
        what = "a finished run" if (folder / CHECKPOINT_FILE).exists() else "a model"
        raise BadArtefact(
            f"{folder} holds {what} already: choose another name for a new one, such as {free_name(folder)}"
        )


def _check(dataset: Dataset, recipe: Recipe, start: Model | None, progress: Progress) -> None:
    """Refuse what cannot work; say what is done otherwise than the recipe says."""
    if len(dataset.classes) < 2:
        raise BadArtefact(
            f"dataset {dataset.name} has one class, so there is nothing to tell apart: prep a folder of class folders"
        )
    if dataset.image_size != recipe.image.size:
        raise BadRecipe(
            f"recipe {recipe.name} takes pictures of {recipe.image.size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep with --size {recipe.image.size}, or choose {_others(dataset.image_size)}"
        )
    if start is not None and start.recipe.image.size != recipe.image.size:
        raise BadRecipe(
            f"--from: the model takes pictures of {start.recipe.image.size} pixels, recipe {recipe.name} of "
            f"{recipe.image.size}: leave --recipe out to take the model's, {start.recipe.name}"
        )
    for key in ("divide_by", "colour", "mean_crop", "standardize"):
        if start is None:
            break
        theirs, ours = getattr(start.recipe.image, key), getattr(recipe.image, key)
        if theirs != ours:
            raise BadRecipe(
                f"--from: the model's image.{key} is {json.dumps(theirs)}, recipe {recipe.name}'s is "
                f"{json.dumps(ours)}: leave --recipe out to take the model's, {start.recipe.name}, or use "
                f"--set image.{key}={json.dumps(theirs)}"
            )
    training = recipe.training
    if training.schedule == "plateau" and "val" not in dataset.counts:
        progress.note("no validation split: the learning rate follows the training error instead")


def _others(size: int) -> str:
    """The recipes for pictures of ``size`` pixels, in words."""
    fitting = [name for name in packaged_recipes() if recipes.load(name).image.size == size]
    return f"another recipe: {', '.join(fitting)}" if fitting else "another recipe"


def check_batches(dataset: Dataset, recipe: Recipe, world: World) -> None:
    """Raises BadRecipe if batch norm gets no variance of a batch: of a single number, or of no picture at all."""
    shapes, needs = recipe.build(len(dataset.classes)).shapes, dict[str, int]()  # layer -> pictures
    for name, layer in recipe.network.layers.items():
        if any(isinstance(recipe.network.operations[step], BatchNorm) for step in layer.then):
            needs[name] = 2 if math.prod(shapes[name][1:]) == 1 else 1
    if not needs:
        return
    normed, needed = max(needs.items(), key=lambda pair: pair[1])
    total, batch, processes = dataset.counts["train"], recipe.training.batch, world.size

    def smallest(size: int) -> int:
        """Pictures in the smallest batch."""
        return total % size or min(size, total)

    def works(size: int) -> bool:
        return smallest(size) // processes >= needed  # as `World.shard` shares it

    if works(batch):
        return
    need = f"batch norm of {normed} needs {needed} picture{'s' if needed > 1 else ''}"
    need += " in every process" if processes > 1 else ""
    fewer = " or fewer processes" if processes > 1 else ""
    others = [size for size in range(1, min(2 * batch, total) + 1) if works(size)] or [total]
    nearest = min(others, key=lambda size: abs(size - batch))
    if not works(nearest):
        raise BadRecipe(
            f"{need}, and {total} picture{' is' if total == 1 else 's are'} all there is: train on more{fewer}"
        )
    raise BadRecipe(
        f"{need}, and training.batch={batch} leaves {smallest(batch)} of {total} pictures for its last batch: "
        f"use --set training.batch={nearest}{fewer}"
    )


@contextmanager
def _stop_on_signal(world: World) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once.

    Under torchrun a second SIGINT is ignored: torchrun forwards the one that the terminal already sent.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT and world.size == 1:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
