"""The learning rate as a function of how far training is (§5)."""

from dataclasses import replace

import pytest

from alexnet_cli import recipe as recipes
from alexnet_cli.training.schedule import finished, learning_rate, rate_factor, stalls

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
        assert rate * rate_factor(recipe.training, recipe.network.layers["conv1"], done) == pytest.approx(conv1)
        assert rate * rate_factor(recipe.training, recipe.network.layers["fc8"], done) == pytest.approx(others)
    assert not finished(recipe.training, [0.5] * 90)
    assert finished(recipe.training, [0.5] * 91)
