"""An ONNX file in ONNX Runtime. Imports no torch."""

import contextlib
import ctypes
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.artefacts import check_format, model_name
from alexnet_cli.distributed import available_cores, is_distributed, local_rank
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import View
from alexnet_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
FEW = 64  # a CPU is done with up to so many pictures before CUDA has started
QUIET, WARNINGS = 4, 2  # ONNX Runtime's log levels; its fatal errors are raised as exceptions as well

Provider = tuple[str, dict[str, str]]  # of ONNX Runtime: its name and its options
CPU: Provider = ("CPUExecutionProvider", {})


class OnnxModel(Predictor):
    """A file of `alexnet export`, open for inference."""

    def __init__(self, session: "onnxruntime.InferenceSession", name: str) -> None:
        """Raises KeyError, ValueError, IndexError or TypeError if `alexnet export` did not write the session's file."""
        self.session, self.name = session, name
        metadata = session.get_modelmeta().custom_metadata_map
        self.classes = json.loads(metadata["classes"])
        self.fingerprint, self.precision = metadata["fingerprint"], metadata["precision"]
        inputs = {value.name: value.shape for value in session.get_inputs()}
        defaults = {value.name: value.shape for value in session.get_overridable_initializers()}
        self.image_size, self.crop = int(inputs["image"][1]), int(defaults["rows"][0])
        outputs = {value.name: value.shape for value in session.get_outputs()}
        del outputs["probabilities"]
        ((self.feature_name, shape),) = outputs.items()  # the other output: the last hidden layer
        self.feature_size = int(shape[1])
        self.device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"

    @classmethod
    def open(
        cls, path: Path, *, device: str | None = None, pictures: int | None = None, progress: Progress = SILENT
    ) -> "OnnxModel":
        """The file at ``path`` on ``device`` (cpu, cuda, cuda:1 ...).

        With None it runs on a GPU if there is one, but on the CPU, which starts at once, if it is to run no more than
        FEW ``pictures``.
        Raises BadArtefact if the file is missing, damaged, not written by `alexnet export`, or of a newer format;
        AlexNetError if there is no such device.
        """
        import onnxruntime

        if not path.is_file():
            raise BadArtefact(f"no ONNX file at {path}: make one with `alexnet export`")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = available_cores() if is_distributed() else 0  # 0: all
        # Between two batches its threads sleep, so that those that decode the next batch have the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        few = pictures is not None and pictures <= FEW and device in (None, "cpu")
        if few:
            # For a few pictures, fusing nodes and reordering the weights costs more than it saves.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        providers = [CPU] if few else _providers(device)
        try:
            session = _session(path, options, providers, progress)
        except Exception as error:  # ONNX Runtime has many, with no common base
            raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): export it again") from None
        metadata = session.get_modelmeta().custom_metadata_map
        if "alexnet_format" not in metadata:
            raise BadArtefact(f"{path} was not made by `alexnet export`: export a model of ours")
        check_format(metadata["alexnet_format"], FORMAT, path)
        try:
            return cls(session, model_name(path))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise BadArtefact(f"{path} is not as `alexnet export` writes it ({error!r}): export it again") from None

    def run(self, images: np.ndarray, view: View | None = None) -> tuple[np.ndarray, np.ndarray]:
        outputs = ["probabilities", self.feature_name]
        optional = {} if view is None else view._asdict()
        return self._run_in_batches(images, lambda batch: self.session.run(outputs, {"image": batch, **optional}))


def _session(
    path: Path, options: "onnxruntime.SessionOptions", providers: list[Provider], progress: Progress
) -> "onnxruntime.InferenceSession":
    """A session on the first of ``providers`` that starts."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception:
        if len(providers) == 1:
            raise
        session = onnxruntime.InferenceSession(path, options, providers=providers[-1:])
    if session.get_providers()[0] != providers[0][0]:
        progress.note("there is a GPU, but ONNX Runtime could not start CUDA: using the CPU")
    return session


def _providers(device: str | None) -> list[Provider]:
    """What can run on ``device``, or on the best there is if None; the CPU comes last.

    Raises AlexNetError if ``device`` names what is not here.
    """
    import onnxruntime

    kind, _, number = (device or "").partition(":")
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _has_gpu()
    if kind not in ("", "cpu") and not (kind == "cuda" and cuda):
        raise AlexNetError(f"ONNX Runtime has no device {device!r} here: try --device cpu")
    if kind == "cpu" or not cuda:
        return [CPU]
    with contextlib.redirect_stdout(None):  # it prints what it does not find
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the wheels that torch brought
    if kind == "":
        number = str(local_rank())
    return [("CUDAExecutionProvider", {"device_id": number or "0"}), CPU]


def _has_gpu() -> bool:
    """Asks the driver: where there is none, ONNX Runtime would print errors."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
