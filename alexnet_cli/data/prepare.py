"""Pictures to a packed dataset: all cores, a shard at a time, each whole on disk or not there."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_cli.artefacts import atomic_write, read_json, write_json
from alexnet_cli.data.layouts import SPLITS, Entry, Listing, list_pictures
from alexnet_cli.data.pictures import RESIZER, load_picture
from alexnet_cli.data.sources import open_source, read_place
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import FILE, FORMAT, Dataset, read_shard
from alexnet_cli.distributed import SINGLE_PROCESS, World, available_cores
from alexnet_cli.errors import AlexNetError, BadArtefact, BadPicture, BadSource, Interrupted
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.progress import SILENT, Progress

SHARD = 256  # pictures; what a worker holds in memory, 50 MB, and what a stopped run loses at most for each
PIECE = 4 << 20  # bytes written at a time
PLAN = "plan.json"  # of what an unfinished dataset is being made
OURS = re.compile(r"(train|val|test)-\d+(\.sums)?\.(npy|json)|plan\.json|rejected\.csv|statistics\.safetensors")
STALE = re.compile(r"\..*\.part(\.\w+)*|\.source-.*")  # of a run that was killed


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` made."""

    dataset: Dataset
    rejected: int
    images_per_second: float  # of this run; 0 if everything was there already

    def as_json(self) -> dict[str, Any]:
        """As `alexnet prep --json` prints it."""
        return {
            "dataset": self.dataset.name,
            "splits": {"train": 0, "val": 0} | self.dataset.counts,
            "classes": self.dataset.classes,
            "rejected": self.rejected,
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """One shard to pack."""

    folder: Path
    shard: str
    entries: list[Entry]
    size: int
    stop: bool  # at the first picture that is refused

    @property
    def split(self) -> str:
        return self.shard.split("-")[0]


def prepare(
    path: Path,
    folder: Path,
    *,
    size: int = 256,
    workers: int | None = None,
    val_fraction: float | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Prepared:
    """Pack the pictures of ``path`` into the dataset ``folder``; finished shards of a stopped run are kept.

    The processes of a ``world``, each with its own ``workers``, share what is left. Every file's bytes follow from the
    source and the settings, not from ``workers``, nor from the team, nor from stops. Raises BadSource,
    BadPicture (``on_bad="stop"``), Interrupted, or BadArtefact if something else has that name.
    """
    with contextlib.ExitStack() as stack:
        with world.main_first():
            _check_folder(folder)
            stack.callback(_leave_nothing, folder)
            source = stack.enter_context(contextlib.closing(open_source(path, scratch=folder)))
            listing = list_pictures(source, val_fraction, scratch=folder)
            plan = _plan(listing, size)
            made = (folder / FILE).exists()
            jobs = _jobs(listing, folder, size, on_bad == "stop")
            if not made:
                for note in listing.notes:
                    progress.note(note)
                if world.is_main:
                    _begin(folder, plan, progress)
            left = [job for job in jobs if not made and not _is_done(job)]
        world.barrier()  # all know what is left before it becomes less
        if made:
            return _already(folder, plan, progress)
        if len(left) < len(jobs):
            there = len(jobs) - len(left)
            progress.note(f"going on with {folder}: {there:,} of {len(jobs):,} shards are there already")
        _check_disk(folder, left, size)
        rate = _pack(left, jobs, workers or available_cores(), progress, world)
        with world.main_first():
            if world.is_main:
                _finish(path, listing, jobs, folder, size, plan, progress)
        dataset, rejected = Dataset.open(folder), _count_rejected(folder)
    return Prepared(dataset=dataset, rejected=rejected, images_per_second=rate)


def dataset_name(source: Path, named: str | None) -> str:
    """``named``, or the source's name without the suffix of an archive. Raises AlexNetError if it is no plain name."""
    name = named
    if name is None:
        name = source.resolve().name
        if not source.is_dir():
            name = re.sub(r"(\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz))+$", "", name, flags=re.IGNORECASE)
    if name in ("", ".", "..") or Path(name).name != name:
        raise AlexNetError(f"{name!r} cannot be a dataset's name: give a plain one, it becomes a folder in data/")
    return name


# Before


def _check_folder(folder: Path) -> None:
    """Only a folder that prep itself began is written to. Raises BadArtefact."""
    if folder.is_dir():
        others = [file.name for file in folder.iterdir() if not (OURS.fullmatch(file.name) or STALE.match(file.name))]
        if others and FILE not in others:
            raise BadArtefact(f"{folder} holds something else ({others[0]}): choose another name for the dataset")


def _plan(listing: Listing, size: int) -> str:
    """A digest of everything the dataset's bytes follow from."""
    settings = (FORMAT, SHARD, RESIZER, size, listing.layout, listing.classes, listing.rejected)
    digest = hashlib.sha256(repr(settings).encode())
    for entry in listing.entries:
        line = f"{entry.split}\0{entry.label}\0{entry.name}\0{entry.place.stamp}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _already(folder: Path, plan: str, progress: Progress) -> Prepared:
    if read_json(folder / FILE, what="dataset").get("plan") != plan:
        raise BadArtefact(f"{folder} is a dataset of other pictures or settings: choose another name, or remove it")
    progress.note(f"{folder} is there already, of the same pictures and settings: nothing to do")
    return Prepared(dataset=Dataset.open(folder), rejected=_count_rejected(folder), images_per_second=0.0)


def _count_rejected(folder: Path) -> int:
    with open(folder / "rejected.csv", newline="", encoding="utf-8") as file:
        return len(list(csv.reader(file))) - 1


def _leave_nothing(folder: Path) -> None:
    """Of a source that was refused."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _jobs(listing: Listing, folder: Path, size: int, stop: bool) -> list[Job]:
    jobs = []
    for split in SPLITS:
        entries = [entry for entry in listing.entries if entry.split == split]
        for number, start in enumerate(range(0, len(entries), SHARD)):
            part = entries[start : start + SHARD]
            shard = f"{split}-{number:05d}"
            jobs.append(Job(folder=folder, shard=shard, entries=part, size=size, stop=stop))
    return jobs


def _begin(folder: Path, plan: str, progress: Progress) -> None:
    """Make the folder ready; what is there of another plan, or half written, goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if STALE.match(file.name) and not file.name.startswith(f".source-{os.getpid()}-"):
            file.unlink()
    try:
        begun = read_json(folder / PLAN, what="dataset").get("plan") if (folder / PLAN).exists() else None
    except BadArtefact:
        begun = "damaged"
    if begun not in (None, plan):
        progress.note(f"the pictures or settings changed since {folder} was begun: starting anew")
    if begun != plan:
        for file in folder.iterdir():
            if OURS.fullmatch(file.name):
                file.unlink()
        write_json(folder / PLAN, {"plan": plan})


def _is_done(job: Job) -> bool:
    """A shard's facts are written last; with ``stop``, one in which something was refused is done again."""
    if not (job.folder / f"{job.shard}.json").exists() or not (job.folder / f"{job.shard}.npy").exists():
        return False
    if job.split == "train" and not (job.folder / f"{job.shard}.sums.npy").exists():
        return False
    try:
        return not (job.stop and read_shard(job.folder, job.shard)["rejected"])
    except BadArtefact:
        return False


def _check_disk(folder: Path, left: list[Job], size: int) -> None:
    """Raises AlexNetError at once, not after hours, if there is clearly too little room."""
    needed = sum(len(job.entries) * size * size * 3 for job in left)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AlexNetError(
            f"the disk is too small: {folder} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "free some space, or use --workspace on another disk"
        )


# The work


def _pack(left: list[Job], jobs: list[Job], workers: int, progress: Progress, world: World) -> float:
    """Do what is ``left`` of all ``jobs``, or this process's share. Returns pictures a second, of the whole team."""
    mine, began, fresh = left[world.rank :: world.size], time.monotonic(), 0
    wanted = _pictures(mine)
    done = _pictures(jobs) - _pictures(left)
    with _stoppable():
        few = wanted <= SHARD  # sooner done than a process is started
        for job in _here(mine) if few or workers == 1 else _in_processes(mine, workers):
            fresh += len(job.entries)
            rate = fresh / (time.monotonic() - began)
            progress.advance("packing", done + fresh, done + wanted, f"{rate:,.0f} images/s")
    (everywhere,) = world.all_reduce(fresh)
    return everywhere / (time.monotonic() - began) if everywhere else 0.0


def _pictures(jobs: list[Job]) -> int:
    return sum(len(job.entries) for job in jobs)


def _here(jobs: list[Job]) -> Iterator[Job]:
    for job in jobs:
        _keep(job, _pack_shard(job))
        yield job


def _in_processes(jobs: list[Job], workers: int) -> Iterator[Job]:
    # A server that has imported this module forks the workers, which is sooner than each importing it.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker) as pool:
        waiting: dict[Future[dict[str, Any]], Job] = {}
        try:
            with _ignored(signal.SIGINT):  # what is started now is not stopped by Ctrl-C, but by us
                waiting = {pool.submit(_pack_shard, job): job for job in jobs}
            for future in as_completed(waiting):
                _keep(waiting[future], future.result())
                yield waiting.pop(future)
        except BrokenProcessPool:
            raise AlexNetError(
                "a worker process died, perhaps for lack of memory: the same command, with fewer --workers, goes on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
            for future, job in waiting.items():  # the shards that were at work when we were stopped count too
                if future.done() and not future.cancelled() and future.exception() is None:
                    _keep(job, future.result())


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None  # we were started by one

    def die_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()


def _pack_shard(job: Job) -> dict[str, Any]:
    """Decode a shard and write its files beside their places. Returns its facts: what stands in its .json."""
    images = _room(max(SHARD, len(job.entries)), job.size)
    kept: list[Entry] = []
    rejected, warned = [], 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for entry in job.entries:
            try:
                images[len(kept)] = load_picture(read_place(entry.place), job.size)
                kept.append(entry)
                warned += bool(caught)
            except BadPicture as error:
                if job.stop:
                    raise BadPicture(f"{printable(entry.name)}: {error}") from None
                rejected.append((entry.name, str(error)))
            caught.clear()
    images = images[: len(kept)]
    with ThreadPoolExecutor(1) as writer:  # sums and digest are made while the disk works
        written = writer.submit(save, _temporary(job, ".npy"), images)
        if job.split == "train":
            save(_temporary(job, ".sums.npy"), Sums.of(images).flat())
        digest = hashlib.sha256(images.data).hexdigest()
        written.result()
    return {
        "labels": [entry.label for entry in kept],
        "names": [printable(entry.name) for entry in kept],
        "rejected": [[printable(name), reason] for name, reason in rejected],
        "warned": warned,
        "digest": digest,
    }


def save(path: Path, array: np.ndarray) -> None:
    """What np.save writes, a piece at a time: each is on the disk, and out of the system's cache, before the next.

    A dataset is larger than memory sooner or later, and need not push everything else out of it. Where fresh memory is
    slow to get, as in a virtual machine, to use the same few pages again is also five times as fast.
    """
    content = array.reshape(-1).view(np.uint8)
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    with open(path, "wb", buffering=0) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        pieces = [np.frombuffer(header.getvalue(), np.uint8)]
        for piece in pieces + [content[i : i + PIECE] for i in range(0, len(content), PIECE)]:
            if file.write(piece.data) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _keep(job: Job, facts: dict[str, Any]) -> None:
    """Give a shard's files their names; its facts last, for they make it whole."""
    for suffix in (".npy", ".sums.npy") if job.split == "train" else (".npy",):
        os.replace(_temporary(job, suffix), job.folder / f"{job.shard}{suffix}")
    write_json(job.folder / f"{job.shard}.json", facts)


def _temporary(job: Job, suffix: str) -> Path:
    return job.folder / f".{job.shard}.part{suffix}"


@lru_cache(1)
def _room(count: int, size: int) -> np.ndarray:
    """Memory for one shard, used again for the next: (count, S, S, 3) uint8."""
    return np.empty((count, size, size, 3), np.uint8)


def printable(name: str) -> str:
    """A file's name as text, even if its bytes are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM become Interrupted, which says how to go on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; finished shards are kept: the same command goes on") from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


# After


def _finish(
    path: Path, listing: Listing, jobs: list[Job], folder: Path, size: int, plan: str, progress: Progress
) -> None:
    """Statistics, `rejected.csv` and, last, `dataset.json`."""
    digest = hashlib.sha256(json.dumps(listing.classes).encode())
    sums = Sums.none(size)
    counts = {split: np.zeros(len(listing.classes), np.int64) for split in SPLITS}
    rejected: list[tuple[str, str]] = [(printable(name), reason) for name, reason in listing.rejected]
    warned = 0
    for job in jobs:
        facts = read_shard(folder, job.shard)
        counts[job.split] += np.bincount(np.array(facts["labels"], np.int64), minlength=len(listing.classes))
        rejected += facts["rejected"]
        warned += facts.get("warned", 0)
        digest.update(json.dumps([job.split, facts["digest"], facts["labels"]]).encode())
        if job.split == "train":
            sums.add(Sums.from_flat(len(facts["labels"]), np.load(folder / f"{job.shard}.sums.npy")))
    with atomic_write(folder / "rejected.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "reason"), *rejected])
    _check_counts(counts, listing, folder)
    if warned:
        progress.note(f"{warned:,} pictures have damaged EXIF or other metadata; they are packed all the same")
    sums.statistics().save(folder)
    shards = {split: [job.shard for job in jobs if job.split == split] for split in SPLITS if counts[split].any()}
    write_json(
        folder / FILE,
        {
            "format": FORMAT,
            "image_size": size,
            "classes": listing.classes,
            "words": listing.words,
            "counts": {split: int(counts[split].sum()) for split in shards},
            "source": {"path": printable(str(path)), "layout": listing.layout},
            "fingerprint": digest.hexdigest()[:16],
            "plan": plan,
            "shards": shards,
        },
    )
    for job in jobs:
        (folder / f"{job.shard}.sums.npy").unlink(missing_ok=True)
    (folder / PLAN).unlink(missing_ok=True)


def _check_counts(counts: dict[str, np.ndarray], listing: Listing, folder: Path) -> None:
    """Raises BadSource if every picture of a class, or of a split, was refused."""
    is_lost_peer = [label for label, count in zip(listing.classes, counts["train"], strict=True) if not count]
    if is_lost_peer:
        raise BadSource(f"no training picture of {is_lost_peer[0]} could be read: {folder / 'rejected.csv'} says why")
    if not counts["val"].any() and any(entry.split == "val" for entry in listing.entries):
        raise BadSource(f"no validation picture could be read: {folder / 'rejected.csv'} says why")
