"""What a layout makes of a source: a list of its pictures, each with its split and class."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np

from alexnet_cli.data.locations import Location, Locations

SPLITS = ("train", "val", "test")  # in the order in which they are packed
TRAIN, VAL, _ = range(len(SPLITS))
# A picture in a table: the position of its name in the locations, of its split in SPLITS, and of its class.
PICTURE = np.dtype([("row", np.uint32), ("split", np.uint8), ("label", np.int32)])
BLOCK = 1024  # rows of a table that are Python objects at a time


class Entry(NamedTuple):
    """One picture of a source."""

    split: str  # one of SPLITS
    label: int  # index of its class
    name: str  # its path within the source
    location: Location


class Entries(Sequence[Entry]):
    """Pictures of a source, held as nine bytes each beside the locations. A slice of them shares their memory."""

    def __init__(self, locations: Locations, table: np.ndarray) -> None:
        self.locations = locations
        self.table = table  # (n,) of PICTURE

    @classmethod
    def of(cls, locations: Locations, pictures: Iterable[tuple[str, str, int]]) -> "Entries":
        """Pictures given as names in ``locations``, splits and labels."""
        rows = ((locations.row(name), SPLITS.index(split), label) for name, split, label in pictures)
        return cls(locations, np.fromiter(rows, PICTURE))

    def where(self, chosen: np.ndarray) -> "Entries":
        """Those of the given positions, or those that a mask (n,) selects."""
        return Entries(self.locations, self.table[chosen])

    def names(self, positions: np.ndarray) -> list[str]:
        """The names of the pictures at some positions."""
        return [self.locations.name(row) for row in self.table["row"][positions].tolist()]

    @overload
    def __getitem__(self, i: int) -> Entry: ...

    @overload
    def __getitem__(self, i: slice) -> "Entries": ...

    def __getitem__(self, i: int | slice) -> "Entry | Entries":
        return Entries(self.locations, self.table[i]) if isinstance(i, slice) else self._entry(*self.table[i].item())

    def __iter__(self) -> Iterator[Entry]:
        for start in range(0, len(self), BLOCK):
            for row, split, label in self.table[start : start + BLOCK].tolist():
                yield self._entry(row, split, label)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[type[list[Entry]], tuple[list[Entry]]]:
        return list, (list(self),)  # another process gets these pictures, and not the locations of all

    def _entry(self, row: int, split: int, label: int) -> Entry:
        return Entry(SPLITS[split], label, *self.locations.at(row))


@dataclass(kw_only=True)
class Listing:
    """All pictures of a source."""

    layout: str  # name of the layout: "folders", "flat" (no classes), "ilsvrc-2012", "cifar-10", "mnist" ...
    classes: list[str]  # in label order
    entries: Entries
    size: int = 256  # side of the packed pictures, in pixels, if the user names none
    words: dict[str, str] = field(default_factory=dict)  # class -> its meaning in words, if the source has that
    rejected: list[tuple[str, str]] = field(default_factory=list)  # name of a picture that is left out, and the reason
    unread: Mapping[str, int] = field(default_factory=dict)  # suffix -> pictures left out, since it is not read here
    notes: list[str] = field(default_factory=list)  # messages for the user


def replace_validation_split(listing: Listing, fraction: float) -> None:
    """Move a ``fraction`` of each class's training pictures to the validation split, and drop those it had before."""
    entries = listing.entries.where(listing.entries.table["split"] != VAL)
    splits, labels = entries.table["split"], entries.table["label"]
    training = np.flatnonzero(splits == TRAIN)
    training = training[np.argsort(labels[training], kind="stable")]
    held_out = 0
    of_classes = np.split(training, np.flatnonzero(np.diff(labels[training])) + 1)
    for positions in of_classes if fraction > 0 else ():
        chosen = positions[_held_out(entries.names(positions), fraction)]
        splits[chosen] = VAL
        held_out += len(chosen)
    listing.entries = entries
    if held_out:
        listing.notes.append(
            f"{held_out:,} training pictures ({fraction:.0%} of each class, at least one) are held out for validation"
        )
    elif fraction > 0:
        listing.notes.append("no validation split: each class has only one picture")


def _held_out(names: list[str], fraction: float) -> list[int]:
    """The positions of the ``fraction`` of ``names`` with the lowest hashes: at least one, but never all."""
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    hashes = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=hashes.__getitem__)[:count]
