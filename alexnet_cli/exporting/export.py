"""Exports a model as one ONNX file, which takes its name only once its outputs agree with the network's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_cli.artefacts import ONNX_FILE
from alexnet_cli.errors import AlexNetError
from alexnet_cli.exporting.graph import Precision, build_graph
from alexnet_cli.exporting.pictures import CHECKED_BATCHES, made_up_pictures
from alexnet_cli.exporting.quantization import quantize
from alexnet_cli.files import atomic_write
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import centre_view, ten_views
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress

# Largest difference to the network: of a probability, and of a feature as a share of the largest feature.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}


class Difference(AlexNetError):
    """The exported file does not compute what the network computes."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and how far it is from the network."""

    path: Path
    probabilities_difference: float  # the largest
    features_difference: float  # the largest
    features: str  # the name of their layer
    pictures: int
    precision: str

    def as_json(self) -> dict[str, object]:
        """What `alexnet export --json` prints."""
        return {
            "onnx": str(self.path),
            "bytes": self.path.stat().st_size,
            "precision": self.precision,
            "pictures": self.pictures,
            "probabilities_difference": self.probabilities_difference,
            "features_difference": self.features_difference,
        }


def export_model(
    folder: Path,
    out: Path | None = None,
    *,
    precision: Precision = "fp32",
    pictures: np.ndarray | None = None,
    calibration: np.ndarray | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export the model in ``folder`` to ``out``, or to `default_file` in that folder; check it before it has that name.

    ``pictures`` (at least 5, S, S, 3) uint8: what the check is made on; smooth noise if there are none.
    ``calibration`` (N, S, S, 3) uint8: the training pictures that int8 needs.
    Raises BadArtefact if there is no such model; Difference, and writes no file, if ONNX Runtime's outputs are not
    those of the network.
    """
    model = Model.load(folder)
    out = folder / default_file(precision) if out is None else out
    if pictures is None:
        progress.note("no dataset of this picture size here: the export is checked on made-up pictures")
        pictures = made_up_pictures(model.recipe.image.size)
    with atomic_write(out) as temporary:
        proto = build_graph(model, precision)
        if precision == "int8":
            if calibration is None:
                raise AlexNetError("int8 takes its ranges from training pictures: give some as calibration")
            quantize(proto, model.net.last, calibration, temporary)
        else:
            temporary.write_bytes(proto.SerializeToString())
        network = NetworkModel.of(model, "cpu")
        probabilities, features = compare(
            OnnxModel.open(temporary, device="cpu"), network, pictures, TOLERANCE[precision]
        )
    return Export(
        path=out,
        probabilities_difference=probabilities,
        features_difference=features,
        features=network.feature_name,
        pictures=len(pictures),
        precision=precision,
    )


def default_file(precision: Precision) -> str:
    """model.onnx for fp32; other precisions have files of their own, for an index belongs to one precision."""
    return ONNX_FILE if precision == "fp32" else f"model.{precision}.onnx"


def compare(exported: Predictor, network: Predictor, pictures: np.ndarray, tolerance: float) -> tuple[float, float]:
    """The largest differences of probabilities and of features between ``exported`` and ``network``.

    Over two batch sizes of ``pictures`` (at least 5, S, S, 3) uint8, and the centre view and a reflected corner view.
    Raises Difference if one is beyond ``tolerance``.
    """
    size, crop = network.image_size, network.crop
    names, worst = ("probabilities", exported.feature_name), [0.0, 0.0]
    for batch in CHECKED_BATCHES:
        for view in (centre_view(size, crop), ten_views(size, crop)[-2]):
            outputs = zip(network.run(pictures[:batch], view), exported.run(pictures[:batch], view), strict=True)
            for i, (expected, found) in enumerate(outputs):
                worst[i] = max(worst[i], float(np.abs(expected - found).max()))
                largest = 1.0 if i == 0 else max(1.0, float(np.abs(expected).max()))
                if not worst[i] <= tolerance * largest:  # true for NaN as well
                    raise Difference(
                        f"the exported graph differs from the network by {worst[i]:.2g} in {names[i]} "
                        f"at batch {batch}: nothing was written"
                    )
    return worst[0], worst[1]
