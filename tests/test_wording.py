"""Numbers and names as people read them."""

import pytest
from PIL import Image, ImageDraw

from alexnet_cli.figures.lettering import fit, font
from alexnet_cli.wording import counted, distances, duration, shortened


def test_plurals() -> None:
    assert [counted(n, "picture") for n in (0, 1, 2, 2000)] == [
        "0 pictures",
        "1 picture",
        "2 pictures",
        "2,000 pictures",
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([14.653, 15.58], ["14.65", "15.58"]),
        ([0.0, 6.3951], ["0.00", "6.40"]),
        ([0.1034, 0.1041, 0.1129], ["0.1034", "0.1041", "0.1129"]),
        ([0.0, 0.012345], ["0.0000", "0.0123"]),
        ([0.00000621], ["0.0000"]),  # the rounding of a picture's distance from itself
        ([0.0, 0.0], ["0.00", "0.00"]),
        ([], []),
    ],
)
def test_distances_can_be_told_apart(values: list[float], shown: list[str]) -> None:
    assert distances(values) == shown


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 20, 59.6, 700, 3900)] == [
        "0 s",
        "20 s",
        "1 min",
        "12 min",
        "1 h 05 min",
    ]


def test_the_middle_of_a_long_name_is_left_out() -> None:
    assert shortened("short.jpg", 9) == "short.jpg"
    assert shortened("a-long-name-0001.jpg", 11) == "a-lon…1.jpg"


def test_a_name_fits_a_width_in_pixels() -> None:
    draw, small = ImageDraw.Draw(Image.new("RGB", (1, 1))), font(11)
    assert fit("IMG_1.jpg", draw, small, 128) == "IMG_1.jpg"
    shown = fit("a holiday by the sea, taken on a sunny day 0001.jpg", draw, small, 128)
    assert draw.textlength(shown, small) <= 128
    assert shown.startswith("a holiday")
    assert shown.endswith("0001.jpg")
    assert fit("W" * 50, draw, small, 1) == "W…W"
