"""A model as one ONNX file that takes packed pictures: mean subtraction and crop are inside the graph."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from alexnet_cli.artefacts import atomic_write
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.evaluate import Network, View, centre_view, ten_views
from alexnet_cli.inference.onnx_model import QUIET, WARNINGS, OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.nets.normalization import LocalResponseNorm
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.recipe import dumps

if TYPE_CHECKING:
    import onnx

FORMAT = 1
FILE = "model.onnx"
OPSET = 18
CHECKED_BATCHES = (1, 5)  # a graph with a batch size burnt in fails at one of them
CALIBRATED_ON = 128  # training pictures that the ranges of int8 activations are taken from
# Largest difference to the network: of a probability, and of fc7 as a share of the largest fc7 value.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}

Precision = Literal["fp32", "fp16", "int8"]


class Difference(AlexNetError):
    """The exported file does not compute what the network computes."""


class Deployed(nn.Module):
    """The network behind its preprocessor: packed pictures in, probabilities and features out."""

    def __init__(self, net: AlexNet, preprocessor: Preprocessor, precision: Precision) -> None:
        super().__init__()
        self.net = net.half() if precision == "fp16" else net
        self.preprocessor = preprocessor
        self.half_precision = precision == "fp16"
        for module in self.net.modules():
            if isinstance(module, LocalResponseNorm):
                module.by_rows = precision == "int8"

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` (N, S, S, 3) uint8; ``rows``, ``columns`` (crop,) int64: the view's pixels."""
        inputs = self.preprocessor(image, rows, columns)  # (N, C, crop, crop)
        logits, fc7 = self.net(inputs.half() if self.half_precision else inputs)
        return logits.float().softmax(dim=1), fc7.float()


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and how far it is from the network."""

    path: Path
    probabilities_difference: float  # the largest
    fc7_difference: float  # the largest
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
            "fc7_difference": self.fc7_difference,
        }


def pictures_to_check(datasets: Iterable[Path], folder: Path) -> np.ndarray | None:
    """A few real pictures of the size the model in ``folder`` takes, from the first of ``datasets`` that has them."""
    size = Model.load(folder).recipe.image.size
    for dataset in _whole(datasets):
        if dataset.image_size == size:
            return _spread(dataset, "val" if "val" in dataset.counts else "train", max(CHECKED_BATCHES))
    return None


def pictures_to_calibrate(datasets: Iterable[Path], folder: Path) -> np.ndarray:
    """Training pictures for the model in ``folder``, from the first of ``datasets`` that has its classes and size.

    Raises AlexNetError if none has.
    """
    model = Model.load(folder)
    for dataset in _whole(datasets):
        if (dataset.image_size, dataset.classes) == (model.recipe.image.size, model.classes):
            return _spread(dataset, "train", CALIBRATED_ON)
    raise AlexNetError(
        f"int8 takes its ranges from training pictures, and no dataset here has the classes of {folder}: "
        "`alexnet prep` the pictures it was trained on"
    )


def _whole(datasets: Iterable[Path]) -> Iterator[Dataset]:
    """Those that can be read: a damaged one is no reason not to take another."""
    for path in datasets:
        try:
            dataset = Dataset.open(path)
        except BadArtefact:
            continue
        yield dataset


def _spread(dataset: Dataset, split: str, count: int) -> np.ndarray:
    images = dataset.split(split)
    return images.read(np.linspace(0, len(images) - 1, count).astype(np.int64))


def export_model(
    folder: Path,
    out: Path | None = None,
    *,
    precision: Precision = "fp32",
    pictures: np.ndarray | None = None,
    calibration: np.ndarray | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export the model in ``folder`` to ``out`` (by default its `model.onnx`), checked before it takes that name.

    ``pictures`` (at least 5, S, S, 3) uint8: what the check is made on; smooth noise if there are none.
    ``calibration`` (N, S, S, 3) uint8: the training pictures that int8 needs.
    Raises Difference, and writes no file, if ONNX Runtime's outputs are not those of the network.
    """
    model = Model.load(folder)
    out = folder / FILE if out is None else out
    if pictures is None:
        progress.note("no dataset of this picture size here: the export is checked on made-up pictures")
        pictures = _made_up(model.recipe.image.size)
    with atomic_write(out) as temporary:
        proto = graph(model, precision)
        if precision == "int8":
            if calibration is None:
                raise AlexNetError("int8 takes its ranges from training pictures: give some as calibration")
            quantize(proto, model.net, calibration, temporary)
        else:
            temporary.write_bytes(proto.SerializeToString())
        probabilities, fc7 = compare(temporary, Model.load(folder), pictures, TOLERANCE[precision])
    return Export(
        path=out,
        probabilities_difference=probabilities,
        fc7_difference=fc7,
        pictures=len(pictures),
        precision=precision,
    )


def graph(model: Model, precision: Precision = "fp32") -> "onnx.ModelProto":
    """The ONNX graph: required input `image`, optional `rows` and `columns`; outputs `probabilities` and `fc7`.

    `rows` and `columns` have the central crop as their default, so that other views, the ten of §4.1, can be asked of
    the same file. Changes ``model.net`` to half precision for fp16.
    """
    import onnx

    image, fingerprint = model.recipe.image, model.fingerprint
    deployed = Deployed(model.net, Preprocessor(image, model.mean_image, "cpu"), precision).eval()
    centre = centre_view(image.size, image.crop)[0]
    examples = (torch.zeros(2, image.size, image.size, 3, dtype=torch.uint8), *map(torch.from_numpy, centre))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            deployed,
            examples,
            input_names=["image", "rows", "columns"],
            output_names=["probabilities", "fc7"],
            dynamic_shapes=({0: torch.export.Dim("N")}, None, None),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for name, pixels in zip(("rows", "columns"), centre, strict=True):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(pixels, name))
    for key, value in {
        "alexnet_format": str(FORMAT),
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "fingerprint": fingerprint,
        "recipe": dumps(model.recipe),
        "precision": precision,
    }.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


class OneByOne:
    """Pictures (N, S, S, 3) as ONNX Runtime's calibration asks for them; its batches must all be of one length."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._left = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """What to run next: {input: (1, S, S, 3)}; None after the last."""
        picture = next(self._left, None)
        return None if picture is None else {"image": picture[None]}


def quantize(proto: "onnx.ModelProto", net: AlexNet, calibration: np.ndarray, out: Path) -> None:
    """Write the graph ``proto`` of ``net`` to ``out`` with weights and activations of 8 bits, by ONNX Runtime's tools.

    Each kernel's weights have a scale of their own; an activation's range holds all but one in 200,000 of its values on
    the pictures of ``calibration`` (N, S, S, 3). The last layer stays as it is: its small differences decide.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    last = [node.name for node in proto.graph.node if any(f".{net.last}." in name for name in node.input)]
    with _quiet():
        quantize_static(
            proto,
            out,
            OneByOne(calibration),
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool"],
            activation_type=QuantType.QUInt8,  # with signed ones a CPU takes several times as long
            nodes_to_exclude=last,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": 99.9995,
                "ForceQuantizeNoInputCheck": True,  # pooling is quicker on bytes, too
            },
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's advice on how it might be called differently is not for users."""
    import onnxruntime

    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(QUIET)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)
        logging.disable(logging.NOTSET)


def compare(path: Path, model: Model, pictures: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Largest differences of probabilities and of fc7 between ONNX Runtime and the network, over two batch sizes and
    the central and a reflected corner view. Raises Difference if one is beyond ``tolerance``."""
    image = model.recipe.image
    runtime = OnnxModel.open(path)
    network = Network.of(model, torch.device("cpu"))
    views: list[View] = [*centre_view(image.size, image.crop), ten_views(image.size, image.crop)[-2]]
    worst = [0.0, 0.0]
    for batch in CHECKED_BATCHES:
        for rows, columns in views:
            got = runtime.run(pictures[:batch], rows, columns)
            expected = network.outputs(pictures[:batch], rows, columns)
            for i, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
                worst[i] = max(worst[i], float(np.abs(ours - theirs).max()))
                largest = 1.0 if i == 0 else max(1.0, float(np.abs(ours).max()))
                if not worst[i] <= tolerance * largest:  # also when it is no number
                    raise Difference(
                        f"the exported graph differs from the network by {worst[i]:.2g} in "
                        f"{('probabilities', 'fc7')[i]} at batch {batch}: nothing was written"
                    )
    return worst[0], worst[1]


def _made_up(size: int) -> np.ndarray:
    """Smooth coloured noise, the same every time. (5, size, size, 3) uint8"""
    small = torch.rand(max(CHECKED_BATCHES), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1)
    return np.ascontiguousarray((255 * large).byte().permute(0, 2, 3, 1).numpy())
