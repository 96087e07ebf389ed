"""The processes of one run, as torchrun starts them. Alone, a process is a team of one, and nothing here costs time.

torch is imported only where there is more than one process, so that `prep` and `index` can do without it.
"""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexnet_cli.errors import AlexNetError

if TYPE_CHECKING:
    from torch import nn

TIMEOUT = datetime.timedelta(days=7)  # for a process with more to do; one that died is noticed at once


@dataclass(frozen=True, kw_only=True)
class World:
    """What one process needs to know of the others."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"  # where what is sent must lie: a GPU for NCCL

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's part of ``count`` things; all parts together are all, and of almost the same length."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, *values: float) -> list[float]:
        """Sums over all processes. Whole numbers stay exact."""
        if self.size == 1:
            return list(values)
        import torch

        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def barrier(self) -> None:
        """Until every process is here."""
        self.all_reduce(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The leader goes through the block, then the others do."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def wrap(self, net: "nn.Module") -> "nn.Module":
        """``net`` with gradients averaged over all processes (DistributedDataParallel)."""
        if self.size == 1:
            return net
        from torch import nn

        return nn.parallel.DistributedDataParallel(net)


SINGLE_PROCESS = World()


def is_distributed() -> bool:
    """Whether torchrun started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process's number on its machine; 0 if it is alone."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


def available_cores() -> int:
    """How many of its machine's cores are this process's: all, or its share of them in a team."""
    whole = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, whole // (int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_distributed() else 1))


@contextmanager
def process_group(device: str = "cpu") -> Iterator[World]:
    """The team of this process, over gloo on a CPU and NCCL on GPUs. ``device``: this process's own, or its first.

    Raises AlexNetError if another process of the team ends before its time.
    """
    if not is_distributed():
        yield SINGLE_PROCESS
        return
    import torch

    own = torch.device(device)
    gpu = own.type == "cuda"
    options: dict[str, Any] = {"device_id": own} if gpu else {"timeout": TIMEOUT}
    if gpu:
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("nccl" if gpu else "gloo", **options)
    try:
        yield World(
            rank=torch.distributed.get_rank(),
            size=torch.distributed.get_world_size(),
            device=device if gpu else "cpu",
        )
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise AlexNetError("another process of this run has ended: the same command goes on") from None
    finally:
        torch.distributed.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether ``error`` is what a process gets when another of its team is gone."""
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "Connection" in str(error)
