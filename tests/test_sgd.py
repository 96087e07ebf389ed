"""The paper's update rule (§5) in NumPy, and where torch's own parts from it."""

import numpy as np
import torch

from alexnet_cli.training import sgd as module
from alexnet_cli.training.sgd import SGD

RATES = [0.1, 0.1, 0.01, 0.01]


def trained(make_optimizer, rates: list[float]) -> torch.Tensor:
    """Weights after steps on fixed gradients."""
    w = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
    step = make_optimizer(w)
    for i, rate in enumerate(rates):
        w.grad = torch.full_like(w, 0.5 + i)
        step(rate)
    return w.detach()


def ours(w: torch.Tensor):
    sgd = SGD({"w": w}, 0.9, {"w": 0.0005})
    return lambda rate: sgd.step({"w": rate})


def torchs(w: torch.Tensor):
    optimizer = torch.optim.SGD([w], lr=1.0, momentum=0.9, weight_decay=0.0005)

    def step(rate: float) -> None:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()

    return step


def test_the_rule_of_the_paper():
    w, v = np.linspace(-1, 1, 6).reshape(2, 3), np.zeros((2, 3))
    for i, rate in enumerate(RATES):
        v = 0.9 * v - 0.0005 * rate * w - rate * (0.5 + i)
        w = w + v
    np.testing.assert_allclose(trained(ours, RATES).numpy(), w, rtol=1e-14)


def test_torch_parts_where_the_learning_rate_changes():
    torch.testing.assert_close(trained(ours, [0.1] * 4), trained(torchs, [0.1] * 4), rtol=1e-13, atol=0)
    assert (trained(ours, RATES) - trained(torchs, RATES)).abs().min() > 0.1


def test_pieces_change_nothing(monkeypatch):
    whole = trained(ours, RATES)
    monkeypatch.setattr(module, "PIECE", 4)
    assert torch.equal(trained(ours, RATES), whole)


def test_gradients_are_forgotten_and_frozen_parameters_stay():
    w, frozen = torch.ones(3, requires_grad=True), torch.ones(3)
    w.grad = torch.ones(3)
    SGD({"w": w, "frozen": frozen}, 0.9, {"w": 0.1, "frozen": 0.1}).step({"w": 0.1})
    assert w.grad is None
    assert torch.equal(frozen, torch.ones(3))


def test_a_parameter_has_its_own_rate_and_decay_and_may_rest():
    parameters = {name: torch.ones(2, requires_grad=True) for name in ("weight", "bias", "frozen")}
    sgd = SGD(parameters, 0.9, {"weight": 0.1, "bias": 0.0})
    for w in parameters.values():
        w.grad = torch.full((2,), 3.0)
    sgd.step({"weight": 0.1, "bias": 0.2})
    torch.testing.assert_close(parameters["weight"].detach(), torch.full((2,), 1 - 0.1 * 0.1 - 0.1 * 3))
    torch.testing.assert_close(parameters["bias"].detach(), torch.full((2,), 1 - 0.2 * 3))
    assert torch.equal(parameters["frozen"], torch.ones(2))
    assert parameters["frozen"].grad is None


def test_momentum_goes_on_where_the_learning_rate_is_0():
    rates = [0.1, 0.1, 0.0]
    w, v = np.linspace(-1, 1, 6).reshape(2, 3), np.zeros((2, 3))
    for i, rate in enumerate(rates):
        v = 0.9 * v - 0.0005 * rate * w - rate * (0.5 + i)
        w = w + v
    np.testing.assert_allclose(trained(ours, rates).numpy(), w, rtol=1e-14)
