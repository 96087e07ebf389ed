"""Batches of a split, read one ahead of the one in use, as uint8 on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.store import Split
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.prefetch import prefetch


@dataclass(frozen=True, kw_only=True)
class Batch:
    images: Tensor  # (B, S, S, 3) uint8, on the device
    labels: Tensor  # (B,) int64, on the device
    rows: slice  # of the order it came from
    whole: slice  # of the batch that these are a part of, where others have the rest


def batches(
    split: Split, order: np.ndarray, size: int, device: torch.device, first: int = 0, world: World = SINGLE_PROCESS
) -> Iterator[Batch]:
    """The split in ``order`` (N,), ``size`` at a time, from batch ``first`` on; the last may be smaller.

    Of each batch, the part of this process of the ``world``.
    """
    parts = [slice(start, min(start + size, len(order))) for start in range(first * size, len(order), size)]

    def read(whole: slice) -> Batch:
        part = world.shard(whole.stop - whole.start)
        rows = slice(whole.start + part.start, whole.start + part.stop)
        images, labels = torch.from_numpy(split.read(order[rows])), torch.from_numpy(split.labels[order[rows]])
        if device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        return Batch(images=images, labels=labels, rows=rows, whole=whole)

    return prefetch(read, parts)
