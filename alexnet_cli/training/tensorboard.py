"""The log of a run for TensorBoard, by torch's own writer: scalars, the first layer's kernels, hyperparameters."""

import time
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import KERNELS, TENSORBOARD
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.mosaic import ACROSS, as_colours, mosaic
from alexnet_cli.training.checkpoint import TrainingState
from alexnet_cli.training.kernels import read_kept

SCALARS = {  # a column of history.jsonl -> its name in TensorBoard, which draws those before one "/" together
    "loss": "loss/training",
    "train_error": "error/training",
    "validation_error": "error/validation",
    "validation_top5_error": "error/validation_top5",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}
RESULTS = ("loss/training", "error/training", "error/validation", "error/validation_top5")  # beside hyperparameters
ZOOM = 4  # pixels per weight of a kernel


class TensorBoard:
    """A Logger that writes event files to the folder `tensorboard/` of a run. A step is an epoch, as in history.jsonl.

    The log follows from the history and the kernels that the run keeps. A run that is resumed begins another event
    file, which tells readers to forget the files before it, and writes all epochs to it again: none is there twice or
    missing, whatever ended the run before, and whether or not that was logged. Earlier files stay, since a TensorBoard
    that is open reads on from the last one it knows.
    """

    def __init__(self) -> None:
        """Raises AlexNetError if the package is not installed."""
        if find_spec("tensorboard") is None:
            raise AlexNetError("--log tensorboard needs a package more: install alexnet-cli[tensorboard]")
        self._writer: Any = None
        self._images = self._rows = 0  # written so far; the kernels of epoch 0 are those before training

    def log(self, folder: Path, state: TrainingState) -> None:
        """Write what is new since the last call, and on the first all there is."""
        if self._writer is None:
            self._start(folder / TENSORBOARD, state)
        for epoch in range(self._images, len(state.history) + 1):
            file = folder / KERNELS / f"{epoch:04d}.npy"
            if file.exists():  # the first layer is a convolution
                self._add_kernels(read_kept(file), epoch)
        for row, when in list(zip(state.history, _times(state.history), strict=True))[self._rows :]:
            for key, name in SCALARS.items():
                if key in row:
                    self._writer.add_scalar(name, row[key], row["epoch"], walltime=when)
        self._images, self._rows = len(state.history) + 1, len(state.history)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._images, self._rows = None, 0, 0

    def _start(self, folder: Path, state: TrainingState) -> None:
        from torch.utils.tensorboard import SummaryWriter, summary

        self._writer = SummaryWriter(str(folder), purge_step=0)  # what is known from this epoch on is forgotten
        recipe = recipes.loads(state.settings["recipe"])
        values = recipes.flat(recipe) | {key: state.settings[key] for key in ("seed", "precision", "from_name")}
        plain = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in values.items()}
        # The writer's own add_hparams would add a run of its own, and each result once more.
        hparams: Any = summary.hparams  # it has no types
        for each in hparams(plain | {"dataset": Path(state.settings["dataset_path"]).name}, dict.fromkeys(RESULTS)):
            self._writer.file_writer.add_summary(each)

    def _add_kernels(self, kernels: np.ndarray, epoch: int) -> None:
        """The picture of ``kernels`` (K, C, h, w), a row of them below the other as in figure 3."""
        sheet = mosaic(as_colours(kernels.astype(np.float32)), min(ACROSS, len(kernels)))
        self._writer.add_image("kernels", sheet.repeat(ZOOM, 0).repeat(ZOOM, 1), epoch, dataformats="HWC")


def _times(history: list[dict[str, Any]]) -> list[float]:
    """When each epoch ended, in seconds since 1970, if the last ended now and there was no pause between them."""
    after = list(accumulate((row["seconds"] for row in reversed(history)), initial=0.0))[:-1]
    return [time.time() - seconds for seconds in reversed(after)]
