"""ONNX Runtime: pictures in, probabilities and fc7 out; files that are none of ours; no torch on this path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_files import CLASSES, CROP, FEATURES, SIZE, write_onnx

from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import BATCH
from alexnet_cli.inference.views import View


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
    onnx.save(proto, tmp_path / "other.onnx")
    model = OnnxModel.open(tmp_path / "other.onnx")
    assert (model.feature_name, model.feature_size) == ("hidden", FEATURES)
    for found, wanted in zip(model.run(pictures(3)), expected, strict=True):
        assert np.array_equal(found, wanted)
    del proto.graph.output[0]
    onnx.save(proto, tmp_path / "one.onnx")
    with pytest.raises(BadArtefact, match=r"one.onnx is not as `alexnet export` writes it \(ValueError\("):
        OnnxModel.open(tmp_path / "one.onnx")


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "mps"])
def test_a_device_that_is_not_here(tmp_path: Path, device: str) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    assert OnnxModel.open(path, device="cpu").device == "cpu"
    if device.startswith("cuda") and OnnxModel.open(path).device == "cuda":
        pytest.skip("there is a GPU")
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
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BadArtefact, match=r"text.onnx is damaged or no ONNX file \(.*\): export it again$"):
        OnnxModel.open(tmp_path / "text.onnx")
    whole = write_onnx(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadArtefact, match=r"half.onnx is damaged or no ONNX file"):
        OnnxModel.open(tmp_path / "half.onnx")
    with pytest.raises(BadArtefact, match=r"was not made by `alexnet export`"):
        OnnxModel.open(write_onnx(tmp_path / "other.onnx", without="alexnet_format"))
    with pytest.raises(BadArtefact, match=r"has format version 2, this program reads up to 1: upgrade alexnet-cli$"):
        OnnxModel.open(write_onnx(tmp_path / "new.onnx", alexnet_format="2"))
    with pytest.raises(BadArtefact, match=r"is not as `alexnet export` writes it \(KeyError\('classes'\)\)"):
        OnnxModel.open(write_onnx(tmp_path / "bare.onnx", without="classes"))


def run_python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


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
