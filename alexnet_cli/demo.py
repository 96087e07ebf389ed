"""The demonstration: every step from pictures to search, on photographs that come with scikit-image.

It runs the commands that a user would type. Each photograph is a class, and random views of it are the pictures of that
class. Training and validation pictures are views of the same photographs, so the error says that the commands work, not
how well a network generalizes.
"""

import contextlib
import io
import json
import math
import shlex
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from alexnet_cli.artefacts import CHECKPOINT_FILE, ONNX_FILE
from alexnet_cli.console import show
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.files import atomic_write
from alexnet_cli.workspace import Workspace, path_of

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
VIEWS = {"train": 90, "val": 15}  # pictures per class
EPOCHS = 24
SIDE = 280  # side of a view, in pixels
QUERIES = ("cat", "coffee", "motorcycle", "rocket")
MODEL = "photos-tiny"

Run = Callable[[list[str]], object]  # runs one command; takes its arguments, without the leading `alexnet`


def demonstrate(
    folder: Path,
    run: Run,
    *,
    names: Sequence[str] = tuple(PHOTOGRAPHS),
    views: dict[str, int] = VIEWS,
    queries: Sequence[str] = QUERIES,
    epochs: int = EPOCHS,
) -> dict[str, Any]:
    """Write the pictures, run every command in the workspace ``folder``; return the error and what was drawn.

    A second call keeps what the first one finished. Raises AlexNetError if scikit-image is missing, Interrupted if the
    user stops it, and what the commands raise.
    """
    photos = {name: path for name, path in photographs().items() if name in names}
    write_views(photos, folder / "photos", views)
    show(f"{len(photos)} photographs, {sum(views.values())} random views of each: {folder / 'photos'}")
    try:
        for command in commands(folder, queries, epochs):
            show(f"\n$ {command}")
            run(shlex.split(command)[1:])
        exported = path_of(folder / "models" / MODEL / ONNX_FILE)
        errors = _json(run, Workspace(folder).command("eval", exported, "--data", "photos", "--json"))
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted("the demonstration was stopped") from None
    return {
        "top1_error": errors["top1_error"],
        "top1_error_ci95": errors["top1_error_ci95"],
        "chance": 1 - 1 / len(photos),
        "images": errors["images"],
        "model": str(folder / "models" / MODEL),
        "sheet": str(folder / "neighbours.png"),
        "page": str(folder / "neighbours.html"),
        "curves": str(folder / "models" / MODEL / "curves.png"),
    }


def commands(folder: Path, queries: Sequence[str], epochs: int) -> list[str]:
    """The commands, in order, for the workspace ``folder``; they resume a training run that is there."""
    space, photos = Workspace(folder), folder / "photos"
    begun = (folder / "models" / MODEL / CHECKPOINT_FILE).exists()
    # A few hundred pictures give few updates per epoch: hence smaller batches, and with them a smaller learning rate.
    # Batch, learning rate and epochs were chosen on a held-out part of the training views.
    settings = "--set training.batch=16 --set training.learning_rate=0.0025"
    fresh = f"photos --recipe tiny {settings} --epochs {epochs}"
    pictures = [photos / "val" / name / f"{name}-00.jpg" for name in queries]
    drawn = ["--sheet", folder / "neighbours.png", "--html", folder / "neighbours.html"]
    return [
        space.command("prep", photos),
        space.command("train", *("--resume" if begun else fresh).split(), "--out", MODEL),
        space.command("eval", MODEL, "--data", "photos", "--views", "10"),
        space.command("export", MODEL),
        space.command("index", folder / "data" / "photos", "--model", MODEL),
        space.command("search", *pictures, "--index", "photos", "-k", "6", *drawn),
    ]


def _json(run: Run, command: str) -> dict[str, Any]:
    """Run ``command``, show the JSON that it prints, and return it."""
    show(f"\n$ {command}")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(shlex.split(command)[1:])
    show(printed.getvalue().rstrip())
    parsed: dict[str, Any] = json.loads(printed.getvalue())
    return parsed


def photographs() -> dict[str, Path]:
    """Class -> photograph, from the installed scikit-image. Raises AlexNetError if it is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise AlexNetError("alexnet demo needs the photographs in scikit-image: pip install 'alexnet-cli[demo]'")
    # The files are opened by path because the functions of skimage.data may download.
    data = Path(package.origin).parent / "data"
    return {name: data / file for name, file in PHOTOGRAPHS.items()}


def write_views(photos: dict[str, Path], folder: Path, views: dict[str, int]) -> None:
    """Write ``views`` (number per split) of each photograph as JPEGs to ``folder``/SPLIT/CLASS.

    The views are the same every time. A file that exists is kept.
    """
    for name, path in photos.items():
        files = [(split, i) for split, count in views.items() for i in range(count)]
        missing = [(split, i) for split, i in files if not _file(folder, split, name, i).exists()]
        if not missing:
            continue
        with Image.open(path) as file:
            photo = file.convert("RGB")
        photo.thumbnail((4 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
        for split, i in missing:
            random = np.random.default_rng([i, *f"{split}/{name}".encode()])
            with atomic_write(_file(folder, split, name, i)) as temporary:
                view(photo, random).save(temporary, "JPEG", quality=90)


def _file(folder: Path, split: str, name: str, i: int) -> Path:
    return folder / split / name / f"{name}-{i:02d}.jpg"


def view(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """A random square of ``photo``, 40 to 80 % of its shorter side: rotated, perhaps reflected, brighter or darker."""
    side, angle = random.uniform(0.4, 0.8) * min(photo.size), math.radians(random.uniform(-15, 15))
    reach = side / 2 * (math.cos(angle) + abs(math.sin(angle)))  # from the square's centre to its bounding box
    centre = np.array([random.uniform(reach, extent - reach) for extent in photo.size])
    # The steps in the photograph for one pixel to the right, and for one pixel down, in the view.
    right = np.array([math.cos(angle), math.sin(angle)]) * side / SIDE * random.choice([-1, 1])
    down = np.array([-math.sin(angle), math.cos(angle)]) * side / SIDE
    corner = centre - (right + down) * SIDE / 2
    affine = np.column_stack([right, down, corner]).ravel().tolist()
    square = photo.transform((SIDE, SIDE), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(square).enhance(random.uniform(0.7, 1.3))
