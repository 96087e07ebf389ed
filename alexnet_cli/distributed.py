"""The processes that torchrun starts for one run. A run without torchrun is a world of one process, at no extra cost.

torch is imported only if there is more than one process, so that `prep` and `index` run without it.
"""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexnet_cli.peers import Peers

if TYPE_CHECKING:
    from torch import nn

# A rank may wait long for one with more work; `peers` tells whether that one is still there.
TIMEOUT = datetime.timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of one run, as one of them sees them."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"  # of the tensors that are exchanged: NCCL takes those of a GPU only
    peers: Peers | None = None  # of a run with more than one process

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints, and writes what the ranks produce together."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This rank's slice of ``count`` items. The ranks' slices cover all; their lengths differ by at most 1."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, *values: float) -> list[float]:
        """The sum of each value over all ranks, in float64: integers below 2^53 stay exact."""
        if self.size == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        sums: list[float] = tensor.tolist()
        return sums

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        self.all_reduce(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0, then on the other ranks."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def wrap(self, net: "nn.Module") -> "nn.Module":
        """``net`` in DistributedDataParallel, which averages gradients over all ranks; unchanged if alone."""
        if self.size == 1:
            return net
        from torch import nn

        return nn.parallel.DistributedDataParallel(net)


SINGLE_PROCESS = World()


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process's rank among those on the same machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


def available_cores() -> int:
    """The number of CPU cores for this process: the machine's, divided by the number of processes on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_distributed() else 1))


@contextmanager
def process_group(device: str = "cpu") -> Iterator[World]:
    """Join the process group of this run, over gloo on CPUs and NCCL on GPUs; leave it after the block.

    ``device``: this process's device, or the first of several. If another process is lost, one rank raises LostProcess,
    or ends after a line on standard error if it waits inside gloo or NCCL; all others end in silence, by SystemExit.
    So do they if one rank raises an error: one line tells the user what ended the run.
    """
    if not is_distributed():
        yield SINGLE_PROCESS
        return
    import torch
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    peers = Peers(store, rank, size)
    with peers.watched() as together:
        try:
            peers.meet()
            _join(device)
            world = World(rank=rank, size=size, device=device if device.startswith("cuda") else "cpu", peers=peers)
            yield world
            world.barrier()  # no rank ends while another one may still need it
            together.set()
        except BaseException as error:
            raise peers.last_word(error, lost_peer=_is_lost_peer(error)) from None
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _join(device: str) -> None:
    import torch

    options: dict[str, Any] = {"timeout": TIMEOUT}
    on_gpu = device.startswith("cuda")
    if on_gpu:
        options["device_id"] = torch.device(device)
        torch.cuda.set_device(device)
        # A collective that fails ends this process instead of leaving it to wait. torch's default; set because we rely
        # on it.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", **options)


def _is_lost_peer(error: BaseException) -> bool:
    """Whether ``error`` means that the connection to another process of the run is closed."""
    import torch

    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "Connection" in str(error)
