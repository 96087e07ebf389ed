"""What is no list of pictures, and no folder to sort them into."""

import numpy as np
import pytest
from pictures import encoded, write_folder

from alexnet_cli.commands import main
from alexnet_cli.data.inputs import find_inputs
from alexnet_cli.errors import BadSource


def test_what_cannot_be_sorted_or_listed_is_refused(tmp_path):
    write_folder(tmp_path / "inbox", {"a.png": encoded(np.zeros((8, 8, 3), np.uint8))})
    with pytest.raises(BadSource, match=r"inbox holds the pictures to sort: name another folder to sort them into$"):
        find_inputs([str(tmp_path / "inbox")], target=tmp_path / "inbox")
    inside = find_inputs([str(tmp_path / "inbox")], target=tmp_path / "inbox" / "sorted")
    assert len(inside.pictures) == 1
    with pytest.raises(
        BadSource, match=r"^- reads a list of paths from standard input, one a line, and not a picture: name its file$"
    ):
        find_inputs(["-"], [b"\x89PNG\r\n", b"\0\0\0\rIHDR"])


def test_what_can_be_drawn_is_listed(capsys):
    assert main(["visualize"]) == 0
    out, err = capsys.readouterr()
    assert "kernels" in out
    assert len(out.splitlines()) > 10
    assert err == ""


def test_no_neighbour_within_a_distance_is_said(searchable, capsys):
    assert main(["search", "photos/dog/2.png", "--max-distance", "0"]) == 0
    assert capsys.readouterr().out == "no picture of the index is that near to photos/dog/2.png\n"


def test_features_say_whose_they_are(searchable, capsys):
    assert main(["features", "photos/dog/2.png"]) == 0
    assert "features of model models/pets" in capsys.readouterr().err
