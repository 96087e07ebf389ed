"""The order in which an epoch visits the images, for datasets that fit in memory and for those that do not.

Reading images at random places is slow, on a spinning disk most of all. In windows, an epoch is read as it lies on
disk: shards of neighbouring images are shuffled, and then the images within a window of shards, which fits in memory.
A window holds images of hundreds of places, because a shard is small: with larger ones it would hold few classes, for
`prep` packs class by class.
"""

import numpy as np

from alexnet_cli.data.store import Split
from alexnet_cli.memory import total_memory

SHARD = 16  # images, 3 MB: on a spinning disk, reading them takes longer than finding them
WINDOW = 8192  # images, 1.6 GB; two windows are in memory at a time
FITS = 0.75  # of the memory; the rest is for the network


def shuffled(random: np.random.Generator, images: int, window: int) -> np.ndarray:
    """A permutation of ``images`` positions (N,) int64, in windows of ``window``; of all together if that is 0."""
    if not 0 < window < images:
        return random.permutation(images)
    shards = random.permutation(np.arange(0, images, SHARD))
    order = (shards[:, None] + np.arange(SHARD)).reshape(-1)
    order = order[order < images]  # the last shard may be smaller
    for start in range(0, images, window):
        random.shuffle(order[start : start + window])
    return order


def fits_in_memory(split: Split) -> bool:
    """Whether this machine, or this container, has the memory to keep the images in it."""
    memory = total_memory()
    return memory is None or split.bytes <= FITS * memory


class ReadAhead:
    """Lets the system read the next window from disk, in the order of the disk, while this one is used."""

    def __init__(self, split: Split, positions: np.ndarray, window: int) -> None:
        """``positions`` (N,): what will be read of ``split``, in this order; ``window``: how many of them at a time."""
        starts = range(0, len(positions), window)
        self.split, self.window, self.begun, self.asked = split, window, 0, 0
        self.by_place = np.concatenate([np.sort(positions[start : start + window]) for start in starts])

    def advance(self, count: int) -> None:
        """Say that the next ``count`` positions are read now: as many of the next window's are asked for."""
        self.begun += count
        until = min(self.begun + self.window, len(self.by_place))
        if until > self.asked:
            self.split.will_read(self.by_place[self.asked : until])
            self.asked = until
