"""ONNX Runtime: pictures in, probabilities and fc7 out; files that are none of ours; no torch on this path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_files import CLASSES, CROP, FEATURES, SIZE, save, write_onnx

from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.inference.onnx_file import OnnxFile
from alexnet_cli.inference.onnx_model import CPU, OnnxModel, Runtime, _providers, session_options
from alexnet_cli.inference.predictor import BATCH
from alexnet_cli.inference.views import View
from alexnet_cli.progress import Progress


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def by_hand(path: Path, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the graph of `write_onnx` computes, in NumPy."""
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    seen = images[:, rows][:, :, columns].astype(np.float64) - weights["mean"][rows][:, columns]
    fc7 = np.maximum(seen.reshape(len(images), -1) @ weights["w7"], 0)  # (N, D)
    odds = np.exp(fc7 @ weights["w8"])
    return odds / odds.sum(axis=1, keepdims=True), fc7


def test_what_a_file_tells(tmp_path: Path) -> None:
    model = OnnxModel.open(write_onnx(tmp_path / "m.onnx"))
    assert (model.name, model.classes, model.fingerprint, model.precision) == ("m", CLASSES, "seed-0", "fp32")
    assert (model.image_size, model.crop, model.feature_size, model.feature_name) == (SIZE, CROP, FEATURES, "fc7")
    assert model.device in ("cpu", "cuda")
    assert OnnxModel.open(write_onnx(tmp_path / "pets" / "model.onnx")).name == "pets"


def test_the_features_are_the_other_output_whatever_its_name_and_place(tmp_path: Path) -> None:
    expected = OnnxModel.open(write_onnx(tmp_path / "m.onnx")).run(pictures(3))
    proto = onnx.load(tmp_path / "m.onnx")
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["hidden" if name == "fc7" else name for name in names]
    features = proto.graph.output.pop(1)
    features.name = "hidden"
    proto.graph.output.insert(0, features)
    save(proto, tmp_path / "other.onnx")
    model = OnnxModel.open(tmp_path / "other.onnx")
    assert (model.feature_name, model.feature_size) == ("hidden", FEATURES)
    for found, wanted in zip(model.run(pictures(3)), expected, strict=True):
        assert np.array_equal(found, wanted)
    del proto.graph.output[0]
    save(proto, tmp_path / "one.onnx")
    with pytest.raises(BadArtefact, match=r"one.onnx is not as `alexnet export` writes it \(ValueError\("):
        OnnxModel.open(tmp_path / "one.onnx")


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "cuda:", "cuda:x", "mps", ""])
def test_a_device_that_is_not_here(tmp_path: Path, device: str) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    assert OnnxModel.open(path, device="cpu").device == "cpu"
    with pytest.raises(AlexNetError, match=rf"^ONNX Runtime has no device '{device}' here: try --device cpu$"):
        OnnxModel.open(path, device=device)


@pytest.mark.parametrize("few", [None, 1])
def test_outputs_are_those_of_the_graph(tmp_path: Path, few: int | None) -> None:
    path, images, centre = write_onnx(tmp_path / "m.onnx"), pictures(3), np.arange(2, SIZE - 2)
    probabilities, fc7 = OnnxModel.open(path, pictures=few).run(images)
    expected = by_hand(path, images, centre, centre)
    assert probabilities.dtype == fc7.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected[0], rtol=1e-4)
    np.testing.assert_allclose(fc7, expected[1], rtol=1e-4, atol=1e-5)


def test_a_view_is_its_rows_and_columns(tmp_path: Path) -> None:
    path, images = write_onnx(tmp_path / "m.onnx"), pictures(2)
    rows, reflected = np.arange(CROP), np.arange(SIZE - 1, SIZE - 1 - CROP, -1)
    got = OnnxModel.open(path).run(images, View(rows, reflected))
    for ours, theirs in zip(got, by_hand(path, images, rows, reflected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_more_than_a_batch_is_the_same_as_one_by_one(tmp_path: Path) -> None:
    model, images = OnnxModel.open(write_onnx(tmp_path / "m.onnx")), pictures(2 * BATCH + 1)
    _, together = model.run(images)
    one_by_one = np.concatenate([model.run(images[i : i + 1])[1] for i in range(len(images))])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert [part.shape for part in model.run(images[:0])] == [(0, len(CLASSES)), (0, FEATURES)]


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(BadArtefact, match=r"^no ONNX file at .*gone.onnx: make one with `alexnet export`$"):
        OnnxModel.open(tmp_path / "gone.onnx")
    not_ours = "is cut short or was not made by `alexnet export`: export it again$"
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BadArtefact, match=f"text.onnx {not_ours}"):
        OnnxModel.open(tmp_path / "text.onnx")
    whole = write_onnx(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadArtefact, match=f"half.onnx {not_ours}"):
        OnnxModel.open(tmp_path / "half.onnx")
    with pytest.raises(BadArtefact, match=r"was not made by `alexnet export`"):
        OnnxModel.open(write_onnx(tmp_path / "other.onnx", without="alexnet_format"))
    with pytest.raises(BadArtefact, match=r"has format version 2, this program reads up to 1: upgrade alexnet-cli$"):
        OnnxModel.open(write_onnx(tmp_path / "new.onnx", alexnet_format="2"))
    with pytest.raises(BadArtefact, match=r"is not as `alexnet export` writes it \(KeyError\('classes'\)\)"):
        OnnxModel.open(write_onnx(tmp_path / "bare.onnx", without="classes"))


def test_any_flipped_byte_and_any_cut_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in [*random.integers(0, len(whole), 60), *range(len(whole) - 46, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(BadArtefact, match=r"m.onnx is (damaged|cut short).*: export it again$"):
            OnnxModel.open(path)
    for length in [0, 1, 45, 46, 47, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadArtefact, match=r"m.onnx is (damaged|cut short).*: export it again$"):
            OnnxModel.open(path)
    path.write_bytes(whole)
    assert OnnxModel.open(path).classes == CLASSES


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for dimension in (1, 3):
        proto = onnx.load(write_onnx(tmp_path / "m.onnx"))
        proto.graph.input[0].type.tensor_type.shape.dim[dimension].dim_value = 10**9
        refused = r"m.onnx is (not as `alexnet export` writes it|damaged).*: export it again$"
        with pytest.raises(BadArtefact, match=refused):
            OnnxModel.open(save(proto, tmp_path / "m.onnx")).features(np.zeros((1, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(BadArtefact, match=r"pictures of 32 pixels, views of 1000000000, 6 classes"):
        OnnxModel.open(write_onnx(tmp_path / "m.onnx", crop=str(10**9)))


def test_a_file_that_cannot_be_read_is_no_damage(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    path.unlink()
    path.symlink_to("/proc/self/mem")  # even root may not read it from its beginning
    with pytest.raises(OSError, match="Input/output error"):
        OnnxModel.open(path)


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str, detail: str = "") -> None:
        self.notes.append(text)


def without_cuda() -> bool:
    return torch.cuda.is_available() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.mark.skipif(without_cuda(), reason="needs ONNX Runtime for CUDA where there is no CUDA")
def test_a_cuda_that_does_not_start_is_noted_unless_it_was_asked_for(tmp_path: Path) -> None:
    path, progress = write_onnx(tmp_path / "m.onnx"), Noted()
    cuda = ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})
    model = OnnxModel(OnnxFile(path), Runtime(session_options(False), [cuda, CPU], must=False, progress=progress))
    assert progress.notes == ["there is a GPU, but ONNX Runtime could not start CUDA: using the CPU"]
    assert model.device == "cpu"
    assert np.array_equal(model.features(pictures(2)), OnnxModel.open(path).features(pictures(2)))
    with pytest.raises(
        AlexNetError, match=r"^there is a GPU, but ONNX Runtime could not start CUDA: try --device cpu$"
    ):
        OnnxModel(OnnxFile(path), Runtime(session_options(False), [cuda, CPU], must=True))


def test_a_gpu_that_fails_while_it_works_is_left(tmp_path: Path) -> None:
    path, progress = write_onnx(tmp_path / "m.onnx"), Noted()
    expected = OnnxModel.open(path, device="cpu").run(pictures(2))
    for must in (False, True):
        model = OnnxModel(OnnxFile(path), Runtime(session_options(False), [CPU], must=must, progress=progress))
        # A session that refuses these pictures, in the place of a GPU whose memory is full.
        model.session = OnnxModel.open(write_onnx(tmp_path / "other.onnx", size=40), device="cpu").session
        model.runtime.providers = [("CUDAExecutionProvider", {}), CPU]
        if must:
            refused = r"^there is a GPU, but ONNX Runtime failed on it \(.*\): try --device cpu$"
            with pytest.raises(AlexNetError, match=refused):
                model.run(pictures(2))
        else:
            assert all(map(np.array_equal, model.run(pictures(2)), expected))
            assert len(progress.notes) == 1
            assert progress.notes[0].endswith(": using the CPU")
            assert model.device == "cpu"


REFLECTED = View(np.arange(CROP), np.arange(SIZE - 1, SIZE - 1 - CROP, -1))


def test_an_open_model_stays_the_file_that_was_opened(tmp_path: Path) -> None:
    path, newer = write_onnx(tmp_path / "m.onnx"), write_onnx(tmp_path / "newer.onnx", seed=1)
    centre, reflected = (OnnxModel.open(path, device="cpu").run(pictures(2), view) for view in (None, REFLECTED))
    model, failing = OnnxModel.open(path, device="cpu"), OnnxModel.open(path, device="cpu")
    newer.replace(path)
    assert all(map(np.array_equal, model.run(pictures(2), REFLECTED), reflected))
    failing.session = OnnxModel.open(write_onnx(tmp_path / "other.onnx", size=40), device="cpu").session
    failing.runtime.providers, failing.runtime.must = [("CUDAExecutionProvider", {}), CPU], False
    assert all(map(np.array_equal, failing.run(pictures(2)), centre))


def test_a_file_that_is_written_over_is_not_used_any_more(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    model = OnnxModel.open(path)
    path.write_bytes(write_onnx(tmp_path / "newer.onnx", seed=1).read_bytes())
    with pytest.raises(BadArtefact, match=r"^.*/m.onnx was written over while it was in use: open it again$"):
        model.run(pictures(2), REFLECTED)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_mixed_up(tmp_path: Path, monkeypatch) -> None:
    path, newer = write_onnx(tmp_path / "m.onnx"), write_onnx(tmp_path / "newer.onnx", seed=1)
    expected = OnnxModel.open(path, device="cpu").run(pictures(2))
    session = Runtime.session

    def after_an_export(self, model):
        if newer.exists():
            newer.replace(path)
        return session(self, model)

    monkeypatch.setattr(Runtime, "session", after_an_export)
    model = OnnxModel.open(path, device="cpu")
    assert not newer.exists()
    assert model.fingerprint == "seed-0"
    assert all(map(np.array_equal, model.run(pictures(2)), expected))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    cpu, gpu = (OnnxModel.open(path, device=device) for device in ("cpu", "cuda:0"))
    assert (cpu.device, gpu.device, OnnxModel.open(path).device) == ("cpu", "cuda", "cuda")
    assert _providers("cuda:0")[0][1] == {"device_id": "0", "use_tf32": "0"}
    view = View(np.arange(CROP), np.arange(SIZE - 1, SIZE - 1 - CROP, -1))
    for shown in (None, view):
        for ours, theirs in zip(cpu.run(pictures(9), shown), gpu.run(pictures(9), shown), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def run_python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_plain_onnx_runtime_opens_it_without_a_warning(tmp_path: Path) -> None:
    code = (
        "import sys, onnxruntime; session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "print([one.name for one in session.get_inputs()])"
    )
    path = write_onnx(tmp_path / "m.onnx")
    done = run_python(code, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['image']\n", "")
    OnnxModel.open(path).run(pictures(1), View(np.arange(CROP), np.arange(CROP)))  # other views are still possible


def test_nothing_is_printed_and_no_torch_imported(tmp_path: Path) -> None:
    code = (
        "import sys, alexnet_cli.inference.onnx_model; assert 'torch' not in sys.modules\n"
        "import numpy as np; from pathlib import Path; from alexnet_cli.inference.onnx_model import OnnxModel\n"
        f"OnnxModel.open(Path(sys.argv[1])).run(np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8))\n"
        "assert 'torch' not in sys.modules"
    )
    done = run_python(code, write_onnx(tmp_path / "m.onnx"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("order", ["torch faiss onnxruntime", "onnxruntime faiss torch"])
def test_torch_faiss_and_onnxruntime_in_one_process(tmp_path: Path, order: str) -> None:
    """Their OpenMP libraries must not crash each other: each does real work after all are loaded."""
    code = (
        f"import sys, numpy as np, {', '.join(order.split())}\n"
        "from pathlib import Path; from alexnet_cli.inference.onnx_model import OnnxModel\n"
        "x = np.random.default_rng(0).random((200, 64), dtype=np.float32)\n"
        "t = torch.from_numpy(x) @ torch.from_numpy(x).T\n"
        f"r = OnnxModel.open(Path(sys.argv[1])).run(np.zeros((70, {SIZE}, {SIZE}, 3), np.uint8))[1]\n"
        "index = faiss.IndexFlatL2(64); index.add(x); d, i = index.search(x, 5)\n"
        "assert (i[:, 0] == np.arange(200)).all() and t.shape == (200, 200) and len(r) == 70\n"
        "torch.nn.functional.conv2d(torch.rand(2, 3, 16, 16), torch.rand(4, 3, 3, 3)).sum()\n"
        "print('well')"
    )
    done = run_python(code, write_onnx(tmp_path / "m.onnx"))
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
