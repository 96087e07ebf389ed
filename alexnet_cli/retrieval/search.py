"""Queries to their neighbours, and pictures to their classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.artefacts import model_fingerprint
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import BadPicture, WrongModel
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.index import Index, Neighbour
from alexnet_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A query and what is near it."""

    path: str
    neighbours: list[Neighbour]

    def as_json(self) -> dict[str, Any]:
        """As `alexnet search --json` prints it."""
        return {"path": self.path, "neighbours": [neighbour.as_json() for neighbour in self.neighbours]}


def search(index: Index, runtime: OnnxModel, queries: list[Path], k: int) -> list[Answer]:
    """The ``k`` pictures of the index nearest to each of ``queries``.

    Raises WrongModel if the index was built with another model, BadPicture for a query that is no picture.
    """
    index.check_model(runtime)
    _, fc7 = runtime.run(load_all(queries, runtime.image_size))
    found = index.neighbours(fc7, k)
    return [Answer(path=str(path), neighbours=near) for path, near in zip(queries, found, strict=True)]


def model_of(index: Index, space: Workspace) -> Path:
    """The folder or ONNX file of the model ``index`` was built with, wherever it is now. Raises WrongModel."""
    named, built_with = str(index.facts["model"]), Path(index.facts["model_path"])
    if built_with.is_file() and built_with.name != "model.onnx":
        return built_with  # an ONNX file of its own, perhaps of another precision than the model's
    for path in (space.home("model") / named, built_with, *space.all("model")):
        if (path / "model.safetensors").is_file() and model_fingerprint(path) == index.facts["model_fingerprint"]:
            return path
    if built_with.is_file():
        return built_with
    raise WrongModel(
        f"model {named} that {index.path} was built with is not in {space.home('model')} as it was: "
        "build the index again under another name with --out, or name the model with --model"
    )


def load_all(paths: list[Path], size: int) -> np.ndarray:
    """Every picture's pixels: (N, size, size, 3) uint8. Raises BadPicture naming the first that is none."""
    images = np.empty((len(paths), size, size, 3), np.uint8)
    for image, path in zip(images, paths, strict=True):
        try:
            image[:] = load_picture(path, size)
        except BadPicture as error:
            raise BadPicture(f"{path}: {error}") from None
    return images


def predictions(runtime: OnnxModel, paths: list[Path], best: int = 5) -> list[dict[str, Any]]:
    """The ``best`` most probable classes of each picture, as `alexnet predict --json` prints them."""
    probabilities, _ = runtime.run(load_all(paths, runtime.image_size))
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :best]  # (N, best)
    return [
        {
            "path": str(path),
            "classes": [{"label": runtime.classes[i], "probability": float(line[i])} for i in order],
        }
        for path, line, order in zip(paths, probabilities, ranked, strict=True)
    ]
