"""ONNX Runtime: packed pictures in, probabilities and fc7 out. Knows no torch."""

import ctypes
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.errors import BadArtefact

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
BATCH = 64  # pictures at a time, so that memory stays bounded
QUIET = 3  # ONNX Runtime's log level: errors, no warnings


class Runtime:
    """An ONNX file of ours, open for inference."""

    def __init__(self, session: "onnxruntime.InferenceSession", metadata: dict[str, str]) -> None:
        self.session = session
        self.classes: list[str] = json.loads(metadata["classes"])
        self.fingerprint, self.precision = metadata["fingerprint"], metadata["precision"]
        self.image_size = int(session.get_inputs()[0].shape[1])
        defaults = {value.name: value for value in session.get_overridable_initializers()}
        self.crop = int(defaults["rows"].shape[0])
        self.features = int(session.get_outputs()[1].shape[1])
        self.device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"

    @classmethod
    def open(cls, path: Path) -> "Runtime":
        """Raises BadArtefact if the file is missing, damaged, none of ours, or of a newer format."""
        import onnxruntime

        if not path.is_file():
            raise BadArtefact(f"no ONNX file at {path}: make one with `alexnet export`")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        try:
            session = onnxruntime.InferenceSession(path, options, providers=_providers())
        except Exception as error:  # ONNX Runtime has many, of no common kind
            raise BadArtefact(f"{path} is damaged or no ONNX file ({_first_line(error)}): export it again") from None
        metadata = session.get_modelmeta().custom_metadata_map
        if "alexnet_format" not in metadata:
            raise BadArtefact(f"{path} was not made by `alexnet export`: export a model of ours")
        if int(metadata["alexnet_format"]) > FORMAT:
            raise BadArtefact(
                f"{path} has format {metadata['alexnet_format']}, newer than this program's {FORMAT}: "
                "upgrade alexnet-cli"
            )
        return cls(session, metadata)

    def run(
        self, images: np.ndarray, rows: np.ndarray | None = None, columns: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and fc7 (N, 4096), float32, of ``images`` (N, S, S, 3) uint8.

        ``rows``, ``columns`` (crop,): the pixels of the view; the central crop if none.
        """
        view = {} if rows is None or columns is None else {"rows": rows, "columns": columns}
        parts = [
            self.session.run(["probabilities", "fc7"], {"image": images[start : start + BATCH], **view})
            for start in range(0, len(images), BATCH)
        ]
        if not parts:
            return np.empty((0, len(self.classes)), np.float32), np.empty((0, self.features), np.float32)
        probabilities, fc7 = zip(*parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(fc7)


def model_fingerprint(folder: Path) -> str:
    """The fingerprint in the header of a model's `model.safetensors`. Raises BadArtefact."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            return str((file.metadata() or {})["fingerprint"])
    except (OSError, SafetensorError, KeyError) as error:
        raise BadArtefact(f"{folder} is no model, or damaged ({_first_line(error)}): train it again") from None


def _providers() -> list[str]:
    """CUDA where there is a GPU, quietly the CPU elsewhere."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not _has_gpu():
        return ["CPUExecutionProvider"]
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
