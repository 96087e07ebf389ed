"""Training batches a second: a packed dataset against torchvision's ImageFolder loader, on the same pictures.

    python benchmarks/loader.py data/imagenette JPEG_FOLDER

JPEG_FOLDER holds the class folders of the pictures that were packed. Both give batches of 128 random 224×224 crops,
reflected at random and centred, as float tensors; the packed dataset adds the mean image and the colour noise.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from alexnet_cli import recipe
from alexnet_cli.data.augment import Draws, Eye, colour_shift, view
from alexnet_cli.data.loader import batches
from alexnet_cli.data.store import Dataset
from alexnet_cli.memory import keep_freed_memory

BATCH = 128


def packed(path: Path, images: int, epoch: int) -> int:
    """Read, crop, reflect and centre ``images`` pictures of the packed dataset."""
    dataset = Dataset.open(path)
    split, facts, image = dataset.split("train"), dataset.statistics(), recipe.load("paper").image
    draws = Draws.of_epoch(0, epoch, len(split), image)
    eye, done = Eye(image, facts.mean_image, torch.device("cpu")), 0
    for batch in batches(split, draws.order[:images], BATCH, torch.device("cpu")):
        rows = batch.rows
        places = view(image.size, image.crop, draws.top[rows], draws.left[rows], draws.reflected[rows])
        done += len(eye.see(batch.images, *places, colour_shift(draws.colour[rows], facts)))
    return done


def torchvision_loader(folder: Path, images: int, epoch: int) -> int:
    """The same from JPEG files by the usual means, with two workers."""
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize(256),
        transforms.RandomCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    whole = datasets.ImageFolder(folder, transforms.Compose(steps))
    chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(epoch))[:images].tolist()
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(whole, chosen), BATCH, num_workers=2)
    return sum(len(pictures) for pictures, _ in loader)


def speeds(job: Callable[[Path, int, int], int], path: Path, images: int, runs: int) -> list[float]:
    """Images a second of each run, after one that is not counted."""
    found = []
    for run in range(runs + 1):
        began = time.perf_counter()
        done = job(path, images, run)
        found.append(done / (time.perf_counter() - began))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    ours = speeds(packed, given.dataset, given.images, given.runs)
    theirs = speeds(torchvision_loader, given.folder, given.images, given.runs)
    for name, found in (("packed dataset", ours), ("torchvision, 2 workers", theirs)):
        print(f"{name}: {statistics.median(found):,.0f} images/s  ({min(found):,.0f}-{max(found):,.0f})")
    print(f"ratio of medians: {statistics.median(ours) / statistics.median(theirs):.1f}")


if __name__ == "__main__":
    main()
