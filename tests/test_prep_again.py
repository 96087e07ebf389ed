"""`alexnet prep` run again after its source has changed, also killed at any moment; near-duplicates across splits."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, files, jpeg, pixels, write_folder
from PIL import Image
from test_prep import KILLER, SIZE, content, flip, small_chunks, stopped  # noqa: F401 - a fixture

from alexnet_cli.commands import main
from alexnet_cli.data import near
from alexnet_cli.data.originals import original
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadSource


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prep(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Standard output and standard error of a run that succeeds."""
    capsys.readouterr()
    assert main(["prep", "p", "--workers", "1", *SIZE, *arguments]) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def change(root: Path) -> None:
    """Add a class and a picture, remove one, change one."""
    write_folder(root, files(("owls",), 12) | {"cats/new.png": encoded(pixels(900))})
    (root / "dogs/3.png").unlink()
    (root / "dogs/4.png").write_bytes(encoded(pixels(901)))


def test_what_was_added_removed_and_changed_is_packed_as_if_all_were_new(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    before = Dataset.open(Path("data/p")).fingerprint
    change(tmp_path / "p")
    out, err = prep(capsys=capsys)
    assert "since data/p was packed, its pictures have changed (13 added, 1 removed" in err
    assert "data/p stays as it is until that is done\n" in err
    assert "3 classes, 0 rejected" in out
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))
    dataset = Dataset.open(Path("data/p"))
    dataset.verify()
    assert dataset.fingerprint != before
    assert "already exists, with the same pictures and settings: nothing to do" in prep(capsys=capsys)[1]


def test_pictures_that_only_changed_are_packed_too(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    (tmp_path / "p/dogs/4.png").write_bytes(encoded(pixels(901)))
    assert "its pictures have changed (some have changed)" in prep(capsys=capsys)[1]
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))


def test_a_split_that_is_no_more_leaves_no_files(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(prefix="train/") | files(prefix="val/") | files(prefix="test/"))
    prep(capsys=capsys)
    shutil.rmtree("p/test")
    prep(capsys=capsys)
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))


def test_other_settings_or_another_source_are_refused_and_the_dataset_stays(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    write_folder(tmp_path / "q", files(count=12))
    prep("--val-fraction", "0.3", capsys=capsys)
    before = content(Path("data/p"))
    refused = "error: data/p is a dataset of other pictures or settings: choose another name, or remove it\n"
    for command in (["p"], ["p", "--val-fraction", "0.2"], ["q", "p", "--val-fraction", "0.3"]):
        assert main(["prep", *command, *SIZE]) == 1
        assert capsys.readouterr().err == refused
    assert main(["prep", "p", "--val-fraction", "0.3", "--size", "24"]) == 1
    assert capsys.readouterr().err == refused
    assert content(Path("data/p")) == before
    write_folder(tmp_path / "p", files(("owls",), 12))
    assert "12 added" in prep("--val-fraction", "0.3", capsys=capsys)[1]


def test_a_dataset_of_an_older_format_is_packed_again(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    wanted, path = content(Path("data/p")), Path("data/p/dataset.json")
    older = json.loads(path.read_text())
    del older["store"]
    path.write_text(json.dumps(older | {"format": 2, "plan": "of then"}))
    why = "data/p/dataset.json has format version 2, this program reads 3: packing all of them\n"
    assert why in prep(capsys=capsys)[1]
    assert content(Path("data/p")) == wanted


def test_the_same_words_in_another_folder_are_another_source(tmp_path: Path, capsys, monkeypatch) -> None:
    write_folder(tmp_path / "a/p", files(count=12))
    write_folder(tmp_path / "b/p", files(("cows", "owls"), 12))
    monkeypatch.chdir("a")
    prep("same", "-w", "..", capsys=capsys)
    before = content(tmp_path / "data/same")
    monkeypatch.chdir("../b")
    assert main(["prep", "p", "same", "-w", "..", *SIZE]) == 1
    assert "../data/same is a dataset of other pictures or settings" in capsys.readouterr().err
    assert content(tmp_path / "data/same") == before


def test_a_source_is_known_by_other_words_for_it(tmp_path: Path, capsys, monkeypatch) -> None:
    write_folder(tmp_path / "p", files(count=12))
    monkeypatch.chdir("p")
    assert main(["prep", ".", "same", "-w", "..", *SIZE]) == 0
    change(tmp_path / "p")
    monkeypatch.chdir("..")
    assert "13 added, 1 removed" in prep("same", capsys=capsys)[1]
    assert Dataset.open(Path("data/same")).source["path"] == "p"


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_source_of_which_the_path_is_not_utf8_is_known_again(tmp_path: Path, capsys) -> None:
    source, other = (os.fsdecode(b"p" + byte) for byte in (b"\xff", b"\xfe"))
    write_folder(tmp_path / source, files(count=12))
    write_folder(tmp_path / other, files(("cows", "owls"), 12))
    assert main(["prep", source, "p", *SIZE]) == 0
    before = content(Path("data/p"))
    capsys.readouterr()
    assert main(["prep", other, "p", *SIZE]) == 1
    assert "data/p is a dataset of other pictures or settings" in capsys.readouterr().err
    assert content(Path("data/p")) == before
    change(tmp_path / source)
    assert main(["prep", source, "p", *SIZE]) == 0
    assert "13 added, 1 removed" in capsys.readouterr().err
    dataset = Dataset.open(Path("data/p"))
    assert original(dataset, "cats/new.png") == tmp_path.resolve() / source / "cats/new.png"
    for as_json in ([], ["--json"]):
        assert main(["info", "data/p", *as_json]) == 0
        shown = capsys.readouterr().out
        assert as_json or (re.search(r"tells apart +│ 3 classes: cats, dogs, owls ", shown) and "{" not in shown)


def test_an_original_is_of_the_source_that_was_packed_also_if_it_moved_with_its_workspace(
    tmp_path: Path, monkeypatch
) -> None:
    write_folder(tmp_path / "a/p", files())
    write_folder(tmp_path / "b/p", files())
    monkeypatch.chdir("a")
    prepare(Path("p"), Path("data/p"), size=16, workers=1)
    monkeypatch.chdir("../b")
    root = tmp_path.resolve()
    assert original(Dataset.open(Path("../a/data/p")), "cats/1.png") == root / "a/p/cats/1.png"
    (root / "a/p/cats/1.png").unlink()
    assert original(Dataset.open(Path("../a/data/p")), "cats/1.png") is None
    (root / "a").rename(root / "c")
    assert original(Dataset.open(Path("../c/data/p")), "cats/2.png") == root / "c/p/cats/2.png"


def test_an_update_that_fails_leaves_the_dataset_and_one_that_was_stopped_resumes(
    tmp_path: Path,
    capsys,
    monkeypatch,
    small_chunks,  # noqa: F811
) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    before = content(Path("data/p"))
    write_folder(tmp_path / "p", {"cows/1.jpg": b"text"})
    with pytest.raises(BadSource, match="no training picture of cows could be read"):
        prepare(Path("p"), Path("data/p"), size=16, workers=1)
    files_of = {path.name: path.read_bytes() for path in Path("data/p").iterdir() if path.is_file()}
    assert files_of == before
    Dataset.open(Path("data/p")).verify()
    shutil.rmtree("p/cows")
    assert "nothing to do" in prep(capsys=capsys)[1]  # back to what it was
    assert content(Path("data/p")) == before
    change(tmp_path / "p")
    stopped(Path("p"), Path("data/p"), monkeypatch)
    assert Dataset.open(Path("data/p")).counts == {"train": 22, "val": 2}
    assert "resuming data/p: 36 of 36 pictures are already packed" in prep(capsys=capsys)[1]
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))


def test_a_damaged_update_is_removed_and_packed_again(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    before, update = content(Path("data/p")), Path("data/p/.update")
    whole = before["dataset.json"].decode()
    for name, text in {
        "plan.json": ['{"plan": "ab', '{"plan": "x", "checksum": 3}', whole.replace("cats", "cows")],
        "dataset.json": ["", '{"counts": 3}', "[]", whole],  # the last has none of its files
    }.items():
        for damage in text:
            update.mkdir()
            (update / name).write_text(damage)
            assert "nothing to do" in prep(capsys=capsys)[1], damage
            assert content(Path("data/p")) == before, damage
    (update / "plan.json").mkdir(parents=True)
    assert "nothing to do" in prep(capsys=capsys)[1]
    assert content(Path("data/p")) == before
    change(tmp_path / "p")
    update.write_text("not a folder")
    assert "13 added, 1 removed" in prep(capsys=capsys)[1]
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))


def test_a_damaged_dataset_of_a_changed_source_is_packed_again(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path / "p", files(count=12))
    prep(capsys=capsys)
    flip(Path("data/p/train.names"))
    change(tmp_path / "p")
    damaged = "data/p/train.names is damaged (its checksum differs): packing all of them\n"
    assert damaged in prep(capsys=capsys)[1]
    prep("fresh", capsys=capsys)
    assert content(Path("data/p")) == content(Path("data/fresh"))


KILLED_UPDATE = (
    KILLER[: KILLER.index('assert run("whole")')]
    .replace("prepare(sys.argv[1]", "prepare(source[0]")
    .replace("deadly(lambda _: None, last)", "lambda _: None")
    .replace("calls = [0]", "calls = [-1000]")
    + """
import shutil
from alexnet_cli.data import prepare as module
source, finish = ["p"], module._finish

def finish_counted(*given):
    calls[0] = 0  # what is before is as in test_prep.py
    finish(*given)

module._finish = finish_counted
assert run("old") == 0
source[0] = "q"
shutil.rmtree("p")
os.rename("q", "p")  # the changed pictures, under the same name
source[0] = "p"
assert run("whole") == 0
old, whole = content("old"), content("whole")
last = 0
while True:
    last += 1
    shutil.copytree("old", "killed")
    status = run("killed", last)
    if (Path("killed") / "dataset.json").exists():
        Dataset.open(Path("killed")).verify()
        files = {path.name: path.read_bytes() for path in Path("killed").iterdir() if path.is_file()}
        files.pop(".alexnet.lock", None)
        assert files in (old, whole), last
    if status == 0:
        break
    assert status == 9, status
    assert run("killed") == 0, last
    assert content("killed") == whole, last
    shutil.rmtree("killed")
print(last)
"""
)


def test_killed_at_any_moment_of_an_update_the_dataset_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    """Before each rename and removal from when all is packed; where it is neither, the next run completes it."""
    write_folder(tmp_path / "p", files(count=2, prefix="train/") | files(count=1, prefix="test/"))
    write_folder(tmp_path / "q", files(count=3, prefix="train/") | files(count=1, prefix="val/"))
    done = subprocess.run([sys.executable, "-c", KILLED_UPDATE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# Near-duplicates


def photograph(seed: int, size: int = 256) -> np.ndarray:
    """Smooth at large, detailed at small scale: (size, size, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def test_near_duplicates_are_found_and_others_are_not() -> None:
    originals = np.stack([photograph(seed) for seed in range(120)])
    copies = []
    for i, image in enumerate(originals[:40]):
        small = Image.fromarray(image).resize((90 + i, 90 + i))
        with Image.open(io.BytesIO(encoded(small, "JPEG", quality=40))) as again:
            copies.append(np.asarray(again.resize((256, 256))))
    val = np.stack([*copies, *(photograph(seed) for seed in range(1000, 1060))])
    pairs = near.candidates(near.hashes(originals), near.hashes(val))
    found = {pair.val: pair.train for pair in pairs}
    assert sum(found.get(i) == i for i in range(40)) >= 38
    assert not [i for i in found if i >= 40]
    assert near.are_near(originals[:40], val[:40]).all()
    assert not near.are_near(originals[:40], val[40:80]).any()


@pytest.mark.parametrize("size", [8, 9, 16, 100, 256])
def test_hashes_do_not_depend_on_other_pictures(size: int) -> None:
    images = np.stack([photograph(seed, size) for seed in range(5)])
    assert np.array_equal(near.hashes(images)[3:4], near.hashes(images[3:4]))
    assert near.hashes(images).shape == (5, near.BANDS)


def test_pictures_that_agree_with_very_many_are_not_compared_with_all(monkeypatch) -> None:
    plain = np.zeros((near.BUCKET + 1, near.BANDS), np.uint16)
    assert near.candidates(plain[:-1], plain[:1]) == [near.Pair(val=0, train=0)]
    assert near.candidates(plain, plain[:1]) == []


def test_prep_says_once_how_many_validation_pictures_are_in_training_too(tmp_path: Path, capsys) -> None:
    pictures = {"val/a/other.jpg": jpeg(64, 64)}
    for number, name in enumerate("ab"):
        for i in range(5):
            pictures[f"train/{name}/{i}.png"] = encoded(photograph(10 * number + i))
        for i in (1, 2):
            pictures[f"val/{name}/{i}.jpg"] = encoded(photograph(10 * number + i), "JPEG")
    write_folder(tmp_path / "p", pictures)
    assert (
        "of 5 validation pictures, 4 are nearly the same as a training picture: errors that are measured on them will "
        "look too good\n"
    ) in prep("--size", "64", capsys=capsys)[1]
    assert "nearly the same" not in prep("--size", "64", capsys=capsys)[1]
