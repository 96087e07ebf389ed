"""Images/s of a dataset that is larger than memory, from disk: in the paper's order and in windows (`data/order.py`).

    python benchmarks/order.py photos.zip --images 160000 [--scratch FOLDER]

The pictures are repeated until the dataset has --images, 197 KB each; that has to be more than memory holds. Before
each epoch the system forgets what it has read (/proc/sys/vm/drop_caches, which takes root). An epoch loads every image
once, in batches of 128.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS
from prep import extract
from scale import DISTINCT, link

from alexnet_cli.data.augment import ORDER, stream
from alexnet_cli.data.loader import batches
from alexnet_cli.data.order import WINDOW, fits_in_memory, shuffled
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Split
from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.memory import keep_freed_memory, total_memory

BATCH, CPU = 128, torch.device("cpu")


def epoch(split: Split, window: int, seed: int) -> float:
    """Images/s of one epoch from a cold cache."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    order = shuffled(np.random.default_rng(stream(seed, ORDER, 0)), len(split), window)
    began = time.perf_counter()
    done = sum(len(batch.images) for batch in batches(split, order, BATCH, CPU, window=window))
    return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=160_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        folder = Path(scratch)
        extract(given.source, folder / "distinct", DISTINCT)
        link(folder / "distinct", folder / "photos", given.images)
        split = prepare(folder / "photos", folder / "data", val_fraction=0).dataset.split("train")
        size = f"{split.bytes / 1e9:.1f} GB, with {(total_memory() or 0) / 1e9:.1f} GB of memory"
        print(f"{len(split):,} images, {size}; they {'fit' if fits_in_memory(split) else 'do not fit'}")
        found: dict[str, list[float]] = {"the paper's order": [], "in windows": []}
        for run in range(given.runs):
            for name, window in zip(found, (0, WINDOW), strict=True):
                found[name].append(epoch(split, window, run))
                print(f"  {name}: {found[name][-1]:,.0f} images/s", flush=True)
        facts = {"images": len(split), "bytes": split.bytes, "memory": total_memory(), "window": WINDOW}
        write_json(RESULTS / "order.json", {**environment(), **facts, "images_per_second": found})


if __name__ == "__main__":
    main()
