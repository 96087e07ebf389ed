"""Describes a dataset, model, index, ONNX file or unfinished run from what is stored in it."""

import json
import tomllib
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_cli.artefacts import CHECKPOINT_FILE, DATASET_FILE, INDEX_FILE, model_header
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import read_json
from alexnet_cli.wording import counted
from alexnet_cli.wordnet import class_names
from alexnet_cli.workspace import HOMES, Workspace

if TYPE_CHECKING:
    from alexnet_cli.recipe import Recipe


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


def contents(space: Workspace) -> list[dict[str, str]]:
    """Every artefact of a workspace, newest first in each kind: `kind`, `name`, `path`, and in one line what it is."""
    found = [(kind, path) for kind in HOMES for path in space.all(kind)]
    runs = space.home("model").glob(f"*/{CHECKPOINT_FILE}")
    found += [("run", path) for path in sorted(file.parent.parent for file in runs) if ("model", path) not in found]
    return [
        {"kind": kind, "name": path.name, "path": str(path), "what": _in_one_line(kind, path)} for kind, path in found
    ]


def _in_one_line(kind: str, path: Path) -> str:
    try:
        if kind == "dataset":
            facts = read_json(path / DATASET_FILE, what=kind)
            counts = ", ".join(f"{count:,} {split}" for split, count in facts["counts"].items())
            return f"{counts} pictures of {facts['image_size']} pixels, classes: {len(facts['classes']):,}"
        if kind == "index":
            facts = read_json(path / INDEX_FILE, what=kind)
            return (
                f"{counted(facts['count'], 'picture')}, model {facts['model']}, {facts['kind']}, built {facts['built']}"
            )
        if kind == "run":
            return "unfinished training"
        header = model_header(path)
        facts, classes = json.loads(header["provenance"]), len(json.loads(header["classes"]))
        origin = facts["dataset_name"] if "dataset_name" in facts else f"imported from {facts['imported']}"
        return f"{origin}, recipe {tomllib.loads(header['recipe'])['name']}, classes: {classes:,}, {facts['date']}"
    except (BadArtefact, LookupError, TypeError, ValueError, AttributeError):
        return "damaged, or of another version"


def _dataset(path: Path) -> dict[str, Any]:
    from alexnet_cli.data.store import Dataset

    dataset = Dataset.open(path)
    return {
        **_classes(dataset.classes, dataset.words),
        "images": dataset.counts,
        "image_size": dataset.image_size,
        "store": dataset.store,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
    }


def _classes(labels: list[str], words: Mapping[str, str]) -> dict[str, list[str]]:
    """The classes by their labels, and what people read for them if that differs."""
    names = class_names(labels, words)
    return {"classes": labels} | ({} if names == labels else {"names": names})


def _model(path: Path) -> dict[str, Any]:
    from alexnet_cli import recipe as recipes
    from alexnet_cli.model import Model
    from alexnet_cli.nets.network import parameter_count

    model = Model.load(path)
    return {
        "recipe": model.recipe.name,
        "changed": recipes.changed(model.recipe),
        "description": model.recipe.description,
        "layers": layers_of(model.recipe, len(model.classes)),
        **_classes(model.classes, model.words),
        "parameters": parameter_count(model.net),
        "fingerprint": model.fingerprint,
        **model.provenance,
    }


def layers_of(recipe: "Recipe", classes: int) -> list[dict[str, Any]]:
    """The table of a recipe's layers for that many ``classes``, first to last, as plain values."""
    from alexnet_cli.nets.describe import layer_table

    return [row.as_json() for row in layer_table(recipe.network, recipe.image.shape, classes)]


def _index(path: Path) -> dict[str, Any]:
    from alexnet_cli.retrieval.index import Index

    with closing(Index.open(path)) as index:
        facts = {key: value for key, value in index.facts.items() if key not in ("kind", "files", "pieces", "live")}
        return {"index_kind": index.kind.name, **facts, "missing": index.missing()}  # flat, ivfpq ...


def _onnx(path: Path) -> dict[str, Any]:
    from alexnet_cli.inference.onnx_model import OnnxModel

    model = OnnxModel.open(path, device="cpu")
    return {
        **_classes(model.classes, model.words),
        "image_size": model.image_size,
        "precision": model.precision,
        "fingerprint": model.fingerprint,
        **({"layers": model.layers} if model.layers else {}),
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
