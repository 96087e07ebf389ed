"""Seconds and memory of one `alexnet search`, from the start of its process to its end.

    python benchmarks/search.py PICTURE models/NAME [--vectors 100000]

The index holds made-up vectors: noise, or vectors with the covariance and sparsity of the index given by --like. The
peer searches the same index in the usual way: torch runs the network, FAISS reads the index and searches it. Each run
starts both processes anew; a first run, which is not counted, brings the files into the system's cache. The limit: a
process that imports torch and does nothing.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import faiss
import numpy as np
from common import RUNS, compare
from kinds import Source

from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import IndexedPicture, Loaded

PEER = """
import sys
from pathlib import Path
import faiss, torch
from PIL import Image
from torchvision import transforms
from alexnet_cli.model import Model
picture, name, workspace = sys.argv[1:]
model = Model.load(Path(workspace, "models", name))
steps = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
with torch.inference_mode():
    _, fc7 = model.net(steps(Image.open(picture).convert("RGB"))[None].float() - 120)
distances, rows = faiss.read_index(workspace + "/indexes/made-up/index.faiss").search(fc7.numpy(), 10)
print(distances, rows)
"""  # without the mean image, whose cost is negligible

# Runs the command from a small process: a child's peak memory starts at that of its parent.
OBSERVER = """
import os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - began, usage.ru_maxrss)
sys.exit(status != 0)
"""


class MadeUp:
    """A collection of pictures that do not exist, and a stand-in for the model, which gives them made-up vectors."""

    split, are_files = None, False
    words: ClassVar[dict[str, str]] = {}

    def __init__(self, model: OnnxModel, source: Source, count: int) -> None:
        self.model, self.vectors, self.count, self.source = model, source, count, Path("made-up")
        self.feature_size, self.image_size = model.feature_size, 1
        self.fingerprint, self.precision = model.fingerprint, model.precision

    def all(self) -> list[IndexedPicture]:
        return [IndexedPicture(name=f"{i:08d}.jpg", label=None, stamp="") for i in range(self.count)]

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        return [np.zeros((1, 1, 3), np.uint8)] * len(names)

    def left_out(self) -> list[str]:
        return []

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.empty(0), self.vectors.vectors(len(images))


def process(command: list[str], peaks: list[float]) -> float:
    """Seconds that ``command`` takes. Appends its peak memory in MB, with the pages of mapped files, to ``peaks``."""
    done = subprocess.run([sys.executable, "-c", OBSERVER, *command], check=True, stdout=subprocess.PIPE, text=True)
    seconds, kilobytes = done.stdout.split()
    peaks.append(int(kilobytes) / 1e3)
    return float(seconds)


def make_workspace(workspace: Path, model: Path, like: Path | None, count: int) -> None:
    """Put the model and an index of ``count`` made-up vectors into ``workspace``."""
    (workspace / "models").mkdir()
    (workspace / "models" / model.name).symlink_to(model.resolve())
    if like is None:
        real = np.maximum(np.random.default_rng(0).standard_normal((1024, 4096), np.float32), 0)
    else:
        vectors = faiss.read_index(str(like / "index.faiss"))
        real = vectors.reconstruct_n(0, vectors.ntotal)
    stand_in = MadeUp(OnnxModel.open(model / "model.onnx"), Source(real, 0), count)
    build_index(stand_in, stand_in, workspace / "indexes" / "made-up", model_path=model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--like", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    alexnet = str(Path(sys.executable).parent / "alexnet")
    peaks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as workspace:
        make_workspace(Path(workspace), given.model, given.like, given.vectors)
        commands = {
            "alexnet search": [alexnet, "search", str(given.picture), "--workspace", workspace],
            "torch and FAISS": [sys.executable, "-c", PEER, str(given.picture), given.model.name, workspace],
            "limit: import torch": [sys.executable, "-c", "import torch"],
            "alexnet --help": [alexnet, "--help"],
        }
        jobs = {
            name: lambda c=command, p=peaks.setdefault(name, []): process(c, p) for name, command in commands.items()
        }
        facts = {"vectors": given.vectors, "peak_megabytes": peaks}
        compare("search", jobs, ours="alexnet search", unit="seconds", less=True, runs=given.runs, facts=facts)
    for name, megabytes in peaks.items():
        print(f"  {name}: at most {max(megabytes):,.0f} MB of memory")


if __name__ == "__main__":
    main()
