"""A workspace with a small packed dataset, and a recipe narrow enough to train on it in seconds."""

import numpy as np
import pytest
from pictures import encoded, write_folder

from alexnet_cli import recipe as recipes
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.recipe import Recipe

SIZE = 72
# The paper's network with a few kernels, on pictures that just leave conv5 something to see.
NARROW = [
    f"image.size={SIZE}",
    "image.crop=67",
    *(f"conv{i}.kernels=8" for i in range(1, 6)),
    "fc6.units=32",
    "fc7.units=32",
    "training.batch=8",
    "training.epochs=2",
]


@pytest.fixture
def narrow() -> Recipe:
    return recipes.load("small-data", [*NARROW, "training.warmup_epochs=0.5"])


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Red, green and blue pictures with noise: 14 of each class to train on, 7 to validate."""
    random, content = np.random.default_rng(0), {}
    for split, count in (("train", 14), ("val", 7)):
        for channel, name in enumerate(("blue", "green", "red")):
            for i in range(count):
                image = random.integers(0, 120, (80, 90, 3), dtype=np.uint8)
                image[..., 2 - channel] += 110
                content[f"{split}/{name}/{i:02d}.png"] = encoded(image)
    return write_folder(tmp_path_factory.mktemp("source") / "colours", content)


@pytest.fixture(scope="session")
def packed(source, tmp_path_factory) -> Dataset:
    """The pictures of ``source``, packed; not to be changed."""
    return prepare(source, tmp_path_factory.mktemp("workspace") / "data" / "colours", size=SIZE, workers=1).dataset
