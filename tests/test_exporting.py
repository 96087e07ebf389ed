"""The ONNX file: what it takes and gives, and that it is never there without being right."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import xxhash
from conftest import exported_as, save_untrained
from torch import nn

from alexnet_cli import recipe as recipes
from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.exporting import export as module
from alexnet_cli.exporting.comparison import COSINE, SAME_CLASS, ExportMismatch, compare
from alexnet_cli.exporting.export import _interrupts_kept, export_model
from alexnet_cli.exporting.pictures import pictures_to_calibrate, pictures_to_check
from alexnet_cli.files import sweep
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import centre_view, ten_views
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.nets.operations import OPERATIONS, Operation


@pytest.fixture
def folder(packed, tmp_path):
    """A model that was not trained."""
    return save_untrained(packed, tmp_path / "m")


@pytest.fixture(scope="module")
def every_precision(exported, packed):
    """The model of ``exported`` in each precision; not to be changed."""
    others = ("fp16", "int8")
    return {"fp32": exported} | {one: exported_as(one, exported.export.path.parent, packed) for one in others}


@pytest.fixture(scope="module")
def exports(every_precision):
    """The files of ``every_precision``."""
    return {precision: one.export for precision, one in every_precision.items()}


@pytest.fixture
def pictures(packed):
    return packed.split("train").read(np.arange(9))


def by_the_network(folder, pictures, rows, columns):
    model = Model.load(folder)
    centred = (pictures.astype(np.float32) - model.mean_image) / np.float32(model.recipe.image.divide_by)
    crops = torch.from_numpy(centred[:, rows][:, :, columns]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits, fc7 = model.net(crops)
    return logits.softmax(1).numpy(), fc7.numpy()


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_any_batch_gives_what_the_network_gives(exports, pictures, batch):
    folder = exports["fp32"].path.parent
    session = onnxruntime.InferenceSession(exports["fp32"].path)
    rows, columns = centre_view(72, 67)
    got = session.run(["probabilities", "fc7"], {"image": pictures[:batch]})
    for ours, theirs in zip(by_the_network(folder, pictures[:batch], rows, columns), got, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_other_views_can_be_asked_of_the_same_file(exports, pictures):
    folder, model = exports["fp32"].path.parent, OnnxModel.open(exports["fp32"].path)
    for view in ten_views(72, 67):
        got = model.run(pictures, view)
        np.testing.assert_allclose(by_the_network(folder, pictures, *view)[1], got[1], atol=1e-5)


def test_wherever_a_view_lies_the_central_crop_of_the_mean_is_subtracted(packed, pictures, tmp_path):
    folder = save_untrained(packed, tmp_path / "m", settings=["image.mean_crop=central"])
    net, exported = Model.load(folder), OnnxModel.open(export_model(folder, pictures=pictures).path)
    for view in ten_views(72, 67):
        mean = net.mean_image[2:69, 2:69][:, :: 1 if view.columns[0] < view.columns[-1] else -1]
        centred = (pictures[:, view.rows][:, :, view.columns] - mean) / np.float32(58)
        with torch.no_grad():
            logits, _ = net.net(torch.from_numpy(centred).permute(0, 3, 1, 2))
        probabilities, _ = exported.run(pictures, view)
        np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)


def test_one_file_that_takes_uint8_pictures_and_says_what_it_is(exports):
    done, folder = exports["fp32"], exports["fp32"].path.parent
    assert sorted(file.name for file in folder.iterdir()) == [
        *("MODEL_CARD.md", "model.fp16.onnx", "model.int8.onnx", "model.onnx", "model.safetensors", "recipe.toml")
    ]
    onnx.checker.check_model(str(done.path), full_check=True)
    session = onnxruntime.InferenceSession(done.path)
    (image,) = session.get_inputs()
    assert session.get_overridable_initializers() == []
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [72, 72, 3])
    assert isinstance(image.shape[0], str)
    outputs = {output.name: (output.type, output.shape[1:]) for output in session.get_outputs()}
    assert outputs == {"probabilities": ("tensor(float)", [3]), "fc7": ("tensor(float)", [32])}
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["blue", "green", "red"]
    assert metadata["fingerprint"] == Model.load(folder).fingerprint
    assert recipes.loads(metadata["recipe"]) == Model.load(folder).recipe
    assert (metadata["alexnet_format"], metadata["precision"], metadata["crop"]) == ("1", "fp32", "67")
    assert metadata["checksum"] == xxhash.xxh3_128_hexdigest(done.path.read_bytes()[:-46])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plain_onnx_runtime_has_no_warning_and_the_file_no_path_of_this_machine(exports, pictures, precision):
    done, folder = exports[precision], exports[precision].path.parent
    content = done.path.read_bytes()
    for path in (Path(torch.__file__).parent.parent, Path(module.__file__).parent.parent, folder):
        assert bytes(path) not in content
    assert b".py" not in content
    proto = onnx.load(done.path)
    for node in proto.graph.node:
        assert (node.doc_string, list(node.metadata_props)) == ("", [])
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
    started = subprocess.run([sys.executable, "-c", code, str(done.path)], capture_output=True, text=True)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    corner = ten_views(72, 67)[0]
    expected = by_the_network(folder, pictures, *corner)
    for ours, theirs in zip(OnnxModel.open(done.path).run(pictures, corner), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.1)


def test_half_precision_has_half_weights_and_is_close(exports, pictures):
    whole, half = exports["fp32"], exports["fp16"]
    weights = [one for one in onnx.load(half.path).graph.initializer if one.name.endswith(".weight")]
    assert weights
    assert all(one.data_type == onnx.TensorProto.FLOAT16 for one in weights)
    a, b = (onnxruntime.InferenceSession(path).run(None, {"image": pictures}) for path in (whole.path, half.path))
    np.testing.assert_allclose(a[0], b[0], atol=0.01)
    np.testing.assert_allclose(a[1], b[1], atol=0.02 * a[1].max())


def test_bytes_for_weights_and_activations_but_for_the_last_layer(exports, pictures):
    whole, small = exports["fp32"], exports["int8"]
    kinds = {one.name: one.data_type for one in onnx.load(small.path).graph.initializer}
    in_bytes = {name.removesuffix(".weight_quantized") for name in kinds if name.endswith(".weight_quantized")}
    hidden = [f"conv{i}" for i in range(1, 6)]
    assert in_bytes == {f"net.columns.{i}.{layer}.weighted" for i in (0, 1) for layer in (*hidden, "fc6", "fc7")}
    assert {kinds[f"{name}.weight_quantized"] for name in in_bytes} == {onnx.TensorProto.INT8}
    assert kinds["net.fc8.weight"] == onnx.TensorProto.FLOAT
    a, b = (OnnxModel.open(path).run(pictures) for path in (whole.path, small.path))
    assert not np.array_equal(a[1], b[1])
    np.testing.assert_allclose(a[0], b[0], atol=0.02)
    assert np.linalg.norm(a[1] - b[1]) < 0.1 * np.linalg.norm(a[1])
    assert OnnxModel.open(small.path).fingerprint == Model.load(small.path.parent).fingerprint


def test_int8_wants_the_training_pictures(folder, packed, tmp_path, capfd):
    space = ["--workspace", str(tmp_path / "space")]
    assert main(["export", str(folder), "--precision", "int8", *space]) == 1
    assert "error: int8 takes its ranges from training pictures, and no dataset here" in capfd.readouterr().err
    (tmp_path / "space" / "data").mkdir(parents=True)
    (tmp_path / "space" / "data" / "colours").symlink_to(packed.path)
    assert main(["export", str(folder), "--precision", "int8", "--json", *space]) == 0
    said, err = capfd.readouterr()
    assert err == f"exporting {folder}\n"  # ONNX Runtime's advice is kept from users
    said = json.loads(said)
    assert said["precision"] == "int8"
    assert said["agreement_required"] == {"same_class": SAME_CLASS, "cosine": COSINE}
    assert {what: one["pictures"] for what, one in said["agreement"].items()} == {"calibration": 64, "other": 64}
    for one in said["agreement"].values():
        assert SAME_CLASS <= one["same_class"] <= 1
        assert COSINE <= one["cosine"] < 1


def test_a_damaged_dataset_is_passed_over(folder, packed, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "dataset.json").write_text("{")
    assert pictures_to_check([tmp_path / "damaged", packed.path], folder) is not None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_export_reads_the_model_once_and_leaves_it_as_it_was(every_precision, precision):
    (model,) = every_precision[precision].loaded
    untouched = Model.load(every_precision[precision].export.path.parent)
    assert not any(getattr(module, "channels_last", False) for module in model.net.modules())
    for (name, weight), expected in zip(model.net.named_parameters(), untouched.net.parameters(), strict=True):
        assert weight.dtype == expected.dtype, name
        assert torch.equal(weight, expected), name


def test_pictures_are_chosen_without_reading_the_weights(exported_folder, packed, monkeypatch):
    monkeypatch.setattr(Model, "load", None)
    pictures_to_check([packed.path], exported_folder)
    pictures_to_calibrate([packed.path], exported_folder)


def test_pictures_for_a_model_that_is_missing_or_damaged(folder, packed, tmp_path):
    with pytest.raises(BadArtefact, match=r"^no model at .*none: it has no model.safetensors$"):
        pictures_to_check([packed.path], tmp_path / "none")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadArtefact, match=r"is not a model, or is damaged \(.*\): train it again$"):
        pictures_to_check([packed.path], folder)


def test_a_graph_that_differs_is_an_error_and_no_file(folder, pictures, monkeypatch):
    plain = module.build_graph

    def broken(model, precision):
        proto = plain(model, precision)
        weight = next(one for one in proto.graph.initializer if one.name.endswith("fc8.weight"))
        weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        return proto

    monkeypatch.setattr(module, "build_graph", broken)
    with pytest.raises(
        ExportMismatch, match=r"differs from the network by .* in probabilities at batch 1: nothing was"
    ):
        export_model(folder, pictures=pictures)
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "model.safetensors", "recipe.toml"]


def test_the_command_says_how_far_it_is_from_the_network(folder, packed, capsys):
    assert main(["export", "m", "--workspace", str(folder.parent), "--json"]) == 1
    assert "error: no model 'm': there is neither" in capsys.readouterr().err
    assert main(["export", str(folder), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["probabilities_difference"] < 1e-5
    assert "the export is checked on made-up pictures" in said.err


def test_pictures_to_calibrate_on_and_others_to_check(packed, folder, source, tmp_path):
    calibration, others = pictures_to_calibrate([packed.path], folder)
    validation = packed.split("val").read(np.arange(21))
    assert {image.tobytes() for image in others} == {image.tobytes() for image in validation}
    (tmp_path / "s").symlink_to(source / "train")
    without = prepare(tmp_path / "s", tmp_path / "data" / "without", size=72, workers=1, val_fraction=0).dataset
    calibration, others = pictures_to_calibrate([without.path], folder)
    assert not {image.tobytes() for image in others} & {image.tobytes() for image in calibration}


def test_an_int8_file_that_is_broken_is_refused(folder, pictures, capfd):
    black = np.zeros_like(pictures)
    refused = (
        r"^in int8 the network finds the same class for .* of other pictures and features with a cosine of .*: nothing"
    )
    with pytest.raises(ExportMismatch, match=refused):
        export_model(folder, precision="int8", pictures=pictures, calibration=black)
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "model.safetensors", "recipe.toml"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_that_are_not_finite_are_no_file(folder, pictures, precision):
    model = Model.load(folder)
    with torch.no_grad():
        next(model.net.parameters())[0, 0, 0, 0] = float("nan")
    replace(model, saved_fingerprint=None).save(folder)
    with pytest.raises(BadArtefact, match=r"^the outputs of model m are not finite: its weights are damaged, or"):
        export_model(folder, precision=precision, pictures=pictures, calibration=pictures)
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "model.safetensors", "recipe.toml"]


def test_values_too_large_for_half_precision_are_no_file(folder, pictures):
    model = Model.load(folder)
    with torch.no_grad():
        for name, weight in model.net.named_parameters():
            if "fc7" in name:
                weight.mul_(1e6)
    replace(model, saved_fingerprint=None).save(folder)
    with pytest.raises(ExportMismatch, match=r"nothing was written; export fp32, whose range is larger$"):
        export_model(folder, precision="fp16", pictures=pictures)
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "model.safetensors", "recipe.toml"]


def test_the_name_of_a_folder_is_no_file(folder, tmp_path):
    with pytest.raises(AlexNetError, match=r"is a folder: name a file with --out$"):
        export_model(folder, tmp_path)


@pytest.mark.parametrize("name", ["m", "m.onnx.bak", "m.ONNX"])
def test_a_name_that_no_command_would_open_is_refused(name, exported_folder, tmp_path, capsys):
    assert main(["export", str(exported_folder), "--out", str(tmp_path / name)]) == 1
    advice = f"does not end in .onnx, by which other commands know such a file: name it {tmp_path / name}.onnx"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path / name} {advice}"
    assert not list(tmp_path.iterdir())


# Killed and interrupted exports

EXPORTER = """
import sys
from pathlib import Path
from alexnet_cli.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_export_left_is_swept_but_not_what_another_writes(folder, pictures):
    out = folder / "model.onnx"
    command = [sys.executable, "-c", EXPORTER, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        theirs = Path(other.stdout.readline().strip())
        export_model(folder, pictures=pictures)
        assert theirs.read_bytes() == b"half"
        other.kill()
        other.wait()
        assert theirs.exists()
        mine = folder / ".model.of-mine.part.safetensors"
        mine.touch()
        (folder / ".model.1-a.part.onnx").mkdir()
        sweep(folder, of=out)
    assert sorted(file.name for file in folder.iterdir()) == [
        mine.name, "MODEL_CARD.md", "model.onnx", "model.safetensors", "recipe.toml",
    ]  # fmt: skip


class Interrupt(nn.Module):
    def forward(self, maps):
        if torch.compiler.is_exporting():
            signal.raise_signal(signal.SIGINT)
        return maps


@dataclass(frozen=True, kw_only=True)
class Interrupting(Operation):
    """Ctrl-C in the middle of the export."""

    def build(self, shape):
        return Interrupt()


def test_ctrl_c_ends_an_export_and_leaves_nothing(narrow, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(OPERATIONS, "interrupting", Interrupting)
    monkeypatch.setattr(Interrupting, "type", "interrupting")
    layers = narrow.network.layers | {"fc6": replace(narrow.network.layers["fc6"], then=["relu", "interrupting"])}
    operations = narrow.network.operations | {"interrupting": Interrupting()}
    recipe = replace(narrow, network=replace(narrow.network, layers=layers, operations=operations))
    mean_image = packed.statistics().mean_image
    net = initialize(recipe.build(3), 0)
    model = Model(net=net, recipe=recipe, classes=packed.classes, mean_image=mean_image, provenance={})
    model.save(tmp_path / "m")
    before = signal.getsignal(signal.SIGINT)
    assert main(["export", str(tmp_path / "m")]) == 130
    assert capsys.readouterr().err.endswith("error: interrupted\n")
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "MODEL_CARD.md",
        "model.safetensors",
        "recipe.toml",
    ]
    assert signal.getsignal(signal.SIGINT) is before


class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_destructor_where_python_ignores_it_ends_an_export_and_prints_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest has its own
    with pytest.raises(KeyboardInterrupt), _interrupts_kept():
        Interrupted()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is sys.__unraisablehook__


class BrightCentre(Predictor):
    """Its features are a hundred times as large in the centre view as elsewhere, times ``factor``."""

    image_size, crop, feature_name, precision = 8, 6, "fc7", "fp32"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def run(self, images, view=None):
        size = 10_000 if view.columns[0] == 1 else 100
        return np.full((len(images), 2), 0.5, np.float32), np.full((len(images), 3), size * self.factor, np.float32)


def test_each_views_difference_is_compared_with_the_size_of_its_own_features():
    pictures = np.zeros((5, 8, 8, 3), np.uint8)
    differences = compare(BrightCentre(1 + 1e-3), BrightCentre(1), pictures, 2e-3)
    assert differences == pytest.approx((0, 10), rel=1e-3)  # the largest of all views
    with pytest.raises(ExportMismatch, match=r"^the exported graph differs from the network by 10 in fc7 at batch 1: "):
        compare(BrightCentre(1 + 1e-3), BrightCentre(1), pictures, 5e-4)
