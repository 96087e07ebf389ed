"""Images per second in ONNX Runtime: our files against the default export of the same net, at batch 64 and 1.

    python benchmarks/export.py models/NAME [--calibration data/NAME]

The peer is the 2012 net with torch.nn.LocalResponseNorm, exported by torch.onnx.export with its defaults; its input is
floats that are already cropped and centred, whereas ours is the bytes of the packed picture. The limit is the net
without response norm, exported in the same way. int8 needs a dataset with the model's classes.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import RUNS, compare, per_second
from step import ours, with_torchs_norm
from torch import nn

from alexnet_cli.exporting.export import export_model
from alexnet_cli.exporting.pictures import pictures_to_calibrate
from alexnet_cli.inference.onnx_model import QUIET, OnnxModel

CPU, PICTURES = torch.device("cpu"), 128


def by_default(net: nn.Module, file: Path) -> onnxruntime.InferenceSession:
    """A session of ``net``, exported by torch.onnx.export with its defaults; the input is a batch of floats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, 3, 224, 224),),
            file,
            input_names=["image"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would slow the other sessions
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if torch.cuda.is_available() else None
    return onnxruntime.InferenceSession(file, options, providers=providers)


def of_floats(session: onnxruntime.InferenceSession, batch: int) -> Callable[[], float]:
    images = np.random.default_rng(0).normal(0, 58, (batch, 3, 224, 224)).astype(np.float32)
    return lambda: again(lambda: session.run(None, {"image": images}), batch)


def of_bytes(model: OnnxModel, batch: int) -> Callable[[], float]:
    images = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), dtype=np.uint8)
    return lambda: again(lambda: model.session.run(None, {"image": images}), batch)


def again(run: Callable[[], object], batch: int) -> float:
    """Images per second of ``run``, repeated for PICTURES images."""
    times = max(1, PICTURES // batch)
    return per_second(times * batch, lambda: [run() for _ in range(times)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {"alexnet export": export_model(given.model, folder / "fp32.onnx").path}
        if given.calibration:
            calibration, others = pictures_to_calibrate([given.calibration], given.model)
            int8 = export_model(
                given.model, folder / "int8.onnx", precision="int8", pictures=others, calibration=calibration
            )
            files["alexnet export --precision int8"] = int8.path
        models = {name: OnnxModel.open(file) for name, file in files.items()}
        classes = len(models["alexnet export"].classes)
        without = ours("no-response-norm", CPU, classes)
        peers = {
            "default export": by_default(with_torchs_norm(CPU, classes), folder / "peer.onnx"),
            "limit: default export without response norm": by_default(without, folder / "limit.onnx"),
        }
    for batch in given.batches:
        jobs = {name: of_bytes(model, batch) for name, model in models.items()}
        jobs |= {name: of_floats(session, batch) for name, session in peers.items()}
        facts = {"batch": batch, "device": models["alexnet export"].device}
        found = compare(f"export-batch-{batch}", jobs, ours="alexnet export", runs=given.runs, facts=facts)["found"]
        for name in files:
            times = found[name]["median"] / found["default export"]["median"]
            print(f"  {name}: {times:.2f} times the default export")


if __name__ == "__main__":
    main()
