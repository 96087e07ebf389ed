"""The whole chain on photographs that come with scikit-image, by the very commands a user would type.

Each photograph is a class, random views of it are its pictures. Training and validation pictures are views of the same
photographs: this shows that the chain works, not how well a network generalizes.
"""

import contextlib
import io
import json
import shlex
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.console import show
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.files import written_whole

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
VIEWS = {"train": 60, "val": 15}  # pictures a class
SIDE = 280  # of a view, in pixels
QUERIES = ("cat", "coffee", "motorcycle", "rocket")

Run = Callable[[list[str]], int]


def commands(queries: Sequence[str], epochs: int) -> list[str]:
    """What the demonstration types, in its folder."""
    return [
        "alexnet prep photos",
        f"alexnet train photos --recipe tiny --epochs {epochs} --set training.batch=16",
        "alexnet eval",
        "alexnet export",
        "alexnet index",
        f"alexnet search {' '.join(queries)} -k 6 --sheet neighbours.png --html neighbours.html",
    ]


def demonstrate(folder: Path, run: Run, *, views: dict[str, int] = VIEWS, epochs: int = 12) -> dict[str, Any]:
    """Write the pictures, run every command in ``folder``, and return its errors and what was drawn.

    ``run`` takes a command's words without `alexnet` and returns its exit code. Raises AlexNetError if scikit-image is
    missing or a command fails.
    """
    photos = folder / "photos"
    write_views(photographs(), photos, views)
    queries = [f"photos/val/{name}/000.jpg" for name in QUERIES]
    with contextlib.chdir(folder):
        for command in commands(queries, epochs):
            show(f"\n$ {command}")
            _run(run, command)
        captured = io.StringIO()
        with contextlib.redirect_stdout(captured):
            _run(run, "alexnet eval --json")
        errors = json.loads(captured.getvalue())
        curves = Path("models", errors["models"][0], "curves.png")
    return {
        "top1_error": errors["top1_error"],
        "chance": 1 - 1 / len(PHOTOGRAPHS),
        "sheet": str(folder / "neighbours.png"),
        "page": str(folder / "neighbours.html"),
        "curves": str(folder / curves),
    }


def _run(run: Run, command: str) -> None:
    code = run(shlex.split(command)[1:])
    if code == 130:
        raise Interrupted("the demonstration was stopped: `alexnet demo` begins again")
    if code != 0:
        raise AlexNetError(f"the demonstration stopped at `{command}`, which says why")


def photographs() -> dict[str, Path]:
    """Class -> photograph, from the installed scikit-image. Raises AlexNetError if it is not installed."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise AlexNetError("the demonstration needs the photographs of scikit-image: pip install 'alexnet-cli[demo]'")
    data = Path(found.origin).parent / "data"
    return {name: data / file for name, file in PHOTOGRAPHS.items()}


def write_views(photos: dict[str, Path], folder: Path, views: dict[str, int]) -> None:
    """``views`` of each photograph as JPEGs in ``folder``/SPLIT/CLASS, the same every time."""
    for number, (name, path) in enumerate(photos.items()):
        random = np.random.default_rng([2012, number])
        with Image.open(path) as file:
            photo = file.convert("RGB")
        for split, count in views.items():
            for i in range(count):
                with written_whole(folder / split / name / f"{i:03d}.jpg") as beside:
                    view(photo, random).save(beside, "JPEG", quality=90)


def view(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """A random square of the photograph, 40 to 80 % of its shorter side, turned, perhaps reflected, lit otherwise."""
    side = random.uniform(0.4, 0.8) * min(photo.size)
    left, top = (random.uniform(0, extent - side) for extent in photo.size)
    centre = (left + side / 2, top + side / 2)
    turned = photo.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR, center=centre)
    seen = turned.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if random.random() < 0.5:
        seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = random.uniform(0.7, 1.3)
    return seen.point(lambda value: min(255, round(value * light)))
