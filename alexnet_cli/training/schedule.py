"""The learning rate as a pure function of how far training is, so that resuming needs no state of it."""

import math

from alexnet_cli.recipe import Layer, Training


def learning_rate(training: Training, epochs_done: float, validation_errors: list[float]) -> float:
    """The learning rate after ``epochs_done`` epochs, with the validation error of each epoch that is over.

    `plateau` is §5: divided by 10 each time the error has not improved for `patience` epochs.
    `linear`: in a straight line to 0 at the last epoch. `steps`: divided by 10 from each epoch of `steps` on.
    """
    rate = training.learning_rate
    if epochs_done < training.warmup_epochs:
        return rate * epochs_done / training.warmup_epochs
    if training.schedule == "plateau":
        return float(rate * 0.1 ** min(stalls(training, validation_errors), training.drops))
    if training.schedule == "steps":
        return float(rate * 0.1 ** _passed(training.steps, epochs_done))
    if epochs_done >= training.epochs:
        return 0.0
    return rate * (training.epochs - epochs_done) / (training.epochs - training.warmup_epochs)


def multiple(training: Training, layer: Layer, epochs_done: float) -> float:
    """A layer's learning rate as a multiple of the others': its own steps, and 0 from where it is frozen on."""
    if layer.frozen_from and _passed([layer.frozen_from], epochs_done):
        return 0.0
    if training.schedule == "steps" and layer.steps:
        return float(0.1 ** (_passed(layer.steps, epochs_done) - _passed(training.steps, epochs_done)))
    return 1.0


def _passed(steps: list[int], epochs_done: float) -> int:
    """How many of the epochs ``steps``, counted from 1, have begun when ``epochs_done`` will be done."""
    return sum(math.ceil(epochs_done) >= step for step in steps)


def finished(training: Training, validation_errors: list[float]) -> bool:
    """All epochs are over, or the error stopped improving once more after the last drop."""
    if training.schedule == "plateau" and stalls(training, validation_errors) > training.drops:
        return True
    return len(validation_errors) >= training.epochs


def stalls(training: Training, validation_errors: list[float]) -> int:
    """How often the validation error went `patience` epochs without a new best."""
    best, since, count = float("inf"), 0, 0
    for error in validation_errors:
        best, since = (error, 0) if error < best else (best, since + 1)
        if since == training.patience:
            count, since = count + 1, 0
    return count
