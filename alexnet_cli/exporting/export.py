"""Exports a model as one ONNX file, which takes its name only once its outputs agree with the network's."""

import math
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from alexnet_cli.artefacts import ONNX_FILE
from alexnet_cli.errors import AlexNetError
from alexnet_cli.exporting.comparison import COSINE, SAME_CLASS, TOLERANCE, Agreement, check_agreement, compare
from alexnet_cli.exporting.graph import Precision, build_graph
from alexnet_cli.exporting.pictures import synthetic_pictures
from alexnet_cli.exporting.quantization import quantize
from alexnet_cli.files import atomic_write, sweep, temporary_folder
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.onnx_file import seal
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and how far it is from the network."""

    path: Path
    probabilities_difference: float  # the largest
    features_difference: float  # the largest
    features: str  # the name of their layer
    pictures: int
    precision: str
    image_size: int  # side of the pictures that it takes, in pixels
    agreement: dict[str, Agreement] = field(default_factory=dict)  # of int8, on "calibration" and "other" pictures

    def as_json(self) -> dict[str, object]:
        """What `alexnet export --json` prints."""
        facts: dict[str, object] = {
            "onnx": str(self.path),
            "bytes": self.path.stat().st_size,
            "precision": self.precision,
            "pictures": self.pictures,
            "probabilities_difference": self.probabilities_difference,
            "features_difference": self.features_difference,
        }
        if self.agreement:
            facts["agreement"] = {what: asdict(agreement) for what, agreement in self.agreement.items()}
            facts["agreement_required"] = {"same_class": SAME_CLASS, "cosine": COSINE}
        return facts


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
    Raises BadArtefact if there is no such model, or its outputs are not finite; ExportMismatch, and writes no file, if
    ONNX Runtime's outputs on the CPU are not those of the network.
    """
    model = Model.load(folder)
    out = folder / default_file(precision) if out is None else out
    if out.is_dir():
        raise AlexNetError(f"{out} is a folder: name a file with --out")
    if out.suffix != ".onnx":
        raise AlexNetError(f"{out} does not end in .onnx, by which other commands know such a file: name it {out}.onnx")
    if precision == "int8" and calibration is None:
        raise AlexNetError("int8 takes its ranges from training pictures: give some as calibration")
    if pictures is None:
        progress.note("no dataset of this picture size here: the export is checked on made-up pictures")
        pictures = synthetic_pictures(model.recipe.image.size)
    network = NetworkModel.of(model, "cpu")
    network.run(pictures[:1])  # a network whose outputs are not finite is told now, not after the work
    sweep(out.parent, of=out)
    # Two searches may export the same model at once, and a training may start in its folder: each locks what it writes.
    with atomic_write(out) as temporary, _interrupts_kept():
        proto = build_graph(model, precision)
        if calibration is not None and precision == "int8":
            with temporary_folder(out) as scratch:
                quantize(proto, model.net.last, calibration, temporary, scratch)
        else:
            temporary.write_bytes(proto.SerializeToString())
        del proto
        seal(temporary)
        exported = OnnxModel.open(temporary, device="cpu")
        differences = compare(exported, network, pictures, TOLERANCE.get(precision, math.inf))
        agreement = {}
        if calibration is not None and precision == "int8":
            for what, some in (("calibration", calibration[::2]), ("other", pictures)):
                agreement[what] = check_agreement(exported, network, some, f"{what} pictures")
    return Export(
        path=out,
        probabilities_difference=differences[0],
        features_difference=differences[1],
        features=network.feature_name,
        pictures=len(pictures),
        precision=precision,
        image_size=model.recipe.image.size,
        agreement=agreement,
    )


def default_file(precision: Precision) -> str:
    """model.onnx for fp32; other precisions have files of their own, for an index belongs to one precision."""
    return ONNX_FILE if precision == "fp32" else f"model.{precision}.onnx"


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Raises KeyboardInterrupt after Ctrl-C even if a library made another error of it, or none: torch's exporter does.

    In a destructor Python ignores an exception and prints its traceback; not of this one, which is raised in the end.
    Handlers of signals can be set by the main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = threading.Event()
    handlers = ((number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM))
    before = {int(number): handler for number, handler in handlers if callable(handler)}  # else the system's own

    def interrupt(number: int, frame: FrameType | None) -> None:
        try:
            before[number](number, frame)
        except KeyboardInterrupt:
            interrupted.set()
            raise

    report_ignored = sys.unraisablehook

    def report_others(ignored: "sys.UnraisableHookArgs") -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            report_ignored(ignored)

    for number in before:
        signal.signal(number, interrupt)
    sys.unraisablehook = report_others
    try:
        yield
    except Exception:
        if not interrupted.is_set():
            raise
    finally:
        sys.unraisablehook = report_ignored
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted.is_set():
        raise KeyboardInterrupt
