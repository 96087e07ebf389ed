"""CIFAR-10's pickles: what Python 2 and 3 make of it is read, and all else is refused before it does harm."""

import pickle
from pathlib import Path

import pytest
from pictures import cifar, write_folder

from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import open_source
from alexnet_cli.errors import BadSource


def listed(path: Path) -> Listing:
    return list_pictures(open_source(path))


NESTED = b")" + b"2\x86" * 60  # a tuple of itself twice, 60 levels deep: its hash takes 2^60 steps
STORED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # the same by way of the memo
COPIED = b"X\xe8\x03\x00\x00" + b"x" * 1000 + b"q\x00c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"Nr" + (60_000_000).to_bytes(4, "little") + b".", "not a dictionary"),  # a place in the memo
        (b"}(" + NESTED + b"K\x01u.", "the instruction EMPTY_TUPLE, which it never has"),
        (b"}(" + STORED + b"K\x01u.", "the instruction EMPTY_TUPLE, which it never has"),
        (b"}(K\x00" + b"2\x86" * 60 + b"K\x01u.", "the instruction DUP, which it never has"),
        (b"}(K\x00q\x00" + STORED[3:] + b"K\x01u.", "a key that is no text"),
        (b"K\x00q\x00" + STORED[3:] + b"}h\x00K\x01s.", "a key that is no text"),
        (b"}(K\x01K\x02u.", "a key that is no text"),  # numbers can be chosen so that their hashes are the same
        (b"K\x00q\x00" + STORED[3:] + b"h\x00\x93.", "a function without a name"),
        (COPIED + b"]" + b"h\x01h\x00h\x02\x86Ra" * 1000 + b".", "texts that would take memory"),
        (b"}X\x03\x00\x00\x00\xed\xa0\x80K\x01s.", "'utf-8' codec can't encode character '\\ud800' in position 0: "),
        (b"K\x01K\x01K\x01\x87R.", "too few values"),
        (b"K\x01K\x02R.", "a call of what is no function"),
        (b"K\x01K\x02a.", "no list where one is to be filled"),
        (b"cnumpy.core.multiarray\n_reconstruct\nNRK\x01b.", "cannot unpack non-iterable int object"),
        (b".", "not enough values to unpack (expected 1, got 0)"),
        (b"u.", "pop from empty list"),
        (b"", "pickle exhausted before seeing STOP"),
    ],
)
def test_a_pickle_of_cifar_that_is_hostile_ends_at_once(program: bytes, reason: str, tmp_path: Path) -> None:
    content = cifar() | {"cifar-10-batches-py/data_batch_1": b"\x80\x02" + program}
    path = write_folder(tmp_path / "cifar", content)
    with pytest.raises(BadSource) as raised:
        listed(path)
    said = str(raised.value)
    assert said.startswith(f"{path}: cifar-10-batches-py/data_batch_1 is damaged ({reason}")
    assert said.endswith("): download it again")


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("is_bytes", [True, False])
def test_cifar_pickled_by_any_python(protocol: int, is_bytes: bool, tmp_path: Path) -> None:
    content = {name: pickle.loads(pickled) for name, pickled in cifar().items()}  # noqa: S301 - made here
    if not is_bytes:
        content = {name: {key.decode(): value for key, value in held.items()} for name, held in content.items()}
    pickled = {name: pickle.dumps(held, protocol) for name, held in content.items()}
    source = open_source(write_folder(tmp_path / "cifar", pickled))
    listing = list_pictures(source)
    assert listing.classes == ["zebra", "aeroplane"]
    assert [entry.label for entry in listing.entries] == [0, 1, 1, 0] * 3
    red = read_location(listing.entries[0].location)[-3:]
    assert (red[0] >= 200, red[1:]) == (True, bytes(2))


def test_cifars_own_pickles_by_python_2(tmp_path: Path) -> None:
    """The instructions of the archive that people download."""
    meta = b"\x80\x02}q\x01(U\x13num_cases_per_batchq\x02M\x10'U\x0blabel_namesq\x03]q\x04(U\x03catq\x05U\x03dogq\x06e"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02M\x00"
    )
    kind = (
        b"\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\t(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb\x89"
    )
    data = kind + b"T\x00\x18\x00\x00" + bytes(3072) + b"\xff" * 3072 + b"tb"
    batch = b"\x80\x02}q\x01(U\x06labelsq\x03]q\x04(K\x00K\x01eU\x04dataq\n" + array + data
    batch += b"U\tfilenamesq\x0b]q\x0c(U\x05a.pngq\rU\x05b.pngq\x0eeu."
    folder = {f"c/{name}": batch for name in ("data_batch_1", "test_batch")} | {"c/batches.meta": meta + b"u."}
    source = open_source(write_folder(tmp_path / "cifar", folder))
    listing = list_pictures(source)
    assert listing.classes == ["cat", "dog"]
    assert [entry.name for entry in listing.entries[:2]] == ["data_batch_1/a.png", "data_batch_1/b.png"]
    assert [read_location(entry.location)[-3072:] for entry in listing.entries[:2]] == [bytes(3072), b"\xff" * 3072]


LABELLED = "it must hold pictures of 3072 bytes and their labels"
NAMED = "it must hold the names of the classes, each once"


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("data_batch_1", {b"filenames": 5}, LABELLED),
        ("data_batch_1", {b"filenames": "abcd"}, LABELLED),
        ("data_batch_1", {b"filenames": dict.fromkeys("abcd")}, LABELLED),
        ("data_batch_1", {b"filenames": ["a.png"]}, LABELLED),
        ("data_batch_1", {b"filenames": None, b"labels": 5}, LABELLED),
        ("data_batch_1", {b"labels": [0, 1, 2, 0]}, LABELLED),
        ("data_batch_1", {b"labels": [True, False, False, False]}, LABELLED),
        ("data_batch_1", {b"data": [1]}, LABELLED),
        *(("batches.meta", {b"label_names": found}, NAMED) for found in (5, None, [], "ab", {"a": 1}, ["a", 5])),
        ("batches.meta", {b"label_names": ["a", b"a"]}, NAMED),
        ("batches.meta", {b"label_names": ["a", ""]}, NAMED),
    ],
)
def test_pickles_of_cifar_that_hold_other_things_are_damaged(name, changes, reason, tmp_path: Path) -> None:
    content = cifar()
    held = pickle.loads(content[f"cifar-10-batches-py/{name}"]) | changes  # noqa: S301 - made here
    content[f"cifar-10-batches-py/{name}"] = pickle.dumps(held, protocol=2)
    path = write_folder(tmp_path / "cifar", content)
    with pytest.raises(BadSource) as raised:
        listed(path)
    assert str(raised.value) == f"{path}: cifar-10-batches-py/{name} is damaged: {reason}"


def test_names_of_cifars_classes_are_shown_and_never_paths(tmp_path: Path) -> None:
    content = cifar()
    held = {b"label_names": [b"../../\x1b[2J", b"/etc/a\nb"]}
    content["cifar-10-batches-py/batches.meta"] = pickle.dumps(held, protocol=2)
    packed = prepare(write_folder(tmp_path / "cifar", content), tmp_path / "data" / "c", size=16, workers=1)
    assert packed.dataset.classes == ["../../\x1b[2J", "/etc/a\nb"]
    assert {path.name for path in tmp_path.iterdir()} == {"cifar", "data"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"c"}
