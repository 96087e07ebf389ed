"""Compares all of an artefact with its checksums, which find damage by disks and programs, not by people."""

import json
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import CHECKPOINT_FILE, MODEL_FILE, RECIPE_FILE, model_fingerprint
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import read_tensors
from alexnet_cli.progress import SILENT, Progress


def verify_artefact(kind: str, path: Path, progress: Progress = SILENT) -> list[str]:
    """Verify the ``kind`` ("dataset", "model", "index" or "onnx") of artefact at ``path``: what was verified, in words.

    Raises BadArtefact at the first damage.
    """
    return {"dataset": _dataset, "model": _model, "index": _index, "onnx": _onnx}[kind](path, progress)


def _model(folder: Path, progress: Progress) -> list[str]:
    from alexnet_cli.model import digest_of

    path, checkpoint = folder / MODEL_FILE, folder / CHECKPOINT_FILE
    metadata, tensors = read_tensors(path, what="model")
    try:
        digest = digest_of(json.loads(metadata["classes"]), metadata["recipe"], tensors)
    except (KeyError, ValueError) as error:
        raise BadArtefact(f"{path} is damaged ({error!r}): train or fetch it again") from None
    if digest != metadata.get("fingerprint"):
        raise BadArtefact(f"{path} is damaged (its fingerprint is not that of its weights): train or fetch it again")
    if not _is_text(folder / RECIPE_FILE, metadata["recipe"]):
        raise BadArtefact(f"{folder / RECIPE_FILE} is not the recipe that is in {MODEL_FILE}")
    verified = [f"{MODEL_FILE}: checksum and fingerprint", f"{RECIPE_FILE}: the same recipe"]
    for file in sorted(folder.glob("model*.onnx")):
        verified += _onnx(file, progress)
    if checkpoint.exists():
        read_tensors(checkpoint, what="checkpoint")
        verified.append(f"{CHECKPOINT_FILE}: checksum")
    return verified


def _is_text(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (FileNotFoundError, UnicodeDecodeError):
        return False


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
