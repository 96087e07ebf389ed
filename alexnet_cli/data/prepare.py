"""Pictures to a packed dataset: all cores, a shard at a time, each whole on disk or not there."""

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import SPLITS, Entry, Listing, Source, open_source
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import FILE, FORMAT, Dataset, read_shard
from alexnet_cli.errors import AlexNetError, BadArtefact, BadPicture, BadSource, Interrupted
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

    ``val_fraction`` of each class's training pictures become the validation split, in place of one that ``path`` has;
    None: DEFAULT_FRACTION where it has none. Raises BadSource if ``path`` cannot be packed; BadPicture at the first
    picture that cannot be read if ``on_bad`` is "stop"; BadArtefact if another dataset has that name; Interrupted.
    """
    source = open_source(path)
    listing = source.listing(val_fraction)
    digest = _digest(listing, size)
    if (folder / FILE).exists():
        return _already_there(folder, digest, progress)
    jobs = _plan(listing, folder, size, on_bad)
    _begin(path, folder, digest, progress)
    left = [job for job in jobs if not (job.folder / f"{job.shard}.json").exists()]
    if len(left) < len(jobs):
        progress.note(f"going on: {len(jobs) - len(left)} of {len(jobs)} shards are there already")
    _check_disk(left, folder)
    began = time.monotonic()
    images = _pack(path, left, workers, progress, len(jobs))
    seconds = time.monotonic() - began
    dataset, rejected = _finish(path, listing, jobs, folder, size, digest)
    return Prepared(dataset=dataset, rejected=rejected, images_per_second=images / seconds if images else 0.0)


def _digest(listing: Listing, size: int) -> str:
    """Of all that decides the dataset's bytes: which pictures, as they are now, in which order, at which size."""
    digest = hashlib.sha256(repr((FORMAT, SHARD, size, listing.classes)).encode())
    for entry in listing.entries:
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]


def _already_there(folder: Path, digest: str, progress: Progress) -> Prepared:
    dataset = Dataset.open(folder)
    if dataset.source.get("digest") != digest:
        raise BadArtefact(
            f"{folder} holds other pictures, or was packed with other settings: choose another name, or remove it"
        )
    progress.note(f"{folder} is packed already")
    with open(folder / "rejected.csv", newline="", encoding="utf-8") as file:
        rejected = sum(1 for _ in csv.reader(file)) - 1
    return Prepared(dataset=dataset, rejected=rejected, images_per_second=0.0)


def _plan(listing: Listing, folder: Path, size: int, on_bad: str) -> list[Job]:
    jobs = []
    for split in SPLITS:
        entries = [entry for entry in listing.entries if entry.split == split]
        for number, start in enumerate(range(0, len(entries), SHARD)):
            part = entries[start : start + SHARD]
            jobs.append(Job(folder=folder, shard=f"{split}-{number:05d}", entries=part, size=size, on_bad=on_bad))
    return jobs


def _begin(path: Path, folder: Path, digest: str, progress: Progress) -> None:
    """Mark ``folder`` as being made of this listing; what another unfinished run left there goes."""
    if (folder / PLAN).exists() and read_json(folder / PLAN, what="dataset").get("digest") != digest:
        progress.note(f"the pictures or settings changed since {folder} was begun: starting anew")
        for file in folder.iterdir():
            file.unlink()
    elif folder.exists() and not (folder / PLAN).exists() and any(folder.iterdir()):
        raise BadArtefact(f"{folder} is no dataset but is not empty: choose another name")
    for file in folder.glob(".*.part*"):  # what was half written when a run was killed
        file.unlink()
    write_json(folder / PLAN, {"digest": digest, "source": str(path)})


def _check_disk(jobs: list[Job], folder: Path) -> None:
    needed = sum(len(job.entries) * 3 * job.size**2 for job in jobs)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AlexNetError(
            f"the dataset takes {needed / 1e9:,.1f} GB, {folder} has {free / 1e9:,.1f} GB free: free some, or use "
            "--workspace on another disk"
        )


def _pack(path: Path, jobs: list[Job], workers: int | None, progress: Progress, total: int) -> int:
    """Pack ``jobs`` on all cores; returns how many pictures. A shard is whole on disk or not there."""
    if not jobs:
        return 0
    images, count = 0, min(workers or os.cpu_count() or 1, len(jobs))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start_worker, (path,)) as pool:
        try:
            for done, future in enumerate(as_completed([pool.submit(_pack_shard, job) for job in jobs]), 1):
                images += future.result()
                progress.advance("packing shards", total - len(jobs) + done, total)
        except BrokenProcessPool:
            raise AlexNetError(
                "a worker process died, perhaps for lack of memory: run the command again, with --workers 1"
            ) from None
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise Interrupted("stopped; finished shards are kept: the same command goes on") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _start_worker(path: Path) -> None:
    global _source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent tells us when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _source = open_source(path)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers: watch it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _pack_shard(job: Job) -> int:
    assert _source is not None
    images = np.empty((len(job.entries), job.size, job.size, 3), np.uint8)
    kept: list[Entry] = []
    rejected = []
    for entry in job.entries:
        try:
            images[len(kept)] = load_picture(_source.read(entry.file), job.size)
            kept.append(entry)
        except BadPicture as error:
            if job.on_bad == "stop":
                raise BadPicture(f"{entry.file.name}: {error}") from None
            rejected.append([entry.file.name, str(error)])
    images = images[: len(kept)]
    with written_whole(job.folder / f"{job.shard}.npy") as beside:
        np.save(beside, images, allow_pickle=False)
    if job.shard.startswith("train"):
        sums = Sums.of(images)
        with written_whole(job.folder / f"{job.shard}.sums.npy") as beside:
            np.save(beside, np.concatenate([sums.pixels.ravel(), sums.products.ravel()]))
    facts = {
        "labels": [entry.label for entry in kept],
        "names": [entry.file.name for entry in kept],
        "rejected": rejected,
        "digest": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    write_json(job.folder / f"{job.shard}.json", facts)
    return len(kept)


def _finish(path: Path, listing: Listing, jobs: list[Job], folder: Path, size: int, digest: str) -> tuple[Dataset, int]:
    """Sum up the shards, in their order, and write what makes the dataset whole."""
    content = hashlib.sha256(json.dumps(listing.classes).encode())
    total: Sums | None = None
    counts, rejected, seen = dict.fromkeys(SPLITS, 0), [], set()
    for job in jobs:
        facts = read_shard(folder, job.shard)
        split = job.shard.split("-")[0]
        counts[split] += len(facts["labels"])
        rejected += facts["rejected"]
        seen |= {(split, label) for label in facts["labels"]}
        content.update(json.dumps([split, facts["digest"], facts["labels"]]).encode())
        if split == "train":
            flat = np.load(folder / f"{job.shard}.sums.npy")
            sums = Sums(
                images=len(facts["labels"]), pixels=flat[:-9].reshape(size, size, 3), products=flat[-9:].reshape(3, 3)
            )
            if total is None:
                total = sums
            else:
                total.add(sums)
    for split, label in sorted({(entry.split, entry.label) for entry in listing.entries} - seen):
        raise BadSource(
            f"no picture of class {listing.classes[label]} in {split} could be read: mend or remove them "
            f"({rejected[0][0]}: {rejected[0][1]})"
        )
    assert total is not None  # there is a training picture: `listing` saw to it
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
            "source": {"path": str(path), "layout": listing.layout, "digest": digest, **listing.facts},
            "fingerprint": content.hexdigest()[:16],
            "shards": {
                split: [job.shard for job in jobs if job.shard.startswith(split)] for split in counts if counts[split]
            },
        },
    )
    for job in jobs:
        (folder / f"{job.shard}.sums.npy").unlink(missing_ok=True)
    (folder / PLAN).unlink()
    return Dataset.open(folder), len(rejected)
