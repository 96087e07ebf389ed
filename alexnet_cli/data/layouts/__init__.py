"""Layouts: how the files of a source give the split and the class of each picture.

To add a layout, write a function like those in LAYOUTS and add it to that table.
"""

from collections.abc import Callable

import numpy as np

from alexnet_cli.data.layouts.cifar import cifar10
from alexnet_cli.data.layouts.digits import digits
from alexnet_cli.data.layouts.folders import class_folders
from alexnet_cli.data.layouts.ilsvrc import ilsvrc2012
from alexnet_cli.data.layouts.listing import VAL, Listing, replace_validation_split
from alexnet_cli.data.layouts.mnist import mnist
from alexnet_cli.data.sources import Source
from alexnet_cli.errors import abbreviate, visible

# Lists the pictures of a source, or returns None if the source is in another layout. Raises BadSource if the source is
# in this layout, but not usable.
Layout = Callable[[Source], Listing | None]

# Tried in this order; the last takes every source.
LAYOUTS: tuple[Layout, ...] = (digits, cifar10, mnist, ilsvrc2012, class_folders)

FEW = 10  # pictures of a class: with fewer, a note
DEFAULT_FRACTION = 0.1  # of each class, held out for validation if the source has no validation split


def list_pictures(source: Source, val_fraction: float | None = None) -> Listing:
    """The split, label and location of every picture of ``source``, in the order of SPLITS.

    ``val_fraction`` of each class's training pictures replace the source's validation split. If None, the source's own
    split stays; a source without one gets DEFAULT_FRACTION, unless its pictures have one class or none. Raises
    BadSource if a class is unknown, or a class or a split is empty.
    """
    listing = next(listing for layout in LAYOUTS if (listing := layout(source)) is not None)
    has_val = bool((listing.entries.table["split"] == VAL).any())
    if val_fraction is not None:
        if has_val:
            listing.notes.append("--val-fraction is given: the source's own validation split is left out")
        replace_validation_split(listing, val_fraction)
    elif not has_val and len(listing.classes) > 1:
        replace_validation_split(listing, DEFAULT_FRACTION)
    if len(listing.classes) == 1:
        listing.notes.append(
            f"all pictures have one class ({visible(listing.classes[0])}): enough to index, but not to train"
        )
    else:
        listing.notes += _small_classes(listing)
    listing.entries = listing.entries.where(np.argsort(listing.entries.table["split"], kind="stable"))
    return listing


def _small_classes(listing: Listing) -> list[str]:
    """Notes on classes with few pictures to learn from, and with a single one."""
    table, names = listing.entries.table, np.array(listing.classes, object)
    counts = np.bincount(table["label"][table["split"] <= VAL], minlength=len(names))
    few, one = names[(counts > 1) & (counts < FEW)], names[counts == 1]
    notes = []
    if len(few):
        notes.append(f"{_count(few)} fewer than {FEW} pictures, which is little to learn from: {abbreviate(few)}")
    if len(one) and (table["split"] == VAL).any():
        notes.append(f"{_count(one)} only one picture, so none to validate: {abbreviate(one)}")
    return notes


def _count(classes: np.ndarray) -> str:
    return "1 class has" if len(classes) == 1 else f"{len(classes):,} classes have"
