"""The learning rate as a pure function of how far training has come, so that resuming needs no state of it."""

import math

from alexnet_cli.nets.layers import Layer
from alexnet_cli.recipe import Training


def learning_rate(training: Training, epochs_done: float, validation_errors: list[float]) -> float:
    """The learning rate after ``epochs_done`` epochs, given the validation error of each epoch so far.

    `plateau` is §5: divided by 10 each time the error has not improved for `patience` epochs. `linear`: in a straight
    line to 0 at the last epoch. `milestones`: divided by 10 from each of these epochs on.
    """
    rate = training.learning_rate
    if epochs_done < training.warmup_epochs:
        return rate * epochs_done / training.warmup_epochs
    if training.schedule == "plateau":
        return float(rate * 0.1 ** min(stalls(training, validation_errors), training.drops))
    if training.schedule == "milestones":
        return float(rate * 0.1 ** _passed(training.milestones, epochs_done))
    if epochs_done >= training.epochs:
        return 0.0
    return rate * (training.epochs - epochs_done) / (training.epochs - training.warmup_epochs)


def rate_factor(training: Training, layer: Layer, epochs_done: float) -> float:
    """A layer's learning rate divided by that of the others: by its own milestones, and 0 once it is frozen."""
    if layer.frozen_from and _passed([layer.frozen_from], epochs_done):
        return 0.0
    if training.schedule == "milestones" and layer.milestones:
        return float(0.1 ** (_passed(layer.milestones, epochs_done) - _passed(training.milestones, epochs_done)))
    return 1.0


def _passed(milestones: list[int], epochs_done: float) -> int:
    """How many of the epochs ``milestones``, counted from 1, have begun once ``epochs_done`` epochs are done."""
    return sum(math.ceil(epochs_done) >= milestone for milestone in milestones)


def finished(training: Training, validation_errors: list[float]) -> bool:
    """Whether all epochs are done, or the error has stalled once more after the last drop."""
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
