"""One training run: the loop over epochs and updates, what it shows, and what it saves."""

import datetime
import json
import math
import platform
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import alexnet_cli
from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE, HISTORY_FILE, KERNELS, RECIPE_FILE, model_name
from alexnet_cli.data.augment import DROPOUT, INITIAL, EpochPlan, augment, seed_of, stream
from alexnet_cli.data.loader import Batch, batches
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import BadRecipe, Diverged, Interrupted, NotFinite
from alexnet_cli.files import atomic_write
from alexnet_cli.inference.evaluation import count_errors
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.progress import Progress
from alexnet_cli.recipe import Recipe
from alexnet_cli.training import checkpoint, fine_tuning
from alexnet_cli.training.checkpoint import TrainingState
from alexnet_cli.training.loggers import Logger
from alexnet_cli.training.schedule import finished, learning_rate, learning_rates, stalls, weight_decays
from alexnet_cli.training.sgd import SGD
from alexnet_cli.wording import counted, duration

DRAW_EVERY = 10.0  # seconds, at least: to draw the curves takes longer than an epoch of a small dataset
BEFORE_VALIDATION = 1.0  # minutes of training that are saved before the validation, which may take long
LOOK_EVERY = 10  # updates between two readings of the loss, where reading means waiting for a GPU or other processes


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where and how a run trains; what it learns does not depend on these."""

    devices: tuple[str, ...] = ("cpu",)  # one for the whole network, or one per column
    world: World = SINGLE_PROCESS  # the processes that share each batch
    precision: str = "fp32"  # or "bf16"
    checkpoint_minutes: float = 10.0  # between checkpoints within an epoch
    loggers: tuple[Logger, ...] = ()  # what else is told of the run after each epoch


class Trainer:
    """The network, its velocities, and how far training has come."""

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
        self.net = initialize(recipe.build(len(dataset.classes)), seed_of(stream(seed, INITIAL)))
        self.net = self.net.to(memory_format=torch.channels_last).to_devices([torch.device(d) for d in options.devices])
        parameters = dict(self.net.named_parameters())
        self.sgd = SGD(parameters, recipe.training.momentum, weight_decays(recipe, parameters))
        self.state = TrainingState(settings=self._settings(start))
        exists = (folder / CHECKPOINT_FILE).exists()
        self.world.barrier()  # every rank has looked before rank 0 writes
        self.mean_image = self._resume() if exists else self._start(start)
        self.statistics = replace(dataset.statistics(), mean_image=self.mean_image)
        self.preprocessor = Preprocessor(recipe.image, self.mean_image, self.device)
        self.wrapped = self.world.wrap(self.net)
        # Running loss and error counts of this epoch, on the device: this rank's, plus (rank 0) those restored from the
        # checkpoint.
        sums = [self.state.loss, self.state.wrong] if self.world.is_main else [0.0, 0.0]
        self._sums = torch.tensor(sums, dtype=torch.float64, device=self.device)
        self._drawn = time.monotonic()  # when the curves were drawn
        self.may_end_early = recipe.training.schedule == "plateau"

    @property
    def finished(self) -> bool:
        """Whether the schedule has ended."""
        return finished(self.recipe.training, self.validation_errors)

    @property
    def steps(self) -> int:
        """Updates in an epoch."""
        return math.ceil(len(self.split) / self.recipe.training.batch)

    @property
    def drops(self) -> int:
        """How often a plateau schedule has divided the learning rate by 10."""
        return min(stalls(self.recipe.training, self.validation_errors), self.recipe.training.drops)

    @property
    def validation_errors(self) -> list[float]:
        """One per epoch; the training error where there is no validation split."""
        return [row.get("validation_error", row["train_error"]) for row in self.state.history]

    @property
    def training_errors(self) -> list[float]:
        """One per epoch, measured while training."""
        return [row["train_error"] for row in self.state.history]

    def epoch(self, stop: threading.Event) -> None:
        """Train on every image once, or on what is left of the epoch; then validate, record and save.

        Raises Interrupted, with a checkpoint saved, once ``stop`` is set.
        """
        state, training, steps = self.state, self.recipe.training, self.steps
        image, augmentations, window = self.recipe.image, self.recipe.augmentations, training.window
        plan = EpochPlan.draw(self.seed, state.epoch, len(self.split), image, augmentations, window)
        rate = learning_rate(training, state.epoch + 1, self.validation_errors)  # of the last update
        self.net.train()
        began, saved = time.monotonic() - state.seconds, time.monotonic()
        for batch in batches(self.split, plan.order, training.batch, self.device, state.step, self.world, window):
            epochs_done = state.epoch + (state.step + 1) / self.steps
            rate = learning_rate(training, epochs_done, self.validation_errors)
            self._update(batch, plan, learning_rates(self.recipe, self.sgd.parameters, rate, epochs_done))
            state.step, state.seconds = state.step + 1, time.monotonic() - began
            if not (state.step == steps or self._is_time_to_look(stop)):
                continue
            stopping = self._look(stop)
            self._report(batch.whole.stop, rate)
            if state.step == steps:
                break
            if stopping or (self.world.size == 1 and stop.is_set()):
                self._save()
                self.draw()
                raise self._interrupted()
            if time.monotonic() - saved > 60 * self.options.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        self._check_weights()
        if time.monotonic() - saved > 60 * min(BEFORE_VALIDATION, self.options.checkpoint_minutes):
            self._save()
        self._finish_epoch(rate)
        if self.world.all_reduce(stop.is_set()) != [0]:
            self.draw()
            raise self._interrupted()

    def _update(self, batch: Batch, plan: EpochPlan, rates: dict[str, float]) -> None:
        """One step of stochastic gradient descent, with a learning rate for each parameter. Nothing waits for the
        device."""
        state, rows, whole = self.state, batch.rows, batch.whole
        images_of_all = whole.stop - whole.start
        inputs = augment(self.preprocessor, batch.images, plan.rows(rows), self.statistics)  # (B, C, crop, crop)
        seed = seed_of(stream(self.seed, DROPOUT, state.epoch, state.step))
        with autocast(self.device, self.options.precision):
            logits, _ = self.wrapped(inputs, seed, (rows.start - whole.start, images_of_all))
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum")
        # DistributedDataParallel averages the gradients of all processes: together, the mean over the whole batch.
        (loss * (self.world.size / images_of_all)).backward()
        self.sgd.step(rates)
        wrong = (logits.argmax(1) != batch.labels).sum()
        self._sums += torch.stack([loss.detach().double(), wrong.double()])

    def _is_time_to_look(self, stop: threading.Event) -> bool:
        """Whether to wait for the sums: always on a CPU by itself, where they are there; else every LOOK_EVERY updates.

        Ranks look at the same updates, for looking is a collective operation.
        """
        if self.world.size == 1 and (self.device.type == "cpu" or stop.is_set()):
            return True
        return self.state.step % LOOK_EVERY == 0

    def _look(self, stop: threading.Event) -> bool:
        """Read loss and error so far. Returns whether any process was asked to stop: all stop at the same update.

        Raises Diverged if the loss is not finite; the checkpoint on disk is from before.
        """
        loss, wrong, stopping = self.world.all_reduce(*self._sums.tolist(), stop.is_set())
        if not math.isfinite(loss):
            raise Diverged(self._diverged("the loss"))
        self.state.loss, self.state.wrong = loss, int(wrong)
        return stopping > 0

    def _check_weights(self) -> None:
        """Raises Diverged if a weight is not finite: the loss of the last update is that of the weights before it."""
        if not all(bool(weight.isfinite().all()) for weight in self.net.state_dict().values()):
            raise Diverged(self._diverged("a weight"))

    def _report(self, done: int, rate: float) -> None:
        state = self.state
        speed = done / max(state.seconds, 1e-9)
        left = (len(self.split) - done + (self.recipe.training.epochs - state.epoch - 1) * len(self.split)) / speed
        at_most = " at most" if self.may_end_early else ""
        detail = (
            f"loss {state.loss / done:.3f}  top-1 error {state.wrong / done:.1%}  {speed:.0f} images/s  "
            f"learning rate {rate:.2g}  {duration(left)} left{at_most}"
        )
        self.progress.advance(f"epoch {state.epoch + 1}/{self.recipe.training.epochs}", done, len(self.split), detail)

    def _finish_epoch(self, rate: float) -> None:
        state, images = self.state, len(self.split)
        row: dict[str, Any] = {"epoch": state.epoch + 1, "loss": state.loss / images}
        row["train_error"] = state.wrong / images
        if "val" in self.dataset.counts:
            top1, top5 = self._validate()
            row |= {"validation_error": top1, "validation_top5_error": top5}
        row |= {"learning_rate": rate, "seconds": state.seconds, "images_per_second": images / state.seconds}
        self.state = TrainingState(settings=state.settings, epoch=state.epoch + 1, history=[*state.history, row])
        self._sums.zero_()
        self._keep_kernels(row["epoch"])
        self._save()
        self._write_history()
        self.log()
        if time.monotonic() - self._drawn >= DRAW_EVERY:
            self.draw()
        validation = f"validation error {row['validation_error']:.1%}  " if "validation_error" in row else ""
        self.progress.note(
            f"epoch {row['epoch']}: loss {row['loss']:.4f}  training error {row['train_error']:.1%}",
            f"{validation}learning rate {rate:.2g}  {row['images_per_second']:.0f} images/s",
        )

    def _validate(self) -> tuple[float, float]:
        """Top-1 and top-5 error of the validation split. Raises Diverged if the network's outputs are not finite."""
        network = NetworkModel(
            self.net.eval(), self.preprocessor, self.dataset.classes, precision=self.options.precision
        )
        try:
            top1, top5 = count_errors([network], self.dataset.split("val"), views=1, world=self.world)
        except NotFinite:
            raise Diverged(self._diverged("an output in the validation")) from None
        total = self.dataset.counts["val"]
        return top1 / total, top5 / total

    # Saving and resuming

    def _settings(self, start: Model | None) -> dict[str, Any]:
        """What identifies the run."""
        return {
            "recipe": recipes.dumps(self.recipe),
            "seed": self.seed,
            "dataset": self.dataset.fingerprint,
            "dataset_path": str(self.dataset.path.resolve()),
            "from": None if start is None else start.fingerprint,
            "from_name": None if start is None or start.path is None else model_name(start.path),
            "precision": self.options.precision,
        }

    def _start(self, start: Model | None) -> np.ndarray:
        """Begin a new run, and save it before its first update: from then on it can be resumed, whatever ends it, and a
        disk that cannot hold it is found out at once. Returns the mean image."""
        if start is not None:
            for note in fine_tuning.notes(start, self.net):
                self.progress.note(note)
            fine_tuning.copy_weights(start, self.net)
        own = self.dataset.statistics().mean(self.recipe.image.mean)
        self.mean_image = own if start is None else start.mean_image
        self._save()
        self._keep_kernels(0)
        self._write_recipe()
        return self.mean_image

    def _resume(self) -> np.ndarray:
        """Take up the run that the checkpoint holds. Returns its mean image. Raises BadRecipe if it is another run."""
        state, own = checkpoint.read_state(self.folder), self.state.settings
        # The number of epochs may change, and a dataset may move; with any other change it would be another run. A
        # model to start from is not needed any more.
        saved = recipes.loads(state.settings["recipe"]).with_training(epochs=self.recipe.training.epochs)
        before = state.settings | {"recipe": recipes.dumps(saved)}
        if own["from"] is None:
            own |= {key: before[key] for key in ("from", "from_name")}
        changed = [key for key in own if not key.endswith(("_path", "_name")) and own[key] != before[key]]
        if changed:
            raise BadRecipe(
                f"{self.folder} holds another run (different {', '.join(changed)}): remove it, or choose another --out"
            )
        mean_image = checkpoint.load(self.folder, self.net, self.sgd)
        self.state = replace(state, settings=own)
        if state.epoch == state.step == 0:
            self._keep_kernels(0)  # if it was killed before it did
        self._write_recipe()
        self._write_history()
        if self.finished:
            self.progress.note(f"{self.folder} has all its epochs")
        else:
            place = "before its validation" if state.step == self.steps else f"at update {state.step + 1}"
            self.progress.note(f"resuming {self.folder} in epoch {state.epoch + 1} {place}")
        return mean_image

    def _save(self) -> None:
        if not self.world.is_main:
            return
        try:
            checkpoint.save(self.folder, self.net, self.sgd, self.mean_image, self.state)
        except Diverged:
            raise Diverged(self._diverged("a weight")) from None

    def _interrupted(self) -> Interrupted:
        where = "after the last epoch" if self.finished else f"in epoch {self.state.epoch + 1}"
        return Interrupted(f"stopped and saved {where}")

    def _diverged(self, what: str) -> str:
        lower = self.recipe.training.learning_rate / 10
        return (
            f"{what} is not finite at epoch {self.state.epoch + 1}, update {self.state.step}; the checkpoint in "
            f"{self.folder} is the last good one: start another run with a lower learning rate, for example "
            f"--set training.learning_rate={lower:g}"
        )

    def _write_recipe(self) -> None:
        if self.world.is_main:
            with atomic_write(self.folder / RECIPE_FILE) as temporary:
                temporary.write_text(recipes.dumps(self.recipe), encoding="utf-8")

    def _write_history(self) -> None:
        if not self.world.is_main:
            return
        with atomic_write(self.folder / HISTORY_FILE) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.state.history), encoding="utf-8")

    def _keep_kernels(self, epoch: int) -> None:
        """Keep the kernels of the first layer after ``epoch`` epochs, to show how they grew: (K, C, h, w) float16."""
        kernels = [module.get_parameter("weight") for module in self.net.weighted(next(iter(self.net.hidden)))]
        if self.world.is_main and kernels[0].dim() == 4:
            with atomic_write(self.folder / KERNELS / f"{epoch:04d}.npy") as temporary:
                np.save(temporary, torch.cat([each.detach().cpu() for each in kernels]).half().numpy())

    def log(self) -> None:
        """Tell the loggers how far the run has come."""
        for logger in self.options.loggers if self.world.is_main else ():
            logger.log(self.folder, self.state)

    def draw(self) -> None:
        """Draw the curves of the epochs so far."""
        if not (self.world.is_main and self.state.history):
            return
        from alexnet_cli.training.curves import draw_curves

        title, chance = model_name(self.folder), 1 - 1 / len(self.dataset.classes)
        draw_curves(self.state.history, self.folder / "curves.png", title=title, chance=chance)
        self._drawn = time.monotonic()

    def model(self) -> Model:
        """What has been learned so far."""
        history = self.state.history
        last = history[-1] if history else {}
        return Model(
            net=self.net.eval(),
            recipe=self.recipe,
            classes=self.dataset.classes,
            words=self.dataset.words,
            mean_image=self.mean_image,
            path=self.folder,
            provenance={
                # A model may be given away: no path of this machine goes with it.
                **{key: value for key, value in self.state.settings.items() if key not in ("recipe", "dataset_path")},
                "dataset_name": self.dataset.name,
                "dataset_store": self.dataset.store,
                "training_images": self.dataset.counts["train"],
                **{key: error for key, error in last.items() if key.startswith("validation_")},
                "epochs": len(history),
                "seconds": round(sum(row["seconds"] for row in history), 1),
                "date": datetime.date.today().isoformat(),
                "processes": self.world.size,
                "version": alexnet_cli.__version__,
                "torch": torch.__version__,
                "machine": f"{platform.machine()}, {counted(torch.get_num_threads(), 'thread')}"
                if self.device.type == "cpu"
                else torch.cuda.get_device_name(self.device),
            },
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision of the network's arithmetic; weights, loss and updates stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
