"""Files that are whole or not there: temporary names, the lock, checksums, tensors."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.files import (
    LOCK_FILE,
    atomic_write,
    checksum,
    file_checksum,
    one_writer,
    read_json,
    read_tensors,
    sweep,
    temporary_folder,
    write_json,
    write_tensors,
)
from alexnet_cli.outputs import write_output

TENSORS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(7, np.int64),  # of no dimension, as batch norm's
    "sums": np.ones((3, 3)),
    "pixels": np.arange(5, dtype=np.uint8),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}
HOLD = """
import sys, pathlib
from alexnet_cli.files import one_writer
with one_writer(pathlib.Path(sys.argv[1]), "dataset"):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_FILE = """
import sys, pathlib
from alexnet_cli.files import atomic_write
with atomic_write(pathlib.Path(sys.argv[1])) as temporary:
    print(temporary.name, flush=True)
    sys.stdin.read()
print("done")
"""


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "facts.json"
    file.write_text("old")

    def write():
        with atomic_write(file) as temporary:
            temporary.write_text("new")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["facts.json"]
    assert file.read_text() == "old"


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("é" * 125 + ".json")  # 255 bytes
    with atomic_write(path) as temporary:
        temporary.write_text("{}")
        with_lock = {file.name for file in tmp_path.iterdir()}
        sweep(tmp_path, of=path)
        assert {file.name for file in tmp_path.iterdir()} == with_lock
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_files_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "model.safetensors", TENSORS, {})
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("a")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    def write():
        with atomic_write(tmp_path / "a.bin") as temporary, open("/dev/full", "wb", buffering=0) as full:
            temporary.write_bytes(b"")
            full.write(b"x")

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a.bin")


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).symlink_to(tmp_path / other)
    with pytest.raises(AlexNetError, match="leads nowhere"), write_output(tmp_path / "a"):
        pass
    for read in (lambda path: read_json(path, what="report"), lambda path: read_tensors(path, what="model")):
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "pipe")  # which would wait for a writer
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        before = path.stat()
        with (
            pytest.raises(AlexNetError, match="a pipe or leads nowhere: name a file"),
            write_output(path),
        ):
            pass
        assert os.path.samestat(path.stat(), before)


def test_only_one_process_writes_an_artefact(tmp_path):
    folder = tmp_path / "photos"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlexNetError) as caught, one_writer(folder, "dataset"):
        pass
    assert str(caught.value) == (
        f"another process is writing the dataset {folder}: wait for it to end, or choose another name"
    )
    holder.kill()  # the lock ends with its process, and what it left is swept
    holder.wait()
    (folder / ".mean.123-abc.part.npy").write_bytes(b"half")
    with one_writer(folder, "dataset"):
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    assert not folder.exists()


def test_what_another_process_holds_is_not_swept(tmp_path):
    """An export writes into a model's folder without its lock: a training that starts there leaves its file alone."""
    command = [sys.executable, "-c", HOLD_FILE, tmp_path / "model.onnx"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        temporary = other.stdout.readline().strip()
        with one_writer(tmp_path, "model"):
            assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE, temporary}
        assert other.communicate("")[0] == "done\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("writes", [atomic_write, temporary_folder])
def test_what_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch, writes):
    import fcntl

    lock, locked = fcntl.flock, []

    def swept_first(descriptor, operation):
        if not locked:
            (left,) = tmp_path.iterdir()
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        lock(descriptor, operation)
        locked.append(descriptor)

    monkeypatch.setattr(fcntl, "flock", swept_first)

    with writes(tmp_path / "model.onnx") as temporary:
        assert (len(locked), list(tmp_path.iterdir())) == (2, [temporary])
    assert [path.name for path in tmp_path.iterdir()] == (["model.onnx"] if writes is atomic_write else [])


def test_nothing_is_swept_before_it_has_its_name(tmp_path, monkeypatch):
    """Not while it is synced either, which takes a while for a large file."""
    sync = os.fsync

    def sweep_first(descriptor):
        sweep(tmp_path)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sweep_first)
    with atomic_write(tmp_path / "model.onnx") as temporary:
        temporary.write_bytes(b"model")
    with temporary_folder(tmp_path / "model.onnx") as folder:
        (folder / "large").write_bytes(b"x")
        sweep(tmp_path)
        assert (folder / "large").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_lock_that_is_a_link_or_a_fifo_harms_nothing(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"), one_writer(tmp_path / "photos", "dataset"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "photos" / LOCK_FILE).unlink()
    os.mkfifo(tmp_path / "photos" / LOCK_FILE)  # without a writer, opening it would block
    with one_writer(tmp_path / "photos", "dataset"):
        pass


@pytest.mark.parametrize("link", ["data", "data/photos"])
def test_a_folder_that_is_a_link_to_nothing_is_an_error(link, tmp_path):
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "a disk that is not there")
    with pytest.raises(FileExistsError), one_writer(tmp_path / "data" / "photos", "dataset"):
        pass


def test_what_others_call_a_part_is_left_alone(tmp_path):
    (tmp_path / ".my.parts").mkdir()
    for name in (".movie.part", ".my.parts/thesis.txt", ".lock"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".a.12-ab.part").symlink_to(tmp_path / ".my.parts")
    with one_writer(tmp_path, "model"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", ".movie.part", ".my.parts", "thesis.txt"]


def test_many_threads_never_hold_the_lock_together(tmp_path):
    held, most, inside = threading.Lock(), [0], [0]

    def work():
        for _ in range(100):
            try:
                with one_writer(tmp_path / "photos", "dataset"):
                    with held:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with held:
                        inside[0] -= 1
            except AlexNetError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert not (tmp_path / "photos").exists()


def test_sweep_removes_temporary_files_and_folders_and_nothing_else(tmp_path):
    (tmp_path / ".model.12-ab.part.onnx").write_bytes(b"")
    (tmp_path / ".source.12-ab.part").mkdir()
    (tmp_path / ".source.12-ab.part" / "1.jpg").write_bytes(b"")
    for name in ("model.onnx", ".hidden", "part.txt"):
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "model.onnx", "part.txt"]


def test_tensors_are_a_safetensors_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"recipe": "größe = 1"})
    for found in (load_file(path), read_tensors(path, what="model")[1]):
        assert set(found) == set(TENSORS)
        for name, array in TENSORS.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert np.array_equal(found[name], array)
    assert read_tensors(path, what="model")[0] == {"recipe": "größe = 1"}


def test_every_flipped_bit_of_a_tensor_file_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"weights": np.arange(6, dtype=np.float32)}, {"recipe": "x"})
    whole = path.read_bytes()
    for position in range(len(whole)):
        for damaged in (
            whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :],
            whole[:position],
        ):
            path.write_bytes(damaged)
            with pytest.raises(BadArtefact, match="damaged"):
                read_tensors(path, what="model")


def test_checksums_of_content_and_of_files_are_the_same(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9000)
    content = (tmp_path / "a").read_bytes()
    assert file_checksum(tmp_path / "a") == checksum(content)
    assert file_checksum(tmp_path / "a", start=100) == checksum(content[100:])


def test_an_error_of_the_system_is_told_as_itself(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path / "a.json", what="dataset")
    with pytest.raises(IsADirectoryError):
        read_tensors(tmp_path / "a.json", what="model")


def test_a_name_that_is_not_utf8_is_read_from_json_as_it_was_written(tmp_path) -> None:
    content = {"path": os.fsdecode(b"photos\xff"), "words": "été"}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", what="dataset") == content
    assert (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()[1:3] == [
        r'  "path": "photos\udcff",',
        '  "words": "été"',
    ]
