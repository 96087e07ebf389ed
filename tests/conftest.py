"""A workspace with a small packed dataset, and a recipe narrow enough to train on it in seconds."""

from pathlib import Path

import numpy as np
import pytest
from onnx_files import write_onnx
from pictures import encoded, folder_of_classes, write_folder
from safetensors.numpy import save_file

from alexnet_cli import recipe as recipes
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.recipe import Recipe
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection

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


@pytest.fixture
def space(tmp_path, monkeypatch) -> Path:
    """A workspace, the current folder, with a model `m.onnx` and a folder `photos`."""
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "m.onnx")
    folder_of_classes(tmp_path / "photos")
    return tmp_path


@pytest.fixture
def searchable(tmp_path, monkeypatch) -> Path:
    """A workspace, the current folder: a model `pets` with its ONNX file, and its index of `photos`."""
    monkeypatch.chdir(tmp_path)
    model = write_onnx(Path("models/pets/model.onnx"))
    save_file({"w": np.zeros(1)}, "models/pets/model.safetensors", {"fingerprint": "seed-0"})
    photos = folder_of_classes(Path("photos"))
    build_index(open_collection(photos), OnnxModel.open(model), Path("indexes/photos"), model_path=model)
    return tmp_path
