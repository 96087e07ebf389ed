"""Training (§5): from a recipe and a dataset to a model, in a run that can be stopped at any time and gone on with."""

import datetime
import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import alexnet_cli
from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import atomic_write
from alexnet_cli.data.augment import DROPOUT, INITIAL, Draws, Eye, colour_shift, seed_of, stream, view
from alexnet_cli.data.loader import Batch, batches
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import SINGLE_PROCESS, World, is_lost_peer
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe, Diverged, Interrupted
from alexnet_cli.inference.evaluation import count_errors
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import AlexNet, initialize, is_bias, layer_of
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint
from alexnet_cli.training.checkpoint import Position
from alexnet_cli.training.schedule import finished, learning_rate, multiple
from alexnet_cli.training.sgd import SGD


@dataclass(frozen=True, kw_only=True)
class Options:
    """What does not change what is learned, but where and how."""

    devices: tuple[str, ...] = ("cpu",)  # one for the whole network, or one a column
    world: World = SINGLE_PROCESS  # the processes that share the batches
    precision: str = "fp32"  # or "bf16"
    checkpoint_minutes: float = 10.0  # between checkpoints within an epoch


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
    """Train ``recipe`` on ``dataset`` into ``folder`` and return the model, also saved there.

    If ``folder`` holds a checkpoint of this same run it is gone on with, to the same weights as if it had never
    stopped. ``start``: a model whose layers, all but the last, are gone on from. ``until``: whether to end before
    the last epoch, given the training error of each epoch so far.

    Raises BadRecipe or BadArtefact if recipe, dataset and checkpoint do not fit together; Diverged at a loss that is
    not finite, with the last good checkpoint kept; Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    keep_freed_memory()
    _check(dataset, recipe, progress)
    run = Run(dataset, recipe, folder, seed=seed, start=start, options=options, progress=progress)
    with _stop_on_signal() as stop:
        while not (finished(recipe.training, run.validation_errors) or (until and until(run.training_errors))):
            with _company(run):
                run.epoch(stop)
    model = run.model()
    if options.world.is_main:
        model.save(folder)
    options.world.barrier()
    return model


class Run:
    """One training run: the network, its velocities, and how far it is."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        start: Model | None,
        options: Options,
        progress: Progress,
    ) -> None:
        self.dataset, self.recipe, self.folder, self.seed = dataset, recipe, folder, seed
        self.options, self.progress = options, progress
        self.device, self.world = torch.device(options.devices[0]), options.world
        self.split = dataset.split("train")
        self.statistics = dataset.statistics()
        self.mean_image = self.statistics.mean_image if start is None else start.mean_image
        self.eye = Eye(recipe.image, self.mean_image, self.device)
        self.net = AlexNet(recipe, len(dataset.classes))
        initialize(self.net, seed_of(stream(seed, INITIAL)))
        if start is not None:
            _go_on_from(self.net, start)
        self.net = self.net.to(memory_format=torch.channels_last).place([torch.device(d) for d in options.devices])
        self.wrapped = self.world.wrap(self.net)
        parameters = dict(self.net.named_parameters())
        self.sgd = SGD(
            parameters,
            momentum=recipe.training.momentum,
            weight_decay=recipe.training.weight_decay,
            undecayed=() if recipe.training.bias_decay else list(filter(is_bias, parameters)),
        )
        self.position = Position(settings=self._settings(start))
        begun = (folder / checkpoint.FILE).exists()
        self.world.barrier()  # all have looked before one writes
        if begun:
            self._resume()
        elif self.world.is_main:
            self._write_recipe()

    @property
    def validation_errors(self) -> list[float]:
        """Of each epoch that is over; the training error where there is no validation split."""
        return [row.get("validation_error", row["train_error"]) for row in self.position.history]

    @property
    def training_errors(self) -> list[float]:
        """Of each epoch that is over, measured while training."""
        return [row["train_error"] for row in self.position.history]

    def epoch(self, stop: threading.Event) -> None:
        """Train on every image once, or what is left of the epoch; then measure, record and save."""
        at, training = self.position, self.recipe.training
        draws = Draws.of_epoch(self.seed, at.epoch, len(self.split), self.recipe.image)
        steps = math.ceil(len(self.split) / training.batch)
        self.net.train()
        began, saved = time.monotonic() - at.seconds, time.monotonic()
        for batch in batches(self.split, draws.order, training.batch, self.device, at.step, self.world):
            rate = learning_rate(training, at.epoch + (at.step + 1) / steps, self.validation_errors)
            self._update(batch, draws, rate)
            at.step, at.seconds = at.step + 1, time.monotonic() - began
            self._report(batch.whole.stop, rate)
            if at.step == steps:
                break  # what ends an epoch also saves
            if self._any(stop):
                self._save()
                raise self._stopped()
            if time.monotonic() - saved > 60 * self.options.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        self._finish_epoch(rate)
        if self._any(stop):
            raise self._stopped()

    def _any(self, stop: threading.Event) -> bool:
        """Whether any process was asked to stop: all stop at the same step."""
        return self.world.all_reduce(stop.is_set()) != [0]

    def _stopped(self) -> Interrupted:
        return Interrupted(f"stopped and saved in epoch {self.position.epoch + 1}; go on with: {self.resume_command}")

    def _update(self, batch: Batch, draws: Draws, rate: float) -> None:
        """One step of stochastic gradient descent."""
        at, rows, whole, image = self.position, batch.rows, batch.whole, self.recipe.image
        images_of_all = whole.stop - whole.start
        y, x = view(image.crop, draws.top[rows], draws.left[rows], draws.reflected[rows])
        noisy = image.colour_noise and not 0 < image.colour_noise_until <= at.epoch + 1
        shift = colour_shift(draws.colour[rows], self.statistics) if noisy else None
        images = self.eye.see(batch.images, y, x, shift)  # (B, 3, crop, crop)
        seed = seed_of(stream(self.seed, DROPOUT, at.epoch, at.step))
        with autocast(self.device, self.options.precision):
            logits, _ = self.wrapped(images, seed, (rows.start - whole.start, images_of_all))
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum")
        wrong = (logits.argmax(1) != batch.labels).sum()
        value, wrong_of_all = self.world.all_reduce(loss.item(), int(wrong))
        if not math.isfinite(value):
            raise Diverged(self._diverged())
        # Averaged over the batch of all processes, whose gradients are averaged next.
        (loss * (self.world.size / images_of_all)).backward()
        self.sgd.step(rate, self._multiples(at.epoch + 1))
        at.loss, at.wrong = at.loss + value, at.wrong + int(wrong_of_all)

    def _multiples(self, epoch: int) -> dict[str, float]:
        """Of the learning rate, for every parameter."""
        training, layers = self.recipe.training, self.recipe.layers
        return {
            name: multiple(training, layers[layer_of(name)], epoch) * (training.bias_rate if is_bias(name) else 1.0)
            for name in self.sgd.parameters
        }

    def _report(self, done: int, rate: float) -> None:
        at = self.position
        speed = done / max(at.seconds, 1e-9)
        left = (len(self.split) - done + (self.recipe.training.epochs - at.epoch - 1) * len(self.split)) / speed
        at_most = " at most" if self.recipe.training.schedule == "plateau" else ""
        detail = (
            f"loss {at.loss / done:.3f}  top-1 error {at.wrong / done:.1%}  {speed:.0f} images/s  "
            f"learning rate {rate:.2g}  {_duration(left)} left{at_most}"
        )
        self.progress.advance(f"epoch {at.epoch + 1}/{self.recipe.training.epochs}", done, len(self.split), detail)

    def _finish_epoch(self, rate: float) -> None:
        at, images = self.position, len(self.split)
        row: dict[str, Any] = {"epoch": at.epoch + 1, "loss": at.loss / images, "train_error": at.wrong / images}
        if "val" in self.dataset.counts:
            network = NetworkModel(self.net.eval(), self.eye, self.dataset.classes, precision=self.options.precision)
            top1, top5 = count_errors([network], self.dataset.split("val"), views=1, world=self.world)
            total = self.dataset.counts["val"]
            row |= {"validation_error": top1 / total, "validation_top5_error": top5 / total}
        row |= {"learning_rate": rate, "seconds": at.seconds, "images_per_second": images / at.seconds}
        self.position = Position(settings=at.settings, epoch=at.epoch + 1, history=[*at.history, row])
        self._save()
        self._write_history()
        told = f"  validation error {row['validation_error']:.1%}" if "validation_error" in row else ""
        self.progress.note(
            f"epoch {row['epoch']}: loss {row['loss']:.4f}  training error {row['train_error']:.1%}{told}  "
            f"learning rate {rate:.2g}  {row['images_per_second']:.0f} images/s"
        )

    def _settings(self, start: Model | None) -> dict[str, Any]:
        """What makes a run the same run."""
        return {
            "recipe": recipes.dumps(self.recipe),
            "seed": self.seed,
            "dataset": self.dataset.fingerprint,
            "dataset_path": str(self.dataset.path),
            "from": None if start is None else start.fingerprint,
            "from_path": None if start is None else str(start.path),
            "precision": self.options.precision,
        }

    def _resume(self) -> None:
        position, own = checkpoint.read_position(self.folder), self.position.settings
        # The number of epochs may change, and a dataset may move; anything else would be another run.
        kept = recipes.loads(position.settings["recipe"])
        same = replace(kept, training=replace(kept.training, epochs=self.recipe.training.epochs))
        before = position.settings | {"recipe": recipes.dumps(same)}
        changed = [key for key in own if not key.endswith("_path") and own[key] != before[key]]
        if changed:
            raise BadRecipe(
                f"{self.folder} holds another run (different {', '.join(changed)}): "
                f"go on with it as it was by `{self.resume_command}`, or choose another --out"
            )
        checkpoint.load(self.folder, self.net, self.sgd)
        self.position = replace(position, settings=own)
        self._write_history()
        if finished(self.recipe.training, self.validation_errors):
            self.progress.note(f"{self.folder} has all its epochs")
        else:
            self.progress.note(f"going on in epoch {position.epoch + 1} at update {position.step + 1} of {self.folder}")

    def _save(self) -> None:
        if not self.world.is_main:
            return
        try:
            checkpoint.save(self.folder, self.net, self.sgd, self.position)
        except Diverged:
            raise Diverged(self._diverged()) from None

    @property
    def resume_command(self) -> str:
        return f"alexnet train --resume --out {self.folder.name}"

    def _diverged(self) -> str:
        at = self.position
        kept = (
            f"the checkpoint in {self.folder} is the last good one"
            if (self.folder / checkpoint.FILE).exists()
            else "nothing was saved yet"
        )
        lower = self.recipe.training.learning_rate / 10
        return (
            f"the loss is not finite at epoch {at.epoch + 1}, update {at.step + 1}; {kept}: "
            f"start again with a lower learning rate, for example --set training.learning_rate={lower:g}"
        )

    def _write_recipe(self) -> None:
        with atomic_write(self.folder / "recipe.toml") as temporary:
            temporary.write_text(recipes.dumps(self.recipe), encoding="utf-8")

    def _write_history(self) -> None:
        if not self.world.is_main:
            return
        from alexnet_cli.figures.curves import draw_curves

        with atomic_write(self.folder / "history.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.position.history), encoding="utf-8")
        if self.position.history:
            draw_curves(self.position.history, self.folder / "curves.png", title=self.folder.name)

    def model(self) -> Model:
        """What has been learned so far."""
        history = self.position.history
        return Model(
            net=self.net.eval(),
            recipe=self.recipe,
            classes=self.dataset.classes,
            mean_image=self.mean_image,
            provenance={
                **{key: value for key, value in self.position.settings.items() if key != "recipe"},
                "dataset_name": self.dataset.name,
                "epochs": len(history),
                "seconds": round(sum(row["seconds"] for row in history), 1),
                "date": datetime.date.today().isoformat(),
                "processes": self.world.size,
                "version": alexnet_cli.__version__,
                "torch": torch.__version__,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"
                if self.device.type == "cpu"
                else torch.cuda.get_device_name(self.device),
            },
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision of the network's arithmetic; weights, loss and updates stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


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
    slow = all(layer.weights != "he" for layer in recipe.layers.values())
    if slow and updates < 1000:
        progress.note(
            f"recipe {recipe.name} starts from N(0, 0.01²): the loss stays at ln({len(dataset.classes)}) = "
            f"{math.log(len(dataset.classes)):.2f} for about 300 updates, {300 / updates:.1f} epochs of this dataset; "
            "--recipe small-data starts at once"
        )


@torch.no_grad()
def _go_on_from(net: AlexNet, start: Model) -> None:
    """Take the weights of every layer but the last. Raises BadRecipe naming the first layer that differs."""
    weights, own = start.net.state_dict(), net.state_dict()
    for name, weight in own.items():
        if name.startswith(f"{net.last}."):
            continue
        if name not in weights or weights[name].shape != weight.shape:
            raise BadRecipe(f"--from: {name} is {tuple(weight.shape)} in this recipe, but not in the model")
        weight.copy_(weights[name])


@contextmanager
def _company(run: Run) -> Iterator[None]:
    """Raises AlexNetError if another process of the run is lost."""
    try:
        yield
    except RuntimeError as error:
        if run.world.size == 1 or not is_lost_peer(error):
            raise
        raise AlexNetError(
            f"another process of this run has ended; go on from {run.folder / checkpoint.FILE}, with as many processes "
            f"as you like, by: {run.resume_command}"
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


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
