"""An ONNX file in ONNX Runtime. Imports no torch."""

import contextlib
import ctypes
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_cli.artefacts import check_format, model_name
from alexnet_cli.distributed import available_cores, is_distributed, local_rank
from alexnet_cli.errors import AlexNetError, BadArtefact, first_line
from alexnet_cli.inference.onnx_file import OnnxFile
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import View, centre_view
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.settings import MAX_SIDE

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
FEW = 64  # for at most this many pictures the CPU finishes before CUDA would have started
QUIET, WARNINGS = 4, 2  # ONNX Runtime's log levels; its fatal errors are raised as exceptions as well

Provider = tuple[str, dict[str, str]]  # of ONNX Runtime: its name and its options
CPU: Provider = ("CPUExecutionProvider", {})


@dataclass
class Runtime:
    """How ONNX Runtime is to run a file."""

    options: "onnxruntime.SessionOptions"
    providers: list[Provider]  # the best first
    must: bool  # whether it has to be the first of them
    progress: Progress = SILENT

    def session(self, model: Path | bytes) -> "onnxruntime.InferenceSession":
        """A session of the file ``model``, or of its content, on the first provider that starts.

        Raises AlexNetError if that is not the one it has to be, and what ONNX Runtime raises if it is no such file.
        """
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(model, self.options, providers=self.providers)
        except Exception:
            if len(self.providers) == 1:
                raise
            session = onnxruntime.InferenceSession(model, self.options, providers=[CPU])
        if session.get_providers()[0] != self.providers[0][0]:
            self.leave_gpu("could not start CUDA")
        return session

    def leave_gpu(self, why: str) -> None:
        """From now on use the CPU. Raises AlexNetError if the user named the GPU."""
        if self.must:
            raise AlexNetError(f"there is a GPU, but ONNX Runtime {why}: try --device cpu")
        self.progress.note(f"there is a GPU, but ONNX Runtime {why}: using the CPU")
        self.providers = [CPU]


class OnnxModel(Predictor):
    """A file of `alexnet export`, open for inference."""

    layers: list[dict[str, Any]]  # the table of its layers, first to last: `LayerRow.as_json` of nets/describe.py

    def __init__(self, file: OnnxFile, runtime: Runtime) -> None:
        """Raises KeyError, ValueError, IndexError or TypeError if `alexnet export` did not write the file."""
        path = file.path
        self.file, self.path, self.runtime, self.name = file, path, runtime, model_name(path)
        self._lock = threading.Lock()
        self._view_session: onnxruntime.InferenceSession | None = None  # takes `rows` and `columns` as well
        self.session = runtime.session(path)  # by its name: there is then no second copy in memory
        if not file.has_its_name():  # an export has replaced it meanwhile
            self.session = runtime.session(file.read())
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "alexnet_format" not in metadata:
            raise BadArtefact(f"{path} was not made by `alexnet export`: export a model of ours")
        check_format(metadata["alexnet_format"], FORMAT, path)
        self.classes = json.loads(metadata["classes"])
        if not (isinstance(self.classes, list) and all(isinstance(name, str) for name in self.classes)):
            raise ValueError("its classes are no list of texts")
        self.words = json.loads(metadata.get("words", "{}"))
        if not (isinstance(self.words, dict) and all(isinstance(word, str) for word in self.words.values())):
            raise ValueError("its words are no table of texts")
        self.fingerprint, self.precision = metadata["fingerprint"], metadata["precision"]
        self.crop, self.views = int(metadata["crop"]), int(metadata.get("views", 10))
        self.layers = json.loads(metadata.get("layers", "[]"))  # a file may have no table
        if not (isinstance(self.layers, list) and all(isinstance(row, dict) for row in self.layers)):
            raise ValueError("its layers are no list of tables")
        if self.views not in (1, 10):
            raise ValueError(f"{self.views} views, not 1 or 10")
        (image,) = self.session.get_inputs()
        self.image_size = int(image.shape[1])
        outputs = {value.name: value.shape for value in self.session.get_outputs()}
        count = int(outputs.pop("probabilities")[1])
        ((self.feature_name, shape),) = outputs.items()  # the other output: the last hidden layer
        self.feature_size = int(shape[1])
        if not (0 < self.crop <= self.image_size <= MAX_SIDE and count == len(self.classes)):
            raise ValueError(f"pictures of {self.image_size} pixels, views of {self.crop}, {count} classes")

    @property
    def device(self) -> str:
        """What it runs on: cpu or cuda."""
        return "cuda" if self.runtime.providers[0][0].startswith("CUDA") else "cpu"

    @classmethod
    def open(
        cls, path: Path, *, device: str | None = None, pictures: int | None = None, progress: Progress = SILENT
    ) -> "OnnxModel":
        """The file at ``path`` on ``device`` (cpu, cuda, cuda:1 ...).

        With None it runs on a GPU if there is one, but on the CPU, which starts at once, if it is to run no more than
        FEW ``pictures``, or if CUDA does not start.
        Raises BadArtefact if the file is missing, damaged, not written by `alexnet export`, or of a newer format;
        AlexNetError if there is no such device; OSError if the file cannot be read.
        """
        if not path.is_file():
            raise BadArtefact(f"no ONNX file at {path}: make one with `alexnet export`")
        file = OnnxFile(path)
        file.check()
        few = pictures is not None and pictures <= FEW and device in (None, "cpu")
        providers = [CPU] if few else _providers(device)
        runtime = Runtime(session_options(few), providers, must=device is not None, progress=progress)
        try:
            return cls(file, runtime)
        except (AlexNetError, OSError):
            raise
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise BadArtefact(f"{path} is not as `alexnet export` writes it ({error!r}): export it again") from None
        except Exception as error:  # ONNX Runtime has many, with no common base
            raise BadArtefact(f"{path} is damaged or no ONNX file ({first_line(error)}): export it again") from None

    def run(self, images: np.ndarray, view: View | None = None) -> tuple[np.ndarray, np.ndarray]:
        if view is not None and all(map(np.array_equal, view, centre_view(self.image_size, self.crop))):
            view = None
        return self._run_in_batches(images, lambda batch: self._ask(batch, view))

    def _ask(self, images: np.ndarray, view: View | None) -> tuple[np.ndarray, np.ndarray]:
        outputs = ["probabilities", self.feature_name]
        session, feeds = (self.session, {}) if view is None else (self._session_for_views(), view._asdict())
        try:
            probabilities, features = session.run(outputs, {"image": images, **feeds})
        except Exception as error:
            if self.device == "cpu":
                raise AlexNetError(f"ONNX Runtime cannot run {self.path} ({first_line(error)})") from None
            with self._lock:
                if self.device != "cpu":  # else another thread has just left it
                    self.runtime.leave_gpu(f"failed on it ({first_line(error)})")
                    self.session, self._view_session = self.runtime.session(self.file.read()), None
            return self._ask(images, view)
        return probabilities, features

    def _session_for_views(self) -> "onnxruntime.InferenceSession":
        with self._lock:
            if self._view_session is None:
                self._view_session = self.runtime.session(self.file.with_view_inputs(self.crop))
            return self._view_session


def session_options(few: bool) -> "onnxruntime.SessionOptions":
    """For inference on ``few`` pictures or on many."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = available_cores() if is_distributed() else 0  # 0: all
    # Between two batches its threads sleep, so that those that decode the next batch have the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if few:
        # For a few pictures, fusing nodes and reordering the weights costs more than it saves.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def _providers(device: str | None) -> list[Provider]:
    """What can run on ``device``, or on the best there is if None; the CPU comes last.

    Raises AlexNetError if ``device`` names what is not here.
    """
    import onnxruntime

    kind, colon, number = (device or "").partition(":")
    gpus = _gpus() if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and kind != "cpu" else 0
    if device not in (None, "cpu"):
        here = kind == "cuda" and (int(number) < gpus if number.isdecimal() else gpus > 0 and not colon)
        if not here:
            raise AlexNetError(f"ONNX Runtime has no device {device!r} here: try --device cpu")
    if gpus == 0:
        return [CPU]
    with contextlib.redirect_stdout(None):  # it prints what it does not find
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the wheels that torch brought
    if device is None:
        number = str(local_rank())
    # Without TF32, whose products have 10 bits of mantissa, a GPU gives the numbers that the export was checked for.
    return [("CUDAExecutionProvider", {"device_id": number or "0", "use_tf32": "0"}), CPU]


def _gpus() -> int:
    """How many GPUs there are. Asks the driver: where there is none, ONNX Runtime would print errors."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    started = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if started else 0
