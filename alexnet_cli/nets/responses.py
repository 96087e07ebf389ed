"""What the units of a layer respond: what they give before the first operation that looks at other places or maps.

In `paper` that is after ReLU, before response norm and pooling.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile

from torch import Tensor, nn

from alexnet_cli.nets.network import ColumnNetwork


@contextmanager
def recording(net: ColumnNetwork, layers: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
    """While ``net`` runs, keeps the responses of ``layers``, (B, K, H, W) or (B, units) for each column in turn."""
    recorded: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            recorded.setdefault(name, []).append(output)

        return record

    hooks = [module.register_forward_hook(keep(name)) for name in layers for module in _responding(net, name)]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _responding(net: ColumnNetwork, name: str) -> list[nn.Module]:
    """The modules that give the responses of layer ``name``, one for each column."""
    count = len(list(takewhile(lambda operation: operation.in_response, net.operations(name))))
    return [part.then[count - 1] if count else part.weighted for part in net.parts(name)]
