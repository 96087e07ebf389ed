"""A network in torch, on its device."""

import numpy as np
import torch
from torch import nn

from alexnet_cli.artefacts import model_name
from alexnet_cli.data.preprocess import Crops, Preprocessor
from alexnet_cli.inference.devices import use_exact_fp32
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import View, centre_view
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.nets.network import ColumnNetwork


class NetworkModel(Predictor):
    """A network in evaluation mode, with what prepares its input."""

    def __init__(
        self,
        net: ColumnNetwork,
        preprocessor: Preprocessor,
        classes: list[str],
        *,
        words: dict[str, str] | None = None,
        name: str = "",
        fingerprint: str = "",
        precision: str = "fp32",
        views: int = 10,
    ) -> None:
        """``name`` and ``fingerprint`` stay empty for a network that is still in training."""
        self.net, self.preprocessor, self.classes, self.words = net, preprocessor, classes, words or {}
        self.name, self.fingerprint, self.precision, self.views = name, fingerprint, precision, views
        self.image_size, self.crop = preprocessor.image.size, preprocessor.image.crop
        self.feature_name = net.features_name
        last = net.get_submodule(net.last)
        assert isinstance(last, nn.Linear)
        self.feature_size = last.in_features

    @classmethod
    def of(cls, model: Model, device: torch.device | str) -> "NetworkModel":
        """``model`` on ``device``, in fp32. Moves the model's own network there."""
        keep_freed_memory()
        use_exact_fp32()
        device = torch.device(device)
        return cls(
            model.net.to(device).eval(),
            Preprocessor(model.recipe.image, model.mean_image, device),
            model.classes,
            words=model.words,
            name=model.recipe.name if model.path is None else model_name(model.path),
            fingerprint=model.fingerprint,
            views=model.recipe.views,
        )

    def run(self, images: np.ndarray, view: View | None = None) -> tuple[np.ndarray, np.ndarray]:
        shown = centre_view(self.image_size, self.crop) if view is None else view
        return self._run_in_batches(images, lambda batch: self._forward(batch, shown))

    def activations(self, images: np.ndarray, layer: str) -> np.ndarray:
        centre = centre_view(self.image_size, self.crop)
        with torch.inference_mode():
            return np.asarray(self.net.activations(self._inputs(images, centre), layer).float().cpu())

    @torch.inference_mode()
    def _forward(self, images: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
        inputs = self._inputs(images, view)
        with torch.autocast(self.preprocessor.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits, features = self.net(inputs)
        return logits.float().softmax(dim=1).cpu().numpy(), features.float().cpu().numpy()

    def _inputs(self, images: np.ndarray, view: View) -> torch.Tensor:
        """A view of ``images`` as the network takes it: (B, C, crop, crop)."""
        rows, columns = (np.broadcast_to(along, (len(images), self.crop)) for along in view)
        # torch warns of a tensor that shares memory with a read-only array.
        pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
        return self.preprocessor.crop(pixels.to(self.preprocessor.device), Crops(rows=rows, columns=columns))
