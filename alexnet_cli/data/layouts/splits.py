"""Which folders are splits. An ambiguous folder is an error that says what to rename; nothing is guessed."""

import re
from collections.abc import Set

from alexnet_cli.errors import BadSource

NAMES = {
    "train": ("train", "training", "trainset", "trainingset"),
    "val": ("val", "valid", "validation", "valset", "validset", "validationset"),
    "test": ("test", "testing", "testset"),
}
SPLIT_OF_NAME = {name: split for split, names in NAMES.items() for name in names}
OTHER_WORDS = {"dev", "devel", "development", "eval", "evaluation", "holdout", "heldout"}  # of what is held out

Parts = tuple[str, ...]  # of a path: ("train", "tench", "1.jpg")


def split_of(folder: str) -> str | None:
    """The split that a folder is by its name, in any case: "train", "val" or "test"; None if it is none."""
    return SPLIT_OF_NAME.get(folder.lower())


def looks_like_split(folder: str) -> bool:
    """Whether a folder's name has a word for a split in it, as `training_set`, `my-val` and `HoldOut` have."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder)  # TrainImages
    words = re.findall(r"[a-z]+", spaced.lower())
    return not {*words, "".join(words)}.isdisjoint(SPLIT_OF_NAME.keys() | OTHER_WORDS)


def find_splits(folders: Set[Parts], with_pictures: Set[Parts], path: str) -> dict[str, str]:
    """The folders directly in ``path`` that are splits, and the split that each is; {} if all are classes.

    ``folders``: the paths of all folders below ``path``; ``with_pictures``: of those with pictures. Raises BadSource,
    with what to rename or move, if it is not clear what they are.
    """
    splits = {name: split for name in sorted({folder[0] for folder in folders}) if (split := split_of(name))}
    others = sorted({folder[0] for folder in with_pictures} - splits.keys())
    unclear = [name for name in others if looks_like_split(name)]
    if unclear and splits:
        raise BadSource(f"in {path}, {_listed(unclear)} may be a split: rename to train, val or test, or move out")
    if len(unclear) == len(others) > 1:
        raise BadSource(
            f"in {path}, {_listed(unclear)} may be splits: rename to train, val or test, or, if they are classes, "
            "move into a new folder train"
        )
    for split in NAMES:
        same = [name for name in splits if splits[name] == split]
        if len(same) > 1:
            raise BadSource(f"in {path}, {_listed(same)} are the same split: move all into one folder {split}")
    if len(splits) == 1 and others:
        raise BadSource(
            f"in {path}, is {_listed(list(splits))} beside {_listed(others)} a split or a class? "
            "If a split, move the others out; if a class, move all into a new folder train"
        )
    inner = {folder[:2] for folder in with_pictures if len(folder) > 1 and split_of(folder[1])}
    if not splits and others and {name for name, _ in inner} == set(others):
        raise BadSource(f"in {path}, the splits are inside the class folders ({'/'.join(min(inner))}): swap the two")
    return splits


def _listed(folders: list[str]) -> str:
    """The first three folders and the number of the others, for a message."""
    names = [f"{folder}/" for folder in folders[:3]]
    names += [f"{len(folders) - 3:,} more"] if len(folders) > 3 else []
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
