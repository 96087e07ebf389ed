"""Class folders, with or without a folder for each split, and flat folders without classes."""

from dataclasses import dataclass
from typing import NamedTuple

from alexnet_cli.data.layouts.listing import SPLITS, Entry, Listing, abbreviate
from alexnet_cli.data.sources import Source, is_hidden, is_picture, leads_outside, split_path
from alexnet_cli.errors import BadSource

UNLABELLED = "unlabelled"  # name of the only class of a flat folder
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"  # has the classes of ILSVRC-2012's flat val folder

Parts = tuple[str, ...]  # of a path: ("train", "tench", "1.jpg")


class Assignment(NamedTuple):
    """The split and the class of a picture."""

    split: str
    class_name: str  # "" if the picture is in no class folder


@dataclass(kw_only=True)
class FolderTree:
    """The pictures of a source, assigned by the folders they are in."""

    source: Source
    pictures: dict[str, Assignment]  # by name
    folders: set[Parts]  # every folder, also without pictures, as (split, class, ...)
    has_splits: bool  # whether the source has a folder for each split
    rejected: list[tuple[str, str]]  # name and reason
    notes: list[str]

    def listing(self, layout: str, words: dict[str, str] | None = None) -> Listing:
        """The pictures as a listing, with classes in sorted order.

        Raises BadSource for an empty split or class, and for pictures of which the class is unknown.
        """
        self._check()
        classes = sorted({class_name for _, class_name in self.pictures.values()})
        labels = {class_name: label for label, class_name in enumerate(classes)}
        return Listing(
            layout="flat" if classes == [""] else layout,
            classes=[class_name or UNLABELLED for class_name in classes],
            entries=[
                Entry(split=split, label=labels[class_name], name=name, location=self.source.locations[name])
                for name, (split, class_name) in self.pictures.items()
            ],
            words={class_name: words[class_name] for class_name in classes if class_name in words} if words else {},
            rejected=self.rejected,
            notes=self.notes,
        )

    def _check(self) -> None:
        assigned = set(self.pictures.values())
        is_flat = {class_name for _, class_name in assigned} == {""}
        for split in SPLITS:
            classes = {class_name for other, class_name in assigned if other == split}
            is_required = split == "train" or (split == "val" and any(folder[0] == "val" for folder in self.folders))
            if not classes and is_required:
                raise BadSource(f"no pictures in {split}/: add some, or remove the folder")
            if "" in classes and not is_flat:
                loose = [name for name, assignment in self.pictures.items() if assignment == (split, "")]
                raise BadSource(
                    f"{len(loose):,} {split} pictures are in no class folder, so their classes are unknown "
                    f"({abbreviate(loose, 1)}): move them into class folders or, for ILSVRC-2012, add {DEVKIT}"
                )
        empty = {folder[:2] for folder in self.folders if len(folder) > 1} - assigned
        if empty and not is_flat:
            names = abbreviate("/".join(folder if self.has_splits else folder[1:]) for folder in empty)
            raise BadSource(f"no pictures in class folder {names}: add some, or remove the folder")
        untrained = {name for _, name in assigned} - {name for split, name in assigned if split == "train"}
        if untrained:
            raise BadSource(f"classes without training pictures: {abbreviate(untrained)}")


def class_folders(source: Source) -> Listing:
    """A layout: the folder that a picture is in names its class, the folder above that its split."""
    return read_tree(source).listing("folders")


def read_tree(source: Source) -> FolderTree:
    """Assign the pictures of ``source`` by their folders. Raises BadSource if there are none."""
    files = sorted(name for name in source.locations if not is_hidden(name))
    rejected = [(name, "its name leads out of the archive") for name in files if leads_outside(name)]
    files = [name for name in files if not leads_outside(name)]
    with_pictures = {split_path(name)[:-1] for name in files if is_picture(name)}
    if not with_pictures:
        raise BadSource(f"no pictures in {source.path}: give a folder that has a folder of pictures for each class")
    folders = {split_path(name) for name in source.folders if not is_hidden(name) and not leads_outside(name)}
    folders |= with_pictures
    wrapper = _wrapper(folders, with_pictures)
    depth = len(wrapper)
    folders = {folder[depth:] for folder in folders if folder[:depth] == wrapper} - {()}
    has_splits = any(folder[0] in ("train", "val") for folder in folders)
    base = () if has_splits else ("train",)
    folders = {(*base, *folder) for folder in folders}
    parts = {name: (*base, *split_path(name)[depth:]) for name in files}
    # In a class folder with pictures, a file may be a picture whatever its suffix. Decoding rejects those that are not.
    classes = {(*base, *folder[depth:])[:2] for folder in with_pictures}
    parts = {name: part for name, part in parts.items() if is_picture(name) or (len(part) > 2 and part[:2] in classes)}
    skipped = {name for name, part in parts.items() if part[0] not in SPLITS or (part[0] == "test" and len(part) == 2)}
    note = f"{len(skipped):,} pictures outside train/ and val/ are left out: {abbreviate(skipped)}"
    return FolderTree(
        source=source,
        pictures={
            name: Assignment(part[0], part[1] if len(part) > 2 else "")
            for name, part in parts.items()
            if name not in skipped
        },
        folders={folder for folder in folders if folder[0] in SPLITS},
        has_splits=has_splits,
        rejected=rejected,
        notes=[note] if skipped else [],
    )


def _wrapper(folders: set[Parts], with_pictures: set[Parts]) -> Parts:
    """The path of the folders that contain everything, as in an archive of one folder, without splits and classes."""
    wrapper: Parts = ()
    while wrapper not in with_pictures:
        children = {folder[len(wrapper)] for folder in folders if len(folder) > len(wrapper)}
        child = (*wrapper, *children)
        if len(children) > 1 or children & set(SPLITS) or child in with_pictures:
            break
        wrapper = child
    return wrapper
