"""Pictures per second packed from JPEGs: alexnet prep against torchvision's usual loop, each with two workers.

    python benchmarks/prep.py photos.zip --images 9469 [--name prep-originals]

First the pictures of the zip or folder are written as class folders, repeatedly if there are too few. Then each run
reads all of them: prep writes a complete dataset with statistics to disk; torchvision's ImageFolder and DataLoader
resize, crop and batch them in memory and write nothing, as floats (the usual loop) and as bytes (a quarter of the
memory). The limit is decoding alone, as prep decodes, in two processes. Finally, the time of each step on one core, in
milliseconds per picture.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import xxhash
from common import RUNS, compare, per_second

from alexnet_cli.data.arrays import create_array, write_rows
from alexnet_cli.data.chunks import CHUNK_SIZE
from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.pictures import decode_jpeg, load_picture
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import open_source
from alexnet_cli.data.statistics import Sums

WORKERS = 2
SIZE = 256


def extract(source: Path, folder: Path, wanted: int) -> None:
    """Write ``wanted`` training pictures, evenly chosen or repeated, as CLASS/NUMBER.jpg."""
    listing = list_pictures(open_source(source), 0.0)
    for number in range(wanted):
        entry = listing.entries[number * len(listing.entries) // wanted]
        path = folder / listing.classes[entry.label] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_location(entry.location))


def ours(folder: Path, count: int) -> float:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        packed = Path(temporary) / "packed"  # deleting it is not timed
        return per_second(count, lambda: prepare(folder, packed, workers=WORKERS, val_fraction=0.0))


def torchvision_loop(folder: Path, as_floats: bool = True) -> None:
    import torch
    from torchvision import datasets, transforms

    last = transforms.ToTensor() if as_floats else transforms.PILToTensor()
    steps = [transforms.Resize(256), transforms.CenterCrop(256), last]
    whole = datasets.ImageFolder(folder, transforms.Compose(steps))
    for _ in torch.utils.data.DataLoader(whole, 128, num_workers=WORKERS):
        pass


def decode(paths: Sequence[Path]) -> None:
    for path in paths:
        decode_jpeg(path.read_bytes(), SIZE)


def decode_all(folder: Path) -> None:
    """Decode all pictures in two processes, and do nothing else."""
    paths = sorted(folder.glob("*/*.jpg"))
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(decode, [paths[i::WORKERS] for i in range(WORKERS)]))


def milliseconds(folder: Path, scratch: Path) -> dict[str, float]:
    """Milliseconds per picture of each step of the work, on one core."""
    paths = sorted(folder.glob("*/*.jpg"))
    contents = [path.read_bytes() for path in paths[:: max(1, len(paths) // CHUNK_SIZE)][:CHUNK_SIZE]]
    images = np.stack([load_picture(content, SIZE) for content in contents])
    file = scratch / "images.npy"
    create_array(file, images.shape, np.uint8)
    work = {
        "decoding": lambda: [decode_jpeg(content, SIZE) is None for content in contents],
        "loading": lambda: [load_picture(content, SIZE).shape for content in contents],
        "sums": lambda: Sums.from_images(images),
        "checksums": lambda: [xxhash.xxh3_64_intdigest(image.data) for image in images],
        "writing": lambda: write_rows(file, 0, images),
    }
    found = {
        name: statistics.median(1000 / per_second(len(images), job) for _ in range(RUNS)) for name, job in work.items()
    }
    print("  milliseconds per picture: " + ", ".join(f"{name} {one:.2f}" for name, one in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--name", default="prep")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, count = Path(temporary) / "jpegs", given.images
        extract(given.source, folder, count)
        jobs = {
            "alexnet prep": lambda: ours(folder, count),
            "torchvision, ToTensor": lambda: per_second(count, lambda: torchvision_loop(folder)),
            "torchvision, PILToTensor": lambda: per_second(count, lambda: torchvision_loop(folder, as_floats=False)),
            "limit: decoding alone": lambda: per_second(count, lambda: decode_all(folder)),
        }
        facts = {"workers": WORKERS, "images": count, "source": given.source.name}
        facts["milliseconds"] = milliseconds(folder, Path(temporary))
        compare(given.name, jobs, ours="alexnet prep", runs=given.runs, facts=facts)


if __name__ == "__main__":
    main()
