"""Everything needed to resume training, in one file that is replaced atomically: no kill can ruin the last good one."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alexnet_cli.artefacts import CHECKPOINT_FILE, check_format
from alexnet_cli.errors import BadArtefact, Diverged
from alexnet_cli.files import read_tensors, write_tensors
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.training.sgd import SGD

FORMAT = 1


@dataclass(kw_only=True)
class TrainingState:
    """How far a run has come. With the weights and velocities this is its whole state: all randomness follows from it.

    ``loss`` and ``wrong`` are totals over all processes for the current epoch.
    """

    settings: dict[str, Any]  # what identifies the run: recipe, seed, dataset, start model, precision
    epoch: int = 0  # epochs done
    step: int = 0  # updates done in the epoch under way
    loss: float = 0.0  # sum over images
    wrong: int = 0  # images whose label was not the most probable class
    seconds: float = 0.0  # spent in the epoch under way
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per epoch


def save(folder: Path, net: AlexNet, sgd: SGD, state: TrainingState) -> None:
    """Raises Diverged, and keeps the last checkpoint, if a weight is not finite."""
    tensors = {f"weight/{name}": weight.detach().cpu().contiguous() for name, weight in net.state_dict().items()}
    if not all(bool(weight.isfinite().all()) for weight in tensors.values()):
        raise Diverged("a weight is not finite")
    tensors |= {f"velocity/{name}": v.cpu().contiguous() for name, v in sgd.velocities.items()}
    metadata = {"alexnet_format": str(FORMAT), "state": json.dumps(asdict(state))}
    write_tensors(folder / CHECKPOINT_FILE, {name: tensor.numpy() for name, tensor in tensors.items()}, metadata)


@torch.no_grad()
def load(folder: Path, net: AlexNet, sgd: SGD) -> None:
    """Copy the weights and velocities of the checkpoint in ``folder`` into ``net`` and ``sgd``. Raises BadArtefact."""
    _, tensors = read_tensors(folder / CHECKPOINT_FILE, what="checkpoint")
    try:
        for name, weight in net.state_dict().items():
            weight.copy_(torch.from_numpy(tensors[f"weight/{name}"]))
        for name, v in sgd.velocities.items():
            v.copy_(torch.from_numpy(tensors[f"velocity/{name}"]))
    except (KeyError, RuntimeError) as error:
        raise BadArtefact(
            f"{folder / CHECKPOINT_FILE} does not fit its recipe ({error}): start the training again"
        ) from None


def read_state(folder: Path) -> TrainingState:
    """How far the run in ``folder`` has come. Raises BadArtefact."""
    path = folder / CHECKPOINT_FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        check_format(metadata.get("alexnet_format"), FORMAT, path)
        return TrainingState(**json.loads(metadata["state"]))
    except FileNotFoundError:
        raise BadArtefact(f"nothing to resume in {folder}: it has no {CHECKPOINT_FILE}") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadArtefact(f"{path} is damaged ({error}): start the training again") from None
