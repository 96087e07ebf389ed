"""A workspace with a small packed dataset, and a recipe narrow enough to train on it in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from onnx_files import write_onnx
from pictures import encoded, folder_of_classes, write_folder
from safetensors.numpy import save_file

from alexnet_cli import recipe as recipes
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.exporting.export import Export, export_model
from alexnet_cli.exporting.graph import Precision
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
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


@pytest.fixture(autouse=True)
def unexported(request, monkeypatch):
    """`train` and `import` write no ONNX file, which takes seconds, except in tests that are marked `exports`."""
    if request.node.get_closest_marker("exports") is None:
        for command in ("train", "import_"):
            monkeypatch.setattr(f"alexnet_cli.commands.{command}.write_onnx", lambda folder, space: None)


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


def save_untrained(packed: Dataset, folder: Path, seed: int = 0, settings: Sequence[str] = ()) -> Path:
    """Save a narrow network that was not trained."""
    recipe = recipes.load("small-data", [*NARROW, "training.warmup_epochs=0.5", *settings])
    net, mean_image = initialize(recipe.build(3), seed), packed.statistics().mean_image
    words = {"blue": "colour of the sky"}
    model = Model(net=net, recipe=recipe, classes=packed.classes, words=words, mean_image=mean_image, provenance={})
    model.save(folder)
    return folder


@dataclass(frozen=True)
class Exported:
    """An export, and the models that were loaded to make it."""

    export: Export
    loaded: list[Model]


def exported_as(precision: Precision, folder: Path, packed: Dataset) -> Exported:
    """The model in ``folder`` exported: an export takes seconds, so tests share one and ask what happened in it."""
    images, loaded, load = packed.split("train"), [], Model.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "load", lambda path: loaded.append(load(path)) or loaded[-1])
        done = export_model(
            folder, precision=precision, pictures=images.read(np.arange(9)), calibration=images.read(np.arange(20))
        )
    return Exported(done, loaded)


@pytest.fixture(scope="session")
def exported(packed, tmp_path_factory) -> Exported:
    """The model `m`, which was not trained, with its model.onnx; not to be changed."""
    return exported_as("fp32", save_untrained(packed, tmp_path_factory.mktemp("exported") / "m"), packed)


@pytest.fixture(scope="session")
def exported_folder(exported) -> Path:
    """The folder of ``exported``; not to be changed."""
    return exported.export.path.parent


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are written to files, to look into them."""
    written: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *words: Any, **options: Any) -> None:
        written.append(figure)
        savefig(figure, *words, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return written


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


@pytest.fixture
def client(searchable):
    """Asks the server of `searchable`, in-process."""
    from starlette.testclient import TestClient

    from alexnet_cli.serving.app import create_app
    from alexnet_cli.workspace import Workspace

    app = create_app(Workspace(Path(".")))
    with TestClient(app, base_url="http://127.0.0.1:8224", raise_server_exceptions=False) as client:
        yield client
