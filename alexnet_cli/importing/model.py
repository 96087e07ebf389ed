"""A model of ours from a file of torchvision, Caffe or the ONNX zoo."""

import datetime
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import alexnet_cli
from alexnet_cli.errors import BadArtefact, BadRecipe
from alexnet_cli.importing import caffe, onnx_zoo, torchvision
from alexnet_cli.importing.weights import Imported, build_network, per_colour_scale
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wordnet import ilsvrc2012

# To add a format, write a module with such a function and name it here: path, recipe's name or None -> what it holds.
READERS: dict[str, Callable[[Path, str | None], Imported]] = {
    ".pth": torchvision.read,
    ".pt": torchvision.read,
    ".safetensors": torchvision.read,
    ".caffemodel": caffe.read,
    ".onnx": onnx_zoo.read,
}
LARGEST = 4 * 10**9  # bytes of a file: 500 million weights in float64


def import_model(
    source: str,
    *,
    recipe: str | None = None,
    classes: list[str] | None = None,
    words: Mapping[str, str] | None = None,
    mean: Path | None = None,
    progress: Progress = SILENT,
) -> Model:
    """A model of ours from ``source``: a file of torchvision, Caffe or the ONNX zoo; or the word `torchvision` or
    `vgg-16`, a recipe for which torchvision publishes weights.

    ``recipe``: instead of the one that the file is taken to be of. ``classes``: in label order; by default those that
    the file names, or ImageNet's if there are 1000. ``words``: what they mean, by class. ``mean``: a `.binaryproto`
    mean image. Raises BadArtefact for a file that is none of these, is damaged, or does not fit, naming the first layer
    that differs.
    """
    path = torchvision.fetch(source, progress) if source in torchvision.NETS else Path(source)
    found = _read(path, recipe)
    divide_by, scale = per_colour_scale(found.deviation)
    try:
        net, fitted = build_network(found, scale)
    except (BadArtefact, BadRecipe) as error:
        raise BadArtefact(f"{source} does not fit: {error}") from None
    size = fitted.image.size
    colour = np.array(found.mean, np.float32)
    return Model(
        net=net.to(memory_format=torch.channels_last).eval(),
        recipe=replace(fitted, image=replace(fitted.image, divide_by=divide_by)),
        words=dict(words or {}),
        classes=_classes(classes or found.classes, len(found.weights[net.last][0]), source),
        mean_image=np.tile(colour, (size, size, 1)) if mean is None else caffe.mean_image(mean, size),
        provenance={
            "imported": found.format,
            "source": path.name,
            "sha256": _sha256(path),
            "date": datetime.date.today().isoformat(),
            "version": alexnet_cli.__version__,
        },
    )


def read_classes(path: Path) -> list[str]:
    """The classes in a text file, one per line, in label order. Raises BadArtefact."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadArtefact(
            f"cannot read the classes in {path} ({error}): give a text file with one class per line"
        ) from None


def _read(path: Path, recipe: str | None) -> Imported:
    if not path.is_file():
        words = " or ".join(torchvision.NETS)
        raise BadArtefact(f"no file {path}: give one, or the word {words}, which fetches torchvision's weights")
    if path.suffix not in READERS:
        raise BadArtefact(f"{path} is of no known format: it takes {', '.join(READERS)}")
    if path.stat().st_size > LARGEST:
        raise BadArtefact(f"{path} has more than {LARGEST:,} bytes: it holds more than the weights of a network")
    return READERS[path.suffix](path, recipe)


def _classes(given: list[str], count: int, source: str) -> list[str]:
    if not given and count == 1000:
        given = ilsvrc2012()  # every file of 1000 classes has them in this order
    if not given:
        raise BadArtefact(f"{source} has {count} classes and does not name them: name a file or dataset with --classes")
    if len(given) != count:
        raise BadArtefact(f"{source} has {count} classes, but {len(given)} are named by --classes")
    times = Counter(given)  # as words, two of ImageNet's classes are called crane, and two maillot
    return [name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(given)]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
