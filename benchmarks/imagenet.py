"""The true number of ImageNet's pictures: prep, train, eval and index on archives in ILSVRC-2012's official layout.

    python benchmarks/imagenet.py --train 1281167 --val 50000 --scratch FOLDER    # 6 GB of archives, 6 GB of dataset

A few hundred thumbnails are made once and repeated: a training tar of 1,000 class tars in an order that is not sorted,
a flat validation tar, and a devkit that numbers the classes in yet another order. The archives are written as streams
and take no more disk than themselves. Then each command runs as a user types it, in its own process that may open 256
files: prep --size 32, one epoch of a CIFAR recipe with four kernels a layer, eval with one view, and index of the
dataset. Reported are seconds, peak memory of the largest process, the seconds from the start of train to its first
update, and in how many pictures label or pixels are not those that were made.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash
from common import RESULTS
from PIL import Image

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.store import Dataset
from alexnet_cli.environment import environment
from alexnet_cli.files import write_json

CLASSES, THUMBNAILS, SIZE, OPEN_FILES = 1000, 400, 32, 256
# Narrow, so that the time goes into what grows with the number of pictures.
SETTINGS = ["training.batch=256", "conv1.kernels=4", "conv2.kernels=4", "conv3.kernels=4"]
RECIPE = ["--recipe", "cifar-18", "--epochs", "1", *(word for one in SETTINGS for word in ("--set", one))]

# Runs a command, prints its seconds and the kilobytes of its largest process, and repeats its last line of errors. It
# is a small process of its own because a child's peak memory begins with that of the process it was forked from.
OBSERVER = """
import os, resource, subprocess, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
began, first, line = time.perf_counter(), 0.0, ""
child = subprocess.Popen(
    sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), hard)),
)
for line in child.stderr:
    print(line, end="", file=sys.stderr, flush=True)
    if line.startswith("epoch 1") and not first:
        first = time.perf_counter() - began
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - began, usage.ru_maxrss, first)
sys.exit(status != 0)
"""


class Made:
    """What the archives hold: which thumbnail each picture is, and which class it has."""

    def __init__(self, train: int, val: int) -> None:
        random = np.random.default_rng(0)
        classes = min(CLASSES, train)
        self.wnids = [f"n{number:08d}" for number in np.sort(random.choice(10**7, classes, replace=False))]
        self.ids = random.permutation(classes)  # of each class in sorted order, its number in the devkit, less 1
        self.tar_order = random.permutation(classes)
        self.sizes = [train // classes + (label < train % classes) for label in range(classes)]
        self.val_labels = random.integers(classes, size=val)
        self.thumbnails = [thumbnail(random) for _ in range(THUMBNAILS)]

    def thumbnail(self, name: str) -> int:
        """Which of the thumbnails the picture of that file name is."""
        return xxhash.xxh3_64_intdigest(name.encode()) % THUMBNAILS

    def pictures_of(self, label: int) -> Iterator[tuple[str, bytes]]:
        """File names and contents of the training pictures of a class."""
        for number in range(self.sizes[label]):
            name = f"{self.wnids[label]}_{number}.JPEG"
            yield name, self.thumbnails[self.thumbnail(name)]

    def validation(self) -> Iterator[tuple[str, bytes]]:
        for number in range(1, len(self.val_labels) + 1):
            name = f"ILSVRC2012_val_{number:08d}.JPEG"
            yield name, self.thumbnails[self.thumbnail(name)]

    def label(self, name: str) -> int:
        """The right label of the picture with that file name."""
        stem = name.removesuffix(".JPEG")
        if stem.startswith("ILSVRC2012_val_"):
            return int(self.val_labels[int(stem[-8:]) - 1])
        return self.label_of[stem.split("_")[0]]

    @cached_property
    def label_of(self) -> dict[str, int]:
        return {wnid: label for label, wnid in enumerate(self.wnids)}


def thumbnail(random: np.random.Generator) -> bytes:
    """A JPEG of some 1 KB."""
    corners = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    corners.resize((48, 36), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return file.getvalue()


def tar_size(pictures: Iterator[tuple[str, bytes]]) -> int:
    """Bytes of the tar that `write_members` makes of ``pictures``."""
    return sum(512 + -(-len(content) // 512) * 512 for _, content in pictures) + 1024


def write_members(file: IO[bytes], pictures: Iterator[tuple[str, bytes]]) -> None:
    """Write a whole tar."""
    for name, content in pictures:
        write_header(file, name, len(content))
        file.write(content + bytes(-len(content) % 512))
    file.write(bytes(1024))


def write_header(file: IO[bytes], name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    file.write(member.tobuf(tarfile.USTAR_FORMAT))


def write_archives(made: Made, folder: Path) -> None:
    """The three official archives."""
    folder.mkdir()
    with open(folder / "ILSVRC2012_img_train.tar", "wb") as file:
        for label in made.tar_order:
            write_header(file, f"{made.wnids[label]}.tar", tar_size(made.pictures_of(label)))
            write_members(file, made.pictures_of(label))
        file.write(bytes(1024))
    with open(folder / "ILSVRC2012_img_val.tar", "wb") as file:
        write_members(file, made.validation())
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        for name, content in devkit_files(made).items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            devkit.addfile(member, io.BytesIO(content))


def devkit_files(made: Made) -> dict[str, bytes]:
    from scipy.io import savemat

    rows = [(made.ids[i] + 1, wnid, f"words of {wnid}", "gloss", 0) for i, wnid in enumerate(made.wnids)]
    rows = [*sorted(rows), (len(rows) + 1, "n99999999", "all of them", "gloss", len(rows))]
    kinds = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    truth = "".join(f"{made.ids[label] + 1}\n" for label in made.val_labels).encode()
    return {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}


def wrong(made: Made, dataset: Dataset) -> dict[str, int]:
    """In how many pictures the label is wrong, in how many the pixels are, and how many are missing."""
    packed = [xxhash.xxh3_64_intdigest(load_picture(content, SIZE).tobytes()) for content in made.thumbnails]
    found = {"labels": 0, "pixels": 0, "missing": sum(made.sizes) + len(made.val_labels)}
    for name in dataset.counts:
        split = dataset.split(name)
        checksums = split.checksums if split.packed is None else split.checksums[split.packed]
        for path, label, checksum in zip(split.names, split.labels.tolist(), checksums.tolist(), strict=True):
            file_name = path.rpartition("/")[2]
            found["labels"] += dataset.classes[label] != made.wnids[made.label(file_name)]
            found["pixels"] += checksum != packed[made.thumbnail(file_name)]
            found["missing"] -= 1
    return found


def run(workspace: Path, words: Sequence[str]) -> dict[str, float]:
    """Seconds, peak megabytes and, of train, seconds to the first update of an `alexnet` command."""
    command = [sys.executable, "-c", OBSERVER, str(OPEN_FILES), sys.executable, "-m", "alexnet_cli", *words]
    done = subprocess.run(command, cwd=workspace, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"failed: alexnet {' '.join(words)}")
    seconds, kilobytes, first = map(float, done.stdout.split())
    found = {"seconds": seconds, "megabytes": kilobytes / 1e3} | ({"first_update": first} if first else {})
    print(f"{words[0]}: " + ", ".join(f"{name} {value:,.1f}" for name, value in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--val", type=int, default=1_000)
    parser.add_argument("--scratch", type=Path, help="a folder with 10 KB of free space per picture")
    parser.add_argument("--name", default="imagenet")
    given = parser.parse_args()
    result: dict[str, Any] = {"train": given.train, "val": given.val, "open_files": OPEN_FILES, **environment()}
    with tempfile.TemporaryDirectory(dir=given.scratch) as temporary:
        workspace, began = Path(temporary), time.perf_counter()
        made = Made(given.train, given.val)
        write_archives(made, workspace / "archives")
        sizes = [file.stat().st_size for file in (workspace / "archives").iterdir()]
        print(f"archives: {sum(sizes) / 1e6:,.0f} MB in {time.perf_counter() - began:,.0f} s", flush=True)
        commands = {
            "prep": ["prep", "archives", "imagenet", "--size", str(SIZE)],
            "prep again, which checks": ["prep", "archives", "imagenet", "--size", str(SIZE)],
            "train": ["train", "imagenet", *RECIPE, "--out", "small"],
            "eval": ["eval", "small", "--data", "imagenet", "--views", "1"],
            "index": ["index", "imagenet", "--model", "small"],
        }
        result["commands"] = {name: run(workspace, words) for name, words in commands.items()}
        files = list((workspace / "data" / "imagenet").iterdir())
        result["files"], result["bytes"] = len(files), sum(file.stat().st_size for file in files)
        result["wrong"] = wrong(made, Dataset.open(workspace / "data" / "imagenet"))
    print(json.dumps(result["wrong"]), f"{result['files']} files, {result['bytes'] / 1e6:,.0f} MB")
    write_json(RESULTS / f"{given.name}.json", result)


if __name__ == "__main__":
    main()
