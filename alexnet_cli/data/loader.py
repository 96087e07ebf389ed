"""Batches of a split, uint8 on the device, prefetched: the next one is read while one is in use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.order import ReadAhead
from alexnet_cli.data.store import Split
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.prefetch import prefetch


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's shard of a batch."""

    images: Tensor  # (B, S, S, 3) uint8, on the device
    labels: Tensor  # (B,) int64, on the device
    rows: slice  # where the images stand in the epoch's order
    whole: slice  # where the batch of all processes stands there


def batches(
    split: Split,
    order: np.ndarray,
    size: int,
    device: torch.device,
    first: int = 0,
    world: World = SINGLE_PROCESS,
    window: int = 0,
) -> Iterator[Batch]:
    """The split in ``order`` (N,), ``size`` images at a time, from batch ``first`` on; the last may be smaller.

    ``window``: of an order in windows, which is read ahead from disk; else 0.
    """
    wholes = [slice(start, min(start + size, len(order))) for start in range(first * size, len(order), size)]
    shards = [world.shard(whole.stop - whole.start) for whole in wholes]
    parts = [slice(whole.start + s.start, whole.start + s.stop) for whole, s in zip(wholes, shards, strict=True)]
    ahead = None
    if window and parts:
        ahead = ReadAhead(split, np.concatenate([order[rows] for rows in parts]), max(1, window // world.size))

    def read(part: tuple[slice, slice]) -> Batch:
        whole, rows = part
        if ahead is not None:
            ahead.advance(rows.stop - rows.start)
        images = torch.from_numpy(split.read(order[rows]))
        labels = torch.from_numpy(split.labels[order[rows]].astype(np.int64))
        if device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        return Batch(images=images, labels=labels, rows=rows, whole=whole)

    return prefetch(read, zip(wholes, parts, strict=True))
