"""The processes of one run, as torchrun starts them. Alone, a process is a team of one, and nothing here costs time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Team:
    """What one process needs to know of the others."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"  # where what is sent must lie: a GPU for NCCL

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of ``count`` things; all parts together are all, and of almost the same length."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def total(self, *values: float) -> list[float]:
        """Sums over all processes. Whole numbers stay exact."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def wait(self) -> None:
        """Until every process is here."""
        self.total(0)

    def learner(self, net: nn.Module) -> nn.Module:
        """``net`` with gradients averaged over all processes (DistributedDataParallel)."""
        return net if self.size == 1 else nn.parallel.DistributedDataParallel(net)


ALONE = Team()


def is_team() -> bool:
    """Whether torchrun started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def place_in_team() -> int:
    """This process's number on its machine; 0 if it is alone."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_team() else 0


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """The team of this process, over gloo on a CPU and NCCL on GPUs. ``device``: this process's own, or its first."""
    if not is_team():
        yield ALONE
        return
    own = torch.device(device)
    gpu = own.type == "cuda"
    options: dict[str, Any] = {"device_id": own} if gpu else {}
    if gpu:
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("nccl" if gpu else "gloo", **options)
    try:
        yield Team(
            rank=torch.distributed.get_rank(),
            size=torch.distributed.get_world_size(),
            device=device if gpu else "cpu",
        )
    finally:
        torch.distributed.destroy_process_group()
