"""torchvision's `alexnet`: a state dict in a .pth or .safetensors file, or fetched by torchvision itself."""

import warnings
from pathlib import Path

import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.importing.weights import Colour, Imported

MODULES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels from 0 to 1


def fetch(recipe: str | None) -> Imported:
    """The weights that torchvision downloads. Raises AlexNetError if it cannot."""
    from torchvision.models import AlexNet_Weights

    try:
        state = dict(AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise AlexNetError(
            f"torchvision could not fetch its weights ({type(error).__name__}): fetch alexnet-owt-7be5be79.pth where "
            "there is a network, and import that file"
        ) from None
    return _imported(state, recipe)


def read(path: Path, recipe: str | None) -> Imported:
    """A state dict of torchvision's. Raises BadArtefact."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
            state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): fetch it again") from None
    except Exception as error:  # not a zip file, or a pickle of more than tensors
        raise BadArtefact(f"{path} is damaged or holds more than tensors ({first_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadArtefact(f"{path} is not a state dict: save `model.state_dict()`")
    return _imported(state, recipe)


def _imported(state: dict[str, torch.Tensor], recipe: str | None) -> Imported:
    weights = {
        layer: (state[f"{module}.weight"], state[f"{module}.bias"])
        for layer, module in MODULES.items()
        if f"{module}.weight" in state and f"{module}.bias" in state
    }
    return Imported(
        format="torchvision",
        weights=weights,
        recipe=recipes.load(recipe or "torchvision"),
        mean=_in_bytes(MEAN),
        deviation=_in_bytes(DEVIATION),
    )


def _in_bytes(colour: Colour) -> Colour:
    """From 0-1 to 0-255."""
    red, green, blue = colour
    return (255 * red, 255 * green, 255 * blue)
