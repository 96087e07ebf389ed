"""The paper's update rule (§5)."""

from collections.abc import Collection, Mapping

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

    ``undecayed``: the parameters that have no weight decay; in the paper there are none.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        momentum: float,
        weight_decay: float,
        undecayed: Collection[str] = (),
    ) -> None:
        self.parameters = parameters
        self.velocities = {name: torch.zeros_like(w) for name, w in parameters.items()}
        self.momentum = momentum
        self.weight_decays = {name: 0.0 if name in undecayed else weight_decay for name in parameters}

    @torch.no_grad()
    def step(self, learning_rate: float, rate_factors: Mapping[str, float] | None = None) -> None:
        """Update every parameter with its `.grad`, and forget the gradients.

        ``rate_factors``: for some parameters, what the learning rate is multiplied by; 0 leaves a parameter as it is.
        """
        for name, w in self.parameters.items():
            factor = (rate_factors or {}).get(name, 1.0)
            if w.grad is None or factor == 0:
                w.grad = None
                continue
            rate = factor * learning_rate
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
