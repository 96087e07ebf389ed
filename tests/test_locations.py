"""Locations and entries: compact for 15 million pictures, and what they held comes out again."""

import pickle
import random
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import cifar, devkit, tar_bytes, write_tar, write_zip

from alexnet_cli.data import archives
from alexnet_cli.data import prepare as prepare_module
from alexnet_cli.data.images import STORES
from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.listing import Entries
from alexnet_cli.data.locations import Location, Locations, read_location
from alexnet_cli.data.prepare import Plan
from alexnet_cli.data.sources import open_source
from alexnet_cli.errors import BadPicture, BadSource


def plan_of(source: Path, fraction: float | None = None) -> Plan:
    """All that prep knows before it packs."""
    listing = list_pictures(open_source(source), fraction)
    return prepare_module._plan(source, source.with_name("packed"), 16, STORES["raw"], listing, "skip")


def write(kind: str, path: Path, count: int) -> Path:
    """An archive of ``count`` pictures, or ILSVRC-2012's, with names as long as ImageNet's."""
    by_class = {
        wnid: {f"n0000000{i % 3 + 1}_{i}.JPEG": b"x" for i in range(count) if f"n0{i % 3 + 1}" == wnid}
        for wnid in ("n03", "n01", "n02")
    }
    if kind == "ilsvrc":
        path.mkdir()
        write_tar(path / "ILSVRC2012_img_train.tar", {f"{wnid}.tar": tar_bytes(of) for wnid, of in by_class.items()})
        write_tar(path / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{i:08d}.JPEG": b"x" for i in range(1, 7)})
        write_tar(path / "ILSVRC2012_devkit_t12.tar.gz", devkit(), "w:gz")
        return path
    content = {f"train/n0000000{wnid}/{name}": data for wnid, of in by_class.items() for name, data in of.items()}
    return (write_tar if kind == "tar" else write_zip)(path, content)


@pytest.mark.parametrize(("kind", "fraction"), [("ilsvrc", None), ("tar", 0.1), ("zip", None)])
def test_a_picture_takes_less_than_250_bytes_before_it_is_packed(
    kind: str, fraction: float | None, tmp_path: Path, monkeypatch
) -> None:
    """At the peak, of all that Python allocates, so that 15 million fit in 4 GB; as objects they would take 12."""
    monkeypatch.setattr(archives, "COPIED", 2**12)  # a megabyte for a moment would hide what 2,000 pictures take
    peaks = []
    for count in (500, 2000):
        source = write(kind, tmp_path / f"{count}", count)
        tracemalloc.start()
        try:
            plan = plan_of(source, fraction)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert sum(len(chunk.entries) for chunk in plan.chunks) >= count
    assert (peaks[1] - peaks[0]) / 1500 < 250


def test_a_worker_is_sent_its_own_pictures_only(tmp_path: Path) -> None:
    for chunk in plan_of(write_zip(tmp_path / "p.zip", {f"{i:04d}.png": b"x" for i in range(600)})).chunks:
        sent = pickle.dumps(chunk)
        assert sent.count(b".png") == len(chunk.entries)
        assert list(pickle.loads(sent).entries) == list(chunk.entries)  # noqa: S301 - made here


def test_what_was_added_is_found_by_name_and_in_order() -> None:
    names = [
        "a",
        "a.png",
        "a/b.png",
        "ä/ü.png",
        "a\udcff.png",
        "z\n.png",
        "",
        "😀",
        "\ue000",
        *map(str, range(99)),
    ]
    added = {
        name: Location(
            file=f"photos/{name}" if i % 2 else "photos.zip",
            offset=i * 2**40,
            stored_size=i,
            size=2**62 - i,
            mark=1.7e9 + i / 8,
            compression=(None, 0, 8, 65535)[i % 4],
            name_crc=2**32 - 1 - i,
            refusal=("", "encrypted")[i % 2],
        )
        for i, name in enumerate(names)
    }
    locations = Locations()
    for name in random.Random(0).sample(names, len(names)):
        locations.add(name, added[name])
    assert locations.sort() == []
    assert dict(locations) == added
    assert list(locations) == sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))
    assert [locations.row(name) for name in locations] == list(range(len(names)))
    for absent in ("b", "a.pn", "a.png2", "\U0010ffff"):
        assert absent not in locations
        with pytest.raises(KeyError):
            locations[absent]


@pytest.mark.parametrize(
    ("file", "name"),
    [("photos/a.png", "a.png"), ("photos.tar", "s.tar"), ("./photos.tar", "photos.tar"), ("/a", "a"), ("a", "a")],
)
def test_a_file_is_told_apart_from_an_archive_that_ends_like_its_member(file: str, name: str) -> None:
    locations = Locations()
    locations.add(name, Location(file, 0, 1, 1, 0))
    locations.sort()
    assert locations[name].file == file


def test_entries_are_a_sequence() -> None:
    locations = Locations()
    for name in "dcba":
        locations.add(name, Location("photos.tar", ord(name), 1, 1, 0))
    locations.sort()
    entries = Entries.of(locations, [("b", "train", 3), ("a", "val", 0), ("d", "test", -1)])
    found = [(entry.name, entry.split, entry.label, entry.location.offset) for entry in entries]
    assert found == [("b", "train", 3, 98), ("a", "val", 0, 97), ("d", "test", -1, 100)]
    assert [entries[i] for i in range(-3, 3)] == [*entries, *entries]
    assert list(entries[1:]) == list(entries)[1:]
    assert list(entries.where(np.array([2, 0]))) == [entries[2], entries[0]]
    with pytest.raises(KeyError):
        Entries.of(locations, [("e", "train", 0)])


# Names that an archive has twice


def test_of_a_name_that_a_tar_has_twice_the_last_counts(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"cats/1.png": b"first", "cats/2.png": b"other"})
    (tmp_path / "1.png").write_bytes(b"second")
    with tarfile.open(path, "a") as archive:
        archive.add(tmp_path / "1.png", "cats/1.png")
    assert [read_location(entry.location) for entry in list_pictures(open_source(path), 0.0).entries] == [
        b"second",
        b"other",
    ]


def test_a_zip_that_has_a_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("cats/1.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cats/1.png", b"second")
    with pytest.raises(BadSource, match=r"damaged or cut short \(two members are called 'cats/1\.png'\)"):
        open_source(tmp_path / "s.zip")


@pytest.mark.parametrize("inside", ["", "inner.tar"])
def test_hard_links_in_a_tar_are_their_targets(inside: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"cats/1.png": b"one"})
    links = {"cats/2.png": "cats/1.png", "cats/3.png": "cats/2.png", "cats/4.png": "gone.png", "cats/readme": "gone"}
    with tarfile.open(path, "a") as archive:
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    if inside:
        path = write_tar(tmp_path / "outer.tar", {inside: path.read_bytes()})
    locations, folder = open_source(path).locations, inside.replace(".tar", "/")
    for i in (1, 2, 3):
        assert read_location(locations[f"{folder}cats/{i}.png"]) == b"one"
    with pytest.raises(BadPicture, match=r"^a link or a device in a tar, not a picture$"):
        read_location(locations[f"{folder}cats/4.png"])
    assert len(locations) == 4


def test_pictures_of_cifar_whose_names_become_the_same_are_kept_apart(tmp_path: Path) -> None:
    content = cifar()
    batch = pickle.loads(content["cifar-10-batches-py/data_batch_1"])  # noqa: S301 - made here
    batch[b"filenames"] = [b"\xfe.png", b"\xff.png", b"3.png", "\ud800.png"]
    content["cifar-10-batches-py/data_batch_1"] = pickle.dumps(batch, protocol=2)
    entries = list_pictures(open_source(write_tar(tmp_path / "s.tar", content))).entries
    assert [entry.name for entry in entries[:4]] == [f"data_batch_1/{i:05d}.png" for i in range(4)]
    assert [entry.label for entry in entries[:4]] == [0, 1, 1, 0]


def test_a_name_with_a_zero_in_it_is_damage(tmp_path: Path) -> None:
    """Only a tar can have one, among the facts about a member that its header has no place for."""
    member = tarfile.TarInfo("cats/1.png")
    member.pax_headers = {"path": "cats/1\0.png"}
    (tmp_path / "s.tar").write_bytes(member.tobuf(tarfile.PAX_FORMAT) + bytes(2 * tarfile.BLOCKSIZE))
    with pytest.raises(BadSource, match="damaged or cut short at byte 0"):
        open_source(tmp_path / "s.tar")
