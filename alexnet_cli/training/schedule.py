"""Learning rates as a pure function of how far training has come, so that resuming needs no state of them; and the
weight decay of each parameter."""

import math
from collections.abc import Iterable

from alexnet_cli.nets.layers import Layer
from alexnet_cli.nets.network import is_bias, layer_of
from alexnet_cli.recipe import Recipe, Training


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


def layer_rates(training: Training, layer: Layer, rate: float, epochs_done: float) -> tuple[float, float] | None:
    """The learning rates of a layer's weights and of its biases, where ``rate`` is the common one.

    A layer may have a factor and milestones of its own. None if it is frozen.
    """
    if layer.frozen_from and _passed([layer.frozen_from], epochs_done):
        return None
    weights, warming_up = rate, epochs_done < training.warmup_epochs  # before milestones count
    if training.schedule == "milestones" and layer.milestones and not warming_up:
        weights *= 0.1 ** (_passed(layer.milestones, epochs_done) - _passed(training.milestones, epochs_done))
    biases = weights if training.bias_rate_falls or warming_up else training.learning_rate
    factor = layer.learning_rate_factor
    return float(factor * weights), float(factor * training.bias_rate * biases)


def learning_rates(recipe: Recipe, names: Iterable[str], rate: float, epochs_done: float) -> dict[str, float]:
    """The learning rate of each of the parameters ``names`` that is not frozen, where ``rate`` is the common one."""
    rates, layers = dict[str, float](), recipe.network.layers
    for name in names:
        of_layer = layer_rates(recipe.training, layers[layer_of(name)], rate, epochs_done)
        if of_layer is not None:
            rates[name] = of_layer[is_bias(name)]
    return rates


def weight_decays(recipe: Recipe, names: Iterable[str]) -> dict[str, float]:
    """The weight decay of each of the parameters ``names``: its layer's own, or the common one."""
    decays, training = dict[str, float](), recipe.training
    for name in names:
        own = recipe.network.layers[layer_of(name)].weight_decay
        decays[name] = training.weight_decay if isinstance(own, str) else own
        if is_bias(name) and not training.bias_decay:
            decays[name] = 0.0
    return decays


def _passed(milestones: list[int], epochs_done: float) -> int:
    """How many of the epochs ``milestones``, counted from 1, have begun once ``epochs_done`` epochs are done."""
    return sum(math.ceil(epochs_done) >= milestone for milestone in milestones)


def finished(training: Training, validation_errors: list[float]) -> bool:
    """Whether all epochs are done, or the error has stalled once more after the last drop."""
    if training.schedule == "plateau" and stalls(training, validation_errors) > training.drops:
        return True
    return len(validation_errors) >= training.epochs


def capped(training: Training, validation_errors: list[float]) -> bool:
    """Whether the cap on epochs ended a plateau schedule before the stall after its last drop (§5)."""
    return (
        training.schedule == "plateau"
        and len(validation_errors) >= training.epochs
        and stalls(training, validation_errors) <= training.drops
    )


def stalls(training: Training, validation_errors: list[float]) -> int:
    """How often the validation error went `patience` epochs without a new best."""
    best, since, count = float("inf"), 0, 0
    for error in validation_errors:
        best, since = (error, 0) if error < best else (best, since + 1)
        if since == training.patience:
            count, since = count + 1, 0
    return count
