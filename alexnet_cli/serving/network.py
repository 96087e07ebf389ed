"""What the page shows of the network: its layers, their maps for a picture, a unit's kernel and strongest patches."""

import io
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.artefacts import MODEL_FILE, model_fingerprint
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact, NoSuchLayer
from alexnet_cli.figures.maps import draw_maps, sheet_of, zero_of
from alexnet_cli.figures.mosaic import as_colours, mosaic
from alexnet_cli.serving.library import NotThere, Opened
from alexnet_cli.visualization.units import Units, patches_of, read_units, units_file

ACROSS = 3  # patches in a row


def layers(opened: Opened) -> dict[str, Any]:
    """The network's layers, first to last, as `alexnet info` has them, and which of them the file has maps of.

    ``model`` is the name by which commands find it, quoted; null if it is an ONNX file without its folder.
    """
    model, folder = opened.searcher.model, folder_of(opened)
    is_default = folder is not None and folder.parent == opened.model_home
    return {
        "layers": opened.model.layers,
        "maps": opened.maps().layers,
        "image_size": model.image_size,
        "crop": opened.model.crop,
        "model": folder and shlex.quote(folder.name if is_default else str(folder)),
        "generation": opened.generation,
    }


def maps(opened: Opened, shown: np.ndarray, layer: str) -> tuple[bytes, dict[str, str]]:
    """What each kernel of a layer responds to the picture ``shown``, (S, S, 3) uint8.

    A PNG, and headers that tell of it: X-Maps, "kernels height width"; X-Sheet, how they lie on it, "across times gap";
    X-Zero, the grey of 0; X-Strongest, for each map "value row column" of its strongest place. Raises BadPicture,
    NotThere, NoSuchLayer.
    """
    found = opened.maps().run(shown, layer)
    kernels, _, width = found.shape
    places = found.reshape(kernels, -1).argmax(axis=1)
    strongest = [f"{one.flat[at]:.4g} {at // width} {at % width}" for one, at in zip(found, places, strict=True)]
    return draw_maps(found), {
        "X-Maps": " ".join(map(str, found.shape)),
        "X-Sheet": " ".join(map(str, sheet_of(kernels, width))),
        "X-Zero": str(zero_of(found)),
        "X-Strongest": ",".join(strongest),
    }


def unit(opened: Opened, layer: str, number: int) -> dict[str, Any]:
    """Whether there is a kernel to show of a unit; and of its strongest patches, null if they were not searched for.

    ``why`` says why the patches cannot be shown though they were. Raises NoSuchLayer, NotThere.
    """
    _check_unit(opened, layer, number)
    told: dict[str, Any] = {"kernel": _kernel(opened, layer, number) is not None, "patches": None, "why": None}
    try:
        units = _units(opened, layer)
        if units is not None:
            shown = units.rows[number] >= 0
            images = _images(units)
            told["patches"] = {
                "dataset": images.path.name,
                "split": units.split,
                "responses": [float(f"{response:.4g}") for response in units.responses[number][shown]],
            }
    except AlexNetError as error:
        told["why"] = str(error)
    return told


def kernel(opened: Opened, layer: str, number: int) -> bytes:
    """A PNG of the weights of a kernel of the first layer. Raises NoSuchLayer, NotThere, BadArtefact."""
    _check_unit(opened, layer, number)
    weights = _kernel(opened, layer, number)
    if weights is None:
        raise NotThere(f"{layer} has no kernels to show: only those of a first layer that sees colours or grey")
    if not np.isfinite(weights).all():
        raise BadArtefact(f"the weights of unit {number} of {layer} cannot be shown: not all of them are numbers")
    return _png(as_colours(weights[None])[0])


def patches(opened: Opened, layer: str, number: int) -> bytes:
    """A PNG of the patches of a dataset that excite a unit most, the strongest first. Raises NoSuchLayer, NotThere."""
    _check_unit(opened, layer, number)
    units = _units(opened, layer)
    if units is None:
        raise NotThere(f"the strongest patches of {layer} were not searched for: use `alexnet visualize units`")
    found = patches_of(units, number, _images(units).split(units.split))
    if not found:
        raise NotThere(f"nothing excites unit {number} of {layer}")
    fields = _in_their_fields(units, number, found)
    return _png(mosaic(fields, min(ACROSS, len(found)), gap=max(1, fields.shape[1] // 24), background=0))


def folder_of(opened: Opened) -> Path | None:
    """The folder of the model as it is in the index; None if there is only its ONNX file."""
    folder = opened.model_path if opened.model_path.is_dir() else opened.model_path.parent
    with suppress(BadArtefact, OSError):
        if model_fingerprint(folder) == opened.searcher.model.fingerprint:
            return folder
    return None


def _check_unit(opened: Opened, layer: str, number: int) -> None:
    rows = {row["name"]: row for row in opened.model.layers}
    if layer not in rows:
        raise NoSuchLayer(f"the model has no layer {layer!r}: {', '.join(rows) or 'its file names none'}")
    if number >= rows[layer]["kernels"]:
        raise NotThere(f"{layer} has no unit {number}: its units go from 0 to {rows[layer]['kernels'] - 1}")


def _kernel(opened: Opened, layer: str, number: int) -> np.ndarray | None:
    """The weights (C, h, w) of a kernel of the first layer; None where they are no picture, or not there."""
    from safetensors import SafetensorError, safe_open

    folder = folder_of(opened)
    if folder is None or layer != opened.model.layers[0]["name"]:
        return None
    with suppress(SafetensorError, OSError), safe_open(folder / MODEL_FILE, framework="numpy") as file:
        for column in range(opened.model.layers[0]["columns"]):
            weights = file.get_slice(f"columns.{column}.{layer}.weighted.weight")
            count, *shape = weights.get_shape()
            if number < count:
                return weights[number] if len(shape) == 3 and shape[0] in (1, 3) else None
            number -= count
    return None


def _units(opened: Opened, layer: str) -> Units | None:
    """The strongest patches of a layer's units; None if they were not searched for, or with another state of the model.

    Raises BadArtefact if their file is damaged.
    """
    folder = folder_of(opened)
    if folder is None or not units_file(folder, layer).is_file():
        return None
    units = read_units(folder, layer)
    (kernels,) = (row["kernels"] for row in opened.model.layers if row["name"] == layer)
    if len(units.rows) != kernels:
        raise BadArtefact(f"{units_file(folder, layer)} is damaged (it is of {len(units.rows)} units): remove it")
    return units if units.model_fingerprint == opened.searcher.model.fingerprint else None


def _images(units: Units) -> Dataset:
    """The dataset of the patches. Raises BadArtefact if it is not there any more, or another one."""
    dataset = Dataset.open(Path(units.dataset))
    if dataset.fingerprint != units.dataset_fingerprint:
        raise BadArtefact(f"{dataset.path} has changed since its strongest patches were searched for")
    if units.rows.max() >= len(dataset.split(units.split)):
        raise BadArtefact("the file of the strongest patches is damaged: search again with `alexnet visualize units`")
    return dataset


def _in_their_fields(units: Units, number: int, found: list[np.ndarray]) -> np.ndarray:
    """The patches of a unit, each where it lies in its receptive field: (N, S, S, 4), transparent past the border."""
    side, stride, start = (units.field[key] for key in ("size", "stride", "start"))
    squares = np.zeros((len(found), side, side, 4), np.uint8)  # red, green, blue and cover
    for square, patch, place in zip(squares, found, units.places[number], strict=False):
        top, left = (max(0, -(start + stride * int(along))) for along in place)
        square[top : top + patch.shape[0], left : left + patch.shape[1]] = np.dstack(
            [patch, np.full_like(patch[..., 0], 255)]
        )
    return squares


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
