"""Opens a trained model for inference: an ONNX file, or a model's folder by its ONNX file or by its network.

This module stands above `inference/` and `exporting/`, and neither imports it. An export is checked with the predictors
of `inference/`, so `inference/` cannot import `exporting/`; but opening a folder may first have to export the model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet_cli.artefacts import ONNX_FILE, model_fingerprint
from alexnet_cli.errors import BadArtefact
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from alexnet_cli.inference.network_model import NetworkModel

Backend = Literal["onnx", "torch"]


def open_model(
    path: Path | str,
    *,
    device: str | None = None,
    backend: Backend = "onnx",
    pictures: int | None = None,
    datasets: Iterable[Path] = (),
    progress: Progress = SILENT,
) -> Predictor:
    """The model at ``path``, an .onnx file or a model's folder.

    ``backend``: what runs a folder's model, ONNX Runtime or torch; an .onnx file always runs in ONNX Runtime. For ONNX
    Runtime, a folder whose `model.onnx` is missing, damaged, not fp32, or of other weights than the folder's, is
    exported first.
    ``device``: cpu, cuda, cuda:1 ...; a GPU if there is one if None. ``pictures``: how many pictures it is to run, if
    that is known: for a few, ONNX Runtime starts sooner. ``datasets``: folders of packed datasets, one of which gives
    the pictures that an export is checked on.
    Raises BadArtefact if there is no such model, or if it is damaged or of a newer format; AlexNetError if there is no
    such device, or if the exported file does not agree with the network.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return OnnxModel.open(path, device=device, pictures=pictures, progress=progress)
    if backend == "torch":
        return open_network(path, device)
    file, fingerprint = path / ONNX_FILE, model_fingerprint(path)
    if file.is_file():
        try:
            model = OnnxModel.open(file, device=device, pictures=pictures, progress=progress)
        except BadArtefact:
            progress.note(f"{file} is damaged or of another format")
        else:
            if model.fingerprint == fingerprint and model.precision == "fp32":
                return model
            if model.precision != "fp32":
                progress.note(f"{file} is of precision {model.precision}, not fp32")
    progress.note(f"exporting {path} first")
    from alexnet_cli.exporting.export import export_model
    from alexnet_cli.exporting.pictures import pictures_to_check

    export_model(path, pictures=pictures_to_check(datasets, path), progress=progress)
    return OnnxModel.open(file, device=device, pictures=pictures, progress=progress)


def open_network(path: Path | str, device: str | None = None) -> "NetworkModel":
    """The network of the model in folder ``path``, in torch; on a GPU if there is one if ``device`` is None.

    Raises BadArtefact if there is no model, or if it is damaged or of a newer format; AlexNetError if there is no such
    device.
    """
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.inference.network_model import NetworkModel
    from alexnet_cli.model import Model

    device = pick_device(device)
    return NetworkModel.of(Model.load(Path(path)), device)
