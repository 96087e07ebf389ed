"""Folders and archives are read in place, and each picture gets its split and class."""

import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import (
    cifar,
    devkit,
    encoded,
    files,
    ilsvrc_train,
    ilsvrc_val,
    pixels,
    write_folder,
    write_ilsvrc,
    write_tar,
    write_zip,
)

from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.layouts.matlab import read_struct
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import Source, open_source
from alexnet_cli.errors import BadPicture, BadSource


def listed(source: Source | Path, fraction: float | None = None) -> Listing:
    return list_pictures(open_source(source) if isinstance(source, Path) else source, fraction)


def count(listing: Listing) -> Counter[tuple[str, str]]:
    return Counter((entry.split, listing.classes[entry.label]) for entry in listing.entries)


def write(kind: str, root: Path, content: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_folder(root / "source", content)
    if kind == "zip":
        return write_zip(root / "source.zip", content)
    if kind == "stored zip":
        return write_zip(root / "source.zip", content, zipfile.ZIP_STORED)
    return write_tar(root / f"source.{kind}", content, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])


@pytest.mark.parametrize("wrapper", ["", "photos/", "./a/b/"])
@pytest.mark.parametrize("kind", ["folder", "zip", "stored zip", "tar", "tar.gz", "tar.xz"])
def test_every_kind_of_source_with_splits(kind: str, wrapper: str, tmp_path: Path) -> None:
    content = files(prefix=f"{wrapper}train/") | files(count=2, prefix=f"{wrapper}val/")
    content |= {"__MACOSX/train/cats/._1.png": b"x", f"{wrapper}train/.DS_Store": b"x", f"{wrapper}read.txt": b"x"}
    source = open_source(write(kind, tmp_path, content))
    listing = listed(source)
    assert listing.layout == "folders"
    assert listing.classes == ["cats", "dogs"]
    assert count(listing) == {
        ("train", "cats"): 5,
        ("train", "dogs"): 5,
        ("val", "cats"): 2,
        ("val", "dogs"): 2,
    }
    for entry in listing.entries:
        assert read_location(entry.location) in content.values()
        assert source.read(entry.name) == read_location(entry.location)


def test_without_splits_a_tenth_of_each_class_is_held_out_and_always_the_same(tmp_path: Path) -> None:
    content = files(("a", "b", "c"), 20)
    by_folder, by_zip = listed(write("folder", tmp_path, content)), listed(write("zip", tmp_path, content))
    assert count(by_folder) == {(s, c): n for c in "abc" for s, n in (("train", 18), ("val", 2))}
    assert [(e.split, e.label, e.name) for e in by_folder.entries] == [
        (e.split, e.label, e.name) for e in by_zip.entries
    ]
    assert by_folder.notes == ["6 training pictures (10% of each class, at least one) are held out for validation"]


def test_a_given_fraction_replaces_the_validation_split(tmp_path: Path) -> None:
    source = write("zip", tmp_path, files(prefix="train/") | files(count=4, prefix="val/"))
    tuned = listed(source, 0.4)
    assert count(tuned) == {("train", "cats"): 3, ("train", "dogs"): 3, ("val", "cats"): 2, ("val", "dogs"): 2}
    assert all(entry.name.startswith("train/") for entry in tuned.entries)
    assert "left out" in tuned.notes[0]
    assert {split for split, _ in count(listed(source, 0.0))} == {"train"}


def test_flat_folder_is_one_class_without_validation(tmp_path: Path) -> None:
    listing = listed(write_folder(tmp_path / "s", {f"{i}.png": encoded(pixels(i)) for i in range(3)}))
    assert (listing.layout, listing.classes) == ("flat", ["unlabelled"])
    assert count(listing) == {("train", "unlabelled"): 3}


def test_in_class_folders_anything_may_be_a_picture_and_a_test_split_stays(tmp_path: Path) -> None:
    content = files(prefix="train/") | files(count=1, prefix="val/") | files(count=2, prefix="test/")
    content |= {"train/cats/odd.dat": b"x", "train/cats/Thumbs.db": b"x", "train/dogs/deep/plain": b"x"}
    listing = listed(write_folder(tmp_path / "s", content))
    assert count(listing)["train", "cats"] == 6
    assert count(listing)["train", "dogs"] == 6
    assert count(listing)["test", "dogs"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"read.txt": b"x"}, "no pictures in"),
        (files() | {"birds/note": b""}, None),
        (files(prefix="val/"), r"no training pictures: there is val/, but no folder train"),
        (files(prefix="train/") | files(("cows",), prefix="val/"), "classes without training pictures: cows"),
        (files(prefix="train/") | {"val/1.JPEG": b"x"}, "1 val pictures are in no class folder.*devkit_t12.tar.gz"),
        (
            files(("a",), prefix="train/") | files(("b", "c"), prefix="test/") | {"val/1.JPEG": b"x"},
            r"^1 val pictures are in no class folder.*; classes without training pictures: b, c$",
        ),
    ],
)
def test_pictures_of_unknown_class_are_refused(content: dict[str, bytes], message: str | None, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", content)
    if message is None:
        assert "birds" in listed(source).classes
        return
    with pytest.raises(BadSource, match=message):
        listed(source)


@pytest.mark.parametrize("empty", ["cows", "train/cows", "val/cows", "val"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_an_empty_class_is_left_out_and_an_empty_split_is_an_error(kind: str, empty: str, tmp_path: Path) -> None:
    content = files(prefix="train/" if "train" in empty or "val" in empty else "")
    if empty == "val/cows":
        content |= files(prefix="val/")
    source = write_folder(tmp_path / "s", content)
    (source / empty).mkdir(parents=True)
    if kind == "zip":
        source = write_zip(tmp_path / "s.zip", content | {f"{empty}/": b""})
    elif kind == "tar":
        import tarfile

        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            archive.add(source, ".")
        source = tmp_path / "s.tar"
    if empty == "val":
        with pytest.raises(BadSource, match="no pictures in val/: add some"):
            listed(source)
        return
    listing = listed(source)
    assert listing.classes == ["cats", "dogs"]
    assert f"no pictures in 1 class folder: {empty}" in listing.notes


def test_pictures_beside_the_class_folders_are_left_out_with_a_note(tmp_path: Path) -> None:
    loose = {"1.png": b"x", "2.png": b"x", "3.png": b"x", "4.png": b"x"}
    listing = listed(write_folder(tmp_path / "s", files(count=20) | loose))
    assert len(listing.entries) == 40
    assert listing.classes == ["cats", "dogs"]
    assert listing.notes == [
        "4 pictures are in no class folder and left out: 1.png, 2.png, 3.png and 1 more",
        "4 training pictures (10% of each class, at least one) are held out for validation",
    ]
    listing = listed(write_folder(tmp_path / "t", files(prefix="train/") | files(prefix="val/") | {"val/1.png": b"x"}))
    assert count(listing)["val", "cats"] == 5
    assert listing.notes == ["1 picture is in no class folder and left out: val/1.png"]


def test_small_classes_are_told_of_once(tmp_path: Path) -> None:
    content = files(("a", "b"), 12) | files(("c", "d", "e", "f"), 9) | files(("g", "h"), 1)
    assert listed(write_folder(tmp_path / "s", content)).notes[1:] == [
        "4 classes have fewer than 10 pictures, which is little to learn from: c, d, e and 1 more",
        "2 classes have only one picture, so none to validate: g, h",
    ]
    assert listed(write_folder(tmp_path / "t", files(("a", "b"), 1))).notes == [
        "no validation split: each class has only one picture"
    ]


def test_a_missing_foreign_or_damaged_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no folder or archive at"):
        open_source(tmp_path / "none")
    (tmp_path / "text.zip").write_bytes(b"no zip")
    (tmp_path / "one.JPEG").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    with pytest.raises(BadSource, match=r"one\.JPEG is one picture: name a folder of pictures$"):
        open_source(tmp_path / "one.JPEG")
    (tmp_path / "one.CR2").write_bytes(b"II*\0 and what a camera writes")
    with pytest.raises(BadSource, match=r"one\.CR2 is one picture: name a folder of pictures$"):
        open_source(tmp_path / "one.CR2")
    with pytest.raises(BadSource, match="neither a folder nor a"):
        open_source(tmp_path / "text.zip")
    whole = write_tar(tmp_path / "whole.tar", files()).read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: 2 * len(whole) // 5])
    with pytest.raises(BadSource, match="damaged"):
        open_source(tmp_path / "half.tar")
    packed = write_tar(tmp_path / "whole.tgz", files(), "w:gz").read_bytes()
    (tmp_path / "half.tgz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadSource, match="damaged"):
        open_source(tmp_path / "half.tgz")


@pytest.mark.parametrize("evil", ["../../evil.png", "/tmp/evil.png", "a/../../evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_outside_are_harmless(kind: str, evil: str, tmp_path: Path) -> None:
    listing = listed(write(kind, tmp_path, files() | {evil: encoded(pixels(1))}))
    assert listing.rejected == [(evil, "its name leads out of the archive")]
    assert len(listing.entries) == 10


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", files(("cats",)))
    write_folder(tmp_path / "elsewhere", files(("dogs",)))
    os.symlink(tmp_path / "elsewhere" / "dogs", source / "dogs")
    os.symlink(source, source / "cats" / "loop")
    os.symlink(tmp_path / "nowhere.png", source / "cats" / "broken.png")
    listing = listed(source, 0.0)
    assert count(listing) == {("train", "cats"): 6, ("train", "dogs"): 5}
    broken = next(entry for entry in listing.entries if "broken" in entry.name)
    with pytest.raises(BadPicture, match="no such file"):
        read_location(broken.location)


def test_a_member_damaged_in_its_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", files(), zipfile.ZIP_STORED)
    location = open_source(path).locations["cats/3.png"]
    data = bytearray(path.read_bytes())
    data[location.offset + 80] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadPicture, match="checksum"):
        read_location(location)
    with pytest.raises(BadPicture, match="file is truncated"):
        read_location(location._replace(compression=None, stored_size=10**6, size=10**6))
    with pytest.raises(BadPicture, match="encrypted"):
        read_location(location._replace(refusal="encrypted"))
    with pytest.raises(BadPicture, match="more than"):
        read_location(location._replace(size=2**40))


def labels_by_colour(listing: Listing) -> dict[str, set[str]]:
    """Class -> the strongest of red, green and blue in each of its pictures."""
    found: dict[str, set[str]] = {}
    for entry in listing.entries:
        colour = "rgb"[int(load_picture(read_location(entry.location), 8).mean(axis=(0, 1)).argmax())]
        found.setdefault(listing.classes[entry.label], set()).add(colour)
    return found


@pytest.mark.parametrize("layout", ["tars", "folders", "train tar, val folder", "unpacked devkit"])
def test_ilsvrc_labels_by_wnid_not_by_the_devkits_numbers(layout: str, tmp_path: Path) -> None:
    source = write_ilsvrc(tmp_path / "imagenet")
    if layout == "folders":
        (source / "ILSVRC2012_img_train.tar").unlink()
        write_folder(source / "train", ilsvrc_train())
    if layout in ("folders", "train tar, val folder"):
        (source / "ILSVRC2012_img_val.tar").unlink()
        write_folder(source / "val", ilsvrc_val())
    if layout == "unpacked devkit":
        (source / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        write_folder(source, devkit())
    listing = listed(source)
    assert listing.layout == "ilsvrc-2012"
    assert listing.classes == ["n01", "n02", "n03"]
    assert listing.words["n02"] == "words of n02"
    assert count(listing) == {(split, c): n for c in listing.classes for split, n in (("train", 3), ("val", 2))}
    assert labels_by_colour(listing) == {"n01": {"r"}, "n02": {"g"}, "n03": {"b"}}


def test_ilsvrc_without_its_devkit_or_with_a_damaged_one(tmp_path: Path) -> None:
    source = write_ilsvrc(tmp_path / "imagenet")
    kit = source / "ILSVRC2012_devkit_t12.tar.gz"
    kit.write_bytes(kit.read_bytes()[:50])
    with pytest.raises(BadSource, match=r"devkit_t12\.tar.gz is damaged"):
        listed(source)
    kit.unlink()
    with pytest.raises(
        BadSource, match=r"6 val pictures are in no class folder.*ILSVRC-2012, add ILSVRC2012_devkit_t12.tar.gz$"
    ):
        listed(source)


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "folder"])
def test_cifar10(kind: str, tmp_path: Path) -> None:
    listing = listed(source := open_source(write(kind, tmp_path, cifar())))
    assert (listing.layout, listing.classes) == ("cifar-10", ["zebra", "aeroplane"])
    assert count(listing) == {(split, c): n for c in listing.classes for split, n in (("train", 4), ("val", 2))}
    assert labels_by_colour(listing) == {"zebra": {"r"}, "aeroplane": {"b"}}
    assert listing.entries[-1].name == "test_batch/p3.png"
    location = listing.entries[0].location
    source.close()
    assert not Path(location.file).exists()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_cifar_pickle_runs_nothing(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "cifar.tar.gz", cifar(Evil(tmp_path / "ran")), "w:gz")
    with pytest.raises(BadSource, match=r"asks for posix\.system.*refused"):
        listed(source)
    assert not (tmp_path / "ran").exists()
    content = cifar()
    content["cifar-10-batches-py/data_batch_1"] = pickle.dumps({b"data": [1], b"labels": [0]})
    with pytest.raises(BadSource, match="data_batch_1 is damaged"):
        listed(write_tar(tmp_path / "odd.tar", content))


def test_whatever_names_hold_a_message_is_one_line(tmp_path: Path) -> None:
    content = files(prefix="train/") | files(count=2, prefix="val/") | {"ex\ntras/\x1b[2J\u202e.png": b"x"}
    listing = listed(write_folder(tmp_path / "s", content))
    assert listing.notes[0] == r"1 pictures outside train/ and val/ are left out: ex\ntras/\x1b[2J\u202e.png"
    listing = listed(write_tar(tmp_path / "s.tar", files() | {"../e\nvil.png": b"x"}))
    assert listing.rejected == [(r"../e\nvil.png", "its name leads out of the archive")]
    listing = listed(write_folder(tmp_path / "t", files() | {"lo\rose.png": b"x"}))
    assert listing.notes[0] == r"1 picture is in no class folder and left out: lo\rose.png"
    with pytest.raises(BadSource) as raised:
        open_source(tmp_path / "no\nthing")
    assert str(raised.value) == rf"no folder or archive at {tmp_path}/no\nthing"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", files())
    os.mkfifo(source / "cats" / "fifo.png")  # without a writer, reading it would block
    entries = {entry.name: entry.location for entry in listed(source).entries}
    with pytest.raises(BadPicture, match=r"^not a regular file$"):
        read_location(entries["cats/fifo.png"])
    with pytest.raises(BadSource, match=r"fifo\.png is neither a folder nor a regular file$"):
        open_source(source / "cats" / "fifo.png")


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_matlab_file_is_read_as_scipy_reads_it(is_compressed: bool, tmp_path: Path) -> None:
    from scipy.io import loadmat, savemat

    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("children", "O"), ("empty", "O")]
    rows = [(i, f"n{i:08d}", f"word, schön {'x' * i}", np.arange(i), np.zeros((0, 0))) for i in (1, 2, 300)]
    savemat(tmp_path / "m.mat", {"synsets": np.array(rows, dtype=fields)}, do_compression=is_compressed)
    name, found = read_struct((tmp_path / "m.mat").read_bytes())
    wanted = loadmat(tmp_path / "m.mat", squeeze_me=True)["synsets"]
    assert name == "synsets"
    for row, same in zip(found, wanted, strict=True):
        assert (row["ILSVRC2012_ID"], row["WNID"], row["words"]) == tuple(same)[:3]


def test_a_link_to_itself_is_one_bad_picture(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "photos", {f"{name}/{i}.png": b"x" for name in ("cats", "dogs") for i in range(3)})
    (source / "cats" / "loop.png").symlink_to("loop.png")
    listing = list_pictures(open_source(source))
    assert len(listing.entries) == 7
