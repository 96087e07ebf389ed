"""Several processes that torchrun starts compute what one process computes. On a CPU, over gloo."""

import itertools
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import write_onnx
from pictures import encoded
from training_runs import TRAIN, temporary_files

from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.distributed import World
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import drop
from alexnet_cli.peers import Peers
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.training import checkpoint, trainer
from alexnet_cli.training.sgd import SGD

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def workspace(packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(packed.path.parent)
    return tmp_path


def run(workspace: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in two processes, by torchrun."""
    return subprocess.Popen(
        [*TORCHRUN, "-m", "alexnet_cli", *words],
        cwd=workspace,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# torchrun and its two processes import torch for seconds each. Where it does not matter what started them, they are
# forked from a process that has imported it, with the environment that torchrun gives.


def one_of_two(rank: int, port: int, folder: Path, words: list[str], fault: Callable[[], None] | None) -> None:
    """Runs a command as one of two processes; all that it writes goes to files."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"} | {
        k: str(v) for k, v in here.items()
    }
    os.chdir(folder)
    for descriptor, name in ((1, "printed"), (2, "said")):
        os.dup2(os.open(f"{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    if fault is not None:
        fault()
    sys.exit(main(words))


def start_both(
    folder: Path, *words: str, fault: Callable[[], None] | None = None, rank: int | None = None
) -> tuple[list[BaseProcess], torch.distributed.TCPStore]:
    """Start a command in two processes; rank ``rank`` meets with ``fault``. Also the store that torchrun would have."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet_cli.training.train", "alexnet_cli.training.curves"])
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    both = [
        context.Process(target=one_of_two, args=(i, store.port, folder, [*words], fault if i == rank else None))
        for i in (0, 1)
    ]
    for process in both:
        process.start()
    return both, store


def run_both(folder: Path, *words: str) -> tuple[str, str]:
    """What two processes print, and what they say on standard error. Both must succeed."""
    both, _store = start_both(folder, *words)
    for process in both:
        process.join(120)
    printed, said = ("".join((folder / f"{name}-{i}").read_text() for i in (0, 1)) for name in ("printed", "said"))
    assert [process.exitcode for process in both] == [0, 0], said
    return printed, said


def test_shards_cover_all_items_and_have_almost_the_same_length():
    for size in (1, 2, 3, 7):
        shards = [World(rank=rank, size=size).shard(20) for rank in range(size)]
        assert np.array_equal(np.concatenate([np.arange(20)[shard] for shard in shards]), np.arange(20))
        lengths = [shard.stop - shard.start for shard in shards]
        assert max(lengths) - min(lengths) <= 1


def test_dropout_does_not_depend_on_how_images_are_split_over_processes():
    (whole,) = drop([torch.ones(7, 40)], 0.5, seed=1)
    parts = [drop([torch.ones(3, 40)], 0.5, 1, (0, 7))[0], drop([torch.ones(4, 40)], 0.5, 1, (3, 7))[0]]
    assert torch.equal(whole, torch.cat(parts))


def test_two_processes_with_half_of_each_batch_are_one_with_all_of_it(workspace):
    # 42 pictures in batches of 41: the last batch has one picture, so one process has none of it.
    words = [*TRAIN, "--set", "training.batch=41"]
    out, err = run_both(workspace, *words, "--out", "two", "--json")
    assert json.loads(out)["epochs"] == 2  # one object: only rank 0 prints
    assert err.count("epoch 2: loss") == 1
    assert main([*words, "--out", "one"]) == 0
    one, both = (Model.load(workspace / "models" / name) for name in ("one", "two"))
    for mine, other in zip(one.net.parameters(), both.net.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    rows = [checkpoint.read_state(workspace / "models" / name).history[-1] for name in ("one", "two")]
    assert rows[0]["validation_error"] == rows[1]["validation_error"]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
    assert both.provenance["processes"] == 2


def test_evaluation_counts_every_image_once(workspace, capsys):
    assert main([*TRAIN, "--out", "m"]) == 0
    capsys.readouterr()
    assert main(["eval", "m", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    out, _ = run_both(workspace, "eval", "m", "--json")
    assert alone["images"] == 21
    assert json.loads(out) == alone


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """1,100 small pictures, enough for several chunks and parts; two of them cannot be read."""
    random = np.random.default_rng(0)
    for i in range(1100):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        path.write_bytes(b"nothing" if i in (20, 1050) else encoded(np.kron(colours, np.ones((4, 4, 1), np.uint8))))
    return tmp_path / "photos"


def content(folder: Path, *, without: str = "") -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != without}


class RecordedProgress(Progress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str, detail: str = "") -> None:
        self.notes.append(text)


class DeadPeer(World):
    """Rank 0 of two; rank 1 dies after the first barrier, before it has done any work."""

    def all_reduce(self, *values: float) -> list[float]:
        if values != (0,):  # not a barrier
            raise AlexNetError("the other process died")
        return list(values)


def test_prep_by_two_processes_makes_the_bytes_of_one(tmp_path, photos, monkeypatch):
    out, _ = run_both(tmp_path, "prep", "photos", "two", "--size", "16", "--json")
    shown = json.loads(out)
    assert (shown["splits"], shown["rejected"]) == ({"train": 989, "val": 109}, 2)
    monkeypatch.chdir(tmp_path)
    prepare(Path("photos"), tmp_path / "one", size=16, workers=1)
    assert content(tmp_path / "one") == content(tmp_path / "data" / "two")


def test_prep_packs_what_a_dead_process_left(tmp_path, photos):
    prepare(photos, tmp_path / "one", size=16, workers=1)
    with pytest.raises(AlexNetError, match="the other process died"):
        prepare(photos, tmp_path / "two", size=16, workers=1, world=DeadPeer(rank=0, size=2))
    packed = set(os.listdir(tmp_path / "two" / "packing"))
    assert packed == {f"{name}.safetensors" for name in ("train-000000000", "train-000000512", "val-000000000")}
    progress = RecordedProgress()
    prepare(photos, tmp_path / "two", size=16, workers=1, progress=progress)
    assert f"resuming {tmp_path / 'two'}: 622 of 1,100 pictures are already packed" in progress.notes
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_an_index_by_two_processes_has_the_bytes_of_one(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "m.onnx")
    out, _ = run_both(tmp_path, "index", "photos", "--model", "m.onnx", "--out", "two", "--json")
    shown = json.loads(out)
    assert (shown["images"], shown["added"], shown["refused"]) == (1098, 1098, 2)
    model = Path("m.onnx")
    build_index(open_collection(Path("photos")), OnnxModel.open(model), tmp_path / "indexes" / "one", model_path=model)
    one, both = (content(tmp_path / "indexes" / name, without="index.json") for name in ("one", "two"))
    assert sorted(one) == ["images.sqlite", "index.faiss"]
    assert one == both


def test_an_index_makes_up_for_a_process_that_died(tmp_path, photos):
    runtime, folder = OnnxModel.open(write_onnx(tmp_path / "m.onnx")), tmp_path / "index"
    with pytest.raises(AlexNetError, match="the other process died"):
        build_index(
            open_collection(photos), runtime, folder, model_path=tmp_path / "m.onnx", world=DeadPeer(rank=0, size=2)
        )
    (left,) = os.listdir(folder)
    assert left.startswith("part-")
    progress = RecordedProgress()
    built = build_index(open_collection(photos), runtime, folder, model_path=tmp_path / "m.onnx", progress=progress)
    assert "resuming: 1,024 of 1,100 pictures are already embedded" in progress.notes
    assert (built.images, built.added, len(built.refused)) == (1098, 1098, 2)
    build_index(open_collection(photos), runtime, tmp_path / "whole", model_path=tmp_path / "m.onnx")
    assert content(folder, without="index.json") == content(tmp_path / "whole", without="index.json")


def test_under_torchrun_a_process_that_dies_ends_the_run_which_one_process_can_resume(workspace):
    words = [*TRAIN, "--epochs", "3000", "--out", "long"]
    both = run(workspace, *words)
    history = workspace / "models" / "long" / "history.jsonl"
    while not history.exists():
        assert both.poll() is None, both.communicate()
        time.sleep(0.05)
    children = Path(f"/proc/{both.pid}/task/{both.pid}/children").read_text().split()
    second = next(
        pid for pid in map(int, children) if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    )
    os.kill(second, signal.SIGKILL)
    _, err = both.communicate(timeout=10)
    assert both.returncode == 1
    resume = "alexnet train --resume --out long"
    assert [line for line in err.splitlines() if line.startswith("error")] == [
        f"error: rank 1 of this run was lost; resume, under torchrun or alone, with: {resume}"
    ]
    done = len(checkpoint.read_state(workspace / "models" / "long").history)
    assert main([*resume.split()[1:], "--epochs", str(done + 1)]) == 0
    assert Model.load(workspace / "models" / "long").provenance["epochs"] == done + 1
    assert temporary_files(workspace / "models") == []


# What happens to one of two processes. torchrun would send the other one SIGTERM.


def die(*_args: object, **_options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, function: Callable[..., object], instead: Callable[..., object]) -> Callable[..., object]:
    """``function``, but at its ``number``-th call ``instead``."""
    calls = itertools.count(1)
    return lambda *args, **kwargs: (instead if next(calls) == number else function)(*args, **kwargs)


def before_it_joins() -> None:
    Peers.meet = die


def joining() -> None:
    torch.distributed.init_process_group = die


def in_an_update() -> None:
    SGD.step = at_call(3, SGD.step, die)


def in_a_checkpoint() -> None:
    os.fsync = at_call(5, os.fsync, die)  # two files at the start, each with its folder


def in_the_validation() -> None:
    trainer.count_errors = die


def by_an_error() -> None:
    def broken(*_args: object) -> None:
        raise ValueError("broken")

    SGD.step = at_call(3, SGD.step, broken)


def by_the_size_of_a_file() -> None:
    def small(*args: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        step(*args)

    step = SGD.step
    SGD.step = at_call(3, step, small)


def by_ctrl_c() -> None:
    def interrupted(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        step(*args)

    step = SGD.step
    SGD.step = at_call(3, step, interrupted)


@pytest.mark.parametrize(
    ("fault", "rank", "error", "codes"),
    [
        (before_it_joins, 1, "error: rank 1 of this run was lost; run the same command again", (1, -9)),
        (joining, 1, "error: rank 1 of this run was lost; run the same command again", (1, -9)),
        (in_an_update, 1, "error: rank 1 of this run was lost; {}", (1, -9)),
        (in_an_update, 0, "error (rank 1): rank 0 of this run was lost; {}", (-9, 1)),
        (in_a_checkpoint, 0, "error (rank 1): rank 0 of this run was lost; {}", (-9, 1)),
        (in_the_validation, 1, "error: rank 1 of this run was lost; {}", (1, -9)),
        (
            by_an_error,
            1,
            "error (rank 1): unexpected ValueError: broken (run again with --debug for the traceback); {}",
            (1, 1),
        ),
        (by_the_size_of_a_file, 0, "error: models/m/checkpoint/state.safetensors: File too large; {}", (1, 1)),
        (by_ctrl_c, 1, "error: stopped and saved in epoch 2; {}", (130, 130)),
    ],
)
def test_the_loss_of_a_process_is_one_line_that_says_which_and_how_to_resume(workspace, fault, rank, error, codes):
    both, _store = start_both(workspace, *TRAIN, "--epochs", "3", "--out", "m", fault=fault, rank=rank)
    both[rank].join(60)
    if fault is before_it_joins:
        both[1 - rank].join(1)
        both[1 - rank].terminate()  # as torchrun does
    both[1 - rank].join(10)
    assert tuple(process.exitcode for process in both) == codes
    said = [line for i in (0, 1) for line in (workspace / f"said-{i}").read_text().splitlines()]
    expected = error.format("resume, under torchrun or alone, with: alexnet train --resume --out m")
    shown = ("training recipe", "epoch ", "evaluating")  # the progress
    assert [line for line in said if not line.startswith(shown)] == [expected]
    if "resume" in expected:
        assert main(["train", "--resume", "--out", "m"]) == 0
        assert temporary_files(workspace / "models") == []
