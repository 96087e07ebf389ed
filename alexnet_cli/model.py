"""A model on disk: one safetensors file with weights, mean image, classes, recipe and provenance."""

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CARD_FILE, CHECKPOINT_FILE, MODEL_FILE, RECIPE_FILE, check_format, model_name
from alexnet_cli.errors import BadArtefact, BadRecipe, first_line
from alexnet_cli.files import atomic_write, read_tensors, write_tensors
from alexnet_cli.model_card import model_card
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.recipe import Recipe
from alexnet_cli.workspace import path_of

FORMAT = 1
MEAN_IMAGE = "mean_image"  # the name of its tensor


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network and everything needed to use it."""

    net: ColumnNetwork
    recipe: Recipe
    classes: list[str]
    mean_image: np.ndarray  # (S, S, 3) float32, 0-255
    provenance: dict[str, Any]  # dataset, seed, epochs, date, version ...
    words: dict[str, str] = field(default_factory=dict)  # class -> its meaning, if the source of its dataset has that
    path: Path | None = None  # the folder it was read from
    saved_fingerprint: str | None = None  # stays, whatever recipe keys a later version of this program adds

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the outputs: weights, mean image, classes and recipe."""
        if self.saved_fingerprint is not None:
            return self.saved_fingerprint
        return digest_of(self.classes, recipes.dumps(self.recipe), self.tensors())

    def tensors(self) -> dict[str, np.ndarray]:
        """What its file holds: the mean image, and the weights by their names."""
        weights = {name: weight.detach().cpu().contiguous().numpy() for name, weight in self.net.state_dict().items()}
        return weights | {MEAN_IMAGE: self.mean_image}

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `recipe.toml` and `MODEL_CARD.md` into ``folder``."""
        text, tensors = recipes.dumps(self.recipe), self.tensors()
        metadata = {
            "alexnet_format": str(FORMAT),
            "fingerprint": digest_of(self.classes, text, tensors),  # the weights may have changed since it was read
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "words": json.dumps(self.words, ensure_ascii=False),
            "recipe": text,
            "provenance": json.dumps(self.provenance, ensure_ascii=False),
        }
        with atomic_write(folder / RECIPE_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
        with atomic_write(folder / CARD_FILE) as temporary:
            temporary.write_text(model_card(self, model_name(folder)), encoding="utf-8", errors="backslashreplace")
        write_tensors(folder / MODEL_FILE, tensors, metadata)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Model":
        """The model in ``folder``. Raises BadArtefact if it is missing, damaged or of a newer format."""
        path = folder / MODEL_FILE
        is_resumable = (folder / CHECKPOINT_FILE).exists()
        command = shlex.join(["alexnet", "train", "--resume", "--out", path_of(folder)])
        remedy = f"restore it from its checkpoint by `{command}`" if is_resumable else ""
        metadata, tensors = read_tensors(path, what="model", remedy=remedy)
        check_format(metadata.get("alexnet_format"), FORMAT, path)
        try:
            recipe, classes = recipes.loads(metadata["recipe"]), json.loads(metadata["classes"])
            words = json.loads(metadata.get("words", "{}"))
            mean_image = tensors.pop(MEAN_IMAGE)
            if mean_image.shape != (recipe.image.size, recipe.image.size, 3) or mean_image.dtype != np.float32:
                raise ValueError(f"its mean image is {mean_image.dtype} of {mean_image.shape}")
            net = recipe.build(len(classes))
            net.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
            provenance = json.loads(metadata.get("provenance", "{}"))
        except (BadRecipe, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise BadArtefact(f"{path} is damaged ({first_line(error)}): train or fetch it again") from None
        net = net.to(memory_format=torch.channels_last).to(device).eval()
        return cls(
            net=net,
            recipe=recipe,
            classes=classes,
            words=words,
            mean_image=mean_image,
            provenance=provenance,
            path=folder,
            saved_fingerprint=metadata.get("fingerprint"),
        )


def digest_of(classes: list[str], recipe: str, tensors: dict[str, np.ndarray]) -> str:
    """A model's fingerprint, of the text of its ``recipe`` and of its ``tensors``, the mean image among them."""
    digest = hashlib.sha256(json.dumps([classes, recipe]).encode())
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[0] != MEAN_IMAGE, pair[0])):
        if name != MEAN_IMAGE:
            digest.update(name.encode())
        digest.update(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]
