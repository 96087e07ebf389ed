"""The paper's update rule (§5)."""

from collections.abc import Mapping

import torch
from torch import Tensor

# On a CPU a large tensor is updated in pieces that stay in the cache: weight, velocity and gradient are then read
# from memory once instead of once an operation.
PIECE = 1 << 16  # elements


class SGD:
    """Stochastic gradient descent with momentum and weight decay:

        v <- momentum v - weight_decay epsilon w - epsilon g
        w <- w + v

    The learning rate epsilon scales the gradient before it enters v. torch.optim.SGD multiplies v by it afterwards,
    so there a change of epsilon also rescales all past gradients; here it does not.

    ``weight_decays``: one for every parameter.
    """

    def __init__(self, parameters: Mapping[str, Tensor], momentum: float, weight_decays: Mapping[str, float]) -> None:
        self.parameters = parameters
        self.velocities = {name: torch.zeros_like(w) for name, w in parameters.items()}
        self.momentum, self.weight_decays = momentum, weight_decays

    @torch.no_grad()
    def step(self, learning_rates: Mapping[str, float]) -> None:
        """Update the parameters that have a rate with their `.grad`, and forget the gradients of all."""
        for name, w in self.parameters.items():
            rate = learning_rates.get(name)
            if w.grad is None or rate is None:
                w.grad = None
                continue
            for weight, v, g in zip(_pieces(w), _pieces(self.velocities[name]), _pieces(w.grad), strict=True):
                v.mul_(self.momentum)
                v.sub_(weight, alpha=self.weight_decays[name] * rate)
                v.sub_(g, alpha=rate)
                weight.add_(v)
            w.grad = None


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.device.type == "cpu" and tensor.dim() == 2 and tensor.is_contiguous():
        return torch.split(tensor.view(-1), PIECE)
    return (tensor,)
