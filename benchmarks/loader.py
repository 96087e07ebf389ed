"""Training images per second: a packed dataset against torchvision's ImageFolder loader, on the same pictures.

    python benchmarks/loader.py data/imagenette JPEG_FOLDER

JPEG_FOLDER has the class folders of the packed pictures. Both sides load batches of 128 in random order. The packed
dataset gives uint8 pictures on the device. A second job also makes the network's input there: random 224×224 crops,
reflected at random, with the mean image subtracted and colour noise added. torchvision's workers decode, resize, crop,
reflect and normalize, without colour noise and mean image. Finally, the share of its time that training waits for a
batch.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import RUNS, compare, per_second
from step import ours

from alexnet_cli import recipe as recipes
from alexnet_cli.data.augment import EpochPlan, augment
from alexnet_cli.data.loader import batches
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.data.store import Dataset
from alexnet_cli.importing.torchvision import DEVIATION, MEAN
from alexnet_cli.memory import keep_freed_memory

BATCH, STEPS, CPU = 128, 6, torch.device("cpu")


def packed(path: Path, images: int, epoch: int) -> int:
    """Load ``images`` pictures of the packed dataset; returns their number."""
    split = Dataset.open(path).split("train")
    paper = recipes.load("paper")
    plan = EpochPlan.draw(0, epoch, len(split), paper.image, paper.augmentations)
    return sum(len(batch.images) for batch in batches(split, plan.order[:images], BATCH, CPU))


def packed_and_augmented(path: Path, images: int, epoch: int) -> int:
    """Load ``images`` pictures and augment them; returns their number."""
    dataset, paper = Dataset.open(path), recipes.load("paper")
    split, statistics = dataset.split("train"), dataset.statistics()
    plan = EpochPlan.draw(0, epoch, len(split), paper.image, paper.augmentations)
    preprocessor, done = Preprocessor(paper.image, statistics.mean_image, CPU), 0
    for batch in batches(split, plan.order[:images], BATCH, CPU):
        done += len(augment(preprocessor, batch.images, plan.rows(batch.rows), statistics))
    return done


def waiting(path: Path, steps: int) -> float:
    """The share of training time spent waiting for the next batch, with the paper's net and batch size."""
    net = ours("paper", CPU).train()
    split, spent = Dataset.open(path).split("train"), 0.0
    order = np.tile(np.arange(len(split)), BATCH * (steps + 1) // len(split) + 1)[: BATCH * (steps + 1)]
    ready = batches(split, order, BATCH, CPU)
    crops = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    next(ready)  # not counted: no step runs while the first batch is read
    began = time.perf_counter()
    for i in range(steps):
        net(crops, i)[0].logsumexp(1).sum().backward()
        began_waiting = time.perf_counter()
        next(ready)
        spent += time.perf_counter() - began_waiting
    return spent / (time.perf_counter() - began)


def torchvision_loader(folder: Path, images: int, epoch: int) -> int:
    """Load ``images`` JPEG files with torchvision's transforms and two workers; returns their number."""
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize(256),
        transforms.RandomCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ]
    whole = datasets.ImageFolder(folder, transforms.Compose(steps))
    chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(epoch))[:images].tolist()
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(whole, chosen), BATCH, num_workers=2)
    return sum(len(pictures) for pictures, _ in loader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    keep_freed_memory()
    epochs = itertools.count()

    def timed(job: Callable[[Path, int, int], int], path: Path) -> Callable[[], float]:
        return lambda: per_second(given.images, lambda: job(path, given.images, next(epochs)))

    jobs = {
        "packed, uint8 on the device": timed(packed, given.dataset),
        "packed, and views cut": timed(packed_and_augmented, given.dataset),
        "torchvision loader, 2 workers": timed(torchvision_loader, given.folder),
    }
    share = waiting(given.dataset, STEPS)
    facts = {"images": given.images, "waiting_share_of_a_step": share}
    compare("loader", jobs, ours="packed, uint8 on the device", runs=given.runs, facts=facts)
    print(f"  training waits for its batches {share:.2%} of the time")


if __name__ == "__main__":
    main()
