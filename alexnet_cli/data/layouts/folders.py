"""Class folders, with or without a folder for each split, and flat folders without classes."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alexnet_cli.data.layouts.listing import PICTURE, SPLITS, Entries, Listing
from alexnet_cli.data.layouts.splits import Parts, find_splits, split_of
from alexnet_cli.data.sources import Source, is_hidden, is_picture, leads_outside, no_pictures, split_path
from alexnet_cli.data.unread import unread_suffix
from alexnet_cli.errors import BadSource, abbreviate, visible

UNLABELLED = "unlabelled"  # name of the only class of a flat folder
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"  # has the classes of ILSVRC-2012's flat val folder


class Assignment(NamedTuple):
    """The split and the class of a picture."""

    split: str
    class_name: str  # "" if the picture is in no class folder


@dataclass(kw_only=True)
class FolderTree:
    """The pictures of a source, assigned by the folders they are in."""

    source: Source
    rows: np.ndarray  # (n,) of the pictures: positions in the source's locations
    assigned: np.ndarray  # (n,) of each picture, the number of its assignment
    numbers: dict[Assignment, int]  # of the assignments
    folders: set[Parts]  # every folder, also without pictures, as (split, class, ...)
    split_folders: dict[str, str]  # split -> its folder, as it is called; empty if the source has no splits
    rejected: list[tuple[str, str]]  # name and reason
    unread: Counter[str]  # suffixes of pictures that are left out, since those are not read here
    notes: list[str]

    def listing(self, layout: str, words: dict[str, str] | None = None) -> Listing:
        """The pictures as a listing, with classes in sorted order.

        Raises BadSource for an empty split, for one whose classes are unknown, and for classes that cannot be trained.
        """
        used = self._used()
        self._check(used)
        is_flat = {class_name for _, class_name in used} == {""}
        if not is_flat:
            self._leave_out(used)
        classes = sorted({class_name for _, class_name in used if class_name or is_flat})
        labels = {class_name: label for label, class_name in enumerate(classes)}
        rows = [(0, SPLITS.index(split), labels.get(class_name, -1)) for split, class_name in self.numbers]
        table = np.array(rows, PICTURE)[self.assigned]
        table["row"] = self.rows
        return Listing(
            layout="flat" if is_flat else layout,
            classes=[class_name or UNLABELLED for class_name in classes],
            entries=Entries(self.source.locations, table[table["label"] >= 0]),
            words={class_name: words[class_name] for class_name in classes if class_name in words} if words else {},
            rejected=self.rejected,
            unread=self.unread,
            notes=self.notes,
        )

    def assigned_to(self, assignment: Assignment) -> Iterator[tuple[int, str]]:
        """The number and the name of each picture of an assignment."""
        for picture in np.flatnonzero(self.assigned == self.numbers.get(assignment, -1)).tolist():
            yield picture, self.source.locations.name(self.rows[picture])

    def assign(self, picture: int, assignment: Assignment) -> None:
        """Change the assignment of the picture with that number."""
        self.assigned[picture] = self.numbers.setdefault(assignment, len(self.numbers))

    def _used(self) -> set[Assignment]:
        """The assignments that have pictures."""
        used = set(np.unique(self.assigned).tolist())
        return {assignment for assignment, number in self.numbers.items() if number in used}

    def _check(self, used: set[Assignment]) -> None:
        """Raise BadSource, with everything that stands in the way, if it cannot be packed."""
        obstacles, is_flat = [], {class_name for _, class_name in used} == {""}
        classes = {split: {class_name for other, class_name in used if other == split} for split in SPLITS}
        for split in SPLITS:
            if not classes[split] and (split == "train" or (split == "val" and "val" in self.split_folders)):
                obstacles.append(self._why_empty(split))
            if classes[split] == {""} and not is_flat:
                loose = [name for _, name in self.assigned_to(Assignment(split, ""))]
                obstacles.append(
                    f"{len(loose):,} {split} pictures are in no class folder, so their classes are unknown "
                    f"({abbreviate(loose, 1)}): move them into class folders or, for ILSVRC-2012, add {DEVKIT}"
                )
        untrained = (classes["val"] | classes["test"]) - classes["train"] - {""}
        if untrained and classes["train"]:
            obstacles.append(f"classes without training pictures: {abbreviate(untrained)}")
        if obstacles:
            raise BadSource("; ".join(obstacles))

    def _leave_out(self, used: set[Assignment]) -> None:
        """Note the pictures beside the class folders, and the class folders without pictures."""
        loose = [name for split in SPLITS for _, name in self.assigned_to(Assignment(split, ""))]
        if loose:
            are = "1 picture is" if len(loose) == 1 else f"{len(loose):,} pictures are"
            self.notes.append(f"{are} in no class folder and left out: {abbreviate(loose)}")
        empty = {folder[:2] for folder in self.folders if len(folder) > 1} - used
        if empty:
            names = ["/".join((*self._folder(split), class_name)) for split, class_name in empty]
            some = "1 class folder" if len(names) == 1 else f"{len(names):,} class folders"
            self.notes.append(f"no pictures in {some}: {abbreviate(names)}")

    def _folder(self, split: str) -> Parts:
        """The path of a split's folder as it is called; () if the source has no splits."""
        return (self.split_folders[split],) if self.split_folders else ()

    def _why_empty(self, split: str) -> str:
        if split in self.split_folders:
            or_else = "" if split == "train" else ", or remove the folder"
            return f"no pictures in {self.split_folders[split]}/: add some{or_else}"
        names = " and ".join(f"{folder}/" for folder in self.split_folders.values())
        return f"no training pictures: there is {names}, but no folder train"


def class_folders(source: Source) -> Listing:
    """A layout: the folder that a picture is in names its class, the folder above that its split."""
    return read_tree(source).listing("folders")


def read_tree(source: Source) -> FolderTree:
    """Assign the pictures of ``source`` by their folders.

    Raises BadSource if there are none, or if it is not clear which folders are splits.
    """
    with_pictures = {split_path(name)[:-1] for _, name in _files_inside(source) if is_picture(name)}
    if not with_pictures:
        raise BadSource(no_pictures(source, "give a folder that has a folder of pictures for each class"))
    folders = {split_path(name) for name in source.folders if not is_hidden(name) and not leads_outside(name)}
    folders |= with_pictures
    wrapper = _wrapper(folders, with_pictures)
    depth = len(wrapper)
    folders = {folder[depth:] for folder in folders if folder[:depth] == wrapper} - {()}
    with_pictures = {folder[depth:] for folder in with_pictures}
    split_of_folder = find_splits(folders, with_pictures - {()}, "/".join((str(source.path), *wrapper)))

    def assign(path: Parts) -> Parts:
        """``path`` as (split, class, ...); () if it is outside the splits."""
        if not split_of_folder:
            return ("train", *path)
        split = split_of_folder.get(path[0]) if path else None
        return () if split is None else (split, *path[1:])

    # In a class folder with pictures, a file may be a picture whatever its suffix. Decoding rejects those that are not.
    classes = {assign(folder)[:2] for folder in with_pictures}
    rows, assigned, numbers, skipped = array("I"), array("I"), dict[Assignment, int](), []
    unread = Counter[str]()
    for row, name in _files_inside(source):
        part = assign(split_path(name)[depth:])
        if not is_picture(name) and (suffix := unread_suffix(name)):
            unread[suffix] += 1
            continue
        if not is_picture(name) and not (len(part) > 2 and part[:2] in classes):
            continue
        if not part or (part[0] == "test" and len(part) == 2):
            skipped.append(name)
        else:
            assignment = Assignment(part[0], part[1] if len(part) > 2 else "")
            rows.append(row)
            assigned.append(numbers.setdefault(assignment, len(numbers)))
    outside = [visible(name) for name in source.locations if leads_outside(name) and not is_hidden(name)]
    note = f"{len(skipped):,} pictures outside train/ and val/ are left out: {abbreviate(skipped)}"
    return FolderTree(
        source=source,
        rows=np.asarray(rows),
        assigned=np.asarray(assigned),
        numbers=numbers,
        folders={assign(folder) for folder in folders} - {()},
        split_folders={split: folder for folder, split in split_of_folder.items()},
        rejected=[(name, "its name leads out of the archive") for name in outside],
        unread=unread,
        notes=[note] if skipped else [],
    )


def _files_inside(source: Source) -> Iterator[tuple[int, str]]:
    """The positions and names of the files that are not hidden and do not lead out of the archive."""
    for row, name in enumerate(source.locations):
        if not is_hidden(name) and not leads_outside(name):
            yield row, name


def _wrapper(folders: set[Parts], with_pictures: set[Parts]) -> Parts:
    """The path of the folders that contain everything, as in an archive of one folder, without splits and classes."""
    wrapper: Parts = ()
    while wrapper not in with_pictures:
        children = {folder[len(wrapper)] for folder in folders if len(folder) > len(wrapper)}
        child = (*wrapper, *children)
        if len(children) > 1 or any(map(split_of, children)) or child in with_pictures:
            break
        wrapper = child
    return wrapper
