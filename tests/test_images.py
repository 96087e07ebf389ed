"""Datasets that keep JPEGs: what they hold, that packing resumes, what damage does, and that the rest works on them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import NARROW, SIZE
from pictures import pixels
from PIL import Image

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data import chunks, packing
from alexnet_cli.data.images import Jpegs, Pixels
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import file_checksum, write_json
from alexnet_cli.training.train import train


@pytest.fixture(scope="module")
def jpegs(source, tmp_path_factory) -> Dataset:
    """The pictures of ``source``, packed as JPEGs; not to be changed."""
    folder = tmp_path_factory.mktemp("jpegs") / "data" / "colours"
    return prepare(source, folder, size=SIZE, workers=1, store="jpeg").dataset


def every(dataset: Dataset, split: str) -> np.ndarray:
    images = dataset.split(split)
    return images.read(np.arange(len(images)))


def files_of(dataset: Dataset) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(dataset.path.iterdir()) if file.name[0] != "."}


def test_the_images_are_nearly_those_that_are_kept_as_pixels(packed, jpegs):
    assert jpegs.store == "jpeg"
    assert jpegs.fingerprint != packed.fingerprint
    assert (jpegs.counts, jpegs.classes) == (packed.counts, packed.classes)
    for split in ("train", "val"):
        pixels, again = every(packed, split).astype(int), every(jpegs, split).astype(int)
        assert 0 < np.abs(pixels - again).mean() < 5  # of noise, which a JPEG keeps worst
        assert np.array_equal(jpegs.split(split).labels, packed.split(split).labels)
        assert jpegs.split(split).names[:] == packed.split(split).names[:]


def test_a_file_of_the_split_is_jpegs_one_after_the_other_that_others_decode_alike(jpegs):
    content, ends = (jpegs.path / "train.jpegs").read_bytes(), np.load(jpegs.path / "train.ends.npy")
    assert int(ends[-1]) == len(content) == jpegs.split("train").bytes
    for i, image in enumerate(every(jpegs, "train")):
        part = content[int(ends[i - 1]) if i else 0 : int(ends[i])]
        path = jpegs.path.parent / "one.jpg"
        path.write_bytes(part)
        assert np.abs(np.asarray(Image.open(path)).astype(int) - image).max() <= 1


def test_statistics_are_those_of_what_is_read_again(jpegs):
    wanted = Sums.from_images(every(jpegs, "train")).statistics()
    found = jpegs.statistics()
    assert np.array_equal(found.mean_image, wanted.mean_image)
    assert np.array_equal(found.eigenvalues, wanted.eigenvalues)


def test_what_jpegs_take_and_change_is_told(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prep", str(source), "--size", str(SIZE), "--workers", "1", "--store", "jpeg"]) == 0
    said = capsys.readouterr().err
    dataset = Dataset.open(tmp_path / "data" / "colours")
    pixels = [np.asarray(image) for image in (every(dataset, "train"), every(dataset, "val"))]
    kilobytes = sum((dataset.path / f"{split}.jpegs").stat().st_size for split in ("train", "val")) / 63 / 1000
    share = kilobytes * 1000 / pixels[0][0].nbytes
    raw = prepare(source, tmp_path / "raw", size=SIZE, workers=1).dataset
    differences = [
        np.abs(every(raw, split) - one.astype(int)) for split, one in zip(("train", "val"), pixels, strict=True)
    ]
    mean = np.concatenate(differences).mean()
    assert (
        f"kept as JPEGs: {kilobytes:.1f} kB a picture, {share:.0%} of its pixels; they differ by {mean:.2f} grey"
        in said
    )
    assert main(["info", "colours"]) == 0
    assert "kept as JPEGs" in " ".join(capsys.readouterr().out.replace("│", "").split())
    assert main(["prep", str(source), "--size", str(SIZE), "--workers", "1"]) == 1
    assert "is a dataset of other pictures or settings" in capsys.readouterr().err


@pytest.mark.parametrize("stop_after", [1, 3])
def test_packing_resumes_to_the_same_bytes(source, jpegs, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 8)
    whole = prepare(source, tmp_path / "whole", size=SIZE, workers=1, store="jpeg").dataset
    calls, pack = [], packing.pack_chunk

    def stopping(chunk):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(chunk)
        pack(chunk)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "pack_chunk", stopping)
        with pytest.raises(Exception, match="stopped"):
            prepare(source, tmp_path / "stopped", size=SIZE, workers=1, store="jpeg")
    next((tmp_path / "stopped" / "packing").glob("*.jpegs")).write_bytes(b"cut")  # a chunk that the disk has lost
    stopped = prepare(source, tmp_path / "stopped", size=SIZE, workers=1, store="jpeg").dataset
    assert files_of(stopped).keys() == files_of(whole).keys()
    for name in files_of(whole):
        if name != "dataset.json":
            assert files_of(stopped)[name] == files_of(whole)[name], name
    assert np.array_equal(every(whole, "train"), every(jpegs, "train"))


def test_a_picture_that_is_added_makes_the_next_dataset(source, tmp_path):
    first = prepare(source, tmp_path / "d", size=SIZE, workers=1, store="jpeg").dataset
    extra = source / "train" / "red" / "more.png"
    try:
        Image.new("RGB", (80, 80), (200, 9, 9)).save(extra)
        second = prepare(source, tmp_path / "d", size=SIZE, workers=1, store="jpeg").dataset
    finally:
        extra.unlink()
    assert second.counts["train"] == first.counts["train"] + 1
    second.verify()
    assert not list((tmp_path / "d").glob(".*")) or all(file.is_file() for file in (tmp_path / "d").glob(".*"))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_damage_is_found(source, tmp_path):
    dataset = prepare(source, tmp_path / "d", size=SIZE, workers=1, store="jpeg").dataset
    dataset.verify()
    file, ends = dataset.file("train.jpegs"), np.load(dataset.file("train.ends.npy"))
    flip(file, int(ends[4]) + 300)
    with pytest.raises(
        BadArtefact, match=r"train.jpegs is damaged: the picture .*05.png differs: prep the dataset again"
    ):
        every(dataset, "train")
    with pytest.raises(BadArtefact, match=r"train.jpegs is damaged"):
        Dataset.open(dataset.path).verify()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        BadArtefact, match=r"train.jpegs is damaged \(it has .* bytes, not .*\): prep the dataset again"
    ):
        Dataset.open(dataset.path)
    file.unlink()
    with pytest.raises(BadArtefact, match=r"train.jpegs is missing: prep the dataset again"):
        Dataset.open(dataset.path)
    mended = prepare(source, tmp_path / "d", size=SIZE, workers=1, store="jpeg").dataset
    mended.verify()
    flip(mended.file("val.ends.npy"), 4100)
    with pytest.raises(BadArtefact, match=r"val.ends.npy is damaged \(its checksum differs\)"):
        Dataset.open(mended.path)


@pytest.mark.parametrize("forged", ["size", "order", "no jpeg"])
def test_a_forged_dataset_is_refused(forged, source, tmp_path):
    """Its checksums are right, as whoever forged it would see to."""
    from alexnet_cli.data.store import content_checksum

    dataset = prepare(source, tmp_path / "d", size=SIZE, workers=1, store="jpeg").dataset
    file = dataset.file("train.jpegs")
    images = Jpegs(dataset.path / "train", dataset.slots["train"], SIZE)
    start, length = images.extent(0, 0)
    content = bytearray(file.read_bytes())
    if forged == "size":  # a JPEG that says it is larger than the images are
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = b"\xff\xff\xff\xff"
    elif forged == "no jpeg":
        content[start : start + length] = bytes(length)
    file.write_bytes(content)
    ends = np.load(dataset.file("train.ends.npy"))
    if forged == "order":
        ends[0] = ends[5]
    checksums = np.load(dataset.file("train.checksums.npy"))
    import xxhash

    checksums[0] = xxhash.xxh3_64_intdigest(bytes(content[start : start + length]))
    for name, array in (("train.ends.npy", ends), ("train.checksums.npy", checksums)):
        raw = bytearray(dataset.file(name).read_bytes())
        raw[4096:] = array.tobytes()
        dataset.file(name).write_bytes(raw)
    facts = json.loads((dataset.path / "dataset.json").read_text())
    for name in ("train.ends.npy", "train.checksums.npy"):
        facts["checksums"][name] = file_checksum(dataset.file(name))
    facts["checksum"] = content_checksum(facts)
    write_json(dataset.path / "dataset.json", facts)
    with pytest.raises(BadArtefact, match="is damaged"):
        every(Dataset.open(dataset.path), "train")


def test_a_model_of_it_says_so_and_the_errors_too(jpegs, tmp_path, capsys):
    recipe = recipes.load("small-data", [*NARROW, "training.epochs=1"])
    model = train(jpegs, recipe, tmp_path / "models" / "m")
    assert model.provenance["dataset_store"] == "jpeg"
    assert f"(fingerprint `{jpegs.fingerprint}`, kept as JPEGs)" in (tmp_path / "models/m/MODEL_CARD.md").read_text()
    command = ["eval", "m", "--data", str(jpegs.path), "--views", "1", "--workspace", str(tmp_path)]
    assert main(command) == 0
    assert "colours keeps its images as JPEGs" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["store"] == "jpeg"


def test_the_next_window_is_asked_for_where_it_lies(jpegs, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, advice: asked.append((start, length)))
    split, ends = jpegs.split("train"), np.load(jpegs.path / "train.ends.npy").astype(int)
    split.will_read(np.array([0, 1, 2, 7, 9, 10]))
    wanted = [(0, ends[2]), (ends[6], ends[7] - ends[6]), (ends[8], ends[10] - ends[8])]
    assert asked == wanted


def test_pictures_that_were_refused_count_for_nothing(tmp_path):
    black = np.zeros((2, 256, 256, 3), np.uint8)
    assert not Jpegs.encode(black).images.any()
    assert Jpegs.encode(black).difference == Pixels.encode(black).difference == 0


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_images_that_the_disk_has_lost_before_the_end_are_packed_again(store, tmp_path, monkeypatch, capsys):
    """Only those that may be in both splits are read then: the others are found by --verify, or when they are read."""
    image = Image.fromarray(pixels(3, 80, 80))
    for split, count in (("train", 4), ("val", 1)):
        for name in ("a", "b"):
            for i in range(count):
                path = tmp_path / "photos" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                (image if i == 0 else Image.fromarray(pixels(9 + i + ord(name), 80, 80))).save(path)
    command = ["prep", str(tmp_path / "photos"), "d", "--size", "64", "--workers", "1", "--store", store]
    command += ["--workspace", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_cli.data.prepare._finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # before the files are merged
            prepare(tmp_path / "photos", tmp_path / "data" / "d", size=64, workers=1, store=store)
    file = tmp_path / "data" / "d" / ("val.npy" if store == "raw" else "packing/val-000000000.jpegs")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    capsys.readouterr()
    assert main(command) == 1
    assert "run the same command again, which packs its pictures again" in capsys.readouterr().err
    assert main(command) == 0
    Dataset.open(tmp_path / "data" / "d").verify()


@pytest.mark.parametrize("store", [["jpeg"], {}, None, "png"])
def test_a_store_that_there_is_none_of_is_damage(store, jpegs, tmp_path):
    facts = json.loads((jpegs.path / "dataset.json").read_text()) | {"store": store}
    write_json(tmp_path / "dataset.json", facts)
    with pytest.raises(BadArtefact, match=r"dataset.json is damaged \(its store cannot be "):
        Dataset.open(tmp_path)
