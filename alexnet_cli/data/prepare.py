"""Pictures to a packed dataset: all cores, a shard at a time, each whole on disk or not there."""

import csv
import hashlib
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import Entry, Listing, Source, list_pictures, open_source
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import FILE, FORMAT, Dataset, read_shard
from alexnet_cli.errors import AlexNetError, BadArtefact, BadPicture, BadSource
from alexnet_cli.files import read_json, write_json, written_whole
from alexnet_cli.progress import SILENT, Progress

SHARD = 256  # pictures
PLAN = "plan.json"  # what an unfinished dataset is being made of

_source: Source | None = None  # of this worker process, opened once


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` made."""

    dataset: Dataset
    rejected: int
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """As `alexnet prep --json` prints it."""
        return {
            "dataset": self.dataset.name,
            "splits": self.dataset.counts,
            "classes": self.dataset.classes,
            "rejected": self.rejected,
            "images_per_second": self.images_per_second,
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """One shard to pack."""

    folder: Path
    shard: str
    entries: list[Entry]
    size: int
    on_bad: str


def prepare(
    path: Path,
    folder: Path,
    *,
    size: int = 256,
    workers: int | None = None,
    val_fraction: float | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    progress: Progress = SILENT,
) -> Prepared:
    """Pack the pictures of ``path`` into the dataset ``folder``; finished shards of a stopped run are kept.

    Raises BadSource, BadPicture (``on_bad="stop"``), or BadArtefact if another dataset has that name.
    """
    listing = list_pictures(open_source(path), val_fraction)
    jobs = _plan(listing, folder, size, on_bad)
    _begin(path, listing, folder, size, progress)
    done = [job for job in jobs if (job.folder / f"{job.shard}.json").exists()]
    if done:
        progress.note(f"going on: {len(done)} of {len(jobs)} shards are there already")
    began = time.monotonic()
    fresh = _pack(path, [job for job in jobs if job not in done], workers, progress, len(jobs))
    seconds = time.monotonic() - began
    dataset, rejected = _finish(path, listing, jobs, folder, size)
    return Prepared(dataset=dataset, rejected=rejected, images_per_second=fresh / seconds if fresh else 0.0)


def _plan(listing: Listing, folder: Path, size: int, on_bad: str) -> list[Job]:
    jobs = []
    for split in ("train", "val"):
        entries = [entry for entry in listing.entries if entry.split == split]
        for number, start in enumerate(range(0, len(entries), SHARD)):
            part = entries[start : start + SHARD]
            jobs.append(Job(folder=folder, shard=f"{split}-{number:05d}", entries=part, size=size, on_bad=on_bad))
    return jobs


def _begin(path: Path, listing: Listing, folder: Path, size: int, progress: Progress) -> None:
    digest = hashlib.sha256(repr((size, listing)).encode()).hexdigest()[:16]
    if (folder / FILE).exists():
        raise BadArtefact(f"{folder} exists: choose another name for the dataset, or remove that folder")
    if folder.exists() and read_json(folder / PLAN, what="dataset").get("digest") != digest:
        progress.note(f"the pictures or settings changed since {folder} was begun: starting anew")
        for file in folder.iterdir():
            file.unlink()
    write_json(folder / PLAN, {"digest": digest, "source": str(path)})


def _pack(path: Path, jobs: list[Job], workers: int | None, progress: Progress, total: int) -> int:
    images = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), context, _open, (path,)) as pool:
        try:
            for done, future in enumerate(as_completed([pool.submit(_pack_shard, job) for job in jobs]), 1):
                images += future.result()
                progress.advance("packing shards", total - len(jobs) + done, total)
        except BrokenProcessPool:
            raise AlexNetError("a worker died, perhaps for lack of memory: try --workers 1") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _open(path: Path) -> None:
    global _source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    _source = open_source(path)


def _pack_shard(job: Job) -> int:
    assert _source is not None
    images = np.empty((len(job.entries), job.size, job.size, 3), np.uint8)
    kept: list[Entry] = []
    rejected = []
    for entry in job.entries:
        try:
            images[len(kept)] = load_picture(_source.read(entry.name), job.size)
            kept.append(entry)
        except BadPicture as error:
            if job.on_bad == "stop":
                raise BadPicture(f"{entry.name}: {error}") from None
            rejected.append([entry.name, str(error)])
    images = images[: len(kept)]
    with written_whole(job.folder / f"{job.shard}.npy") as beside:
        np.save(beside, images, allow_pickle=False)
    if job.shard.startswith("train"):
        sums = Sums.of(images)
        with written_whole(job.folder / f"{job.shard}.sums.npy") as beside:
            np.save(beside, np.concatenate([sums.pixels.ravel(), sums.products.ravel()]))
    facts = {
        "labels": [entry.label for entry in kept],
        "names": [entry.name for entry in kept],
        "rejected": rejected,
        "digest": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    write_json(job.folder / f"{job.shard}.json", facts)
    return len(kept)


def _finish(path: Path, listing: Listing, jobs: list[Job], folder: Path, size: int) -> tuple[Dataset, int]:
    digest = hashlib.sha256(json.dumps(listing.classes).encode())
    total, counts, rejected = None, {"train": 0, "val": 0}, []
    for job in jobs:
        facts = read_shard(folder, job.shard)
        split = job.shard.split("-")[0]
        counts[split] += len(facts["labels"])
        rejected += facts["rejected"]
        digest.update(json.dumps([split, facts["digest"], facts["labels"]]).encode())
        if split == "train":
            flat = np.load(folder / f"{job.shard}.sums.npy")
            sums = Sums(
                images=len(facts["labels"]), pixels=flat[:-9].reshape(size, size, 3), products=flat[-9:].reshape(3, 3)
            )
            if total is None:
                total = sums
            else:
                total.add(sums)
    if total is None or not total.images:
        raise BadSource(f"no training picture in {path} could be read")
    total.statistics().save(folder)
    with written_whole(folder / "rejected.csv") as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "reason"], *rejected])
    write_json(
        folder / FILE,
        {
            "format": FORMAT,
            "image_size": size,
            "classes": listing.classes,
            "counts": {split: count for split, count in counts.items() if count},
            "source": {"path": str(path), "layout": listing.layout},
            "fingerprint": digest.hexdigest()[:16],
            "shards": {
                split: [job.shard for job in jobs if job.shard.startswith(split)] for split in counts if counts[split]
            },
        },
    )
    for job in jobs:
        (folder / f"{job.shard}.sums.npy").unlink(missing_ok=True)
    return Dataset.open(folder), len(rejected)
