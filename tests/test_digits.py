"""Digits: MNIST's idx files, written here as their format says, and scikit-learn's digits."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import write_folder, write_tar, write_zip
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.data import near
from alexnet_cli.data.layouts import list_pictures
from alexnet_cli.data.layouts.digits import enlarged
from alexnet_cli.data.layouts.listing import Listing
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import open_source
from alexnet_cli.errors import BadSource


def idx(values: np.ndarray) -> bytes:
    """An idx file: two zeros, 8 for unsigned bytes, the number of dimensions, each as 32 bits, then the values."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">i", extent) for extent in values.shape)
    return header + b"".join(int(value).to_bytes(1) for value in values.flat)


def numbers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 28, 28) and the labels 0, 1, 2 ... 9, 0, 1 ..."""
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    return pictures, (np.arange(count) % 10).astype(np.uint8)


TRAIN, TEST = numbers(21), numbers(11, seed=1)
MNIST = {
    "train-images-idx3-ubyte": idx(TRAIN[0]),
    "train-labels-idx1-ubyte": idx(TRAIN[1]),
    "t10k-images-idx3-ubyte": idx(TEST[0]),
    "t10k-labels-idx1-ubyte": idx(TEST[1]),
}


def zipped(content: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in content.items()}


def listed(path: Path, val_fraction: float | None = None) -> Listing:
    return list_pictures(open_source(path), val_fraction)


FORMS = {
    "folder": lambda root: write_folder(root, MNIST),
    "gzipped, in a folder": lambda root: write_folder(root, zipped(MNIST)),
    "both, as torchvision leaves them": lambda root: write_folder(
        root, {f"MNIST/raw/{name}": data for name, data in (MNIST | dict.fromkeys(zipped(MNIST), b"not read")).items()}
    ),
    "a dot before idx, in a zip": lambda root: write_zip(
        root.with_suffix(".zip"), {name.replace("-idx", ".idx"): data for name, data in MNIST.items()}
    ),
    "gzipped, in a tar": lambda root: write_tar(root.with_suffix(".tar"), zipped(MNIST)),
}


@pytest.mark.parametrize("form", FORMS)
def test_mnists_files_are_packed_with_a_border_of_two_black_pixels(form, tmp_path):
    source = FORMS[form](tmp_path / "mnist")
    dataset = prepare(source, tmp_path / "data", workers=1).dataset
    assert (dataset.source["layout"], dataset.image_size, dataset.classes) == ("mnist", 32, [*"0123456789"])
    for name, (pictures, labels) in {"train": TRAIN, "val": TEST}.items():
        split = dataset.split(name)
        expected = np.zeros((len(pictures), 32, 32, 3), np.uint8)
        expected[:, 2:30, 2:30] = pictures[..., None]
        np.testing.assert_array_equal(split.read(np.arange(len(split))), expected)
        np.testing.assert_array_equal(split.labels, labels)
    assert dataset.split("val").names[3] == "t10k/00003.pgm"


def test_at_another_size_the_bordered_picture_is_resized(tmp_path):
    source = write_folder(tmp_path / "mnist", MNIST | {"train-images-idx3-ubyte": idx(np.full((21, 28, 28), 200))})
    (first, *_) = prepare(source, tmp_path / "data", size=64, workers=1).dataset.split("train").read(np.arange(1))
    assert (first[:3].max(), first[8:56, 8:56].min(), first[32, 32].tolist()) == (0, 200, [200, 200, 200])


def test_the_validation_split_of_mnist_is_its_own_unless_a_fraction_is_given(tmp_path):
    source = write_folder(tmp_path / "mnist", MNIST)
    half = [10, 11]  # of the training pictures: 2 of the 3 zeros, 1 of the 2 ones ...
    assert np.bincount(listed(source).entries.table["split"]).tolist() == [21, 11]
    assert np.bincount(listed(source, 0.5).entries.table["split"]).tolist() == half
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (source / name).unlink()
    assert np.bincount(listed(source, 0.5).entries.table["split"]).tolist() == half
    assert np.bincount(listed(source).entries.table["split"]).tolist() == [11, 10]  # a tenth: one at least


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PIXELS = MNIST[IMAGES]
HEADER = "its header is not that of {} of a byte each"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (IMAGES, b"", "unpack requires a buffer of 16 bytes"),
        (IMAGES, PIXELS[:-1], "fewer bytes than its header says"),
        (IMAGES, PIXELS + b"\0", "more bytes than its header says"),
        (IMAGES, b"\0\0\x0d\x03" + PIXELS[4:], HEADER.format("28×28 pictures")),
        (IMAGES, idx(TRAIN[0][:, :, :27]), HEADER.format("28×28 pictures")),
        (IMAGES, MNIST[LABELS] + bytes(8), HEADER.format("28×28 pictures")),
        (LABELS, PIXELS, HEADER.format("labels")),
        (IMAGES, b"\0\0\x08\x03\xff\xff\xff\xff\0\0\0\x1c\0\0\0\x1c", "its header says 3,367,254,359,280 bytes, and "),
        (f"{IMAGES}.gz", PIXELS, "Not a gzipped file (b'\\x00\\x00')"),
        (f"{IMAGES}.gz", gzip.compress(PIXELS)[:-9], "Compressed file ended before the end-of-stream marker was "),
        (f"{IMAGES}.gz", gzip.compress(PIXELS + bytes(2**24)), "more bytes than its header says"),
        (f"{IMAGES}.gz", gzip.compress(PIXELS)[:-8] + bytes(8), "CRC check failed 0x0 != 0x"),
    ],
)
def test_a_damaged_idx_file_is_one_line(name, content, reason, tmp_path):
    files = {key: data for key, data in MNIST.items() if key != name.removesuffix(".gz")} | {name: content}
    source = write_folder(tmp_path / "mnist", files)
    with pytest.raises(BadSource) as raised:
        listed(source)
    said = str(raised.value)
    assert said.startswith(f"{source}: {name} is damaged ({reason}")
    assert said.endswith("): download it again")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({LABELS: None}, f": {LABELS} is missing: add it to {IMAGES}"),
        ({"t10k-images-idx3-ubyte": None}, ": t10k-images-idx3-ubyte is missing: add it to t10k-labels-idx1-ubyte"),
        ({LABELS: idx(TRAIN[1][:-1])}, f": {IMAGES} has 21 pictures, {LABELS} 20 labels"),
        ({LABELS: idx(TRAIN[1] + 1)}, f": {LABELS} is damaged: it has the label 10"),
        ({LABELS: idx(TRAIN[1] % 8)}, ": classes without training pictures: 8, 9"),
        ({IMAGES: None, LABELS: None}, ": classes without training pictures: 0, 1, 2 and 7 more"),
        (
            {"FashionMNIST/raw/train-images-idx3-ubyte": PIXELS},
            " has idx files in several folders (., FashionMNIST/raw): name one of them",
        ),
    ],
)
def test_idx_files_that_do_not_fit_together_are_refused(changes, reason, tmp_path):
    files = {name: data for name, data in (MNIST | changes).items() if data is not None}
    source = write_folder(tmp_path / "mnist", files)
    with pytest.raises(BadSource) as raised:
        listed(source)
    assert str(raised.value) == f"{source}{reason}"


def test_scikit_learns_digits_are_a_source_by_name(tmp_path, monkeypatch, capsys):
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    assert main(["prep", "digits"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("packed data/digits: 1,287 train, 510 val pictures, 10 classes, 0 rejected\n")
    assert "nearly the same" not in told.err
    dataset = prepare(Path("digits"), Path("data/digits"), workers=1).dataset  # there already
    assert (dataset.source["layout"], dataset.image_size) == ("digits", 32)
    bunch = load_digits()
    labels = [dataset.split(name).labels for name in ("train", "val")]
    np.testing.assert_array_equal(np.concatenate(labels), bunch.target)
    images = np.concatenate([dataset.split(name).read(np.arange(len(dataset.split(name)))) for name in dataset.counts])
    assert not images[:, [0, 1, 2, -3, -2, -1]].any()  # black around it
    np.testing.assert_array_equal(images[..., :1].repeat(3, 3), images)
    for row in (0, 1000, 1796):  # back to 8×8 cells of 2.5 pixels each
        small = Image.fromarray(images[row, 6:26, 6:26, 0]).resize((8, 8), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(small).ravel(), bunch.images[row].ravel())[0, 1] > 0.97


def test_a_folder_called_digits_is_that_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("digits"), {"readme.txt": b"nothing here"})
    assert main(["prep", "digits"]) == 1
    assert capsys.readouterr().err.startswith("error: no pictures in digits: ")


def test_digits_that_are_alike_are_no_near_duplicates_but_equal_ones_are():
    from sklearn.datasets import load_digits

    images = np.stack([enlarged(values) for values in load_digits().images[:150]])[..., None].repeat(3, 3)
    pairs = near.candidates(near.hashes(images[:100]), near.hashes(images[100:]))
    assert len(pairs) > 20
    train, val = images[[pair.train for pair in pairs]], images[[100 + pair.val for pair in pairs]]
    assert not near.are_near(train, val).any()
    assert near.are_near(train, train).all()
