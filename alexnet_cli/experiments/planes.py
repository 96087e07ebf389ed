"""What the planes of a neocognitron learned, as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.figures.canvas import Size, drawing, show_picture
from alexnet_cli.figures.mosaic import mosaic
from alexnet_cli.nets.neocognitron import SCLayer, Weights, receptive_field, run, s_cells

STRONGEST = 12  # places whose mean is drawn
ACROSS = 16  # planes in a row


def favourites(pictures: Tensor, layers: Sequence[SCLayer], weights: Sequence[Weights]) -> np.ndarray:
    """What the S-planes of the last of ``layers`` respond to, in pixels: (planes, side, side) float32.

    The mean of what a plane's cells see of ``pictures`` (N, 1, H, W) in the STRONGEST pictures, each at the plane's
    strongest cell, weighted by its output. A plane that never responds has zeros.
    """
    y = s_cells(run(pictures, layers[:-1], weights[:-1]), weights[-1], layers[-1].selectivity)
    field = receptive_field(layers)
    side, step = field.size, field.stride
    outputs, places = y.flatten(2).max(2)  # (N, planes)
    means = torch.zeros(layers[-1].planes, side, side)
    for plane, mean in enumerate(means):
        strongest = outputs[:, plane].topk(min(STRONGEST, len(y)))
        for output, picture in zip(strongest.values, strongest.indices.tolist(), strict=True):
            row, column = (step * int(each) for each in divmod(int(places[picture, plane]), y.shape[3]))
            mean += output * pictures[picture, 0, row : row + side, column : column + side]
    return means.numpy()


def draw_planes(
    pictures: Tensor, layers: Sequence[SCLayer], weights: Sequence[Weights], path: Path, size: Size = Size.page
) -> None:
    """Draw what each S-plane learned: of the first layer its weights, of the others what its cells respond to.

    Planes that learned nothing are not drawn.
    """
    shown = [weights[0].excitation[:, 0].numpy()]
    shown += [favourites(pictures, layers[: i + 1], weights[: i + 1]) for i in range(1, len(layers))]
    learned = [(its.inhibition > 0).numpy() for its in weights]
    rows = [max(1, -(-int(those.sum()) // ACROSS)) for those in learned]
    with drawing(path, size, height=0.4 + sum(0.35 + 10 / ACROSS * down for down in rows)) as figure:
        blocks = figure.subplots(len(layers), 1, height_ratios=rows)
        for i, (axes, planes, those) in enumerate(zip(blocks, shown, learned, strict=True)):
            what = "their weights" if i == 0 else "the mean of what each responds to most"
            title = f"layer {i + 1}: {what}; {those.sum()} of {len(planes)} planes learned something"
            planes = planes[those] if those.any() else np.zeros_like(planes[:1])
            bright = np.maximum(planes.max(axis=(1, 2), keepdims=True), 1e-12)
            show_picture(axes, mosaic((255 * planes / bright).astype(np.uint8), ACROSS), title)
        figure.suptitle("What the S-planes of the neocognitron learned without labels")
