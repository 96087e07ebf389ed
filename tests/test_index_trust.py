"""Updates of an index may be killed, disks may be full, and searches and updates may overlap."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from test_index import CRASH, counts, error_of, update

from alexnet_cli.commands import main
from alexnet_cli.errors import AlexNetError
from alexnet_cli.files import one_writer
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.collection import FileCollection, open_collection
from alexnet_cli.retrieval.index import Index

FOLDER = Path("indexes/photos")
WHOLE = ["images.sqlite", "index.faiss", "index.json"]  # the files of a flat index


# Kills


def killed(step: str, call: int) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, step, str(call)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


def test_killed_right_after_the_index_was_complete_nothing_is_left_behind(space: Path) -> None:
    killed("remove_parts", 2)  # the first call is before the work
    left = os.listdir(FOLDER)
    assert any(name.startswith("part-") for name in left)
    assert ".alexnet.lock" in left
    assert counts(update()) == (12, 0, 12, 0, 0)
    assert sorted(os.listdir(FOLDER)) == WHOLE


@pytest.mark.parametrize("size", [0, 7, 500, -1])
def test_a_damaged_part_is_embedded_again(size: int, space: Path) -> None:
    killed("replace", 2)
    (part,) = FOLDER.glob("part-*.safetensors")
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if size < 0 else content[:size])
    assert counts(update()) == (12, 12, 0, 0, 0)
    assert sorted(os.listdir(FOLDER)) == WHOLE
    with contextlib.closing(Index.open(FOLDER)) as index:
        names = [f"photos/{path}" for _, path, _, _ in index.table.rows()]
        features = OnnxModel.open(Path("m.onnx")).features(names)
        np.testing.assert_allclose(index.vectors.read(0, 12), features, rtol=1e-4, atol=1e-5)


def test_parts_of_pictures_that_have_changed_since_are_removed(space: Path) -> None:
    killed("replace", 2)
    (part,) = FOLDER.glob("part-*.safetensors")
    picture(space / "photos/cat/0.png", 99)
    killed("embed", 1)
    assert not part.exists()


# Disks


@contextlib.contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[None]:
    """A file system of that size at ``path``. Skips the test where this user may not mount one."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("kind", ["flat", "sq8"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(
    kind: str,
    space: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["index", "photos", "--model", "m.onnx", "--kind", kind]
    with small_disk(space / "indexes", 256):
        for pages in range(60):  # free, of 4 kB: from where nothing fits to where all does
            shutil.rmtree(FOLDER, ignore_errors=True)
            ballast = Path("indexes/ballast")
            ballast.write_bytes(bytes(shutil.disk_usage("indexes").free - 4096 * pages))
            capsys.readouterr()
            code = main(command)
            lines = capsys.readouterr().err.splitlines()
            ballast.unlink()
            if code == 0:
                break
            assert code == 1
            assert lines[-1].startswith(
                ("error: the disk is full (indexes/photos", "error: building the index takes 1 MB")
            )
            assert all(name.startswith("part-") for name in (os.listdir(FOLDER) if FOLDER.exists() else []))
            if pages % 4 == 1:
                assert main(command) == 0
                assert sorted(os.listdir(FOLDER)) == sorted([*WHOLE, *(["codes.faiss"] if kind == "sq8" else [])])
        assert pages > 4


def test_a_full_disk_leaves_the_old_index_as_it_was(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(space / "indexes", 256):
        update()
        before = {name: (FOLDER / name).read_bytes() for name in WHOLE}
        picture(space / "photos/cat/new.png", 77)
        Path("indexes/ballast").write_bytes(bytes(shutil.disk_usage("indexes").free - 3 * 4096))
        assert "the disk is full (indexes/photos" in error_of("index", "photos", "--model", "m.onnx", capsys=capsys)
        assert {name: (FOLDER / name).read_bytes() for name in WHOLE} == before
        assert main(["search", "photos/cat/0.png", "--model", "m.onnx"]) == 0
        Path("indexes/ballast").unlink()
        assert counts(update()) == (13, 1, 12, 0, 0)


def test_a_read_only_disk_is_told_and_can_be_searched(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(space / "indexes", 256):
        update()
        subprocess.run(["mount", "-o", "remount,ro", "indexes"], check=True)
        assert error_of("index", "photos", "--model", "m.onnx", capsys=capsys) == (
            "indexes/photos/.alexnet.lock: Read-only file system"
        )
        assert error_of("index", "photos", "--model", "m.onnx", "--out", "other", capsys=capsys) == (
            "indexes/other: Read-only file system"
        )
        assert main(["search", "photos/cat/0.png", "--model", "m.onnx"]) == 0


def test_files_are_readable_as_the_umask_says(space: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in FOLDER.iterdir()} == dict.fromkeys(
        [*WHOLE, "codes.faiss"], "0o640"
    )


# Searches and updates at the same time


def test_a_second_update_at_the_same_time_is_refused(space: Path) -> None:
    message = "another process is writing the index indexes/photos: wait for it to end, or choose another name"
    with one_writer(Path("indexes/photos"), "index"), pytest.raises(AlexNetError, match=f"^{re.escape(message)}$"):
        update()
    update()
    assert not Path("indexes/photos/.alexnet.lock").exists()


UPDATES = """
import sys
from pathlib import Path
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
model, pictures = OnnxModel.open(Path("m.onnx")), sorted(Path("photos").rglob("*.png"))
for number in range(16):
    away = pictures[number % 12]
    away.rename("away.png")
    kind = ("flat", "sq8")[number % 2]
    build_index(open_collection(Path("photos")), model, Path("indexes/photos"), model_path=Path("m.onnx"), kind=kind)
    Path("away.png").rename(away)
"""


def test_an_index_opens_whole_however_often_it_is_updated_meanwhile(space: Path) -> None:
    update()
    names = [str(path.relative_to("photos")) for path in Path("photos").rglob("*.png")]
    features = OnnxModel.open(Path("m.onnx")).features([Path("photos", name) for name in names])
    expected = dict(zip(names, features, strict=True))
    opened, generations = 0, set()
    with subprocess.Popen([sys.executable, "-c", UPDATES], stderr=subprocess.PIPE, text=True) as updater:
        while updater.poll() is None:
            with contextlib.closing(Index.open(FOLDER)) as index:
                assert len(index) in (11, 12)
                vectors = index.vectors.read(0, len(index))
                for row, name, label, _ in index.table.rows():
                    assert label == name.split("/")[0]
                    np.testing.assert_allclose(vectors[row], expected[name], rtol=1e-4, atol=1e-5)
                (nearest,) = index.neighbours(vectors[-1:], 3)
                assert (nearest[0].row, nearest[0].distance) == (len(index) - 1, 0)
                generations.add(index.facts["generation"])
            opened += 1
        assert updater.wait() == 0, updater.stderr and updater.stderr.read()
    assert opened > len(generations) > 5


@pytest.mark.parametrize("kind", ["flat", "sq8"])
def test_an_open_index_goes_on_answering_from_its_generation(kind: str, space: Path) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    with contextlib.closing(Index.open(FOLDER)) as index:
        queries = index.vectors.read(0, 12)
        before = index.neighbours(queries, 5)
        shutil.rmtree("photos/cat")
        picture(space / "photos/owl/new.png", 7)
        for _ in range(2):  # the files are replaced, then removed
            update()
            assert index.neighbours(queries, 5) == before
            shutil.rmtree("indexes")


# Collections


def test_a_collection_closes_its_threads_and_its_files(space: Path) -> None:
    shutil.make_archive("photos", "gztar", "photos")
    collection = open_collection(Path("photos.tar.gz"))
    assert isinstance(collection, FileCollection)
    collection.load([collection.all()[0].name], 32)
    (temporary,) = collection.files.temporary_files
    assert os.path.exists(temporary.name)
    collection.close()
    assert not os.path.exists(temporary.name)
    with pytest.raises(RuntimeError, match="after shutdown"):
        collection.load(["cat/0.png"], 32)
