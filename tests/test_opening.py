"""Opening a model: which file runs it, and when it is exported first."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import SIZE, write_onnx

from alexnet_cli.commands import main
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.opening import open_model, open_network
from alexnet_cli.progress import Progress

MADE_UP = "no dataset of this picture size here: the export is checked on made-up pictures"


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str, detail: str = "") -> None:
        self.notes.append(text)


def save(folder: Path, narrow, packed, seed: int = 0) -> Path:
    net = initialize(narrow.build(3), seed)
    mean_image = packed.statistics().mean_image
    Model(net=net, recipe=narrow, classes=packed.classes, mean_image=mean_image, provenance={}).save(folder)
    return folder


def test_a_folder_is_exported_when_its_file_is_missing_or_old(narrow, packed, tmp_path):
    folder, progress = save(tmp_path / "m", narrow, packed), Noted()
    first = open_model(folder, datasets=[packed.path], progress=progress)
    assert isinstance(first, OnnxModel)
    assert (first.name, first.fingerprint) == ("m", Model.load(folder).fingerprint)
    assert progress.notes == [f"exporting {folder} first"]
    written = (folder / "model.onnx").stat().st_mtime_ns
    again = open_model(str(folder), progress=progress)
    assert again.fingerprint == first.fingerprint
    assert (folder / "model.onnx").stat().st_mtime_ns == written
    assert len(progress.notes) == 1
    save(folder, narrow, packed, seed=1)
    newer = open_model(folder, progress=progress)
    assert newer.fingerprint == Model.load(folder).fingerprint != first.fingerprint
    assert progress.notes[1:] == [f"exporting {folder} first", MADE_UP]
    images = packed.split("val").read(np.arange(4))
    for found, expected in zip(newer.run(images), open_network(folder, "cpu").run(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_damaged_file_of_a_folder_is_exported_again_and_a_file_by_itself_refused(packed, exported_folder, tmp_path):
    folder, progress = shutil.copytree(exported_folder, tmp_path / "m"), Noted()
    file = folder / "model.onnx"
    whole = file.read_bytes()
    damaged = whole[: len(whole) // 2], whole[:-1] + b"?", b"", whole[:1000] + bytes([whole[1000] ^ 4]) + whole[1001:]
    for content in damaged[:2]:
        file.write_bytes(content)
        assert (
            open_model(folder, datasets=[packed.path], progress=progress).fingerprint == Model.load(folder).fingerprint
        )
        assert file.read_bytes()[:-46] == whole[:-46]
    assert progress.notes == 2 * [f"{file} is damaged or of another format", f"exporting {folder} first"]
    for content in damaged:
        (tmp_path / "alone.onnx").write_bytes(content)
        with pytest.raises(BadArtefact, match=r"alone.onnx is .*: export it again$"):
            open_model(tmp_path / "alone.onnx")


def test_a_folders_file_of_another_precision_is_exported_again(packed, exported_folder, tmp_path):
    folder, progress = shutil.copytree(exported_folder, tmp_path / "m"), Noted()
    pictures = packed.split("train").read(np.arange(5))
    export_model(folder, folder / "model.onnx", precision="fp16", pictures=pictures)
    assert open_model(folder / "model.onnx").precision == "fp16"  # by itself it is as good as any
    assert open_model(folder, datasets=[packed.path], progress=progress).precision == "fp32"
    assert progress.notes == [f"{folder}/model.onnx is of precision fp16, not fp32", f"exporting {folder} first"]
    assert OnnxModel.open(folder / "model.onnx").precision == "fp32"


def test_the_backend_runs_a_folder_and_onnx_runtime_a_file(narrow, packed, tmp_path):
    folder, file = save(tmp_path / "m", narrow, packed), write_onnx(tmp_path / "file.onnx")
    network = open_model(folder, device="cpu", backend="torch")
    assert isinstance(network, NetworkModel)
    assert not (folder / "model.onnx").exists()
    assert network.fingerprint == open_network(folder).fingerprint == Model.load(folder).fingerprint
    for backend in ("onnx", "torch"):
        assert isinstance(open_model(file, backend=backend), OnnxModel)


def test_what_cannot_be_opened(narrow, packed, tmp_path):
    for backend in ("onnx", "torch"):
        with pytest.raises(BadArtefact, match=r"^no model at .*none: it has no model.safetensors$"):
            open_model(tmp_path / "none", backend=backend)
    with pytest.raises(BadArtefact, match=r"^no ONNX file at .*none.onnx: make one with `alexnet export`$"):
        open_model(tmp_path / "none.onnx")
    folder = save(tmp_path / "m", narrow, packed)
    with pytest.raises(AlexNetError, match=r"^this machine has no device 'nowhere': try --device cpu$"):
        open_network(folder, "nowhere")


def test_an_onnx_file_is_opened_and_asked_without_torch(tmp_path):
    code = (
        "import sys, numpy as np; from alexnet_cli.opening import open_model\n"
        "model = open_model(sys.argv[1])\n"
        f"image = np.zeros(({SIZE}, {SIZE}, 3), np.uint8)\n"
        "model.predict(image), model.features(image)\n"
        "assert 'torch' not in sys.modules"
    )
    path = write_onnx(tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_of_another_precision_is_named_as_the_model_to_index_with(packed, exported_folder, tmp_path, capsys):
    folder = shutil.copytree(exported_folder, tmp_path / "models" / "m")
    asked = ["export", "m", "--workspace", str(tmp_path), "--out", str(folder / "model.onnx")]
    assert main([*asked, "--precision", "fp16"]) == 0
    assert f": alexnet index FOLDER --model {folder}/model.onnx " in capsys.readouterr().out
    assert main(asked) == 0
    assert (
        "Next, with the folder of your pictures for FOLDER: alexnet index FOLDER --model m " in capsys.readouterr().out
    )
