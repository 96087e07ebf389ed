"""Where the columns meet: what one column has goes to the others (the arrows between the two rows of figure 2)."""

import torch
from torch import Tensor


def exchange(parts: list[Tensor]) -> list[Tensor]:
    """Each column gets the activations of all columns, on its own device: B × C a column to B × (columns · C)."""
    if len(parts) == 1:
        return parts
    gathered = {device: gather(parts, device) for device in {part.device for part in parts}}
    return [gathered[part.device] for part in parts]


def gather(parts: list[Tensor], device: torch.device) -> Tensor:
    """The activations of all columns, column 0's maps first, on ``device``."""
    return torch.cat([part.to(device) for part in parts], dim=1) if len(parts) > 1 else parts[0]


def drop(parts: list[Tensor], p: float, seed: int, rows: tuple[int, int] | None = None) -> list[Tensor]:
    """Each column's (B, units, ...) with some units set to 0 (§4.2), a pure function of ``seed``.

    Each unit is set to 0 with probability ``p``, else left as it is. The mask is drawn for the units of all columns
    and for all images of the batch, of which these are the ones from ``rows`` (first, total) on. So it does not matter
    how units are split over columns, or images over processes. Each device draws the mask itself: nothing is sent.
    """
    first, total = rows or (0, len(parts[0]))
    widths = [part.shape[1] for part in parts]
    shape = (total, sum(widths), *parts[0].shape[2:])
    masks = {}
    for device in {part.device for part in parts}:
        generator = torch.Generator(device).manual_seed(seed)
        uniform = torch.rand(shape, generator=generator, device=device)[first : first + len(parts[0])]
        masks[device] = torch.split(uniform >= p, widths, dim=1)
    return [part * masks[part.device][i] for i, part in enumerate(parts)]
