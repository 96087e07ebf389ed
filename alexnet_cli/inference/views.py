"""Views: the crops of an image that a network is shown (§4.1)."""

from typing import NamedTuple

import numpy as np

from alexnet_cli.errors import AlexNetError


class View(NamedTuple):
    """A crop, by the pixels of the image it takes. A horizontal reflection takes its columns from right to left."""

    rows: np.ndarray  # (crop,) int64
    columns: np.ndarray  # (crop,) int64


def centre_view(size: int, crop: int) -> View:
    """The central ``crop`` × ``crop`` pixels of an image of ``size`` × ``size``."""
    return _view(crop, (size - crop) // 2, (size - crop) // 2)


def ten_views(size: int, crop: int) -> list[View]:
    """The four corners and the centre, then their horizontal reflections in the same order (§4.1)."""
    end = size - crop
    corners = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    return [_view(crop, top, left, reflected=reflected) for reflected in (False, True) for top, left in corners]


def views(count: int, size: int, crop: int) -> list[View]:
    """The centre view if ``count`` is 1, the ten views if it is 10. Raises AlexNetError for any other number."""
    if count == 1:
        return [centre_view(size, crop)]
    if count == 10:
        return ten_views(size, crop)
    raise AlexNetError(f"evaluation takes 1 view (the centre) or 10 (§4.1), not {count}")


def _view(crop: int, top: int, left: int, *, reflected: bool = False) -> View:
    columns = left + np.arange(crop)
    return View(rows=top + np.arange(crop), columns=columns[::-1].copy() if reflected else columns)
