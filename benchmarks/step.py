"""Images per second of a training step and of inference, on a CPU or GPU: the cost of response norm.

    python benchmarks/step.py [--precision bf16] [--batch 64]

The nets are the 2012 net, the same with torch's own response norm, the same without response norm (the limit), and
torchvision's alexnet. A step is forward pass, backward pass and update.
"""

import argparse
from collections.abc import Callable

import torch
from common import RUNS, compare, per_second
from torch import nn
from torch.nn import functional as F

from alexnet_cli import recipe as recipes
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.nets.network import ColumnNetwork, initialize
from alexnet_cli.nets.normalization import LocalResponseNorm
from alexnet_cli.training.sgd import SGD
from alexnet_cli.training.trainer import autocast

CLASSES, STEPS = 1000, 3


def ours(recipe: str, device: torch.device, classes: int = CLASSES) -> ColumnNetwork:
    net = initialize(recipes.load(recipe).build(classes), 0)
    return net.to(memory_format=torch.channels_last).to_devices([device])


def with_torchs_norm(device: torch.device, classes: int = CLASSES) -> ColumnNetwork:
    """The 2012 net with torch.nn.LocalResponseNorm."""
    net = ours("paper", device, classes)
    for then in [module for module in net.modules() if isinstance(module, nn.ModuleList)]:
        for i, norm in enumerate(then):
            if isinstance(norm, LocalResponseNorm):
                then[i] = nn.LocalResponseNorm(norm.n, norm.alpha * norm.n, norm.beta, norm.k)
    return net


def torchvisions(device: torch.device) -> nn.Module:
    from torchvision.models import alexnet

    net: nn.Module = alexnet(weights=None).to(memory_format=torch.channels_last).to(device)
    return net


class Work:
    """A net and a batch, on which it is trained or run."""

    def __init__(self, net: nn.Module, given: argparse.Namespace, device: torch.device) -> None:
        self.net, self.given, self.device = net, given, device
        random = torch.Generator().manual_seed(0)
        images = 58 * torch.randn(given.batch, 3, 224, 224, generator=random)
        self.images = images.to(device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(CLASSES, (given.batch,), generator=random).to(device)
        self.sgd = SGD(weights := dict(net.named_parameters()), 0.9, dict.fromkeys(weights, 0.0005))

    def logits(self) -> torch.Tensor:
        with autocast(self.device, self.given.precision):
            if isinstance(self.net, ColumnNetwork):
                logits: torch.Tensor = self.net(self.images, 0)[0]
            else:
                logits = self.net(self.images)
        return logits.float()

    def train(self) -> None:
        self.net.train()
        for _ in range(STEPS):
            F.cross_entropy(self.logits(), self.labels).backward()
            self.sgd.step(dict.fromkeys(self.sgd.parameters, 1e-6))
        self._settle()

    @torch.inference_mode()
    def infer(self) -> None:
        self.net.eval()
        for _ in range(STEPS):
            self.logits()
        self._settle()

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nets = {
        "2012 net": ours("paper", device),
        "limit: without response norm": ours("no-response-norm", device),
        "torch.nn.LocalResponseNorm": with_torchs_norm(device),
        "torchvision alexnet": torchvisions(device),
    }
    work = {name: Work(net, given, device) for name, net in nets.items()}

    def timed(job: Callable[[], None]) -> Callable[[], float]:
        return lambda: per_second(STEPS * given.batch, job)

    facts = {"batch": given.batch, "precision": given.precision, "device": str(device)}
    for name, jobs in {
        f"train-{given.precision}": {name: timed(one.train) for name, one in work.items()},
        f"infer-{given.precision}": {name: timed(one.infer) for name, one in work.items()},
    }.items():
        compare(name, jobs, ours="2012 net", runs=given.runs, facts=facts)


if __name__ == "__main__":
    main()
