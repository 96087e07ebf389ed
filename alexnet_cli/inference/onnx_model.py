"""ONNX Runtime: packed pictures in, probabilities and fc7 out. Knows no torch."""

import contextlib
import ctypes
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.artefacts import check_format
from alexnet_cli.distributed import available_cores, is_distributed, local_rank
from alexnet_cli.errors import BadArtefact, first_line
from alexnet_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
BATCH = 64  # pictures at a time, so that memory stays bounded
FEW = 64  # up to so many pictures a CPU is done before CUDA has started
QUIET, WARNINGS = 4, 2  # ONNX Runtime's log levels: what stops it comes as an exception as well


class OnnxModel:
    """An ONNX file of ours, open for inference."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        """Raises KeyError, ValueError, IndexError or TypeError if it is no session of a file of ours."""
        self.session = session
        metadata = session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(metadata["classes"])
        self.fingerprint, self.precision = metadata["fingerprint"], metadata["precision"]
        shapes = {value.name: value.shape for value in session.get_inputs() + session.get_outputs()}
        defaults = {value.name: value.shape for value in session.get_overridable_initializers()}
        self.image_size = int(shapes["image"][1])  # S
        self.crop = int(defaults["rows"][0])
        self.features = int(shapes["fc7"][1])  # D, 4096 for the full network
        self.device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"

    @classmethod
    def open(cls, path: Path, *, pictures: int | None = None, progress: Progress = SILENT) -> "OnnxModel":
        """On a GPU if there is one; if only a few ``pictures`` are to be run, on the CPU, which starts at once.

        Raises BadArtefact if the file is missing, damaged, none of ours, or of a newer format.
        """
        import onnxruntime

        if not path.is_file():
            raise BadArtefact(f"no ONNX file at {path}: make one with `alexnet export`")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = available_cores() if is_distributed() else 0  # 0: all
        # Between two batches its threads sleep, instead of turning in the way of those that decode the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        few = pictures is not None and pictures <= FEW
        if few:
            # Copying the weights into the fastest order, and fusing, costs more than it saves on a few pictures.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            session = _session(path, options, ["CPUExecutionProvider"] if few else _providers(), progress)
        except Exception as error:  # ONNX Runtime has many, of no common kind
            raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): export it again") from None
        metadata = session.get_modelmeta().custom_metadata_map
        if "alexnet_format" not in metadata:
            raise BadArtefact(f"{path} was not made by `alexnet export`: export a model of ours")
        check_format(metadata["alexnet_format"], FORMAT, path)
        try:
            return cls(session)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise BadArtefact(f"{path} is not as `alexnet export` writes it ({error!r}): export it again") from None

    def run(
        self, images: np.ndarray, rows: np.ndarray | None = None, columns: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and fc7 (N, D), float32, of ``images`` (N, S, S, 3) uint8.

        ``rows``, ``columns`` (crop,): the pixels of the view; the central crop if none.
        """
        view = {"rows": rows, "columns": columns}
        given = {name: pixels for name, pixels in view.items() if pixels is not None}
        probabilities = np.empty((len(images), len(self.classes)), np.float32)
        fc7 = np.empty((len(images), self.features), np.float32)
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            outputs = self.session.run(["probabilities", "fc7"], {"image": images[part], **given})
            probabilities[part], fc7[part] = outputs
        return probabilities, fc7


def _session(
    path: Path, options: "onnxruntime.SessionOptions", providers: list[str], progress: Progress
) -> "onnxruntime.InferenceSession":
    import onnxruntime

    of_each = {"CUDAExecutionProvider": {"device_id": str(local_rank())}}
    try:
        chosen = [(provider, of_each.get(provider, {})) for provider in providers]
        session = onnxruntime.InferenceSession(path, options, providers=chosen)
    except Exception:
        if len(providers) == 1:
            raise
        session = onnxruntime.InferenceSession(path, options, providers=providers[-1:])
    if session.get_providers()[0] != providers[0]:
        progress.note("there is a GPU, but ONNX Runtime could not start CUDA: going on with the CPU")
    return session


def _providers() -> list[str]:
    """CUDA where there is a GPU, quietly the CPU elsewhere."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not _has_gpu():
        return ["CPUExecutionProvider"]
    with contextlib.redirect_stdout(None):  # it prints what it does not find
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the wheels that torch brought
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _has_gpu() -> bool:
    """Asked of the driver itself: ONNX Runtime would print errors where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
