"""A dataset whose source has changed: the next one is packed in a folder inside it, and then takes its place.

Until the next one is complete, the old dataset stays whole. Its dataset.json is removed before the first file is
replaced, and the new one comes last; a run that was killed in between is completed by the next.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.data.chunks import printable
from alexnet_cli.data.images import STORES
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.store import CHECKSUMS, LABELS, NAMES, Dataset, Names, check_content, file_names
from alexnet_cli.files import read_json, sync_folder

UPDATE = ".update"  # the folder of the next dataset, in that of the old one


def take_place(folder: Path) -> None:
    """Let the next dataset, which is complete, take the place of the one in ``folder``.

    Raises BadArtefact if it is damaged, before anything is replaced.
    """
    update = folder / UPDATE
    if (folder / DATASET_FILE).exists():  # no file has been moved yet
        Dataset.open(update)
    content = read_json(update / DATASET_FILE, what="dataset")
    check_content(content, update / DATASET_FILE)
    splits, suffixes = list(content["counts"]), STORES[content["store"]].suffixes
    wanted = {*file_names(splits, content["store"]), *(split + suffix for split in splits for suffix in suffixes)}
    (folder / DATASET_FILE).unlink(missing_ok=True)
    sync_folder(folder)
    for name in sorted(wanted):
        if (update / name).exists():
            os.replace(update / name, folder / name)
    for split in {"val", "test"} - set(splits):  # splits that are no more
        for suffix in (*suffixes, LABELS, CHECKSUMS, NAMES):
            (folder / f"{split}{suffix}").unlink(missing_ok=True)
    sync_folder(folder)
    os.replace(update / DATASET_FILE, folder / DATASET_FILE)
    sync_folder(folder)
    shutil.rmtree(update)


def changes(old: Dataset, listing: Listing) -> str:
    """How the pictures of a source differ from those of the dataset ``old``: "12 added, 2 removed".

    Raises BadArtefact if the names of ``old`` are damaged.
    """
    names = {
        split: Names(old.file(split + NAMES), slots, None, old.checksums[split + NAMES])
        for split, slots in old.slots.items()
    }
    before = _digests((split, name) for split, some in names.items() for name in some)
    now = _digests((entry.split, printable(entry.name)) for entry in listing.entries)
    of_both = np.isin(now[0], before[0])
    moved = int(of_both.sum() - np.isin(now[1], before[1]).sum())
    counts = {
        "added": int((~of_both).sum()),
        "removed": int((~np.isin(before[0], now[0])).sum()),
        "moved between train and val, so a model trained before may have seen some of val": moved,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "some have changed"


def _digests(pictures: Iterable[tuple[str, str]]) -> np.ndarray:
    """Of each name, and of each name with its split: (2, n) uint64."""
    digest = xxhash.xxh3_64_intdigest
    pairs = [(digest(name.encode()), digest(f"{split}\0{name}".encode())) for split, name in pictures]
    return np.array(pairs, np.uint64).reshape(-1, 2).T
