"""Pack the pictures of a source into a dataset: plan the chunks, pack them, then complete the dataset."""

import contextlib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet_cli.artefacts import DATASET_FILE, REJECTED_FILE, STATISTICS_FILE
from alexnet_cli.data import chunks
from alexnet_cli.data.arrays import ADVICE
from alexnet_cli.data.chunks import Chunk, chunks_of, is_packed, printable
from alexnet_cli.data.images import RECORDS, STORES, Images
from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.listing import SPLITS, Listing
from alexnet_cli.data.merging import merge
from alexnet_cli.data.packing import count_pictures, pack_chunks
from alexnet_cli.data.pictures import RESIZER
from alexnet_cli.data.sources import bundled_source, open_source
from alexnet_cli.data.store import FORMAT, LARGEST, SMALLEST, Dataset, check_content, content_checksum
from alexnet_cli.data.unread import advices, reads_heic
from alexnet_cli.data.updating import UPDATE, changes, take_place
from alexnet_cli.distributed import SINGLE_PROCESS, World, available_cores
from alexnet_cli.errors import AlexNetError, BadArtefact, BadSource
from alexnet_cli.files import one_writer, read_json, real_path, sweep, sync_folder, write_json
from alexnet_cli.progress import SILENT, Progress

PLAN_FILE = "plan.json"  # what an incomplete dataset is packed from; it becomes DATASET_FILE
CLEARED = "none"  # plan of a folder of which the files are being deleted
# The first of these show that a folder is a dataset's. The others, of this format or another, are found there only.
MARKS = (DATASET_FILE, PLAN_FILE, STATISTICS_FILE, REJECTED_FILE, RECORDS)
OWN_FILES = re.compile(r"(train|val|test)\b.*\.(npy|jpegs|json|names)|" + "|".join(map(re.escape, MARKS)))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of `prepare`."""

    dataset: Dataset
    left_out: list[str]  # how many pictures of the source were not tried, each with what to do about them
    images_per_second: float  # of this run; 0 if there was nothing to pack

    @property
    def rejected(self) -> int:
        """Pictures that could not be packed."""
        return self.dataset.rejected

    def as_json(self) -> dict[str, Any]:
        """The object that `alexnet prep --json` prints."""
        return {
            "dataset": self.dataset.name,
            "splits": {"train": 0, "val": 0} | self.dataset.counts,
            "classes": self.dataset.classes,
            "rejected": self.rejected,
            "left_out": self.left_out,
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be packed."""

    path: Path  # of the source
    folder: Path  # of the dataset
    size: int  # of the images, in pixels
    store: type[Images]  # how they are kept
    listing: Listing
    val_fraction: float | None  # as the user gave it
    chunks: list[Chunk]  # of the whole dataset
    digest: str  # of everything that decides the dataset's bytes


def prepare(
    path: Path | str,
    folder: Path | str,
    *,
    size: int | None = None,
    store: str = "raw",
    workers: int | None = None,
    val_fraction: float | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Prepared:
    """Pack the pictures of the source at ``path`` into the dataset ``folder``, as (size, size, 3) uint8 RGB.

    ``size``: if None, 256, and 32 for CIFAR-10, MNIST and scikit-learn's digits (the path `digits`). ``store``: "raw"
    keeps the pixels, "jpeg" JPEGs of them, which take a sixth of the space, differ a little, and are decoded each time.
    If an earlier run was stopped, this one keeps its finished chunks. If the dataset is there, it is checked, and
    packed again if it is damaged, or if the pictures of its source have changed: the old one stays whole until then.
    The ranks of ``world``, each with ``workers`` processes (its cores if None), divide
    the work. The bytes of every file depend on the source and the settings only, not on ``workers``, ``world`` or
    interruptions. For ``val_fraction``, see `list_pictures`.

    Raises BadSource, BadPicture (with ``on_bad="stop"``), Interrupted, BadArtefact if ``folder`` has other content, and
    AlexNetError if another process is writing the dataset.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise AlexNetError(f"the size must be from {SMALLEST} to {LARGEST} pixels, not {size}")
    path, folder = Path(path), Path(folder)
    with contextlib.ExitStack() as stack:
        with world.main_first():
            if world.is_main:
                _check_folder(folder)
                stack.enter_context(one_writer(folder, "dataset"))
                _complete_update(folder)
            source = bundled_source(path, folder) or open_source(path, folder)
            stack.enter_context(contextlib.closing(source))
            listing = list_pictures(source, val_fraction)
            size = listing.size if size is None else size
            plan = _plan(path, folder, size, STORES[store], listing, on_bad, val_fraction)
            if world.is_main:
                _begin_update(plan, progress)
            if (folder / UPDATE).is_dir():
                plan = _plan(path, folder / UPDATE, size, STORES[store], listing, on_bad, val_fraction)
            if world.is_main:
                _make_ready(plan, progress)
            is_complete = (plan.folder / DATASET_FILE).exists()
            pending = _pending(plan)
        world.barrier()  # every rank lists the work before any rank starts
        if is_complete:
            return Prepared(dataset=Dataset.open(folder), left_out=advices(listing.unread), images_per_second=0.0)
        if len(pending) < len(plan.chunks):
            total = count_pictures(plan.chunks)
            packed = total - count_pictures(pending)
            progress.note(f"resuming {folder}: {packed:,} of {total:,} pictures are already packed")
        rate = pack_chunks(pending, plan.chunks, workers or available_cores(), progress, world)
        with world.main_first():
            if world.is_main:
                _finish(plan, progress)
                _complete_update(folder)
        dataset = Dataset.open(folder)
    return Prepared(dataset=dataset, left_out=advices(listing.unread), images_per_second=rate)


def _check_folder(folder: Path) -> None:
    """Raise BadArtefact if ``folder`` has files that are not those of a dataset: prep would delete or mix with them.

    A folder in the place of a dataset's file is not deleted: nobody knows what is in it.
    """
    names = {file.name for file in folder.iterdir() if not file.name.startswith(".")} if folder.is_dir() else set()
    others = {name for name in names if not OWN_FILES.fullmatch(name)}
    folders = {name for name in names - others - {RECORDS} if (folder / name).is_dir()}
    files = {DATASET_FILE, PLAN_FILE} - folders
    plans = [_plan_in(folder / name) for name in files]  # None where there is none, or damaged
    is_like_one = not others and "" not in plans and names & set(MARKS)
    if names and not any(plans) and not is_like_one:
        raise BadArtefact(
            f"{folder} contains other files ({min(others or names)}): choose another name for the dataset"
        )
    if folders:
        raise BadArtefact(f"{folder / min(folders)} is a folder where a dataset has a file: remove it, and {ADVICE}")


def _plan_in(path: Path) -> str | None:
    """The digest of the plan in a JSON file; empty if it has none; None if the file is missing or damaged."""
    try:
        return str(read_json(path, what="dataset").get("plan") or "")
    except BadArtefact:
        return None


def _plan(
    path: Path,
    folder: Path,
    size: int,
    store: type[Images],
    listing: Listing,
    on_bad: str,
    val_fraction: float | None = None,
) -> Plan:
    """Raises BadSource if the name of a class cannot be written down."""
    for name in listing.classes:
        if name != printable(name):
            raise BadSource(f"the name of the class {name!a} is not UTF-8: rename its folder")
    decoding = (FORMAT, chunks.CHUNK_SIZE, RESIZER, reads_heic(), size, store.settings)
    digest = hashlib.sha256(repr((*decoding, listing.layout, listing.classes, listing.rejected)).encode())
    for entry in listing.entries:
        line = f"{entry.split}\0{entry.label}\0{entry.name}\0{entry.location.stamp}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    plan = digest.hexdigest()[:16]
    every = chunks_of(listing, folder, plan, store, size, on_bad == "stop")
    return Plan(
        path=path,
        folder=folder,
        size=size,
        store=store,
        listing=listing,
        val_fraction=val_fraction,
        chunks=every,
        digest=plan,
    )


def _begin_update(plan: Plan, progress: Progress) -> None:
    """Make the folder of an update if the dataset is there, but its pictures have changed; else remove one of before.

    Raises BadArtefact if the dataset is of another source or other settings.
    """
    folder, update = plan.folder, plan.folder / UPDATE
    if _plan_in(folder / DATASET_FILE) in (None, plan.digest):
        _remove(update)
        return
    old = read_json(folder / DATASET_FILE, what="dataset")
    source = old.get("source")
    packed = source.get("absolute", source.get("path")) if isinstance(source, dict) else None
    wanted = {"image_size": plan.size, "store": plan.store.name, "val_fraction": plan.val_fraction}
    is_other = any(old.get(key, value) != value for key, value in wanted.items())  # an older format may lack one
    if is_other or packed != str(real_path(plan.path)):
        raise BadArtefact(f"{folder} is a dataset of other pictures or settings: choose another name, or remove it")
    if not update.is_dir():
        _remove(update)
    update.mkdir(exist_ok=True)
    sweep(update)
    try:
        why = f"since {folder} was packed, its pictures have changed ({changes(Dataset.open(folder), plan.listing)})"
    except BadArtefact as error:
        why = str(error).rpartition(": ")[0]
    progress.note(f"{why}: packing all of them")
    progress.note(f"{folder} stays as it is until that is done")


def _complete_update(folder: Path) -> None:
    """Let an update that has all its pictures take the dataset's place; remove a damaged one: it is packed again."""
    update = folder / UPDATE
    plan = update / PLAN_FILE
    try:
        if plan.exists() and "checksum" in (content := read_json(plan, what="dataset")):
            check_content(content, plan)
            _publish(update)
        if (update / DATASET_FILE).exists():
            take_place(folder)
    except (BadArtefact, IsADirectoryError):
        _remove(update)


def _make_ready(plan: Plan, progress: Progress) -> None:
    """Check the dataset if it is there; if it is not, or is not sound, make the folder ready to be packed into."""
    if _is_complete(plan, progress):
        return
    for note in plan.listing.notes:
        progress.note(note)
    _start(plan, progress)
    _check_disk_space(plan, _pending(plan))


def _pending(plan: Plan) -> list[Chunk]:
    """The chunks that are not packed yet."""
    return [chunk for chunk in plan.chunks if not chunk.record.exists()]


def _is_complete(plan: Plan, progress: Progress) -> bool:
    """Whether the whole dataset is there and sound."""
    folder = plan.folder
    if _plan_in(folder / PLAN_FILE) == plan.digest and "checksum" in read_json(folder / PLAN_FILE, what="dataset"):
        _publish(folder)  # an earlier run was killed just before this
    if not (folder / DATASET_FILE).exists():
        return False
    try:
        Dataset.open(folder).verify(progress)
    except BadArtefact as error:
        progress.note(f"{str(error).rpartition(': ')[0]}: packing the dataset again")
        return False
    progress.note(f"{folder} already exists, with the same pictures and settings: nothing to do")
    return True


def _start(plan: Plan, progress: Progress) -> None:
    """Make the folder ready to be packed into: keep what a stopped run has packed of this plan, delete all else."""
    folder, records = plan.folder, plan.folder / RECORDS
    recorded = _plan_in(folder / PLAN_FILE)
    if recorded != plan.digest or (folder / DATASET_FILE).exists():
        if recorded not in (None, CLEARED, plan.digest):
            progress.note(f"the pictures or settings changed since {folder} was started: starting over")
        _clear(folder)
        write_json(folder / PLAN_FILE, {"plan": plan.digest})
    records.mkdir(exist_ok=True)
    sweep(records)
    for split in SPLITS:
        of_split = [chunk for chunk in plan.chunks if chunk.split == split]
        if of_split and not of_split[0].images.begin():
            for record in records.glob(f"{split}-*"):
                record.unlink()
    for chunk in plan.chunks:
        if not is_packed(chunk):
            chunk.record.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Delete a dataset's files. The plan, which shows that the folder is a dataset's, stays until it is replaced."""
    write_json(folder / PLAN_FILE, {"plan": CLEARED})
    for path in folder.iterdir():
        if path.name != PLAN_FILE and OWN_FILES.fullmatch(path.name):
            _remove(path)


def _remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_disk_space(plan: Plan, pending: Sequence[Chunk]) -> None:
    """Raise AlexNetError if the images and records of the ``pending`` chunks and the statistics do not fit on the disk.

    Labels, checksums and names are some ten bytes a picture.
    """
    images, pixels = plan.store.most_bytes(count_pictures(pending), plan.size), plan.size * plan.size * 3
    records, statistics = len(pending) * 2 * pixels, 4 * pixels  # sums of 16 bits each, and the mean image in 32 bits
    needed = images + records + statistics
    free = shutil.disk_usage(plan.folder).free
    if needed > free:
        unit, name = (10**9, "GB") if needed >= 10**10 else (10**6, "MB")
        raise AlexNetError(  # rounded up and down, so that the first number is always the larger one
            f"not enough disk space: {plan.folder} needs {math.ceil(needed / unit):,} {name} more, "
            f"{free // unit:,} {name} are free; free some space, or use --workspace on another disk"
        )


def _finish(plan: Plan, progress: Progress) -> None:
    """Merge the records, then write the file that marks a complete dataset."""
    content = {
        "format": FORMAT,
        "image_size": plan.size,
        "store": plan.store.name,
        "classes": plan.listing.classes,
        "words": plan.listing.words,
        "source": {
            "path": printable(str(plan.path)),  # as typed, to be shown
            "absolute": str(real_path(plan.path)),
            "layout": plan.listing.layout,
        },
        "plan": plan.digest,
        **merge(plan.chunks, plan.listing, plan.folder, plan.store, plan.size, progress),
    }
    if plan.val_fraction is not None:
        content["val_fraction"] = plan.val_fraction
    content["checksum"] = content_checksum(content)
    check_content(content, plan.folder / PLAN_FILE)
    write_json(plan.folder / PLAN_FILE, content)
    _publish(plan.folder)


def _publish(folder: Path) -> None:
    """Remove the records, of which everything is in the dataset's files now, and let the plan become dataset.json.

    It comes last, so that a complete dataset holds nothing temporary.
    """
    if (folder / RECORDS).exists():
        shutil.rmtree(folder / RECORDS)
    os.replace(folder / PLAN_FILE, folder / DATASET_FILE)
    sync_folder(folder)
