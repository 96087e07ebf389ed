"""A packed dataset is read correctly, or refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import files, write_zip

from alexnet_cli.data import shards
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadArtefact


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(shards, "SHARD_SIZE", 4)
    source = write_zip(tmp_path / "p.zip", files(count=9, prefix="train/") | files(count=3, prefix="val/"))
    return prepare(source, tmp_path / "p", size=16, workers=1).dataset


def test_any_positions_in_any_order(dataset: Dataset) -> None:
    train = dataset.split("train")
    assert len(train) == len(train.labels) == len(train.names) == 18
    whole = np.concatenate([np.load(dataset.path / f"train-0000{i}.npy") for i in range(5)])
    order = np.random.default_rng(0).permutation(18)
    assert np.array_equal(train.read(order), whole[order])
    assert np.array_equal(train.read(np.array([17, 0, 0, 4])), whole[[17, 0, 0, 4]])
    out = np.empty((18, 16, 16, 3), np.uint8)
    assert train.read(order, out=out) is out
    assert np.array_equal(out, whole[order])
    assert train.read(np.array([], np.int64)).shape == (0, 16, 16, 3)
    for wrong in ([18], [-1]):
        with pytest.raises(IndexError, match="positions must be 0 to 17"):
            train.read(np.array(wrong))


def test_unknown_split(dataset: Dataset) -> None:
    with pytest.raises(BadArtefact, match="dataset p has no split 'test': it has train and val"):
        dataset.split("test")


def test_the_fingerprint_is_of_images_labels_and_classes(dataset: Dataset, tmp_path: Path) -> None:
    again = write_zip(tmp_path / "q.zip", files(count=9, prefix="train/") | files(count=3, prefix="val/"))
    other = write_zip(tmp_path / "r.zip", files(("cats", "cows"), 9, "train/") | files(("cats", "cows"), 3, "val/"))
    assert prepare(again, tmp_path / "q", size=16).dataset.fingerprint == dataset.fingerprint
    assert prepare(other, tmp_path / "r", size=16).dataset.fingerprint != dataset.fingerprint


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_damaged_or_newer_datasets_are_refused(dataset: Dataset) -> None:
    path = dataset.path
    for name, damage, message in (
        ("train-00001.npy", lambda f: f.write_bytes(f.read_bytes()[:500]), "train-00001.npy is missing or damaged"),
        ("train-00001.npy", lambda f: f.unlink(), "train-00001.npy is missing or damaged"),
        ("train-00001.npy", lambda f: np.save(f, np.zeros((3, 16, 16, 3), np.uint8)), "does not hold its 4 images"),
        ("train-00001.json", lambda f: f.unlink(), "it has no train-00001.json"),
        ("train-00001.json", lambda f: f.write_text("{"), "train-00001.json is damaged"),
        ("train-00001.json", lambda f: f.write_text("{}"), "train-00001.json is damaged"),
        ("dataset.json", lambda f: f.write_text("["), "dataset.json is damaged"),
        ("dataset.json", lambda f: f.unlink(), "is not a dataset: it has no dataset.json"),
        (
            "dataset.json",
            lambda f: change(f, format=99),
            "has format version 99, this program reads up to 1: upgrade",
        ),
        ("dataset.json", lambda f: change(f, classes=None), "damaged .no 'classes'.: prep the dataset again"),
        ("dataset.json", lambda f: change(f, counts={"train": 17, "val": 6}), "train has 18 images, not 17"),
    ):
        file = path / name
        before = file.read_bytes()
        damage(file)
        with pytest.raises(BadArtefact, match=message):
            Dataset.open(path).split("train")
        file.write_bytes(before)
    assert len(Dataset.open(path).split("train")) == 18


def test_damaged_statistics_are_refused(dataset: Dataset) -> None:
    (dataset.path / "statistics.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BadArtefact, match=r"statistics\.safetensors is missing or damaged"):
        dataset.statistics()
