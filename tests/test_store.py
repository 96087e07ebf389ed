"""A packed dataset is read correctly, or refused in one line; an error of the system is told as itself."""

import json
import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx_files import SIZE, write_onnx
from pictures import files, write_zip

from alexnet_cli.commands import main
from alexnet_cli.data import arrays, chunks
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset, content_checksum
from alexnet_cli.errors import BadArtefact
from alexnet_cli.retrieval.collection import PackedCollection


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 4)
    content = files(count=9, prefix="train/") | files(count=3, prefix="val/")
    content |= {"train/cats/3.png": b"text", "val/dogs/2.png": b""}
    return prepare(write_zip(tmp_path / "p.zip", content), tmp_path / "p", size=16, workers=1).dataset


def test_files_that_numpy_reads(dataset: Dataset) -> None:
    """Slots of rejected pictures: no label, pixels 0."""
    images = np.load(dataset.path / "train.npy", mmap_mode="r")
    labels = np.load(dataset.path / "train.labels.npy")
    assert (images.shape, images.dtype, labels.dtype) == ((18, 16, 16, 3), np.uint8, np.int32)
    assert labels.tolist() == [0, 0, 0, -1, *[0] * 5, *[1] * 9]
    assert not images[3].any()
    assert images[2].any()
    names = (dataset.path / "train.names").read_bytes().split(b"\0")
    assert (names[3], names[-1], len(names)) == (b"train/cats/3.png", b"", 19)
    assert np.load(dataset.path / "train.checksums.npy")[3] == 0


def test_any_positions_in_any_order(dataset: Dataset) -> None:
    train = dataset.split("train")
    assert len(train) == len(train.labels) == len(train.names) == 17
    whole = np.delete(np.load(dataset.path / "train.npy"), 3, axis=0)
    order = np.random.default_rng(0).permutation(17)
    assert np.array_equal(train.read(order), whole[order])
    assert np.array_equal(train.read(np.array([16, 0, 0, 3])), whole[[16, 0, 0, 3]])
    assert train.read(np.array([], np.int64)).shape == (0, 16, 16, 3)
    for wrong in ([17], [-1]):
        with pytest.raises(IndexError, match="positions must be 0 to 16"):
            train.read(np.array(wrong))


def test_names_are_a_sequence(dataset: Dataset) -> None:
    names = dataset.split("train").names
    expected = [name for name in files(count=9, prefix="train/") if name != "train/cats/3.png"]
    assert list(names) == expected
    assert names[2:5] == expected[2:5]
    assert (names[0], names[-1], names[np.int64(3)]) == (expected[0], expected[-1], expected[3])
    assert "train/dogs/0.png" in names
    with pytest.raises(IndexError):
        names[17]


def test_unknown_split(dataset: Dataset) -> None:
    with pytest.raises(BadArtefact, match="dataset p has no split 'test': it has train and val"):
        dataset.split("test")


def test_the_fingerprint_is_of_images_labels_and_classes(tmp_path: Path) -> None:
    def fingerprint(name: str, content: dict[str, bytes]) -> str:
        return prepare(write_zip(tmp_path / f"{name}.zip", content), tmp_path / name, size=16).dataset.fingerprint

    one = files(count=9, prefix="train/") | files(count=3, prefix="val/")
    renamed = {name.replace(".png", ".PNG"): file for name, file in one.items()}
    assert fingerprint("p", one) == fingerprint("q", renamed)
    other = files(("cats", "cows"), 9, "train/") | files(("cats", "cows"), 3, "val/")
    swapped = one | {"train/cats/0.png": one["train/cats/1.png"]}
    assert len({fingerprint("p", one), fingerprint("r", other), fingerprint("s", swapped)}) == 3


def change(path: Path, **changes: object) -> None:
    """Change dataset.json, with a checksum that is right: what is wrong is the value."""
    content = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(content | {"checksum": content_checksum(content)}))


def flip(path: Path, byte: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


Damage = Callable[[Path], object]
ON_OPENING: list[tuple[str, Damage, str]] = [
    ("train.npy", lambda f: f.write_bytes(b""), "train.npy is damaged (it has 0 bytes, not those of 18 pictures)"),
    ("train.npy", lambda f: f.unlink(), "train.npy is missing"),
    ("train.npy", lambda f: flip(f, 30), "train.npy is damaged (its header is not that of 18 pictures)"),
    ("train.labels.npy", flip, "train.labels.npy is damaged (its checksum differs)"),
    ("train.labels.npy", lambda f: np.save(f, np.zeros(18)), "train.labels.npy is damaged (it has 272 bytes"),
    ("val.checksums.npy", flip, "val.checksums.npy is damaged (its checksum differs)"),
    ("val.checksums.npy", lambda f: f.unlink(), "val.checksums.npy is missing"),
    ("statistics.safetensors", flip, "statistics.safetensors is damaged (its checksum differs)"),
    ("statistics.safetensors", lambda f: f.unlink(), "statistics.safetensors is missing"),
    ("dataset.json", lambda f: f.write_text("["), "dataset.json is damaged"),
    ("dataset.json", lambda f: f.write_text("[]"), "dataset.json is damaged"),
    ("dataset.json", lambda f: f.unlink(), "is not a dataset: it has no dataset.json"),
    ("dataset.json", lambda f: change(f, format=99), "has format version 99, this program reads up to 3: upgrade"),
    ("dataset.json", lambda f: change(f, format=1), "has format version 1, this program reads 3"),
    ("dataset.json", lambda f: change(f, classes=None), "is damaged (it has no classes)"),
    ("dataset.json", lambda f: change(f, classes=[1]), "is damaged (its classes cannot be '[1]')"),
    ("dataset.json", lambda f: change(f, image_size=10**9), "is damaged (its image_size cannot be '1000000000')"),
    ("dataset.json", lambda f: change(f, image_size=-16), "is damaged (its image_size cannot be '-16')"),
    ("dataset.json", lambda f: change(f, image_size="16"), "is damaged (its image_size cannot be '16')"),
    ("dataset.json", lambda f: change(f, image_size=True), "is damaged (its image_size cannot be 'True')"),
    ("dataset.json", lambda f: change(f, image_size=32), "train.npy is damaged (it has 17,920 bytes"),
    ("dataset.json", lambda f: change(f, counts={"val": 5}), "is damaged (its counts cannot be"),
    ("dataset.json", lambda f: change(f, counts={"train": 99, "val": 5}), "its counts and slots differ"),
    ("dataset.json", lambda f: change(f, slots={"train": 10**15, "val": 6}), "is damaged (its slots cannot be"),
    ("dataset.json", lambda f: change(f, slots={"train": 10**12, "val": 6}), "train.npy is damaged (it has"),
    ("dataset.json", lambda f: change(f, source="x"), "is damaged (its source cannot be 'x')"),
    ("dataset.json", lambda f: change(f, checksums={}), "is damaged (its checksum differs)"),
    ("dataset.json", lambda f: f.write_text(f.read_text().replace("cats", "cows")), "(its checksum differs)"),
]


@pytest.mark.parametrize(("name", "damage", "message"), ON_OPENING)
def test_a_dataset_that_is_damaged_or_of_another_format_is_refused(dataset, name, damage, message) -> None:
    damage(dataset.path / name)
    tracemalloc.start()
    with pytest.raises(BadArtefact) as refused:
        Dataset.open(dataset.path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": {"train": 16, "val": 5}}, "train.labels.npy is damaged (its labels are not those of dataset.json)"),
        ({"classes": ["cats"]}, "train.labels.npy is damaged (its labels are not those of dataset.json)"),
    ],
)
def test_labels_fit_their_classes_and_counts(dataset: Dataset, changes: dict[str, object], message: str) -> None:
    change(dataset.path / "dataset.json", **changes)
    with pytest.raises(BadArtefact) as refused:
        Dataset.open(dataset.path).split("train")
    assert message in str(refused.value)


def zeros(path: Path) -> None:
    """Every pixel 0, as a disk may leave them."""
    path.write_bytes(path.read_bytes()[: arrays.HEADER_SIZE].ljust(path.stat().st_size, b"\0"))


def test_images_that_are_zeros_are_refused_wherever_they_are_read(dataset: Dataset) -> None:
    zeros(dataset.path / "val.npy")
    flip(dataset.path / "train.npy")
    opened = Dataset.open(dataset.path)
    with pytest.raises(BadArtefact) as refused:
        opened.split("val").read(np.arange(2))
    message = "val.npy is damaged: the picture val/cats/0.png differs: prep the dataset again"
    assert str(refused.value) == f"{dataset.path}/{message}"
    train = opened.split("train")
    assert len(train.read(np.arange(16))) == 16  # those before the last are sound
    with pytest.raises(BadArtefact, match=r"train\.npy is damaged: the picture train/dogs/8\.png differs"):
        train.read(np.array([16]))
    (dataset.path / "train.names").unlink()
    with pytest.raises(BadArtefact, match=r"train\.npy is damaged: the picture number 16 differs"):
        Dataset.open(dataset.path).split("train").read(np.array([16]))


def test_every_command_refuses_pictures_that_are_zeros(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("m.onnx"), classes=["cats", "dogs"])
    folder = prepare(write_zip(Path("p.zip"), files(count=9)), Path("data/p"), size=SIZE, workers=1).dataset.path
    for split in ("train", "val"):
        zeros(folder / f"{split}.npy")
    capsys.readouterr()
    for words, file in (
        (["eval", "m.onnx", "--data", "p"], "val.npy"),
        (["index", "p", "--model", "m.onnx"], "train.npy"),
        (["train", "p", "--recipe", "figure-1-relu", "--epochs", "1"], "train.npy"),
    ):
        assert main(words) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        said = shown.err.splitlines()[-1]
        assert said.startswith(f"error: data/p/{file} is damaged: the picture ")
        assert said.endswith(" differs: prep the dataset again")


def test_a_file_that_became_shorter_after_opening_is_refused(dataset: Dataset) -> None:
    split = dataset.split("train")
    os.truncate(dataset.path / "train.npy", arrays.HEADER_SIZE + 900)
    with pytest.raises(BadArtefact, match=r"the picture train/cats/1\.png differs"):
        split.read(np.array([1]))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train.npy", flip, "train.npy is damaged: the picture train/dogs/8.png differs"),
        ("val.npy", zeros, "val.npy is damaged: the picture val/cats/0.png differs"),
        ("val.names", flip, "val.names is damaged (its checksum differs)"),
        ("val.names", lambda f: f.unlink(), "val.names is missing"),
        ("rejected.csv", flip, "rejected.csv is damaged (its checksum differs)"),
        ("rejected.csv", lambda f: f.unlink(), "rejected.csv is missing"),
    ],
)
def test_verify_checks_all_the_rest(dataset: Dataset, name: str, damage: Damage, message: str) -> None:
    Dataset.open(dataset.path).verify()
    damage(dataset.path / name)
    with pytest.raises(BadArtefact) as refused:
        Dataset.open(dataset.path).verify()
    assert message in str(refused.value)
    assert str(refused.value).endswith(": prep the dataset again")


@contextmanager
def open_files(free: int) -> Iterator[None]:
    """``free`` more files may be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_error_of_the_system_is_told_as_itself(dataset: Dataset, capsys, monkeypatch) -> None:
    with open_files(0), pytest.raises(OSError, match="Too many open files"):
        Dataset.open(dataset.path)
    split = dataset.split("train")
    with open_files(0), pytest.raises(OSError, match=r"Too many open files: '.*train\.npy'"):
        split.read(np.arange(2))
    (dataset.path / "train.labels.npy").unlink()
    (dataset.path / "train.labels.npy").symlink_to("train.labels.npy")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Dataset.open(dataset.path)


def test_few_files_are_open_whatever_the_size(dataset: Dataset) -> None:
    """Five chunks and two splits: no file for each chunk."""
    before = set(os.listdir("/proc/self/fd"))
    splits = [dataset.split(name) for name in ("train", "val")]
    for split in splits:
        split.read(np.arange(5))
        list(split.names)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 8  # the files of two splits
    assert len(list(dataset.path.iterdir())) == 11
    del split, splits
    assert set(os.listdir("/proc/self/fd")) <= before


def test_names_and_labels_are_not_held_in_python(tmp_path: Path) -> None:
    """A dataset of one million names, which would be 90 MB of strings."""
    names = tmp_path / "names"
    names.write_bytes(b"".join(b"n01440764/n01440764_%08d.JPEG\0" % i for i in range(1_000_000)))
    from alexnet_cli.data.store import Names
    from alexnet_cli.files import file_checksum

    tracemalloc.start()
    opened = Names(names, 1_000_000, None, file_checksum(names))
    assert opened[987_654] == "n01440764/n01440764_00987654.JPEG"
    assert tracemalloc.get_traced_memory()[1] < 26e6  # 8 bytes a picture where names end, twice while they are joined
    tracemalloc.stop()


def test_an_empty_file_is_an_error_and_no_interruption(dataset: Dataset, capsys) -> None:
    (dataset.path / "val.npy").write_bytes(b"")
    assert main(["info", str(dataset.path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {dataset.path}/val.npy is damaged (it has 0 bytes, not those of 6 pictures): prep the dataset again\n"
    )


def test_pictures_of_a_dataset_are_found_by_name(dataset: Dataset) -> None:
    collection = PackedCollection(dataset)
    listed = collection.all()
    assert [picture.name for picture in listed] == list(dataset.split("train").names)
    assert {(picture.name.split("/")[1], picture.label) for picture in listed} == {("cats", "cats"), ("dogs", "dogs")}
    images = dataset.split("train").read(np.arange(17))
    gone, one, other = collection.load(["no/such.png", listed[16].name, listed[2].name], 16)
    assert gone == "not in the dataset any more"
    assert np.array_equal(one, images[16])
    assert np.array_equal(other, images[2])
