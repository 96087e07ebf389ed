"""The neocognitron (K. Fukushima 1980, Biological Cybernetics 36, 193-202), in the simple formulation of lectures.

    picture -> S-planes -> C-planes -> S-planes -> C-planes -> (a linear read-out, which is not here)

An S-plane looks for one feature at all places: its cells share their weights. A C-plane looks whether the feature is
somewhere in a region, so that a small shift changes little. The weights learn without labels, layer by layer: within
an S-column (all planes' cells around one position) only the strongest cell learns; its whole plane shares the new
weights.

As in 1980: the response of S-cells with excitation and shunting inhibition, columns that overlap, one representative
of a plane and picture. Left out, or simpler than in 1980:

- C-cells are maxima; there they are saturating sums, weighted by distance, with lateral inhibition by another V-cell.
- Weights change by output times input (Hebb's rule); there by the input alone, weighted by distance.
- The inhibitory V-cell is the length of the input, without weights that fall with distance.
- Every S-plane takes its input from every C-plane before it, and every C-plane from one S-plane.
- Two layers instead of three, and no last layer whose planes are the classes: a linear read-out has that part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from alexnet_cli.nets.describe import PIXEL, Field
from alexnet_cli.nets.operations import Window

RATE = 16.0  # q, the learning rate: 1 in the first layer of 1980 and 16 in the others
INITIAL_WEIGHT = 1e-4  # the largest weight before learning
BATCH = 256  # pictures


@dataclass(frozen=True, kw_only=True)
class SCLayer:
    """The sizes of a layer of S-planes and C-planes, in cells, and how selective its S-cells are."""

    planes: int
    kernel: int  # side of what an S-cell sees
    selectivity: float  # r: an S-cell that has learned responds where the cosine to its pattern is over r / (1 + r)
    column: int  # side of an S-column, odd
    region: int  # side of what a C-cell sees
    stride: int  # from a C-cell to the next


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one layer's S-cells; none is negative."""

    excitation: Tensor  # a: (planes, C, kernel, kernel)
    inhibition: Tensor  # b: (planes,)


def untrained(layer: SCLayer, channels: int, generator: torch.Generator) -> Weights:
    """Weak random excitation without inhibition: every plane responds a little, each to something else."""
    shape = (layer.planes, channels, layer.kernel, layer.kernel)
    return Weights(
        excitation=INITIAL_WEIGHT * torch.rand(shape, generator=generator), inhibition=torch.zeros(layer.planes)
    )


def s_cells(z: Tensor, weights: Weights, selectivity: float) -> Tensor:
    """The outputs of the S-cells (B, planes, h, w) for inputs ``z`` (B, C, H, W).

    r · max(0, (1 + Σ a z) / (1 + 2r/(1+r) · b v) - 1), with v the length of what the cell sees. After learning one
    pattern p, a = p and b = |p| / 2 but for a large factor, so that the output is max(0, (1 + r) cos(p, z) - r).
    """
    r = selectivity
    excitation = conv2d(z, weights.excitation)
    inhibition = 2 * r / (1 + r) * weights.inhibition[:, None, None] * v_cells(z, weights.excitation.shape[-1])
    return r * ((1 + excitation) / (1 + inhibition) - 1).clamp(min=0)


def v_cells(z: Tensor, kernel: int) -> Tensor:
    """The length of what an S-cell sees at each place of ``z`` (B, C, H, W): (B, 1, h, w)."""
    squares = z.square().sum(1, keepdim=True)
    return conv2d(squares, squares.new_ones(1, 1, kernel, kernel)).clamp(min=0).sqrt()


def c_cells(y: Tensor, region: int, stride: int) -> Tensor:
    """The largest output in each region of each S-plane: ``y`` (B, planes, h, w) to (B, planes, h', w')."""
    return max_pool2d(y, region, stride)


def representatives(y: Tensor, column: int) -> tuple[Tensor, Tensor, Tensor]:
    """Who learns from one picture: the planes, and the place of each one's representative (row, column), all (n,).

    ``y`` (planes, h, w) are outputs of S-cells. An S-column is the cells of all planes within ``column`` places (odd)
    around one; there is one around every place, and its strongest cell is a candidate. A plane's representative is the
    strongest of its candidates. A plane without one learns nothing, nor does a cell without output.
    """
    strongest, plane = y.max(0)  # at each place
    _, winners = max_pool2d(strongest[None], column, stride=1, padding=column // 2, return_indices=True)
    winners = torch.unique(winners)  # of the columns, as places in a plane
    candidates = torch.zeros_like(y).flatten(1)  # (planes, h · w)
    candidates[plane.flatten()[winners], winners] = strongest.flatten()[winners]
    outputs, places = candidates.max(1)
    learning = outputs.nonzero().flatten()
    return learning, places[learning] // y.shape[2], places[learning] % y.shape[2]


def learn(z: Tensor, weights: Weights, layer: SCLayer) -> Weights:
    """The weights after one picture ``z`` (C, H, W): Δa = q · y · z and Δb = q · y · v / 2 at each representative."""
    y = s_cells(z[None], weights, layer.selectivity)[0]
    planes, rows, columns = representatives(y, layer.column)
    seen = z.unfold(1, layer.kernel, 1).unfold(2, layer.kernel, 1)[:, rows, columns].transpose(0, 1)  # (n, C, k, k)
    rate = RATE * y[planes, rows, columns]
    length = seen.flatten(1).norm(dim=1)
    return Weights(
        excitation=weights.excitation.index_add(0, planes, rate[:, None, None, None] * seen),
        inhibition=weights.inhibition.index_add(0, planes, rate * length / 2),
    )


def self_organize(pictures: Tensor, layers: Sequence[SCLayer], seed: int) -> list[Weights]:
    """The weights of ``layers`` after one look at each of ``pictures`` (N, 1, H, W), 0 to 1, in a random order.

    A layer learns when the one before it has learned. The same seed gives the same weights.
    """
    generator, z, trained = torch.Generator().manual_seed(seed), pictures, []
    for layer in layers:
        weights = untrained(layer, z.shape[1], generator)
        for i in torch.randperm(len(z), generator=generator).tolist():
            weights = learn(z[i], weights, layer)
        trained.append(weights)
        z = run(z, [layer], [weights])
    return trained


def run(pictures: Tensor, layers: Sequence[SCLayer], weights: Sequence[Weights]) -> Tensor:
    """The last layer's C-planes (N, planes, h, w) of ``pictures`` (N, 1, H, W)."""
    batches = []
    for z in torch.split(pictures, BATCH):
        for layer, its in zip(layers, weights, strict=True):
            z = c_cells(s_cells(z, its, layer.selectivity), layer.region, layer.stride)
        batches.append(z)
    return torch.cat(batches)


def receptive_field(layers: Sequence[SCLayer]) -> Field:
    """What an S-cell of the last of ``layers`` sees of the picture."""
    field, (*before, last) = PIXEL, layers
    for layer in before:
        field = field.through(Window(layer.kernel, 1, 0)).through(Window(layer.region, layer.stride, 0))
    return field.through(Window(last.kernel, 1, 0))
