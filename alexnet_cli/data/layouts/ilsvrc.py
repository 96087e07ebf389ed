"""ILSVRC-2012 as it is distributed: a tar of class tars to train on, a flat tar to validate on, and a devkit.

Each tar may be replaced by a folder of its contents, named `train` or `val`. Without the devkit, the validation
pictures have to be in class folders.
"""

import io
import posixpath
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from alexnet_cli.data.archives import decompress, tar_members
from alexnet_cli.data.layouts.folders import DEVKIT, Assignment, FolderTree, read_tree
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.layouts.matlab import read_struct
from alexnet_cli.data.limits import DEVKIT_BYTES
from alexnet_cli.data.locations import Locations
from alexnet_cli.data.sources import Source
from alexnet_cli.errors import BadPicture, BadSource, abbreviate, first_line

SPLIT_OF_TAR = {"ILSVRC2012_img_train.tar": "train", "ILSVRC2012_img_val.tar": "val"}
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"  # the files of the devkit that are used


class Synset(NamedTuple):
    """A class of ILSVRC-2012."""

    wnid: str  # WordNet id: "n01440764"
    words: str  # "tench, Tinca tinca"


class Devkit(NamedTuple):
    """What the development kit knows of the classes."""

    synsets: dict[int, Synset]  # by ILSVRC2012_ID
    ground_truth: list[int]  # the ILSVRC2012_ID of each validation picture, in the order of their numbers


def ilsvrc2012(source: Source) -> Listing | None:
    """A layout: the official tars and devkit, or class folders beside the devkit; None if there is neither."""
    locations = _open_tars(source)
    devkit = _read_devkit(source)
    if locations is source.locations and devkit is None:
        return None
    tree = read_tree(replace(source, locations=locations))
    if devkit is not None:
        _assign_validation_pictures(tree, devkit)
    return tree.listing("ilsvrc-2012", dict(devkit.synsets.values()) if devkit else None)


def _open_tars(source: Source) -> Locations:
    """The source's locations, where the members of the official tars, if it has them, take the place of the tars."""
    tars = {name for name in source.locations if posixpath.basename(name) in SPLIT_OF_TAR and _is_file(source, name)}
    if not tars:
        return source.locations
    locations = Locations()
    for name, location in source.locations.items():
        if name not in tars:
            locations.add(name, location)
            continue
        path, folder, split = Path(location.file), posixpath.dirname(name), SPLIT_OF_TAR[posixpath.basename(name)]
        prefix = f"{folder}/{split}/" if folder else f"{split}/"
        with open(path, "rb") as file:
            tar_members(file, path, str(path), locations, prefix)
    locations.sort()
    return locations


def _is_file(source: Source, name: str) -> bool:
    """Whether it is a file in a folder, rather than a member of an archive."""
    location = source.locations[name]
    return not location.offset and location.compression is None


def _assign_validation_pictures(tree: FolderTree, devkit: Devkit) -> None:
    """Give the pictures of a flat `val` folder the classes of the ground truth.

    The ground truth has ILSVRC2012_IDs, which are not in the order of the WNIDs.
    """
    for position, name in tree.assigned_to(Assignment("val", "")):
        number = re.search(r"(\d+)\.\w+$", name)
        if number is None or not 1 <= int(number[1]) <= len(devkit.ground_truth):
            raise BadSource(
                f"the devkit has no class for {name}: it knows {len(devkit.ground_truth):,} validation pictures"
            )
        tree.assign(position, Assignment("val", devkit.synsets[devkit.ground_truth[int(number[1]) - 1]].wnid))


def _read_devkit(source: Source) -> Devkit | None:
    """The devkit of ``source``, as an archive or unpacked; None if there is none. Raises BadSource if damaged."""
    files = _devkit_files(source)
    if not {GROUND_TRUTH, META} <= set(files):
        return None
    try:
        _, rows = read_struct(files[META])
        synsets = {int(row["ILSVRC2012_ID"]): Synset(row["WNID"].strip(), row["words"].strip()) for row in rows}
        ground_truth = [int(line) for line in files[GROUND_TRUTH].split()]
        unknown = set(ground_truth) - set(synsets)
    except Exception as error:  # damaged bytes raise all kinds of errors
        raise BadSource(
            f"the devkit's {META} or {GROUND_TRUTH} is damaged ({first_line(error)}): download it again"
        ) from None
    if unknown:
        raise BadSource(
            f"the devkit is damaged: {GROUND_TRUTH} has classes that are not in {META}: {abbreviate(map(str, unknown))}"
        )
    return Devkit(synsets, ground_truth)


def _devkit_files(source: Source) -> dict[str, bytes]:
    """The content of those of GROUND_TRUTH and META that the source has, in the devkit's archive or beside it."""
    files: dict[str, bytes] = {}
    for name in source.locations:
        file_name = posixpath.basename(name)
        if file_name not in (GROUND_TRUTH, META, DEVKIT):
            continue
        try:
            content = source.read(name)
        except BadPicture as error:
            raise BadSource(f"{name}: {error}") from None
        files |= _unpack(content, name) if file_name == DEVKIT else {file_name: content}
    return files


def _unpack(devkit: bytes, shown: str) -> dict[str, bytes]:
    """GROUND_TRUTH and META of the devkit's archive. Raises BadSource, naming it as ``shown``, if it is damaged."""
    file = io.BytesIO()
    if not decompress(io.BytesIO(devkit), file, DEVKIT_BYTES, shown):
        raise BadSource(f"{shown} expands to more than {DEVKIT_BYTES:,} bytes, which the true one does not: refused")
    members, _ = tar_members(file, Path(shown), f"{shown}, decompressed,")
    return {
        posixpath.basename(name): file.getvalue()[inside.offset : inside.offset + inside.size]
        for name, inside in members.items()
        if posixpath.basename(name) in (GROUND_TRUTH, META)
    }
