"""Pictures per second from a folder of JPEGs to an index: alexnet index against torchvision's alexnet over its loader.

    python benchmarks/index.py JPEG_FOLDER models/NAME

The peer has no response norm: torchvision's alexnet up to fc7, with ImageFolder and a DataLoader of two workers, its
vectors kept in memory. alexnet index decodes, embeds and writes an index with its table. The limits are each half of
that alone: embedding pictures in memory, and decoding.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import RUNS, compare, per_second

from alexnet_cli.exporting.export import export_model
from alexnet_cli.importing.torchvision import DEVIATION, MEAN
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import BATCH
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection

WORKERS = 2


def ours(folder: Path, model: OnnxModel) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        build_index(open_collection(folder), model, Path(temporary) / "index", model_path=Path("model.onnx"))


def decode_alone(folder: Path, size: int) -> None:
    pictures = open_collection(folder)
    names = [picture.name for picture in pictures.all()]
    for start in range(0, len(names), BATCH):
        pictures.load(names[start : start + BATCH], size)


@torch.inference_mode()
def torchvisions(folder: Path, net: torch.nn.Module) -> np.ndarray:
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ]
    pictures = datasets.ImageFolder(folder, transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(pictures, BATCH, num_workers=WORKERS)
    return np.concatenate([net(images).numpy() for images, _ in loader])


def up_to_fc7() -> torch.nn.Module:
    from torchvision.models import alexnet

    net = alexnet(weights=None).eval()
    net.classifier = net.classifier[:6]
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    keep_freed_memory()
    count = len(open_collection(given.folder).all())
    with tempfile.TemporaryDirectory() as temporary:
        model = OnnxModel.open(export_model(given.model, Path(temporary) / "model.onnx").path)
    net = up_to_fc7()
    pictures = np.random.default_rng(0).integers(0, 256, (count, *2 * [model.image_size], 3), dtype=np.uint8)
    jobs = {
        "alexnet index": lambda: per_second(count, lambda: ours(given.folder, model)),
        "torchvision alexnet, 2-worker loader": lambda: per_second(count, lambda: torchvisions(given.folder, net)),
        "limit: embedding alone": lambda: per_second(count, lambda: model.run(pictures)),
        "limit: decoding alone": lambda: per_second(count, lambda: decode_alone(given.folder, model.image_size)),
    }
    compare("index", jobs, ours="alexnet index", runs=given.runs, facts={"images": count, "device": model.device})


if __name__ == "__main__":
    main()
