"""What the names in a source mean: split and class of every picture, for class folders, ILSVRC-2012 and CIFAR-10."""

import io
import pickle
import posixpath
import re
import tarfile
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alexnet_cli.data.sources import (
    Place,
    Source,
    held_out,
    is_hidden,
    is_picture,
    leads_outside,
    shown,
    split_path,
    tar_members,
    temporary_file,
)
from alexnet_cli.errors import BadPicture, BadSource

DEFAULT_FRACTION = 0.1  # of each class, held out for validation where a source has no validation split
SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # the one class of a flat folder
TRAIN_TAR, VAL_TAR, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One picture of a source."""

    split: str  # one of SPLITS
    label: int
    name: str  # its path within the source
    place: Place


@dataclass(kw_only=True)
class Listing:
    """All pictures of a source, in the order in which they are packed."""

    layout: str  # "folders", "flat", "ilsvrc-2012" or "cifar-10"
    classes: list[str]  # in label order
    entries: list[Entry]  # those to train on first
    words: dict[str, str] = field(default_factory=dict)  # what a class's name means, where the source says
    rejected: list[tuple[str, str]] = field(default_factory=list)  # name and reason
    notes: list[str] = field(default_factory=list)  # what a user should know


@dataclass(kw_only=True)
class Found:
    """Pictures as they lie in the source, before a share of them is held out."""

    layout: str
    classes: list[str]
    pictures: dict[str, tuple[str, str]]  # name -> split, class
    places: dict[str, Place]
    has_val: bool
    words: dict[str, str] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_pictures(source: Source, val_fraction: float | None = None, scratch: Path | None = None) -> Listing:
    """Split, label and place of every picture.

    ``val_fraction`` of each class's training pictures become the validation split, instead of the source's own; if
    None, the source's own, or a tenth where it has none. Raises BadSource where a class cannot be told, or a class or
    split is empty.
    """
    found = _cifar(source, scratch) or _folders(source)
    fraction = val_fraction
    if fraction is None:
        fraction = 0.0 if found.has_val or found.layout == "flat" else DEFAULT_FRACTION
    elif found.has_val:
        found.pictures = {name: where for name, where in found.pictures.items() if where[0] != "val"}
        found.notes.append("the source's own validation pictures are left out, as --val-fraction was given")
    if fraction > 0:
        _hold_out(found, fraction)
    return _listing(found)


def _hold_out(found: Found, fraction: float) -> None:
    of_class: dict[str, list[str]] = defaultdict(list)
    for name, (split, label) in found.pictures.items():
        if split == "train":
            of_class[label].append(name)
    held = {name: ("val", label) for label, names in of_class.items() for name in held_out(names, fraction)}
    found.pictures |= held
    said = f"{len(held):,} of the training pictures ({fraction:.0%} of each class) are held out to validate"
    found.notes.append(said if held else "no validation split: there is but one picture of each class")


def _listing(found: Found) -> Listing:
    number = {label: i for i, label in enumerate(found.classes)}
    entries = [
        Entry(split=split, label=number[label], name=name, place=found.places[name])
        for wanted in SPLITS
        for name, (split, label) in found.pictures.items()
        if split == wanted
    ]
    if len(found.classes) == 1:
        found.notes.append(f"all pictures are of one class ({found.classes[0]}): enough to index, not to train")
    return Listing(
        layout=found.layout,
        classes=found.classes,
        entries=entries,
        words=found.words,
        rejected=found.rejected,
        notes=found.notes,
    )


# Folders, and the official ILSVRC-2012 files


def _folders(source: Source) -> Found:
    places, official = _official_tars(source)
    files = sorted(name for name in places if not is_hidden(name))
    rejected = [(name, "its name leads out of the archive") for name in files if leads_outside(name)]
    files = [name for name in files if not leads_outside(name)]
    in_pictures = {split_path(name)[:-1] for name in files if is_picture(name)}
    if not in_pictures:
        raise BadSource(f"no pictures in {source.path}: give a folder of class folders, each with its pictures")
    folders = {split_path(name) for name in source.folders if not is_hidden(name) and not leads_outside(name)}
    folders |= in_pictures
    prefix = _wrapper(folders, in_pictures)
    start = len(prefix)
    folders = {folder[start:] for folder in folders if folder[:start] == prefix} - {()}
    has_splits = any(folder[0] in ("train", "val") for folder in folders)
    base = () if has_splits else ("train",)
    folders = {(*base, *folder) for folder in folders}
    # Beside pictures in a class folder anything may be one, whatever its suffix: if it is none, it is rejected.
    parts = {name: (*base, *split_path(name)[start:]) for name in files}  # ("train", "tench", "1.jpg")
    full = {(*base, *folder[start:])[:2] for folder in in_pictures}
    parts = {name: part for name, part in parts.items() if is_picture(name) or (len(part) > 2 and part[:2] in full)}
    left = {name for name, part in parts.items() if part[0] not in SPLITS or (part[0] == "test" and len(part) == 2)}
    notes = [f"{len(left):,} pictures that are not in train/ or val/ are left out: {shown(left)}"] if left else []
    pictures = {name: (part[0], part[1] if len(part) > 2 else "") for name, part in parts.items() if name not in left}
    words = _with_devkit(source, pictures)
    _check_classes(pictures, {folder for folder in folders if folder[0] in SPLITS}, has_splits)
    classes = sorted({label for _, label in pictures.values()})
    return Found(
        layout="flat" if classes == [""] else "ilsvrc-2012" if words or official else "folders",
        classes=[label or UNLABELLED for label in classes],
        pictures={name: (split, label or UNLABELLED) for name, (split, label) in pictures.items()},
        places=places,
        has_val=any(folder[0] == "val" for folder in folders),
        words={label: words[label] for label in classes if label in words},
        rejected=rejected,
        notes=notes,
    )


def _wrapper(folders: set[tuple[str, ...]], with_pictures: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that wrap everything, as in an archive of one folder, and are neither a split nor a class."""
    prefix: tuple[str, ...] = ()
    while prefix not in with_pictures:
        here = {folder[len(prefix)] for folder in folders if len(folder) > len(prefix)}
        inner = (*prefix, *here)
        if len(here) > 1 or here & set(SPLITS) or inner in with_pictures:
            break
        prefix = inner
    return prefix


def _check_classes(pictures: dict[str, tuple[str, str]], folders: set[tuple[str, ...]], has_splits: bool) -> None:
    """Raises BadSource for an empty split or class, and for pictures whose class cannot be told."""
    full = set(pictures.values())  # (split, class)
    for split in SPLITS:
        classes = {label for here, label in full if here == split}
        if not classes and (split == "train" or (split != "test" and split in {folder[0] for folder in folders})):
            raise BadSource(f"there are no pictures in {split}/: fill it, or take it away")
        if "" in classes and {label for _, label in full} != {""}:
            loose = [name for name, where in pictures.items() if where == (split, "")]
            raise BadSource(
                f"{len(loose):,} {split} pictures lie in no class folder, so their classes are unknown "
                f"({shown(loose, 1)}): sort them into class folders, or, for ILSVRC-2012, put {DEVKIT} beside"
            )
    empty = {folder[:2] for folder in folders if len(folder) > 1} - full
    if empty and {label for _, label in full} != {""}:
        names = shown("/".join(folder if has_splits else folder[1:]) for folder in empty)
        raise BadSource(f"no pictures in class folder {names}: fill it, or take it away")
    unknown = {label for _, label in full} - {label for split, label in full if split == "train"}
    if unknown:
        raise BadSource(f"classes without training pictures: {shown(unknown)}")


def _official_tars(source: Source) -> tuple[dict[str, Place], bool]:
    """The source's places, with the members of ILSVRC-2012's tars in place of the tars; and whether there were any."""
    places, official = {}, False
    for name, place in source.places.items():
        split = {TRAIN_TAR: "train", VAL_TAR: "val"}.get(posixpath.basename(name))
        if split is None or place.offset or place.zipped is not None:
            places[name] = place
            continue
        official = True
        try:
            members, _ = tar_members(Path(place.file))
        except (tarfile.TarError, OSError) as error:
            raise BadSource(f"{place.file} is damaged ({error}): fetch it again") from None
        base = PurePosixPath(name).parent
        places |= {str(base / split / member): where for member, where in members.items()}
    return places, official


def _with_devkit(source: Source, pictures: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Give ILSVRC's flat validation pictures their classes, if the devkit is there. Returns WNID -> what it means.

    The ground truth numbers classes by ILSVRC2012_ID, which is not the order of the WNIDs: meta.mat joins the two.
    """
    devkit = _devkit(source)
    if devkit is None:
        return {}
    synsets, truth = devkit
    for name in [name for name, where in pictures.items() if where == ("val", "")]:
        number = re.search(r"(\d+)\.\w+$", name)
        if number is None or not 1 <= int(number[1]) <= len(truth):
            raise BadSource(f"the devkit has no class for {name}: it names {len(truth):,} validation pictures")
        pictures[name] = ("val", synsets[truth[int(number[1]) - 1]][0])
    return dict(synsets.values())


def _devkit(source: Source) -> tuple[dict[int, tuple[str, str]], list[int]] | None:
    """ILSVRC2012_ID -> (WNID, words), and the ID of each validation picture; None if the source has no devkit."""
    files: dict[str, bytes] = {}
    for name in source.names():
        base = posixpath.basename(name)
        if base in (TRUTH, META):
            files[base] = source.read(name)
        elif base == DEVKIT:
            try:
                with tarfile.open(fileobj=io.BytesIO(source.read(name))) as archive:
                    for member in archive:
                        inner, file = posixpath.basename(member.name), archive.extractfile(member)
                        if file is not None and inner in (TRUTH, META):
                            files[inner] = file.read()
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise BadSource(f"{name} is damaged ({error}): fetch it again") from None
    if not {TRUTH, META} <= set(files):
        return None
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(files[META]), squeeze_me=True)["synsets"])
        ids, wnids, words = (_column(synsets, key) for key in ("ILSVRC2012_ID", "WNID", "words"))
        known = {int(i): (wnid.strip(), said.strip()) for i, wnid, said in zip(ids, wnids, words, strict=True)}
        truth = [int(line) for line in files[TRUTH].split()]
        unknown = set(truth) - set(known)
    except Exception as error:  # loadmat raises anything on damaged files
        raise BadSource(f"the devkit's {META} or {TRUTH} is damaged ({error}): fetch it again") from None
    if unknown:
        raise BadSource(f"the devkit's {TRUTH} names classes that {META} has not: {shown(map(str, unknown))}")
    return known, truth


def _column(synsets: np.ndarray, key: str) -> list[str]:
    return [str(value) for one in synsets[key] for value in np.atleast_1d(one)]


# CIFAR-10's python archive


class _PlainUnpickler(pickle.Unpickler):
    """Numpy arrays and plain types; a pickle that names anything else could run any program, and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # what NumPy itself names, under whichever module's name
        raise BadSource(
            f"it asks for {module}.{name}, which no CIFAR archive needs: it may be malicious, and is refused"
        )


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _unpickle(source: Source, name: str) -> dict[bytes, Any]:
    try:
        content = _PlainUnpickler(io.BytesIO(source.read(name)), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("no dictionary")
    except BadSource as error:
        raise BadSource(f"{source.path}: {name}: {error}") from None
    except (BadPicture, Exception) as error:  # a damaged pickle raises anything
        raise BadSource(f"{source.path}: {name} is damaged ({error}): fetch it again") from None
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


def _cifar(source: Source, scratch: Path | None) -> Found | None:
    """CIFAR-10, its pixels written as PPM pictures into one temporary file; None if the source is something else."""
    by_base = {posixpath.basename(name): name for name in sorted(source.names()) if not is_hidden(name)}
    batches = sorted(base for base in by_base if re.fullmatch(r"data_batch_\d+|test_batch", base))
    if "batches.meta" not in by_base or not batches:
        return None
    classes = [_text(name) for name in _unpickle(source, by_base["batches.meta"]).get(b"label_names", [])]
    file = temporary_file(scratch)
    pictures, places, position = {}, {}, 0
    for base in batches:
        rows, labels, names = _batch(source, by_base[base], len(classes))
        for pixels, label, name in zip(rows, labels, names, strict=True):
            content = b"P6 32 32 255\n" + pixels.reshape(3, 32, 32).transpose(1, 2, 0).tobytes()
            file.write(content)
            name = f"{base}/{name}"
            places[name] = Place(file.name, position, len(content), len(content), str(zlib.crc32(content)))
            pictures[name] = ("val" if base == "test_batch" else "train", classes[label])
            position += len(content)
    file.flush()
    source.scratch.append(file)
    empty = set(classes) - {label for split, label in pictures.values() if split == "train"}
    if empty:
        raise BadSource(f"{source.path}: no training pictures of {shown(empty)}")
    has_val = "test_batch" in batches
    return Found(layout="cifar-10", classes=classes, pictures=pictures, places=places, has_val=has_val)


def _batch(source: Source, name: str, classes: int) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels (N, 3072) uint8, labels and names of one of CIFAR's batches. Raises BadSource."""
    content = _unpickle(source, name)
    rows, labels = content.get(b"data"), content.get(b"labels")
    names = content.get(b"filenames") or [f"{row:05d}.png" for row in range(len(labels or []))]
    if (
        not isinstance(rows, np.ndarray)
        or rows.dtype != np.uint8
        or not isinstance(labels, list)
        or rows.shape != (len(labels), 3072)
        or len(names) != len(labels)
        or not all(isinstance(label, int) and 0 <= label < classes for label in labels)
    ):
        raise BadSource(f"{source.path}: {name} is damaged: it does not hold pictures of 3072 bytes with their labels")
    if len(set(names)) < len(names):
        names = [f"{row:05d}.png" for row in range(len(labels))]
    return rows, labels, [_text(name) for name in names]


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
