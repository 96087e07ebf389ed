"""What a run takes over from the model that it is fine-tuned from."""

import torch

from alexnet_cli.errors import BadRecipe
from alexnet_cli.model import Model
from alexnet_cli.nets.network import ColumnNetwork, layer_of


def _new_layers(start: ColumnNetwork, net: ColumnNetwork) -> list[str]:
    """The layers that do not start from those of ``start``: what it lacks, and the last one."""
    return [name for name in net.network.layers if name == net.last or name not in start.network.layers]


def notes(start: Model, net: ColumnNetwork) -> list[str]:
    """What is not carried over from ``start``."""
    unused = [name for name in start.net.network.layers if name not in net.network.layers]
    new, model = _new_layers(start.net, net), start.path or "the model"
    left_out = f"{_listed(unused)} of {model} {'is' if len(unused) == 1 else 'are'} not in this recipe: left out"
    return [*([left_out] if unused else []), f"{_listed(new)} start{'s' if len(new) == 1 else ''} anew"]


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


@torch.no_grad()
def copy_weights(start: Model, net: ColumnNetwork) -> None:
    """Copy every layer but `_new_layers`. Raises BadRecipe naming the first tensor that differs."""
    weights, new = start.net.state_dict(), _new_layers(start.net, net)
    for name, weight in net.state_dict().items():
        if layer_of(name) in new:
            continue
        if name not in weights or weights[name].shape != weight.shape:
            raise BadRecipe(
                f"--from: {name} is {tuple(weight.shape)} in this recipe, but not in the model: "
                f"leave --recipe out to take the model's own, {start.recipe.name}"
            )
        weight.copy_(weights[name])
