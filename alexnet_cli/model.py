"""A model on disk: one safetensors file with weights, mean image, classes, recipe and provenance."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import MODEL_FILE, RECIPE_FILE, atomic_write, check_format
from alexnet_cli.errors import BadArtefact, first_line
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.recipe import Recipe

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network and everything needed to use it."""

    net: AlexNet
    recipe: Recipe
    classes: list[str]
    mean_image: np.ndarray  # (S, S, 3) float32, 0-255
    provenance: dict[str, Any]  # dataset, seed, epochs, date, version ...
    path: Path | None = None  # the folder it was read from
    saved_fingerprint: str | None = None  # stays, whatever recipe keys a later version of this program adds

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the outputs: weights, mean image, classes and recipe."""
        if self.saved_fingerprint is not None:
            return self.saved_fingerprint
        digest = hashlib.sha256(json.dumps([self.classes, recipes.dumps(self.recipe)]).encode())
        digest.update(self.mean_image.tobytes())
        for name, weight in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `recipe.toml` into ``folder``."""
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.net.state_dict().items()}
        tensors["mean_image"] = torch.from_numpy(self.mean_image).contiguous()
        text = recipes.dumps(self.recipe)
        metadata = {
            "alexnet_format": str(FORMAT),
            "fingerprint": self.fingerprint,
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "recipe": text,
            "provenance": json.dumps(self.provenance, ensure_ascii=False),
        }
        with atomic_write(folder / RECIPE_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
        with atomic_write(folder / MODEL_FILE) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Model":
        """The model in ``folder``. Raises BadArtefact if it is missing, damaged or of a newer format."""
        path = folder / MODEL_FILE
        metadata, tensors = read_tensors(path, what="model")
        check_format(metadata.get("alexnet_format"), FORMAT, path)
        try:
            recipe, classes = recipes.loads(metadata["recipe"]), json.loads(metadata["classes"])
            mean_image = tensors.pop("mean_image").numpy()
            net = recipe.build(len(classes))
            net.load_state_dict(tensors, assign=True)
            provenance = json.loads(metadata.get("provenance", "{}"))
        except (KeyError, ValueError, RuntimeError) as error:
            raise BadArtefact(f"{path} is damaged ({first_line(error)}): train or fetch it again") from None
        net = net.to(memory_format=torch.channels_last).to(device).eval()
        return cls(
            net=net,
            recipe=recipe,
            classes=classes,
            mean_image=mean_image,
            provenance=provenance,
            path=folder,
            saved_fingerprint=metadata.get("fingerprint"),
        )


def read_tensors(path: Path, *, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; loading it runs no code. Raises BadArtefact."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise BadArtefact(f"no {what} at {path.parent}: it has no {path.name}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BadArtefact(f"{path} is damaged or no {what} ({error}): make or fetch it again") from None
