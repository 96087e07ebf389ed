"""`alexnet prep`: from a source to a packed dataset, also after bad pictures, full disks and interruptions."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import cifar, encoded, files, pixels, write_folder, write_ilsvrc, write_tar, write_zip

from alexnet_cli import commands
from alexnet_cli.commands import main
from alexnet_cli.console import Console
from alexnet_cli.data import arrays, chunks, images, layouts, packing
from alexnet_cli.data import prepare as prepare_module
from alexnet_cli.data.images import STORES
from alexnet_cli.data.layouts.listing import Entries, Listing
from alexnet_cli.data.locations import Location, Locations
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import Source
from alexnet_cli.data.statistics import Sums
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadSource, Interrupted

SIZE = ["--size", "16"]
FILES = {
    *("dataset.json", "rejected.csv", "statistics.safetensors"),
    *(
        f"{split}{suffix}"
        for split in ("train", "val")
        for suffix in (".npy", ".labels.npy", ".checksums.npy", ".names")
    ),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "photos.zip", files(count=9, prefix="train/") | files(count=3, prefix="val/"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 4)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def flip(path: Path, byte: int = -1) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[byte] ^= 4
    path.write_bytes(damaged)


def stopped(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves that packed all pictures and was killed then."""

    def killed(*_: object) -> None:
        raise Interrupted("killed")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_finish", killed)
        with pytest.raises(Interrupted, match="killed"):
            prepare(source, folder, size=16, workers=1)


def test_packs_a_zip_and_names_the_next_command(source: Path, capsys) -> None:
    assert main(["prep", str(source), *SIZE]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "packed data/photos: 18 train, 6 val pictures, 2 classes, 0 rejected",
        "dataset photos has pictures of 16 pixels, and no recipe here takes such: prep with --size 256 or --size 32, "
        "or name a recipe of your own with --recipe",
        "Next, with a recipe of your own for RECIPE.toml: alexnet train photos --recipe RECIPE.toml",
    ]
    assert "packing: 24 of 24" in shown.err
    dataset = Dataset.open(Path("data/photos"))
    assert (dataset.classes, dataset.counts, dataset.image_size) == (["cats", "dogs"], {"train": 18, "val": 6}, 16)
    assert dataset.source == {"path": str(source), "absolute": str(source.resolve()), "layout": "folders"}
    train = dataset.split("train")
    for name, label, image in zip(train.names, train.labels, train.read(np.arange(18)), strict=True):
        assert name.split("/")[1] == dataset.classes[label]
        original = files(count=9, prefix="train/")[name]
        assert np.array_equal(image, load_picture(original, 16))
    assert {file.name for file in Path("data/photos").iterdir()} == FILES


def test_json_is_one_object_and_nothing_else_on_standard_output(source: Path, capsys) -> None:
    assert main(["prep", str(source), "mine", "--json", *SIZE]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("images_per_second") > 0
    assert found == {
        "dataset": "mine",
        "splits": {"train": 18, "val": 6},
        "classes": ["cats", "dogs"],
        "rejected": 0,
        "left_out": [],
    }


def test_default_size_is_256(tmp_path: Path) -> None:
    main(["prep", str(write_zip(tmp_path / "p.zip", files(count=1)))])
    dataset = Dataset.open(Path("data/p"))
    assert dataset.split("train").read(np.array([1, 0])).shape == (2, 256, 256, 3)
    assert dataset.statistics().mean_image.shape == (256, 256, 3)


def test_mean_image_and_colour_pca_are_those_of_the_training_pictures(source: Path, small_chunks) -> None:
    dataset = prepare(source, Path("data/photos"), size=16, workers=1).dataset
    images = dataset.split("train").read(np.arange(18)).astype(np.float64)
    found, colours = dataset.statistics(), images.reshape(-1, 3)
    assert np.array_equal(found.mean_image, images.mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(found.mean_colour, colours.mean(axis=0), rtol=1e-6)
    covariance = np.cov(colours, rowvar=False, bias=True)
    vectors = found.eigenvectors.astype(np.float64)
    np.testing.assert_allclose(vectors @ np.diag(found.eigenvalues) @ vectors.T, covariance, rtol=1e-4, atol=1e-3)
    assert found.eigenvalues[0] >= found.eigenvalues[1] >= found.eigenvalues[2] >= 0
    assert (vectors.sum(axis=0) > 0).all()


@pytest.mark.parametrize("size", [5, 256, 300])
def test_sums_are_exact_and_can_be_added_in_any_order(size: int) -> None:
    images = np.random.default_rng(0).integers(240, 256, (7, size, size, 3), dtype=np.uint8)
    whole, parts = Sums.from_images(images), Sums.from_images(images[5:])
    parts.add(Sums.from_tensors(5, Sums.from_images(images[:5]).to_tensors()))
    wide = images.astype(np.int64).reshape(-1, 3)
    for sums in (whole, parts):
        assert sums.images == 7
        assert np.array_equal(sums.pixels, images.astype(np.int64).sum(axis=0))
        assert np.array_equal(sums.products, wide.T @ wide)


def test_bad_pictures_are_listed_and_labels_do_not_shift(tmp_path: Path, capsys) -> None:
    good = files(count=4)
    whole = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")
    bad = {"cats/0.jpg": b"text", "cats/1.jpg": whole[:3000], "dogs/00.jpg": b"", "cats/odd.dat": b"?"}
    write_folder(tmp_path / "p", good | bad)
    assert main(["prep", "p", "--val-fraction", "0", *SIZE]) == 0
    shown = capsys.readouterr()
    assert "8 train pictures, 2 classes, 4 rejected\nwhat was rejected, and why: data/p/rejected.csv" in shown.out
    with open("data/p/rejected.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason"]
    reasons = dict(rows[1:])
    assert set(reasons) == set(bad)
    assert reasons["cats/0.jpg"] == "not a picture that can be read"
    assert "truncated" in reasons["cats/1.jpg"]
    assert reasons["dogs/00.jpg"] == "empty file"
    train = Dataset.open(Path("data/p")).split("train")
    assert {name: int(label) for name, label in zip(train.names, train.labels, strict=True)} == {
        name: int(name.startswith("dogs")) for name in good
    }
    for name, image in zip(train.names, train.read(np.arange(8)), strict=True):
        assert np.array_equal(image, load_picture(good[name], 16))


def test_on_bad_stop_names_the_picture_also_after_a_run_that_skipped_it(tmp_path: Path, capsys, small_chunks) -> None:
    write_folder(tmp_path / "p", files(count=4) | {"cats/0.jpg": b"text"})
    stop = ["prep", "p", "--on-bad", "stop", "--workers", "1", *SIZE]
    assert main(stop) == 1
    assert capsys.readouterr().err.endswith("error: cats/0.jpg: not a picture that can be read\n")
    assert not Path("data/p/dataset.json").exists()
    assert main(["prep", "p", "--workers", "1", *SIZE]) == 0
    Path("data/p/dataset.json").unlink()
    assert main(stop) == 1


def test_a_class_without_readable_pictures_is_an_error(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files() | {"cows/0.jpg": b"text"})
    assert main(["prep", "p", *SIZE]) == 1
    assert "error: no training picture of cows could be read: data/p/rejected.csv says why" in capsys.readouterr().err
    assert "cows/0.jpg" in Path("data/p/rejected.csv").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_do_not_depend_on_workers_or_interruptions(
    source: Path, workers: int, small_chunks, capsys, monkeypatch
) -> None:
    # `small_chunks` changes the chunks that the parent makes; workers take them as they are.
    prepare(source, Path("once"), size=16, workers=2)
    stopped(source, Path("again"), monkeypatch)
    flip(Path("again/packing/train-000000004.safetensors"))  # a record that is damaged
    os.truncate("again/train.npy", os.path.getsize("again/train.npy") - 1)  # the images of the records are gone
    for stale in (
        ".train.4242-ab.part.npy",
        ".source.4242-abc.part",
        "packing/.train-000000004.4242-ab.part.safetensors",
    ):
        Path("again", stale).write_bytes(b"half")
    prepare(source, Path("again"), size=16, workers=workers, progress=Console())
    shown = capsys.readouterr().err
    assert "resuming again: 6 of 24 pictures are already packed" in shown
    assert content(Path("again")) == content(Path("once"))
    stopped(source, Path("third"), monkeypatch)
    flip(Path("third/packing/train-000000004.safetensors"))
    prepare(source, Path("third"), size=16, workers=workers, progress=Console())
    assert "resuming third: 20 of 24 pictures are already packed" in capsys.readouterr().err
    assert content(Path("third")) == content(Path("once"))


def test_a_changed_source_or_setting_starts_over(tmp_path: Path, capsys, small_chunks) -> None:
    write_folder(tmp_path / "p", files() | {"cats/0.jpg": b"text"})
    assert main(["prep", "p", "--on-bad", "stop", "--workers", "1", *SIZE]) == 1
    (tmp_path / "p" / "cats" / "0.jpg").write_bytes(encoded(pixels(99)))
    assert main(["prep", "p", "--workers", "1", *SIZE]) == 0
    assert "the pictures or settings changed since data/p was started: starting over" in capsys.readouterr().err
    assert sum(Dataset.open(Path("data/p")).counts.values()) == 11


def test_pixels_of_two_resizers_are_not_mixed(tmp_path: Path, capsys, small_chunks, monkeypatch) -> None:
    write_folder(tmp_path / "p", files() | {"cats/0.jpg": b"text"})
    assert main(["prep", "p", "--on-bad", "stop", "--workers", "1", *SIZE]) == 1
    monkeypatch.setattr(prepare_module, "RESIZER", "another")
    assert main(["prep", "p", "--workers", "1", *SIZE]) == 0
    assert "the pictures or settings changed since data/p was started: starting over" in capsys.readouterr().err


def test_an_existing_dataset_is_kept(source: Path, tmp_path: Path, capsys) -> None:
    assert main(["prep", str(source), *SIZE]) == 0
    before = content(Path("data/photos"))
    capsys.readouterr()
    assert main(["prep", str(source), "--json", *SIZE]) == 0
    shown = capsys.readouterr()
    assert "data/photos already exists, with the same pictures and settings: nothing to do" in shown.err
    assert json.loads(shown.out)["images_per_second"] == 0
    assert main(["prep", str(source), "--size", "24"]) == 1
    assert "data/photos is a dataset of other pictures or settings: choose another name" in capsys.readouterr().err
    assert content(Path("data/photos")) == before
    write_folder(tmp_path / "data" / "cats", files())
    assert main(["prep", str(source), "cats", *SIZE]) == 1
    assert "data/cats contains other files (cats): choose another name for the dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: no folder or archive at nowhere\n"),
        (["photos.zip", "a/b"], "error: 'a/b' is not a name for a dataset: it becomes a folder in data/"),
        (["photos.zip", ".."], "error: '..' is not a name for a dataset: it becomes a folder in data/"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(arguments: list[str], message: str, source: Path, capsys) -> None:
    assert main(["prep", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1
    assert not shown.out
    assert not any(Path("data").glob("*"))


def test_a_damaged_compressed_tar_leaves_nothing(tmp_path: Path, capsys) -> None:
    content = write_tar(tmp_path / "photos.tgz", files(), "w:gz").read_bytes()
    (tmp_path / "photos.tgz").write_bytes(content[: len(content) // 2])
    assert main(["prep", "photos.tgz", *SIZE]) == 1
    assert "error: photos.tgz is damaged" in capsys.readouterr().err
    assert not any(Path("data").glob("*"))


def test_wrong_usage_is_2(source: Path, capsys) -> None:
    assert main(["prep", str(source), "--val-fraction", "2"]) == 2
    assert main(["prep", str(source), "--on-bad", "shrug"]) == 2


@pytest.mark.parametrize("name", ["photos.tar", "photos.tar.gz", "photos.tgz"])
def test_a_dataset_is_called_like_its_source(name: str, tmp_path: Path) -> None:
    write_tar(tmp_path / name, files(count=1), "w" if name.endswith("tar") else "w:gz")
    assert main(["prep", name, *SIZE]) == 0
    assert [path.name for path in Path("data").iterdir()] == ["photos"]
    assert not list(Path("data/photos").glob(".*"))  # the temporary file of the decompressed tar is deleted


def test_ilsvrc_and_cifar_end_to_end(tmp_path: Path, capsys) -> None:
    write_ilsvrc(tmp_path / "imagenet")
    assert main(["prep", "imagenet", *SIZE]) == 0
    dataset = Dataset.open(Path("data/imagenet"))
    assert (dataset.source["layout"], dataset.words["n03"]) == ("ilsvrc-2012", "words of n03")
    assert dataset.split("val").labels.tolist() == [0, 2, 1, 1, 0, 2]
    write_tar(tmp_path / "cifar-10-python.tar.gz", cifar(), "w:gz")
    assert main(["prep", "cifar-10-python.tar.gz", "--size", "32"]) == 0
    dataset = Dataset.open(Path("data/cifar-10-python"))
    assert dataset.split("train").labels.tolist() == [0, 1, 1, 0] * 2
    assert dataset.split("val").read(np.array([1]))[0, 0, 0].tolist() == [0, 0, 202]  # unchanged pixels


def test_an_archive_member_that_leads_outside_writes_nothing_there(tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "work"
    inside.mkdir(parents=True)
    evil = {"../../evil.png": encoded(pixels(1)), str(tmp_path / "evil.png"): encoded(pixels(2))}
    write_tar(inside / "p.tar", files() | evil)
    assert main(["prep", str(inside / "p.tar"), "-w", str(inside), *SIZE]) == 0
    assert not list(tmp_path.rglob("evil*"))
    assert {row.split(",")[0] for row in (inside / "data/p/rejected.csv").read_text().splitlines()[1:]} == set(evil)


def test_too_little_disk_space_is_an_error_before_the_work(source: Path, capsys, monkeypatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    assert main(["prep", str(source), *SIZE]) == 1
    assert (
        "error: not enough disk space: data/photos needs 1 MB more, 0 MB are free; free some space"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("count", [0, 1, 5])
def test_rows_are_written_where_numpy_reads_them(count, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(arrays, "WRITE_SIZE", 1000)
    array = np.arange(count * 16 * 16 * 3, dtype=np.uint64).astype(np.uint8).reshape(count, 16, 16, 3)
    file = tmp_path / "rows.npy"
    arrays.create_array(file, (count + 3, 16, 16, 3), np.uint8)
    arrays.write_rows(file, 2, array)
    expected = np.zeros((count + 3, 16, 16, 3), np.uint8)
    expected[2 : 2 + count] = array
    assert np.array_equal(np.load(file, mmap_mode="r"), expected)
    arrays.save_array(tmp_path / "whole.npy", expected)
    assert (tmp_path / "whole.npy").read_bytes() == file.read_bytes()
    arrays.check_array(file, expected.shape, np.uint8)


def test_a_full_disk_is_one_line(source: Path, capsys, monkeypatch) -> None:
    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(images, "write_rows", full)
    assert main(["prep", str(source), *SIZE]) == 1
    assert "error: the disk is full" in capsys.readouterr().err
    assert not Path("data/photos/dataset.json").exists()


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_one_line(source: Path, small_chunks, monkeypatch) -> None:
    monkeypatch.setattr(packing, "pack_chunk", die)
    with pytest.raises(AlexNetError, match="a worker process died, perhaps out of memory: run the same command"):
        prepare(source, Path("data/photos"), size=16, workers=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_is_130_and_the_same_command_resumes(
    number, source: Path, small_chunks, monkeypatch, capsys
) -> None:
    pack = packing.pack_chunk

    def interrupt_at_third(chunk: chunks.Chunk) -> None:
        if (chunk.split, chunk.start) == ("train", 8):
            os.kill(os.getpid(), number)
        pack(chunk)

    monkeypatch.setattr(packing, "pack_chunk", interrupt_at_third)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
    try:
        assert main(["prep", str(source), "--workers", "1", *SIZE]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.endswith(
        "error: stopped; what is packed is kept: run the same command again to resume\n"
    )
    assert signal.getsignal(signal.SIGTERM) is commands._interrupt  # as the command line had it before prep
    monkeypatch.setattr(packing, "pack_chunk", pack)
    assert main(["prep", str(source), "--workers", "1", *SIZE]) == 0
    assert "resuming data/photos: 8 of 24 pictures are already packed" in capsys.readouterr().err


def test_interrupted_is_what_a_library_user_gets(source: Path, monkeypatch) -> None:
    monkeypatch.setattr(packing, "pack_chunk", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Interrupted):
        prepare(source, Path("data/photos"), size=16)


def test_killed_it_resumes_and_its_workers_are_gone(tmp_path: Path, capsys) -> None:
    """kill -9 of the parent alone, as soon as a chunk is there."""
    write_zip(tmp_path / "p.zip", files(("a", "b"), 600, "train/") | files(("a", "b"), 100, "val/"))
    command = [sys.executable, "-c", "from alexnet_cli.commands import main; main()", "prep", "p.zip", "--workers", "2"]
    process = subprocess.Popen([*command, *SIZE], stderr=subprocess.PIPE, text=True, start_new_session=True)
    folder = Path("data/p")
    while process.poll() is None and not list(folder.glob("packing/train-*")):
        time.sleep(0.005)
    os.killpg(process.pid, 0)  # it is still running
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=15)  # returns when the workers, which hold the pipe too, have exited
    assert "Traceback" not in said
    assert not (folder / "dataset.json").exists()
    assert main(["prep", "p.zip", "--workers", "2", *SIZE]) == 0
    assert "pictures are already packed" in capsys.readouterr().err
    assert main(["prep", "p.zip", "whole", "--workers", "1", *SIZE]) == 0
    assert content(folder) == content(Path("data/whole"))


def test_one_class_is_enough_to_pack(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", {"1.png": encoded(pixels(1)), "2.png": encoded(pixels(2))})
    assert main(["prep", "p", *SIZE]) == 0
    assert "all pictures have one class (unlabelled): enough to index, but not to train" in capsys.readouterr().err
    with pytest.raises(BadSource, match="no pictures"):
        prepare(write_folder(tmp_path / "q", {"read.txt": b""}), Path("data/q"))


def test_pictures_with_damaged_exif_are_counted_in_one_note(tmp_path: Path, capfd) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x09\xff\xff\xff\xff" * 3
    odd = {f"cats/odd{i}.jpg": encoded(pixels(i), "JPEG", exif=exif) for i in range(3)}
    write_folder(tmp_path / "p", files() | odd)
    assert main(["prep", "p", *SIZE]) == 0
    shown = capfd.readouterr().err
    assert "3 pictures have damaged EXIF or other metadata; they are packed anyway" in shown
    assert "Warning" not in shown


def labels_csv(source: Source) -> Listing | None:
    """A made-up layout: `labels.csv` has the name, split and class of every picture."""
    if "labels.csv" not in source.locations:
        return None
    rows = list(csv.reader(source.read("labels.csv").decode().splitlines()))
    classes = sorted({row[2] for row in rows})
    return Listing(
        layout="labels.csv",
        classes=classes,
        entries=Entries.of(source.locations, ((name, split, classes.index(label)) for name, split, label in rows)),
    )


def test_a_layout_is_added_by_a_function_and_a_line_in_the_table(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(layouts, "LAYOUTS", (labels_csv, *layouts.LAYOUTS))
    pictures = {f"{i}.png": encoded(pixels(i)) for i in range(6)}
    labels = "".join(f"{i}.png,{'val' if i < 2 else 'train'},{'cat' if i % 2 else 'ape'}\n" for i in range(6))
    write_zip(tmp_path / "p.zip", pictures | {"labels.csv": labels.encode()})
    assert main(["prep", "p.zip", *SIZE]) == 0
    dataset = Dataset.open(Path("data/p"))
    assert dataset.source == {"path": "p.zip", "absolute": str(tmp_path.resolve() / "p.zip"), "layout": "labels.csv"}
    assert (dataset.classes, dataset.counts) == (["ape", "cat"], {"train": 4, "val": 2})
    for name, wanted in (("train", [2, 3, 4, 5]), ("val", [0, 1])):
        split = dataset.split(name)
        assert list(split.names) == [f"{i}.png" for i in wanted]
        assert split.labels.tolist() == [i % 2 for i in wanted]
        assert np.array_equal(split.read(np.array([1]))[0], load_picture(pictures[f"{wanted[1]}.png"], 16))


DAMAGES = {
    "flipped": flip,
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_prep_again_mends_what_is_damaged(damage: str, source: Path, capsys) -> None:
    """The advice of every message about a damaged dataset, followed."""
    folder = Path("data/photos")
    assert main(["prep", str(source), "--workers", "1", *SIZE]) == 0
    before = content(folder)
    for name in sorted(FILES):
        DAMAGES[damage](folder / name)
        capsys.readouterr()
        assert main(["prep", str(source), "--workers", "1", *SIZE]) == 0
        shown = capsys.readouterr()
        assert "nothing to do" not in shown.err
        if (name, damage) != ("dataset.json", "gone"):
            (line,) = [line for line in shown.err.splitlines() if line.endswith(": packing the dataset again")]
            assert line.startswith(f"data/photos/{name} is ")
        assert content(folder) == before


def test_a_folder_in_the_place_of_a_file_is_named_and_not_deleted(source: Path, capsys) -> None:
    folder = Path("data/photos")
    assert main(["prep", str(source), "--workers", "1", *SIZE]) == 0
    before = content(folder)
    for name in sorted(FILES):
        (folder / name).unlink()
        write_folder(folder / name, {"thesis.txt": b"precious"})
        advice = "is a folder where a dataset has a file: remove it, and prep the dataset again"
        commands = [["prep", str(source), *SIZE]]
        if name in ("rejected.csv", "statistics.safetensors", "train.names"):
            commands.append(["info", "--verify", str(folder)])
        for command in commands:
            capsys.readouterr()
            assert main(command) == 1
            assert capsys.readouterr().err == f"error: {folder / name} {advice}\n"
            assert (folder / name / "thesis.txt").read_bytes() == b"precious"
        shutil.rmtree(folder / name)
        assert main(["prep", str(source), "--workers", "1", *SIZE]) == 0
        assert content(folder) == before


def test_prep_of_other_pictures_leaves_a_damaged_dataset_alone(source: Path, capsys) -> None:
    assert main(["prep", str(source), *SIZE]) == 0
    flip(Path("data/photos/train.npy"))
    before = content(Path("data/photos"))
    assert main(["prep", str(source), "--size", "24"]) == 1
    assert "is a dataset of other pictures or settings: choose another name, or remove it" in capsys.readouterr().err
    assert content(Path("data/photos")) == before


def test_what_another_version_of_the_program_left_is_packed_over(source: Path, capsys) -> None:
    write_folder(Path("data/photos"), {"plan.json": b'{"plan": "0123"}', "train-00000.npy": b"x"})
    write_folder(Path("data/photos"), {"train-00000.sums.npy": b"x", "packing/train-7": b"x", ".a.1-2.part.npy": b"x"})
    assert main(["prep", str(source), *SIZE]) == 0
    assert "the pictures or settings changed since data/photos was started: starting over" in capsys.readouterr().err
    assert {file.name for file in Path("data/photos").iterdir()} == FILES
    Path("data/photos/dataset.json").rename("data/photos/plan.json")
    Path("data/photos/plan.json").write_text("{")
    assert main(["prep", str(source), *SIZE]) == 0
    assert {file.name for file in Path("data/photos").iterdir()} == FILES


@pytest.mark.parametrize("name", ["train.npy", "train-photos.json", "plan.json", "notes.txt", "packed/a.npy"])
def test_files_of_somebody_else_are_left_alone(name: str, source: Path, capsys) -> None:
    write_folder(Path("data/photos"), {name: b'{"plans": []}', ".hidden.part": b"x"})
    before = sorted(Path("data/photos").rglob("*"))
    assert main(["prep", str(source), *SIZE]) == 1
    first = name.split("/")[0]
    said = f"error: data/photos contains other files ({first}): choose another name for the dataset\n"
    assert capsys.readouterr().err == said
    assert sorted(Path("data/photos").rglob("*")) == before


def test_a_plan_of_somebody_else_is_no_sign_of_a_dataset(source: Path, capsys) -> None:
    write_folder(Path("data/photos"), {"plan.json": b"{}", "train.npy": b"x"})
    assert main(["prep", str(source), *SIZE]) == 1
    assert "error: data/photos contains other files (plan.json): choose another name" in capsys.readouterr().err
    assert Path("data/photos/train.npy").read_bytes() == b"x"


KILLER = """
import os, sys
from pathlib import Path
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
calls = [0]

def deadly(call, last):
    def counted(*given, **options):
        calls[0] += 1
        if calls[0] == last:
            os._exit(9)  # nothing is cleaned up
        return call(*given, **options)
    return counted

def run(folder, last=0):
    child = os.fork()
    if not child:
        for name in ("replace", "unlink", "rmdir"):
            setattr(os, name, deadly(getattr(os, name), last))
        for name in ("fsync", "fdatasync"):  # not done: a disk takes its time, and nothing here fails but the process
            setattr(os, name, deadly(lambda _: None, last))
        prepare(sys.argv[1], folder, size=16, workers=1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

assert run("whole") == 0
last = 0
while True:
    last += 1
    status = run("killed", last)
    if (Path("killed") / "dataset.json").exists():
        Dataset.open(Path("killed")).verify()
        left = set(content("killed")) - {".alexnet.lock"}
        assert left == set(content("whole")), left
    if status == 0:
        break
    assert status == 9, status
    assert run("killed") == 0, last
    assert content("killed") == content("whole"), last
    for path in Path("killed").iterdir():
        path.unlink()
print(last)
"""


def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Before each sync, rename and removal in turn; what is complete holds nothing temporary. Some hundred runs."""
    write_zip(tmp_path / "p.zip", files(count=3, prefix="train/") | files(count=1, prefix="val/"))
    done = subprocess.run([sys.executable, "-c", KILLER, "p.zip"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_two_at_once_one_packs_and_the_other_says_so(tmp_path: Path) -> None:
    """Of different pictures into one name, by real processes; the first is held while the second runs."""
    write_zip(tmp_path / "a.zip", files(("a", "b"), 300))
    write_zip(tmp_path / "b.zip", files(("a", "b"), 300, "other/"))
    command = [sys.executable, "-m", "alexnet_cli", "prep"]
    options = ["both", "--val-fraction", "0", "--workers", "1", *SIZE]
    first = subprocess.Popen([*command, "a.zip", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not Path("data/both/packing").exists():
        assert first.poll() is None, first.communicate()
    first.send_signal(signal.SIGSTOP)
    for source in ("b.zip", "a.zip"):
        second = subprocess.run([*command, source, *options], capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (1, "")
        said = "error: another process is writing the dataset data/both: wait for it to end, or choose another name\n"
        assert second.stderr == said
    first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert out.startswith("packed data/both: 600 train pictures, 2 classes, 0 rejected")
    train = Dataset.open(Path("data/both")).split("train")
    pictures = files(("a", "b"), 300)
    for name, image in zip(train.names, train.read(np.arange(600)), strict=True):
        assert np.array_equal(image, load_picture(pictures[name], 16))
    assert not list(Path("data/both").glob(".*"))


def test_files_are_as_readable_as_the_umask_says(source: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main(["prep", str(source), *SIZE]) == 0
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in Path("data/photos").iterdir()} == {0o640}


@pytest.mark.parametrize("size", [7, 4097, 10**9])
def test_sizes_that_cannot_be(size: int, source: Path, capsys) -> None:
    assert main(["prep", str(source), "--size", str(size)]) == 2
    with pytest.raises(AlexNetError, match=f"the size must be from 8 to 4096 pixels, not {size}"):
        prepare(source, Path("data/photos"), size=size)
    assert not Path("data").exists()


def test_the_two_sizes_in_the_message_about_disk_space_differ(tmp_path: Path, monkeypatch) -> None:
    locations = Locations()
    locations.add("a", Location("a", 0, 1, 1, 0))
    locations.sort()
    usage = shutil.disk_usage(".")
    for count, side, said in ((1, 16, "needs 1 MB more, 0 MB are free"), (256, 4096, "needs 14 GB more, 13 GB are")):
        entries = Entries.of(locations, [("a", "train", 0)] * count)
        listing = Listing(layout="flat", classes=["a"], entries=entries)
        plan = prepare_module._plan(tmp_path, tmp_path, side, STORES["raw"], listing, "skip")
        needed = (count + 2 + 4) * side * side * 3  # pictures, a record, statistics
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=needed - 1: usage._replace(free=free))
        with pytest.raises(AlexNetError, match=said):
            prepare_module._check_disk_space(plan, plan.chunks)


def test_a_class_whose_name_is_not_utf8_is_refused_before_the_work(source: Path, capsys) -> None:
    write_folder(Path("p"), files())
    os.rename(b"p/cats", b"p/\xff")
    assert main(["prep", "p", *SIZE]) == 1
    assert capsys.readouterr().err == "error: the name of the class '\\udcff' is not UTF-8: rename its folder\n"
    assert not any(Path("data").glob("*"))
