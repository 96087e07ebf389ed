"""Pictures a second packed from JPEGs: alexnet prep against torchvision's usual loop, both with two workers.

    python benchmarks/prep.py photos.zip

The pictures of the zip or folder are written out as class folders first. Then each run reads all of them: prep makes
a whole dataset on disk, with statistics; torchvision's ImageFolder and DataLoader resize, cut and batch them in
memory and write nothing, as floats (the usual loop) and as bytes (which spares them a factor of four).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import open_source, read_place

WORKERS = 2


def extract(source: Path, folder: Path, wanted: int) -> None:
    """Write ``wanted`` training pictures, spread over the classes or again and again, as CLASS/NUMBER.jpg."""
    listing = list_pictures(open_source(source), 0.0)
    for number in range(wanted):
        entry = listing.entries[number * len(listing.entries) // wanted]
        path = folder / listing.classes[entry.label] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_place(entry.place))


def ours(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        prepare(folder, Path(place) / "packed", workers=WORKERS, val_fraction=0.0)


def torchvision_loop(folder: Path, as_floats: bool = True) -> None:
    import torch
    from torchvision import datasets, transforms

    last = transforms.ToTensor() if as_floats else transforms.PILToTensor()
    steps = [transforms.Resize(256), transforms.CenterCrop(256), last]
    whole = datasets.ImageFolder(folder, transforms.Compose(steps))
    for _ in torch.utils.data.DataLoader(whole, 128, num_workers=WORKERS):
        pass


def torchvision_bytes(folder: Path) -> None:
    torchvision_loop(folder, as_floats=False)


def seconds(job: Callable[[Path], None], folder: Path) -> float:
    began = time.perf_counter()
    job(folder)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "jpegs"
        extract(given.source, folder, given.images)
        jobs = {
            "alexnet prep": ours,
            "torchvision, ToTensor": torchvision_loop,
            "torchvision, PILToTensor": torchvision_bytes,
        }
        found: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(given.runs):  # in turns: whatever else the machine does falls on all
            for name, job in jobs.items():
                found[name].append(given.images / seconds(job, folder))
    mine = statistics.median(found["alexnet prep"])
    for name, speeds in found.items():
        median, low, high = statistics.median(speeds), min(speeds), max(speeds)
        print(f"{name}, {WORKERS} workers: {median:,.0f} images/s ({low:,.0f}-{high:,.0f})", end="")
        print(f"; prep is {mine / median:.2f} times as fast")


if __name__ == "__main__":
    main()
