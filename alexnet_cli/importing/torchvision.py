"""torchvision's `alexnet` and `vgg16`: a state dict in a .pth or .safetensors file, or the one that it publishes."""

import hashlib
import sys
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.files import check_opens
from alexnet_cli.importing.weights import Colour, Imported
from alexnet_cli.progress import SILENT, Progress

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network of torchvision's whose state dicts can be read."""

    name: str  # torchvision's
    url: str  # of the weights that torchvision publishes for it
    modules: Mapping[str, str]  # layer -> module


NETS = {  # by recipe
    "torchvision": Net(
        name="alexnet",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        modules={
            "conv1": "features.0",
            "conv2": "features.3",
            "conv3": "features.6",
            "conv4": "features.8",
            "conv5": "features.10",
            "fc6": "classifier.1",
            "fc7": "classifier.4",
            "fc8": "classifier.6",
        },
    ),
    "vgg-16": Net(
        name="vgg16",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        modules={
            "conv1_1": "features.0",
            "conv1_2": "features.2",
            "conv2_1": "features.5",
            "conv2_2": "features.7",
            "conv3_1": "features.10",
            "conv3_2": "features.12",
            "conv3_3": "features.14",
            "conv4_1": "features.17",
            "conv4_2": "features.19",
            "conv4_3": "features.21",
            "conv5_1": "features.24",
            "conv5_2": "features.26",
            "conv5_3": "features.28",
            "fc6": "classifier.0",
            "fc7": "classifier.3",
            "fc8": "classifier.6",
        },
    ),
}


def fetch(recipe: str, progress: Progress = SILENT) -> Path:
    """The file of the weights that torchvision publishes for the net of ``recipe``, one of NETS; downloaded unless
    torch's cache has it already.

    Raises AlexNetError if it cannot be downloaded, or if what comes has another checksum than its name says.
    """
    url, cache = NETS[recipe].url, Path(torch.hub.get_dir()) / "checkpoints"
    file = cache / Path(url).name
    try:
        if not file.is_file() or not _has_its_checksum(file):
            progress.note(f"fetching {url}")
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=_digits(file), progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
        raise AlexNetError(
            f"cannot fetch {url} ({first_line(error)}): fetch it where there is a network, and import the file by "
            f"`alexnet import {file.name} --out {recipe}`"
        ) from None
    return file


def _has_its_checksum(path: Path) -> bool:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_digits(path))


def _digits(path: Path) -> str:
    """The first digits of the file's SHA-256, which its name ends with."""
    return path.stem.rpartition("-")[2]


def read(path: Path, recipe: str | None) -> Imported:
    """A state dict of torchvision's. Raises BadArtefact."""
    if any(path.name == Path(net.url).name for net in NETS.values()) and not _has_its_checksum(path):
        raise BadArtefact(f"{path} is damaged: its SHA-256 does not begin with {_digits(path)}: fetch it again")
    state = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadArtefact(f"{path} is not a state dict: save `model.state_dict()`")
    found = _imported(str(path), state, recipe)
    for layer, tensors in found.weights.items():
        if not all(map(_is_stored, tensors)):
            raise BadArtefact(f"{path} is damaged: {layer} does not hold the numbers that its shape needs")
    return found


def _load_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_opens(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): fetch it again") from None


def _load_pickle(path: Path) -> object:
    """What `torch.save` wrote, of which nothing but tensors and plain values is made. Raises BadArtefact."""
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        _check_sizes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
            # A mapped file cannot be read past its end, whatever size a tensor claims to have.
            return torch.load(str(path), "cpu", weights_only=True, mmap=is_zip)
    except (OSError, MemoryError):
        raise
    except Exception:  # not a zip file, or a pickle of more than tensors: torch would advise to load it unsafely
        raise BadArtefact(f"{path} is damaged or holds more than tensors: save `model.state_dict()`") from None


def _check_sizes(path: Path) -> None:
    """Raises BadArtefact for a zip file that claims to hold more than it does: `torch.save` compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): fetch it again") from None
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise BadArtefact(f"{path} is not as torch.save writes it: save `model.state_dict()` with torch.save")


def _is_stored(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` has all its numbers, as a weight has: not one for all, on no other device, not sparse."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    return plain and tensor.is_floating_point() and tensor.untyped_storage().nbytes() >= tensor.nbytes


def _imported(source: str, state: dict[str, torch.Tensor], recipe: str | None) -> Imported:
    """Raises BadArtefact if the state dict has what the net of torchvision's lacks that has most of its entries."""
    of, net = max(NETS.items(), key=lambda pair: len(_entries(pair[1]) & state.keys()))
    if others := sorted(map(str, state.keys() - _entries(net))):
        raise BadArtefact(f"{source} does not fit: torchvision's {net.name} has no {others[0]}")
    weights = {
        layer: (state[f"{module}.weight"], state[f"{module}.bias"])
        for layer, module in net.modules.items()
        if f"{module}.weight" in state and f"{module}.bias" in state
    }
    return Imported(
        format="torchvision",
        weights=weights,
        recipe=recipes.load(recipe or of),
        mean=_in_bytes(MEAN),
        deviation=_in_bytes(DEVIATION),
    )


def _entries(net: Net) -> set[str]:
    """The names of its weights and biases in a state dict."""
    return {f"{module}.{kind}" for module in net.modules.values() for kind in ("weight", "bias")}


def _in_bytes(colour: Colour) -> Colour:
    """From 0-1 to 0-255."""
    red, green, blue = colour
    return (255 * red, 255 * green, 255 * blue)
