"""The learning rate as a function of how far training is (§5)."""

from dataclasses import replace

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.training.schedule import (
    capped,
    finished,
    layer_rates,
    learning_rate,
    learning_rates,
    stalls,
    weight_decays,
)

PLATEAU = replace(recipes.load("paper").training, patience=2, epochs=90)
LINEAR = replace(recipes.load("small-data").training, warmup_epochs=2.0, epochs=10, learning_rate=0.01)


def test_divided_by_ten_when_the_error_stops_improving_three_times_then_the_end():
    errors: list[float] = [0.5, 0.4]
    rates = []
    while not finished(PLATEAU, errors):
        rates.append(learning_rate(PLATEAU, len(errors), errors))
        errors.append(0.4)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_a_new_best_begins_the_patience_anew():
    assert stalls(PLATEAU, [0.5, 0.6, 0.4, 0.5, 0.3]) == 0
    assert stalls(PLATEAU, [0.5, 0.6, 0.6, 0.6, 0.6]) == 2
    assert stalls(PLATEAU, [0.5, 0.6, 0.6, 0.2, 0.3]) == 1


def test_epochs_end_a_run_that_still_improves():
    assert finished(replace(PLATEAU, epochs=3), [0.5, 0.4, 0.3])
    assert not finished(replace(PLATEAU, epochs=4), [0.5, 0.4, 0.3])


def test_linear_warms_up_and_reaches_zero_at_the_end():
    assert learning_rate(LINEAR, 0.5, []) == pytest.approx(0.0025)
    assert learning_rate(LINEAR, 2, []) == pytest.approx(0.01)
    assert learning_rate(LINEAR, 6, []) == pytest.approx(0.005)
    assert learning_rate(LINEAR, 10, []) == 0
    assert learning_rate(replace(LINEAR, epochs=2), 2, []) == 0  # no longer than its warm-up
    assert finished(LINEAR, [0.9] * 10)
    assert not finished(LINEAR, [0.9] * 9)


@pytest.mark.parametrize(
    ("epoch", "conv1", "others"),
    [
        (24, 1e-2, 1e-2),
        (25, 1e-3, 1e-3),
        (50, 1e-3, 1e-3),
        (51, 1e-4, 1e-4),
        (66, 1e-4, 1e-4),
        (67, 1e-5, 1e-4),
        (71, 1e-5, 1e-4),
        (72, 0, 1e-4),
        (79, 0, 1e-5),
        (91, 0, 1e-5),
    ],
)
def test_the_schedule_of_the_log_layer_by_layer(epoch: int, conv1: float, others: float):
    recipe = recipes.load("original-2012")
    for done in (epoch - 0.99, epoch):  # of an epoch's updates, the first and the last
        rate = learning_rate(recipe.training, done, [])
        of_conv1 = layer_rates(recipe.training, recipe.network.layers["conv1"], rate, done)
        assert of_conv1 == (None if conv1 == 0 else pytest.approx((conv1, 0.02)))
        assert layer_rates(recipe.training, recipe.network.layers["fc8"], rate, done) == pytest.approx((others, 0.02))
    assert not finished(recipe.training, [0.5] * 90)
    assert finished(recipe.training, [0.5] * 91)


def test_in_the_warm_up_every_layer_has_the_common_rate():
    recipe = recipes.load("original-2012", ["training.warmup_epochs=30", "conv1.milestones=[20, 40]"])
    names = ["columns.0.conv1.weighted.weight", "columns.0.conv1.weighted.bias", "fc8.weight", "fc8.bias"]
    for done, expected in (
        (0.3, [0.0001, 0.0002, 0.0001, 0.0002]),
        (29.7, [0.0099, 0.0198, 0.0099, 0.0198]),
        (30.5, [0.001, 0.02, 0.001, 0.02]),  # one milestone of each has passed
    ):
        rates = learning_rates(recipe, names, learning_rate(recipe.training, done, []), done)
        assert [rates[name] for name in names] == pytest.approx(expected)


def test_a_layers_own_rate_and_decay():
    """The fine-tuning of CNN*: a tenth of the rate for conv1. A net for CIFAR-10: its last layer decays more."""
    names = ["columns.0.conv1.weighted.weight", "columns.0.conv1.weighted.bias", "fc8.weight"]
    rates = learning_rates(recipes.load("cnn-star-fine-tuning"), names, 0.001, 1)
    assert [rates[name] for name in names] == pytest.approx([0.0001, 0.0002, 0.001])
    names = ["columns.0.conv2.weighted.weight", "fc10.weight", "fc10.bias"]
    decays = weight_decays(recipes.load("cifar-19"), names)
    assert [decays[name] for name in names] == [0.004, 3.0, 0.0]
    assert set(weight_decays(recipes.load("paper"), ["fc8.weight", "fc8.bias"]).values()) == {0.0005}


def test_biases_whose_rate_does_not_fall_and_those_whose_does():
    name = "fc8.bias"
    for recipe, expected in (("original-2012", 0.02), ("caffenet", 0.002), ("paper", 0.001)):
        assert learning_rates(recipes.load(recipe), [name], 0.001, 40)[name] == pytest.approx(expected), recipe


def test_three_drops_each_at_a_stall_and_the_end_at_the_next_or_at_the_cap():
    stalled = [0.5, 0.4] + 6 * [0.4]  # patience 2: three stalls, and no fourth
    assert not finished(PLATEAU, stalled)
    assert not capped(PLATEAU, stalled)
    assert finished(PLATEAU, [*stalled, 0.4, 0.4])
    assert not capped(replace(PLATEAU, epochs=10), [*stalled, 0.4, 0.4])  # both at once: it had stalled
    assert capped(replace(PLATEAU, epochs=8), stalled)
    assert not capped(replace(LINEAR, epochs=8), stalled)
