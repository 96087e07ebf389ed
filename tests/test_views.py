"""Views against slices of an image."""

import numpy as np
import pytest

from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.views import centre_view, ten_views, views


def test_ten_views_are_corners_and_centre_and_their_reflections():
    image = np.arange(256 * 256).reshape(256, 256)
    crops = [image[0:224, 0:224], image[0:224, 32:], image[32:, 0:224], image[32:, 32:], image[16:240, 16:240]]
    expected = crops + [crop[:, ::-1] for crop in crops]
    found = [image[np.ix_(rows, columns)] for rows, columns in ten_views(256, 224)]
    assert all(np.array_equal(view, crop) for view, crop in zip(found, expected, strict=True))
    centre = centre_view(256, 224)
    assert np.array_equal(image[np.ix_(centre.rows, centre.columns)], crops[-1])


def test_one_view_or_ten():
    assert [len(views(count, 72, 67)) for count in (1, 10)] == [1, 10]
    with pytest.raises(AlexNetError, match=r"^evaluation takes 1 view \(the centre\) or 10 \(§4.1\), not 5$"):
        views(5, 72, 67)
