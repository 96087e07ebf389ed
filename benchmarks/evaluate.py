"""Pictures per second of a ten-view evaluation: alexnet eval against the usual loop in torchvision.

    python benchmarks/evaluate.py JPEG_FOLDER data/NAME models/NAME

JPEG_FOLDER has the class folders of the dataset's validation pictures. The peer is the same net with
torch.nn.LocalResponseNorm, after torchvision's TenCrop and a DataLoader with two workers, which decodes each picture;
alexnet eval reads the packed dataset. Both average the softmax over ten views. The limit is the net alone, on views in
memory.
"""

import argparse
from pathlib import Path

import torch
from common import RUNS, compare, per_second
from step import with_torchs_norm
from torch import nn

from alexnet_cli.data.store import Dataset
from alexnet_cli.importing.torchvision import DEVIATION, MEAN
from alexnet_cli.inference.evaluation import evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.nets.network import ColumnNetwork

WORKERS, BATCH, CPU = 2, 64, torch.device("cpu")


@torch.inference_mode()
def torchvisions(folder: Path, net: nn.Module) -> float:
    """The top-1 error, measured by torchvision's loop."""
    from torchvision import datasets, transforms

    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(256),
        transforms.TenCrop(224),
        transforms.Lambda(lambda views: torch.stack([normalize(view) for view in views])),
    ]
    pictures = datasets.ImageFolder(folder, transforms.Compose(steps))
    wrong = 0
    for views, labels in torch.utils.data.DataLoader(pictures, BATCH // 10, num_workers=WORKERS):
        logits, _ = net(views.flatten(0, 1))  # (B * 10, classes)
        predicted = logits.softmax(1).view(len(labels), 10, -1).mean(1).argmax(1)
        wrong += int((predicted != labels).sum())
    return wrong / len(pictures)


@torch.inference_mode()
def net_alone(net: ColumnNetwork, views: int) -> None:
    batch = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    for start in range(0, views, BATCH):
        net(batch[: views - start])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    keep_freed_memory()
    dataset, model = Dataset.open(given.dataset), NetworkModel.of(Model.load(given.model), CPU)
    count, peer = dataset.counts["val"], with_torchs_norm(CPU, len(dataset.classes)).eval()
    jobs = {
        "alexnet eval": lambda: per_second(count, lambda: evaluate([model], dataset)),
        "torchvision TenCrop, 2-worker loader": lambda: per_second(count, lambda: torchvisions(given.folder, peer)),
        "limit: the net alone": lambda: per_second(count, lambda: net_alone(model.net, 10 * count)),
    }
    compare("evaluate", jobs, ours="alexnet eval", runs=given.runs, facts={"images": count, "views": 10})


if __name__ == "__main__":
    main()
