"""What an artefact is and where it came from, read from the artefact alone."""

from pathlib import Path
from typing import Any

from alexnet_cli.errors import BadArtefact
from alexnet_cli.workspace import HOMES, Workspace


def describe(space: Workspace, named: str) -> dict[str, Any]:
    """Facts about a dataset, model, index or ONNX file. Raises BadArtefact if it is none of these."""
    if named.endswith(".onnx"):
        return _onnx(space.find_classifier(named))
    for kind in HOMES:
        try:
            path = space.find(kind, named)
        except BadArtefact:
            continue
        return {"kind": kind, "path": str(path)} | {"dataset": _dataset, "model": _model, "index": _index}[kind](path)
    raise BadArtefact(f"{named} is no dataset, model, index or .onnx file: `alexnet prep --help` tells how to begin")


def _dataset(path: Path) -> dict[str, Any]:
    from alexnet_cli.data.store import Dataset

    dataset = Dataset.open(path)
    return {
        "classes": dataset.classes,
        "images": dataset.counts,
        "image_size": dataset.image_size,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
    }


def _model(path: Path) -> dict[str, Any]:
    from alexnet_cli.model import Model
    from alexnet_cli.nets.alexnet import parameter_count

    model = Model.load(path)
    return {
        "recipe": model.recipe.name,
        "description": model.recipe.description,
        "classes": model.classes,
        "parameters": parameter_count(model.net),
        "fingerprint": model.fingerprint,
        **model.provenance,
    }


def _index(path: Path) -> dict[str, Any]:
    from alexnet_cli.artefacts import read_json

    return read_json(path / "index.json", what="index")


def _onnx(path: Path) -> dict[str, Any]:
    from alexnet_cli.inference.onnx_model import OnnxModel

    runtime = OnnxModel.open(path)
    return {
        "kind": "onnx",
        "path": str(path),
        "classes": runtime.classes,
        "image_size": runtime.image_size,
        "precision": runtime.precision,
        "fingerprint": runtime.fingerprint,
    }
