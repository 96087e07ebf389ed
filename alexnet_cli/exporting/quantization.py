"""Weights and activations of 8 bits, by ONNX Runtime's static quantization."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.inference.onnx_model import QUIET, WARNINGS

if TYPE_CHECKING:
    import onnx


class CalibrationReader:
    """Feeds pictures (N, S, S, 3) to ONNX Runtime's calibration one at a time: its batches must have one length."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._rest = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, {name: (1, S, S, 3)}; None after the last."""
        picture = next(self._rest, None)
        return None if picture is None else {"image": picture[None]}


def quantize(proto: "onnx.ModelProto", last_layer: str, calibration: np.ndarray, out: Path, scratch: Path) -> None:
    """Write the graph ``proto`` to ``out`` with weights and activations of 8 bits, all but those of ``last_layer``.

    Each kernel's weights have a scale of their own. The range of an activation holds all but one in 200,000 of its
    values on the pictures of ``calibration`` (N, S, S, 3) uint8. The last layer stays in fp32 because small differences
    of its outputs decide between classes. ``scratch``: a folder for temporary files.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    last = [node.name for node in proto.graph.node if any(f".{last_layer}." in name for name in node.input)]
    with _quiet(), _temporary_files_in(scratch):
        quantize_static(
            proto,
            out,
            CalibrationReader(calibration),
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool"],
            activation_type=QuantType.QUInt8,  # with signed ones a CPU takes several times as long
            nodes_to_exclude=last,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": 99.9995,
                "ForceQuantizeNoInputCheck": True,  # pooling, too, is faster on bytes
            },
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what ONNX Runtime's tools print and log, which is advice to programmers, from the user."""
    import onnxruntime

    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(QUIET)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Has the temporary files of ONNX Runtime's tools, which are as large as the model, in ``folder``."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
