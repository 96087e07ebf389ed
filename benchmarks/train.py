"""Training images per second: on one device, with one column on each of two devices, and data parallel.

    python benchmarks/train.py                # all GPUs, or the CPU if there is none
    python benchmarks/train.py --width 0.25   # a narrower net, which takes less time

A step is augmentation on the device, forward pass, backward pass and update; the pictures are random, and are on the
device already. The share of communication with two columns is the time in which the forward pass gathers the columns'
activations (the backward pass moves as much again). Data parallel training has two processes, and its share is the time
that averaging the gradients adds to a step. With GPUs the table is also written to benchmarks/results/train.json.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from alexnet_cli import recipe as recipes
from alexnet_cli.data.augment import EpochPlan, augment
from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.distributed import World, is_distributed, local_rank, process_group
from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.nets import columns, network
from alexnet_cli.training.sgd import SGD
from alexnet_cli.training.trainer import autocast

WARM, CLASSES, PROCESSES = 2, 1000, 2


class Trainee:
    """A network and one batch of pictures for it."""

    def __init__(self, given: argparse.Namespace, devices: list[str], world: World) -> None:
        self.recipe = recipes.load(given.recipe).scaled(given.width)
        placed = [torch.device(name) for name in devices]
        self.device, self.precision = placed[0], given.precision
        self.net = network.initialize(self.recipe.build(CLASSES), 0)
        self.net = self.net.to(memory_format=torch.channels_last).to_devices(placed).train()
        self.wrapped = world.wrap(self.net)
        self.sgd = SGD(weights := dict(self.net.named_parameters()), 0.9, dict.fromkeys(weights, 0.0005))
        image, part = self.recipe.image, world.shard(given.batch)
        self.rows = (part.start, given.batch)
        self.batch = part.stop - part.start
        random = np.random.default_rng(world.rank)
        pictures = random.integers(0, 256, (self.batch, image.size, image.size, 3), dtype=np.uint8)
        self.pictures = torch.from_numpy(pictures).to(self.device)
        self.labels = torch.from_numpy(random.integers(CLASSES, size=self.batch)).to(self.device)
        self.plan = EpochPlan.draw(0, 0, self.batch, image, self.recipe.augmentations)
        mean_image = np.full((image.size, image.size, 3), 120, np.float32)
        self.statistics = Statistics(
            mean_image=mean_image,
            mean_colour=mean_image[0, 0],
            eigenvalues=np.array([9000, 600, 100], np.float32),
            eigenvectors=np.eye(3, dtype=np.float32),
        )
        self.preprocessor = Preprocessor(image, mean_image, self.device)

    def step(self, i: int) -> None:
        images = augment(self.preprocessor, self.pictures, self.plan.rows(slice(None)), self.statistics)
        with autocast(self.device, self.precision):
            logits, _ = self.wrapped(images, i, self.rows)
        F.cross_entropy(logits.float(), self.labels).backward()
        self.sgd.step(dict.fromkeys(self.sgd.parameters, 0.001))


def settle(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            torch.cuda.synchronize(number)


def seconds(step: Callable[[int], None], steps: int, device: torch.device) -> float:
    """The median seconds of one step."""
    times = []
    for i in range(WARM + steps):
        settle(device)
        began = time.perf_counter()
        step(i)
        settle(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM:])


def alone(given: argparse.Namespace, devices: list[str]) -> dict[str, float]:
    """Images per second of one process, and the share of a step that gathering the columns' activations takes."""
    trainee, spent = Trainee(given, devices, World()), [0.0]
    plain = seconds(trainee.step, given.steps, trainee.device)
    gather = columns.gather

    def timed(parts: list[torch.Tensor], device: torch.device) -> torch.Tensor:
        settle(device)
        began = time.perf_counter()
        whole = gather(parts, device)
        settle(device)
        spent[0] += time.perf_counter() - began
        return whole

    network.gather = columns.gather = timed
    seconds(trainee.step, given.steps, trainee.device)
    network.gather = columns.gather = gather
    return {"images_per_second": given.batch / plain, "communication": spent[0] / (given.steps + WARM) / plain}


def in_processes(given: argparse.Namespace) -> None:
    """Run in each process of `data_parallel`; rank 0 prints the result."""
    own = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    with process_group(own) as world:
        trainee = Trainee(given, [own], world)
        together = seconds(trainee.step, given.steps, trainee.device)
        averaging = getattr(trainee.wrapped, "no_sync", contextlib.nullcontext)
        with averaging():
            apart = seconds(trainee.step, given.steps, trainee.device)
        if world.is_main:
            share = max(0.0, 1 - apart / together)
            print(json.dumps({"images_per_second": given.batch / together, "communication": share}))


def data_parallel() -> dict[str, float]:
    """Run this script in PROCESSES processes under torchrun; returns the result of rank 0."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    threads = max(1, (os.cpu_count() or 1) // PROCESSES)
    done = subprocess.run(
        [*torchrun, *sys.argv],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    keep_freed_memory()
    if is_distributed():
        in_processes(given)
        return
    gpus = torch.cuda.device_count()
    first = "cuda:0" if gpus else "cpu"
    second = f"cuda:{min(1, gpus - 1)}" if gpus else "cpu"
    found = {
        f"one device ({first})": alone(given, [first]),
        f"two columns on two devices ({first}, {second})": alone(given, [first, second]),
    }
    if gpus != 1:
        found[f"data parallel, {PROCESSES} processes"] = data_parallel()
    for name, one in found.items():
        print(f"{name}: {one['images_per_second']:,.0f} images/s, {one['communication']:.1%} of a step communication")
    if gpus:
        settings = {key: getattr(given, key) for key in ("recipe", "width", "batch", "steps", "precision")}
        gpu = torch.cuda.get_device_name(0)
        file = Path(__file__).parent / "results" / "train.json"
        write_json(file, {"gpu": gpu, "gpus": gpus, **environment(), **settings, "found": found})
        print(f"written to {file}")


if __name__ == "__main__":
    main()
