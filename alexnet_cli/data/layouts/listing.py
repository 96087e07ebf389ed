"""What a layout makes of a source: a list of its pictures, each with its split and class."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from alexnet_cli.data.locations import Location
from alexnet_cli.errors import visible

SPLITS = ("train", "val", "test")  # in the order in which they are packed


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One picture of a source."""

    split: str  # one of SPLITS
    label: int  # index of its class
    name: str  # its path within the source
    location: Location


@dataclass(kw_only=True)
class Listing:
    """All pictures of a source."""

    layout: str  # name of the layout: "folders", "flat" (no classes), "ilsvrc-2012", "cifar-10", ...
    classes: list[str]  # in label order
    entries: list[Entry]
    words: dict[str, str] = field(default_factory=dict)  # class -> its meaning in words, if the source has that
    rejected: list[tuple[str, str]] = field(default_factory=list)  # name of a picture that is left out, and the reason
    notes: list[str] = field(default_factory=list)  # messages for the user


def replace_validation_split(listing: Listing, fraction: float) -> None:
    """Move a ``fraction`` of each class's training pictures to the validation split, and drop those it had before."""
    training: dict[int, list[str]] = defaultdict(list)
    for entry in listing.entries:
        if entry.split == "train":
            training[entry.label].append(entry.name)
    held_out = {name for names in training.values() for name in _held_out(names, fraction)} if fraction > 0 else set()
    listing.entries = [
        replace(entry, split="val") if entry.split == "train" and entry.name in held_out else entry
        for entry in listing.entries
        if entry.split != "val"
    ]
    if held_out:
        listing.notes.append(
            f"{len(held_out):,} training pictures ({fraction:.0%} of each class) are held out for validation"
        )
    elif fraction > 0:
        listing.notes.append("no validation split: each class has only one picture")


def _held_out(names: list[str], fraction: float) -> set[str]:
    """The ``fraction`` of ``names`` with the lowest hashes: at least one, but never all."""
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())[:count])


def abbreviate(names: Iterable[str], limit: int = 3) -> str:
    """The first ``limit`` of ``names`` in sorted order and the number of the others, for a message of one line."""
    first = sorted(names)
    return ", ".join(map(visible, first[:limit])) + (f" and {len(first) - limit:,} more" if len(first) > limit else "")
