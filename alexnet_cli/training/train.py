"""Training (§5): from a recipe and a dataset to a model. A run can be stopped at any time and resumed."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_cli.artefacts import CHECKPOINT_FILE
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import is_lost_peer
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training.trainer import Options, Trainer


def train(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    start: Model | None = None,
    options: Options = Options(),
    until: Callable[[list[float]], bool] | None = None,
    progress: Progress = SILENT,
) -> Model:
    """Train ``recipe`` on ``dataset`` into ``folder`` and return the model, which is also saved there.

    If ``folder`` holds a checkpoint of this same run, it is resumed and ends with the weights it would have had without
    the stop. ``start``: a model whose layers, all but the last, training starts from. ``until``: whether to end before
    the last epoch, given the training error of each epoch so far.

    Raises BadRecipe or BadArtefact if recipe, dataset and checkpoint do not fit together; Diverged at a loss that is
    not finite, with the last good checkpoint kept; Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    keep_freed_memory()
    _check(dataset, recipe, progress)
    trainer = Trainer(dataset, recipe, folder, seed=seed, start=start, options=options, progress=progress)
    with _stop_on_signal() as stop:
        while not (trainer.finished or (until and until(trainer.training_errors))):
            with _all_processes_alive(trainer):
                trainer.epoch(stop)
    model = trainer.model()
    if options.world.is_main:
        model.save(folder)
    options.world.barrier()
    return model


def _check(dataset: Dataset, recipe: Recipe, progress: Progress) -> None:
    """Refuse what cannot work; warn of what will not work soon."""
    if len(dataset.classes) < 2:
        raise BadArtefact(
            f"dataset {dataset.name} has one class, so there is nothing to tell apart: prep a folder of class folders"
        )
    if dataset.image_size != recipe.image.size:
        raise BadRecipe(
            f"recipe {recipe.name} takes pictures of {recipe.image.size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep with --size {recipe.image.size}, or choose another recipe"
        )
    training = recipe.training
    if training.schedule == "plateau" and "val" not in dataset.counts:
        progress.note("no validation split: the learning rate follows the training error instead")
    updates = math.ceil(dataset.counts["train"] / training.batch)
    slow = all(layer.weights != "he" for layer in recipe.network.layers.values())
    if slow and updates < 1000:
        progress.note(
            f"recipe {recipe.name} starts from N(0, 0.01²): the loss stays at ln({len(dataset.classes)}) = "
            f"{math.log(len(dataset.classes)):.2f} for about 300 updates, {300 / updates:.1f} epochs of this dataset; "
            "--recipe small-data starts at once"
        )


@contextmanager
def _all_processes_alive(trainer: Trainer) -> Iterator[None]:
    """Raises AlexNetError if another process of the run is gone."""
    try:
        yield
    except RuntimeError as error:
        if trainer.world.size == 1 or not is_lost_peer(error):
            raise
        raise AlexNetError(
            f"another process of this run has ended; resume from {trainer.folder / CHECKPOINT_FILE}, with any number "
            f"of processes, by: {trainer.resume_command}"
        ) from None


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
