"""Pack the pictures of a source into a dataset: plan the shards, pack them, then complete the dataset."""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_cli.artefacts import DATASET_FILE, REJECTED_FILE, STATISTICS_FILE
from alexnet_cli.data import shards
from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.listing import SPLITS, Listing
from alexnet_cli.data.packing import count_pictures, pack_shards
from alexnet_cli.data.pictures import RESIZER
from alexnet_cli.data.shards import ShardJob, is_packed, printable, shard_jobs
from alexnet_cli.data.sources import TEMPORARY_PREFIX, open_source
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import FORMAT, Dataset, read_shard
from alexnet_cli.distributed import SINGLE_PROCESS, World, available_cores
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource
from alexnet_cli.files import atomic_write, read_json, write_json
from alexnet_cli.progress import SILENT, Progress

PLAN_FILE = "plan.json"  # digest of the plan of an incomplete dataset
OWN_FILES = re.compile(
    r"(train|val|test)-\d+(\.sums)?\.(npy|json)|"
    + "|".join(re.escape(name) for name in (PLAN_FILE, REJECTED_FILE, STATISTICS_FILE))
)
LEFTOVERS = re.compile(rf"\..*\.part(\.\w+)*|{re.escape(TEMPORARY_PREFIX)}.*")  # temporary files of a killed run


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of `prepare`."""

    dataset: Dataset
    rejected: int  # pictures that could not be packed
    images_per_second: float  # of this run; 0 if there was nothing to pack

    def as_json(self) -> dict[str, Any]:
        """The object that `alexnet prep --json` prints."""
        return {
            "dataset": self.dataset.name,
            "splits": {"train": 0, "val": 0} | self.dataset.counts,
            "classes": self.dataset.classes,
            "rejected": self.rejected,
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be packed."""

    path: Path  # of the source
    folder: Path  # of the dataset
    size: int  # of the images, in pixels
    listing: Listing
    jobs: list[ShardJob]  # all shards of the dataset
    digest: str  # of everything that decides the dataset's bytes


def prepare(
    path: Path | str,
    folder: Path | str,
    *,
    size: int = 256,
    workers: int | None = None,
    val_fraction: float | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Prepared:
    """Pack the pictures of the source at ``path`` into the dataset ``folder``, as (size, size, 3) uint8 RGB.

    If an earlier run was stopped, this one keeps its finished shards. The ranks of ``world``, each with ``workers``
    processes (its cores if None), divide the work. The bytes of every file depend on the source and the settings only,
    not on ``workers``, ``world`` or interruptions. For ``val_fraction``, see `list_pictures`.

    Raises BadSource, BadPicture (with ``on_bad="stop"``), Interrupted, and BadArtefact if ``folder`` has other content.
    """
    path, folder = Path(path), Path(folder)
    with contextlib.ExitStack() as stack:
        with world.main_first():
            _check_folder(folder)
            stack.callback(_remove_if_empty, folder)
            source = stack.enter_context(contextlib.closing(open_source(path, scratch=folder)))
            listing = list_pictures(source, val_fraction)
            jobs = shard_jobs(listing, folder, size, on_bad == "stop")
            digest = _plan_digest(listing, size)
            plan = Plan(path=path, folder=folder, size=size, listing=listing, jobs=jobs, digest=digest)
            is_complete = (folder / DATASET_FILE).exists()
            if not is_complete:
                for note in listing.notes:
                    progress.note(note)
                if world.is_main:
                    _start(plan, progress)
            pending = [] if is_complete else [job for job in jobs if not is_packed(job)]
        world.barrier()  # every rank lists the work before any rank starts
        if is_complete:
            return _existing_dataset(plan, progress)
        if len(pending) < len(jobs):
            packed = len(jobs) - len(pending)
            progress.note(f"resuming {folder}: {packed:,} of {len(jobs):,} shards are already packed")
        _check_disk_space(plan, pending)
        rate = pack_shards(pending, jobs, workers or available_cores(), progress, world)
        with world.main_first():
            if world.is_main:
                _finish(plan, progress)
        dataset, rejected = Dataset.open(folder), _count_rejected(folder)
    return Prepared(dataset=dataset, rejected=rejected, images_per_second=rate)


def _check_folder(folder: Path) -> None:
    """Raise BadArtefact if ``folder`` has files that are not those of a dataset: prep would delete or mix with them."""
    if folder.is_dir():
        names = [file.name for file in folder.iterdir()]
        others = [name for name in names if not (OWN_FILES.fullmatch(name) or LEFTOVERS.match(name))]
        if others and DATASET_FILE not in others:
            raise BadArtefact(f"{folder} contains other files ({others[0]}): choose another name for the dataset")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _plan_digest(listing: Listing, size: int) -> str:
    """A digest of everything that decides the dataset's bytes."""
    settings = (FORMAT, shards.SHARD_SIZE, RESIZER, size, listing.layout, listing.classes, listing.rejected)
    digest = hashlib.sha256(repr(settings).encode())
    for entry in listing.entries:
        line = f"{entry.split}\0{entry.label}\0{entry.name}\0{entry.location.stamp}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _existing_dataset(plan: Plan, progress: Progress) -> Prepared:
    """The complete dataset in ``plan.folder``. Raises BadArtefact if it was packed by another plan."""
    folder = plan.folder
    if read_json(folder / DATASET_FILE, what="dataset").get("plan") != plan.digest:
        raise BadArtefact(f"{folder} is a dataset of other pictures or settings: choose another name, or remove it")
    progress.note(f"{folder} already exists, with the same pictures and settings: nothing to do")
    return Prepared(dataset=Dataset.open(folder), rejected=_count_rejected(folder), images_per_second=0.0)


def _count_rejected(folder: Path) -> int:
    with open(folder / REJECTED_FILE, newline="", encoding="utf-8") as file:
        return len(list(csv.reader(file))) - 1


def _start(plan: Plan, progress: Progress) -> None:
    """Create the dataset's folder, or delete from it what another plan or a killed run left."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    for file in plan.folder.iterdir():
        if LEFTOVERS.match(file.name) and not file.name.startswith(f"{TEMPORARY_PREFIX}{os.getpid()}-"):
            file.unlink()
    plan_file = plan.folder / PLAN_FILE
    try:
        digest = read_json(plan_file, what="dataset").get("plan") if plan_file.exists() else None
    except BadArtefact:
        digest = "damaged"
    if digest not in (None, plan.digest):
        progress.note(f"the pictures or settings changed since {plan.folder} was started: starting over")
    if digest != plan.digest:
        for file in plan.folder.iterdir():
            if OWN_FILES.fullmatch(file.name):
                file.unlink()
        write_json(plan_file, {"plan": plan.digest})


def _check_disk_space(plan: Plan, pending: Sequence[ShardJob]) -> None:
    """Raise AlexNetError if the images of the ``pending`` shards do not fit on the disk."""
    needed = count_pictures(pending) * plan.size * plan.size * 3
    free = shutil.disk_usage(plan.folder).free
    if needed > free:
        raise AlexNetError(
            f"not enough disk space: {plan.folder} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "free some space, or use --workspace on another disk"
        )


def _finish(plan: Plan, progress: Progress) -> None:
    """Write the statistics, the rejected pictures and, last, the file that marks a complete dataset."""
    folder, listing = plan.folder, plan.listing
    fingerprint = hashlib.sha256(json.dumps(listing.classes).encode())
    sums = Sums.zeros(plan.size)
    counts = {split: np.zeros(len(listing.classes), np.int64) for split in SPLITS}  # (classes,) of each split
    rejected: list[tuple[str, str]] = [(printable(name), reason) for name, reason in listing.rejected]
    warned = 0
    for job in plan.jobs:
        content = read_shard(folder, job.name)
        labels = content["labels"]
        counts[job.split] += np.bincount(np.array(labels, np.int64), minlength=len(listing.classes))
        rejected += content["rejected"]
        warned += content.get("warned", 0)
        fingerprint.update(json.dumps([job.split, content["digest"], labels]).encode())
        if job.split == "train":
            sums.add(Sums.from_vector(len(labels), np.load(job.file(".sums.npy"))))
    with atomic_write(folder / REJECTED_FILE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "reason"), *rejected])
    _check_counts(plan, counts)
    if warned:
        progress.note(f"{warned:,} pictures have damaged EXIF or other metadata; they are packed anyway")
    sums.statistics().save(folder)
    _write_dataset_file(plan, counts, fingerprint.hexdigest()[:16])
    for job in plan.jobs:
        job.file(".sums.npy").unlink(missing_ok=True)
    (folder / PLAN_FILE).unlink(missing_ok=True)


def _check_counts(plan: Plan, counts: dict[str, np.ndarray]) -> None:
    """Raise BadSource if no picture of a class, or of the validation split, could be packed."""
    rejected = plan.folder / REJECTED_FILE
    empty = [label for label, count in zip(plan.listing.classes, counts["train"], strict=True) if not count]
    if empty:
        raise BadSource(f"no training picture of {empty[0]} could be read: {rejected} says why")
    if not counts["val"].any() and any(entry.split == "val" for entry in plan.listing.entries):
        raise BadSource(f"no validation picture could be read: {rejected} says why")


def _write_dataset_file(plan: Plan, counts: dict[str, np.ndarray], fingerprint: str) -> None:
    names = {split: [job.name for job in plan.jobs if job.split == split] for split in SPLITS if counts[split].any()}
    content = {
        "format": FORMAT,
        "image_size": plan.size,
        "classes": plan.listing.classes,
        "words": plan.listing.words,
        "counts": {split: int(counts[split].sum()) for split in names},
        "source": {"path": printable(str(plan.path)), "layout": plan.listing.layout},
        "fingerprint": fingerprint,
        "plan": plan.digest,
        "shards": names,
    }
    write_json(plan.folder / DATASET_FILE, content)
