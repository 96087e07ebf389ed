"""`alexnet info --verify`: everything of an artefact is read, and one flipped bit anywhere is found."""

import json
import re
import shutil

import numpy as np
import pytest

from alexnet_cli.artefacts import CHECKPOINT_FILE, MODEL_FILE
from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.exporting.export import export_model
from alexnet_cli.files import read_tensors, write_tensors
from alexnet_cli.model import Model
from alexnet_cli.training.train import train


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory):
    """A trained model with its checkpoint and ONNX file; its files come back as they were after each test."""
    from conftest import NARROW

    from alexnet_cli import recipe as recipes

    folder = tmp_path_factory.mktemp("verified") / "models" / "m"
    train(packed, recipes.load("small-data", [*NARROW, "training.epochs=1"]), folder)
    export_model(folder, pictures=packed.split("val").read(np.arange(5)))
    return folder


@pytest.fixture
def folder(trained):
    kept = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    yield trained
    for path, content in kept.items():
        path.write_bytes(content)


def test_a_whole_model_and_its_file(folder, capsys):
    assert main(["info", "--verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == [
        "model.safetensors: checksum and fingerprint",
        "recipe.toml: the same recipe",
        "model.onnx: checksum, and that it is of the model in its folder",
        "checkpoint/state.safetensors: checksum",
        "not compared, having no checksum: MODEL_CARD.md, curves.png, history.jsonl, kernels/",
    ]
    assert main(["info", "--verify", str(folder / "model.onnx")]) == 0
    assert "model.onnx: checksum, and that it is of the model in its folder" in capsys.readouterr().out
    (folder.parent / "alone.onnx").write_bytes((folder / "model.onnx").read_bytes())
    assert main(["info", "--verify", str(folder.parent / "alone.onnx"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["verified"]) == ("onnx", ["alone.onnx: checksum"])
    assert main(["info", str(folder), "--json"]) == 0
    assert "verified" not in json.loads(capsys.readouterr().out)


def test_a_model_is_described_in_words(folder, packed, capsys):
    assert main(["info", str(folder)]) == 0
    said = capsys.readouterr().out
    for line in (
        r"what it is +│ a trained network ",
        r"recipe +│ small-data, with \d+ values changed ",
        r"size +│ [\d,]+ parameters in 8 layers",
        r"tells apart +│ 3 classes: blue, green, red",
        r"trained on +│ dataset colours ",
        r"trained for +│ 1 epoch in \d+ s, fp32, seed 0, on ",
        r"made +│ by alexnet [\d.]+ on 20\d\d-\d\d-\d\d",
        r"validation error +│ top-1 \d+\.\d% \(one view",
    ):
        assert re.search(line, said), line
    assert "None" not in said


def test_it_is_said_if_there_is_no_checkpoint_and_what_has_no_checksum(folder, capsys):
    (folder / CHECKPOINT_FILE).unlink()
    (folder / "curves.png").write_bytes(b"damaged")
    assert main(["info", "--verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"][-2:] == [
        "checkpoint/state.safetensors: there is none",
        "not compared, having no checksum: MODEL_CARD.md, curves.png, history.jsonl, kernels/",
    ]


def test_a_run_without_a_model_is_described_with_the_command_that_resumes_it(folder, packed, capsys):
    (folder / MODEL_FILE).unlink()
    assert main(["info", "m", "--verify", "--json", "--workspace", str(folder.parent.parent)]) == 0
    said = json.loads(capsys.readouterr().out)
    resume = f"alexnet train --resume --out m --workspace {folder.parent.parent}"
    facts = {
        "kind": "run",
        "path": str(folder),
        "recipe": "small-data",
        "epochs_done": 1,
        "epochs": 1,
        "resume": resume,
    }
    assert {key: said[key] for key in facts} == facts
    assert (said["updates_in_this_epoch"], said["dataset"], said["seed"]) == (0, str(packed.path), 0)
    others = "MODEL_CARD.md, curves.png, history.jsonl, kernels/, model.onnx, recipe.toml"
    assert said["verified"] == [
        "checkpoint/state.safetensors: checksum",
        f"not compared, having no checksum: {others}",
    ]
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    for line in (
        r"done +│ 1 of 1 epoch ",
        rf"to resume +│ alexnet train --resume --out {folder} ",
        r"recipe +│ small-data ",
    ):
        assert re.search(line, shown), line
    assert main(resume.split()[1:]) == 0
    assert (folder / MODEL_FILE).exists()
    (folder / MODEL_FILE).unlink()
    path = folder / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\xaa")
    capsys.readouterr()
    assert main(["info", "--verify", str(folder)]) == 1
    reason = f"is damaged (its checksum differs): remove {folder} and start the training again"
    assert capsys.readouterr().err == f"error: {path} {reason}\n"


def test_a_recipe_beside_a_model_that_is_not_its_own_is_found(folder, capsys):
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text + "#")
    assert main(["info", "--verify", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"error: {folder}/recipe.toml is not the recipe that is in model.safetensors, which counts: "
        "remove recipe.toml\n"
    )
    (folder / "recipe.toml").unlink()
    assert main(["info", "--verify", str(folder)]) == 0
    assert "recipe.toml: there is none" in capsys.readouterr().out
    (folder / "recipe.toml").write_text(text)


@pytest.mark.parametrize("name", [MODEL_FILE, "model.onnx", CHECKPOINT_FILE])
def test_one_flipped_bit_anywhere_is_found(name, folder, capsys):
    path, random = folder / name, np.random.default_rng(0)
    whole = path.read_bytes()
    for place in random.integers(0, len(whole), 12):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        assert main(["info", "--verify", str(folder)]) == 1, place
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert str(path if name != MODEL_FILE else folder) in said
        assert said.count("\n") == 1


def test_an_onnx_file_of_other_weights_and_a_fingerprint_that_is_not_the_models(folder, capsys):
    metadata, tensors = read_tensors(folder / MODEL_FILE, what="model")
    name = next(name for name in tensors if name.endswith("weight"))
    write_tensors(folder / MODEL_FILE, tensors | {name: tensors[name] + 1}, metadata)
    assert main(["info", "--verify", str(folder)]) == 1
    said = capsys.readouterr().err
    reason = "its fingerprint is not that of its weights"
    assert said == f"error: {folder / MODEL_FILE} is damaged ({reason}): train or fetch it again\n"
    write_tensors(folder / MODEL_FILE, tensors, metadata | {"fingerprint": "0123456789abcdef"})
    assert main(["info", "--verify", str(folder / "model.onnx")]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {folder / 'model.onnx'} is not of the model in its folder: export it again\n"


def test_a_model_whose_run_is_resumed_for_more_epochs_is_whole(folder, capsys):
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("epochs = 1\n", "epochs = 3\n"))
    assert main(["info", "--verify", str(folder), "--json"]) == 0
    line = "recipe.toml: the same recipe, for the 3 epochs that the run is resumed for"
    assert line in json.loads(capsys.readouterr().out)["verified"]
    (folder / "recipe.toml").write_text(text.replace("epochs = 1\n", "epochs = 0\n"))
    assert main(["info", "--verify", str(folder)]) == 1


def test_advice_at_damage_can_be_pasted_and_promises_nothing_of_other_damage(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "my m")
    for file in (MODEL_FILE, CHECKPOINT_FILE):
        (copy / file).write_bytes((copy / file).read_bytes()[:-1])
    with pytest.raises(BadArtefact) as caught:
        Model.load(copy)
    assert str(caught.value).endswith(f"restore it from its checkpoint by `alexnet train --resume --out '{copy}'`")
    assert main(["train", "--resume", "--out", str(copy)]) == 1
    assert "the model beside it does not need it, and `alexnet info` says if it opens" in capsys.readouterr().err
