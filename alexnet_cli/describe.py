"""Describes a dataset, model, index, ONNX file or unfinished run from what is stored in it."""

import json
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import CHECKPOINT_FILE, HISTORY_FILE
from alexnet_cli.errors import BadArtefact
from alexnet_cli.wordnet import class_names
from alexnet_cli.workspace import HOMES, Workspace


def find(space: Workspace, named: str) -> tuple[str, Path]:
    """The kind ("dataset", "model", "index" or "onnx") and the path of the artefact ``named``.

    The kind is "run" if there is a checkpoint and no model yet. Raises BadArtefact if it is none of these.
    """
    if named.endswith(".onnx"):
        return "onnx", space.find_classifier(named)
    for kind in HOMES:
        with suppress(BadArtefact):
            return kind, space.find(kind, named)
    for path in (Path(named), space.home("model") / named):
        if (path / CHECKPOINT_FILE).is_file():
            return "run", path
    advice = space.hint(HOMES, named) or "`alexnet prep --help` tells how to begin"
    raise BadArtefact(f"{named} is no dataset, model, index or .onnx file: {advice}")


def describe(kind: str, path: Path) -> dict[str, Any]:
    """What the artefact at ``path`` is and where it came from, as plain values. Raises BadArtefact if it is damaged."""
    facts = {"dataset": _dataset, "model": _model, "index": _index, "onnx": _onnx, "run": _run}[kind](path)
    return {"kind": kind, "path": str(path)} | facts


def _dataset(path: Path) -> dict[str, Any]:
    from alexnet_cli.data.store import Dataset

    dataset = Dataset.open(path)
    return {
        **_classes(dataset.classes, dataset.words),
        "images": dataset.counts,
        "image_size": dataset.image_size,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
    }


def _classes(labels: list[str], words: Mapping[str, str]) -> dict[str, list[str]]:
    """The classes by their labels, and what people read for them if that differs."""
    names = class_names(labels, words)
    return {"classes": labels} | ({} if names == labels else {"names": names})


def _model(path: Path) -> dict[str, Any]:
    from alexnet_cli.model import Model
    from alexnet_cli.nets.alexnet import parameter_count

    model = Model.load(path)
    return {
        "recipe": model.recipe.name,
        "description": model.recipe.description,
        "layers": list(model.recipe.network.layers),
        **_classes(model.classes, model.words),
        "parameters": parameter_count(model.net),
        "fingerprint": model.fingerprint,
        **model.provenance,
        **_last_validation(path),
    }


def _last_validation(folder: Path) -> dict[str, float]:
    """The errors of the last epoch's validation, if there was one. history.jsonl is for people: it may be anything."""
    with suppress(OSError, ValueError, IndexError, KeyError, TypeError):
        last = json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8").splitlines()[-1])
        return {key: float(last[key]) for key in ("validation_error", "validation_top5_error")}
    return {}


def _index(path: Path) -> dict[str, Any]:
    from alexnet_cli.retrieval.index import Index

    with closing(Index.open(path)) as index:
        facts = {key: value for key, value in index.facts.items() if key not in ("kind", "files")}
        return {"index_kind": index.kind.name, **facts, "missing": index.missing()}  # flat, ivfpq ...


def _onnx(path: Path) -> dict[str, Any]:
    from alexnet_cli.inference.onnx_model import OnnxModel

    model = OnnxModel.open(path, device="cpu")
    return {
        **_classes(model.classes, model.words),
        "image_size": model.image_size,
        "precision": model.precision,
        "fingerprint": model.fingerprint,
    }


def _run(path: Path) -> dict[str, Any]:
    from alexnet_cli import recipe as recipes
    from alexnet_cli.training.checkpoint import read_state

    state = read_state(path)
    recipe = recipes.loads(state.settings["recipe"])
    return {
        "recipe": recipe.name,
        "description": recipe.description,
        "epochs_done": state.epoch,
        "epochs": recipe.training.epochs,
        "updates_in_this_epoch": state.step,
        "dataset": state.settings["dataset_path"],
        "seed": state.settings["seed"],
        "precision": state.settings["precision"],
    }
