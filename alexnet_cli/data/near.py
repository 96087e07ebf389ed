"""Near-duplicates: validation pictures that are in the training split as well, resized or compressed again.

A picture's hash has 128 bits: whether brightness rises to the right and downwards between the cells of a 9×9 grid
(dHash). Only pictures that agree in one of eight bands of 16 bits are compared, so that a million stay cheap.

Of 60 photographs, all were found again at two thirds of their size and JPEG quality 60, 58 at half and quality 30, and
17 with a margin of 3 % cut off; none was taken for another. Digits on black differ in few cells, whoever wrote them: a
picture that is plain in most places counts as another's near-duplicate only if both are nearly equal.
"""

from dataclasses import dataclass

import numpy as np

CELLS = 9  # across and down
BANDS = 8  # of 16 bits
SAMPLES = 8  # pixels looked at across a cell
MOST_BITS = 10  # of the 128 may differ in near-duplicates
BUCKET = 200  # pictures that agree in a band; where there are more, the band tells nothing of them
BLOCK = 1024  # validation pictures compared at a time
MOST_LEVELS = 10.0  # mean difference of near-duplicates' cells, in grey levels
PLAIN = 0.25  # share of neighbouring cells that are equal within a level; 0.1 in the plainest photograph of Imagenette
PLAIN_LEVELS = 1.0  # MOST_LEVELS of plain pictures
MOST_PAIRS = 2000  # of which the pixels are compared


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A validation picture and the training picture that is nearest to it."""

    val: int  # slots
    train: int


def hashes(images: np.ndarray) -> np.ndarray:
    """The hashes of ``images`` (n, S, S, 3) uint8: (n, 8) uint16, a column for each band."""
    grid = _cells(images[..., 1:2])[..., 0]  # green is most of brightness
    across, down = grid[:, :8, :-1] < grid[:, :8, 1:], grid[:, :-1, :8] < grid[:, 1:, :8]
    bits = np.concatenate([across, down], 1)  # (n, 16, 8): a band has one bit of each row
    return np.ascontiguousarray(np.packbits(bits.transpose(0, 2, 1), axis=2)).view(np.uint16)[..., 0]


def candidates(train: np.ndarray, val: np.ndarray) -> list[Pair]:
    """The pictures of ``val`` (V, 8) that differ in few bits from one of ``train`` (T, 8), with the nearest one."""
    best, nearest = np.full(len(val), MOST_BITS + 1), np.zeros(len(val), np.int64)
    for band in range(BANDS):
        order = np.argsort(train[:, band], kind="stable")
        ordered = train[order, band]
        for start in range(0, len(val), BLOCK):
            block = slice(start, start + BLOCK)
            first = np.searchsorted(ordered, val[block, band])
            counts = np.searchsorted(ordered, val[block, band], "right") - first
            counts[counts > BUCKET] = 0
            row = np.repeat(np.arange(len(counts)), counts) + start  # of each pair
            inside = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
            other = order[np.repeat(first, counts) + inside]
            differing = np.bitwise_count(train[other] ^ val[row]).sum(1, dtype=np.int64)
            for i in np.flatnonzero(differing < best[row]).tolist():
                if differing[i] < best[row[i]]:
                    best[row[i]], nearest[row[i]] = differing[i], other[i]
    return [Pair(val=int(i), train=int(nearest[i])) for i in np.flatnonzero(best <= MOST_BITS)]


def are_near(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of ``images`` (n, S, S, 3) uint8 has nearly the colours of its counterpart in ``others``: (n,)."""
    cells = _cells(images)
    steps = (np.abs(np.diff(cells, axis=axis)).max(3).reshape(len(cells), -1) for axis in (1, 2))
    is_plain = (np.concatenate(list(steps), 1) <= PLAIN_LEVELS).mean(1) > PLAIN
    differences = np.abs(cells - _cells(others)).mean((1, 2, 3))
    return np.asarray(differences <= np.where(is_plain, PLAIN_LEVELS, MOST_LEVELS))


def _cells(images: np.ndarray) -> np.ndarray:
    """The means of the cells of a grid over ``images`` (n, S, S, C) uint8, from some of the pixels, float32."""
    step = max(1, images.shape[1] // (CELLS * SAMPLES))
    pixels = images[:, ::step, ::step].astype(np.float32)
    edges = np.linspace(0, pixels.shape[1], CELLS, endpoint=False).astype(int)
    sizes = np.maximum(np.diff(edges, append=pixels.shape[1]), 1).astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(pixels, edges, 1), edges, 2)
    return np.asarray(sums / sizes[:, None, None] / sizes[:, None])
