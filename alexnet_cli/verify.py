"""Compares all of an artefact with its checksums, which find damage by disks and programs, not by people."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import CHECKPOINT_FILE, KERNELS, MODEL_FILE, RECIPE_FILE, UNITS, model_fingerprint
from alexnet_cli.errors import BadArtefact, BadRecipe
from alexnet_cli.files import read_tensors
from alexnet_cli.progress import SILENT, Progress


def verify_artefact(kind: str, path: Path, progress: Progress = SILENT) -> list[str]:
    """Verify the ``kind`` ("dataset", "model", "index", "onnx" or "run") of artefact at ``path``.

    Returns what was compared, and what was not, in words. Raises BadArtefact at the first damage.
    """
    return {"dataset": _dataset, "model": _model, "index": _index, "onnx": _onnx, "run": _run}[kind](path, progress)


def _model(folder: Path, progress: Progress) -> list[str]:
    from alexnet_cli.model import digest_of

    path = folder / MODEL_FILE
    metadata, tensors = read_tensors(path, what="model")
    try:
        digest = digest_of(json.loads(metadata["classes"]), metadata["recipe"], tensors)
    except (KeyError, ValueError) as error:
        raise BadArtefact(f"{path} is damaged ({error!r}): train or fetch it again") from None
    if digest != metadata.get("fingerprint"):
        raise BadArtefact(f"{path} is damaged (its fingerprint is not that of its weights): train or fetch it again")
    verified = [f"{MODEL_FILE}: checksum and fingerprint", _recipe(folder, metadata["recipe"])]
    exports = sorted(folder.glob("model*.onnx"))
    for file in exports:
        verified += _onnx(file, progress)
    units = sorted((folder / UNITS).glob("[!.]*.safetensors"))
    for file in units:
        read_tensors(file, what="file of units", remedy=f"remove {file}: it is made again")
        verified.append(f"{UNITS}/{file.name}: checksum")
    has_checkpoint = (folder / CHECKPOINT_FILE).exists()
    verified.append(_checkpoint(folder) if has_checkpoint else f"{CHECKPOINT_FILE}: there is none")
    return verified + _not_compared(
        folder,
        {MODEL_FILE, RECIPE_FILE, CHECKPOINT_FILE, *(str(file.relative_to(folder)) for file in (*exports, *units))},
    )


def _checkpoint(folder: Path) -> str:
    from alexnet_cli.training.checkpoint import remedy

    read_tensors(folder / CHECKPOINT_FILE, what="checkpoint", remedy=remedy(folder))
    return f"{CHECKPOINT_FILE}: checksum"


def _run(folder: Path, progress: Progress) -> list[str]:
    return [_checkpoint(folder), *_not_compared(folder, {CHECKPOINT_FILE})]


def _not_compared(folder: Path, compared: set[str]) -> list[str]:
    """A line for the other files. Those of train are for people; a run's recipe is in its checkpoint as well."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = (str(path.relative_to(folder)) for path in files)
    others = sorted({f"{KERNELS}/" if name.startswith(f"{KERNELS}/") else name for name in names} - compared)
    return [f"not compared, having no checksum: {', '.join(others)}"] if others else []


def _recipe(folder: Path, text: str) -> str:
    """Compares recipe.toml, which is for people, with the model's own recipe, ``text``."""
    from alexnet_cli import recipe as recipes

    file = folder / RECIPE_FILE
    if not file.exists():
        return f"{RECIPE_FILE}: there is none"
    found = file.read_bytes()
    if found == text.encode():
        return f"{RECIPE_FILE}: the same recipe"
    model = recipes.loads(text)
    with suppress(BadRecipe, UnicodeDecodeError):
        epochs = recipes.loads(found.decode()).training.epochs
        longer = recipes.dumps(model.with_training(epochs=epochs)).encode()
        if found == longer and epochs > model.training.epochs and (folder / CHECKPOINT_FILE).exists():
            return f"{RECIPE_FILE}: the same recipe, for the {epochs} epochs that the run is resumed for"
    raise BadArtefact(f"{file} is not the recipe that is in {MODEL_FILE}, which counts: remove {RECIPE_FILE}")


def _onnx(path: Path, progress: Progress) -> list[str]:
    from alexnet_cli.inference.onnx_model import OnnxModel

    model = OnnxModel.open(path, device="cpu")
    if not (path.name.startswith("model") and (path.parent / MODEL_FILE).is_file()):
        return [f"{path.name}: checksum"]
    if model.fingerprint != model_fingerprint(path.parent):
        raise BadArtefact(f"{path} is not of the model in its folder: export it again")
    return [f"{path.name}: checksum, and that it is of the model in its folder"]


def _dataset(path: Path, progress: Progress) -> list[str]:
    from alexnet_cli.data.store import Dataset

    dataset: Any = Dataset.open(path)
    dataset.verify(progress)
    return ["all files: checksums"]


def _index(path: Path, progress: Progress) -> list[str]:
    from alexnet_cli.retrieval.index import Index

    index: Any = Index.open(path)
    try:
        index.verify(progress)
    finally:
        index.close()
    return ["all files: checksums"]
