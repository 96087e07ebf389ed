"""Everything needed to resume training, in one file that is replaced atomically: no kill can ruin the last good one."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from alexnet_cli.artefacts import CHECKPOINT_FILE, MODEL_FILE, check_format
from alexnet_cli.errors import BadArtefact, Diverged, first_line
from alexnet_cli.files import check_opens, read_tensors, write_tensors
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.training.sgd import SGD

FORMAT = 1


@dataclass(kw_only=True)
class TrainingState:
    """How far a run has come. With the tensors of the checkpoint this is its whole state: all randomness follows from
    it, and neither the model that a run was fine-tuned from nor the dataset's statistics are asked again.

    ``loss`` and ``wrong`` are totals over all processes for the current epoch.
    """

    settings: dict[str, Any]  # what identifies the run: recipe, seed, dataset, start model, precision
    epoch: int = 0  # epochs done
    step: int = 0  # updates done in the epoch under way
    loss: float = 0.0  # sum over images
    wrong: int = 0  # images whose label was not the most probable class
    seconds: float = 0.0  # spent in the epoch under way
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per epoch


def save(folder: Path, net: ColumnNetwork, sgd: SGD, mean_image: np.ndarray, state: TrainingState) -> None:
    """Replace the checkpoint in ``folder``; ``mean_image`` (S, S, 3) float32 is what the run subtracts.

    Raises Diverged if a weight is not finite and OSError if it cannot be written; both keep the last checkpoint.
    """
    weights = {name: weight.detach().cpu().contiguous() for name, weight in net.state_dict().items()}
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise Diverged("a weight is not finite")
    tensors = {f"weight/{name}": weight.numpy() for name, weight in weights.items()}
    tensors |= {f"velocity/{name}": v.cpu().contiguous().numpy() for name, v in sgd.velocities.items()}
    tensors["mean_image"] = mean_image
    metadata = {"alexnet_format": str(FORMAT), "state": json.dumps(asdict(state))}
    write_tensors(folder / CHECKPOINT_FILE, tensors, metadata)


@torch.no_grad()
def load(folder: Path, net: ColumnNetwork, sgd: SGD) -> np.ndarray:
    """Copy the weights and velocities of the checkpoint in ``folder`` into ``net`` and ``sgd``; return its mean image.

    Raises BadArtefact if it is damaged: the checksum of the whole file is compared.
    """
    path = folder / CHECKPOINT_FILE
    _, tensors = read_tensors(path, what="checkpoint", remedy=remedy(folder))
    try:
        for name, weight in net.state_dict().items():
            weight.copy_(torch.from_numpy(tensors[f"weight/{name}"]))
        for name, v in sgd.velocities.items():
            v.copy_(torch.from_numpy(tensors[f"velocity/{name}"]))
        return tensors["mean_image"]
    except (KeyError, RuntimeError) as error:
        raise BadArtefact(f"{path} does not fit its recipe ({first_line(error)}): {remedy(folder)}") from None


def read_state(folder: Path) -> TrainingState:
    """How far the run in ``folder`` has come; its tensors are not read.

    Raises BadArtefact if there is no checkpoint, or if it is damaged, and OSError if it cannot be read.
    """
    path = folder / CHECKPOINT_FILE
    try:
        check_opens(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtefact(f"nothing to resume in {folder}: it has no {CHECKPOINT_FILE}") from None
    except (SafetensorError, ValueError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): {remedy(folder)}") from None
    check_format(metadata.get("alexnet_format"), FORMAT, path)
    try:
        return TrainingState(**json.loads(metadata["state"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): {remedy(folder)}") from None


def is_unfinished(folder: Path) -> bool:
    """Whether the run has a checkpoint and no model yet, or one from before it was given more epochs."""
    checkpoint, model = folder / CHECKPOINT_FILE, folder / MODEL_FILE
    if not (checkpoint.exists() and model.exists()):
        return checkpoint.exists()
    return checkpoint.stat().st_mtime_ns > model.stat().st_mtime_ns


def remedy(folder: Path) -> str:
    """What to do about a damaged checkpoint."""
    if (folder / MODEL_FILE).exists():
        return "the model beside it does not need it, and `alexnet info` says if it opens; to train further, start anew"
    return f"remove {folder} and start the training again"
