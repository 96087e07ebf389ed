"""What all figures of `alexnet visualize` have in common."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_cli.commands import main


@pytest.mark.parametrize(
    "words",
    [
        ["kernels"],
        ["maps", "p.png"],
        ["maps", "p.png", "--layer", "conv1"],
        ["maps", "p.png", "--layer", "fc6"],
        ["saliency", "p.png"],
        ["units"],
        ["views", "p.png"],
        ["augmentation", "p.png"],
        ["embedding"],
    ],
    ids=" ".join,
)
def test_every_figure_bears_the_name_of_its_model(exported_folder, packed, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(packed.split("train").read(np.arange(1))[0]).save("p.png")
    named = [] if words == ["embedding"] else ["--model", str(exported_folder)]
    if words == ["embedding"]:
        assert main(["index", str(packed.path), "--model", str(exported_folder), "--split", "train"]) == 0
    if words[0] in ("units", "augmentation"):
        named += ["--data", str(packed.path)]
    assert main(["visualize", *words, *named, "--out", "figure.svg"]) == 0
    drawn = list(Path().glob("figure*.svg"))
    assert drawn
    for figure in drawn:  # an SVG has its texts as comments beside their outlines
        assert f"<!-- model: {exported_folder.name} -->" in figure.read_text()
