"""Models and checkpoints on disk: whole or refused, and never run."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import CHECKPOINT_FILE, MODEL_FILE, model_name
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import read_tensors, write_tensors
from alexnet_cli.model import Model
from alexnet_cli.model_card import model_card
from alexnet_cli.nets.network import initialize
from alexnet_cli.training import checkpoint


@pytest.fixture
def model(narrow, packed):
    net = initialize(narrow.build(3), 0)
    mean_image = packed.statistics().mean_image
    return Model(
        net=net,
        recipe=narrow,
        classes=packed.classes,
        words={"red": "the colour red"},
        mean_image=mean_image,
        provenance={"seed": 0},
    )


def test_a_model_comes_back_as_it_was(model, tmp_path):
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert (again.recipe, again.classes, again.provenance) == (model.recipe, model.classes, {"seed": 0})
    assert again.words == model.words == {"red": "the colour red"}
    assert again.fingerprint == model.fingerprint
    assert (again.mean_image == model.mean_image).all()
    for name, weight in model.net.state_dict().items():
        assert torch.equal(weight, again.net.state_dict()[name])


TRAINED = {
    "seed": 3, "dataset": "f00d", "dataset_name": "my colours", "from": None, "from_name": None, "precision": "bf16",
    "training_images": 42_000, "validation_error": 0.125, "validation_top5_error": 0.0, "epochs": 2, "seconds": 1.5,
    "date": "2026-01-01", "version": "1", "torch": "2", "machine": "a machine",
}  # fmt: skip


def card_of(model, folder):
    model.save(folder)
    return (folder / "MODEL_CARD.md").read_text()


def test_the_card_says_what_a_model_is_and_how_it_was_made(model, tmp_path):
    card = card_of(replace(model, provenance=TRAINED), tmp_path / "m")
    assert card.startswith("# m\n\nA network of recipe `small-data` with 12 values changed, which `recipe.toml` has: ")
    assert f"fingerprint `{model.fingerprint}`" in card
    assert "Classes: blue, green, the colour red." in card
    assert "The 42,000 training pictures of dataset `my colours` (fingerprint `f00d`), for 2 epochs" in card
    command = "    alexnet train 'my colours' --recipe models/m/recipe.toml --seed 3 --precision bf16\n"
    assert command in card  # the recipe was changed by --set
    assert "one view: 12.5%, top-5 0.0%. Ten views, as in the paper: `alexnet eval m --data 'my colours'`." in card
    assert "one of its 3 classes" in card
    assert "terms of the pictures that it was trained on may limit" in card


def test_the_command_in_the_card_names_a_recipe_that_was_not_changed(model, tmp_path):
    small = recipes.load("small-data")
    tuned = TRAINED | {"from": "beef", "from_name": "vision"}
    for epochs, words in ((small.training.epochs, ""), (5, " --epochs 5")):
        recipe = small.with_training(epochs=epochs)
        card = model_card(replace(model, recipe=recipe, provenance=tuned, saved_fingerprint="f"), "m")
        command = f"alexnet train 'my colours' --recipe small-data{words} --seed 3 --precision bf16 --from vision\n"
        assert command in card
        assert "started from the weights of `vision`" in card


def test_what_prints_badly_is_escaped_in_a_card(model, tmp_path):
    classes = ["a\x1b[2J", "b\n# c", "\ud800", "<img src=x>", "[x](y)"]
    card = card_of(replace(model, classes=classes, words={}, provenance={}), tmp_path / "m")
    assert r"Classes: a\x1b\[2J, b\n\# c, \ud800, \<img src=x\>, \[x\]\(y\)." in card


def test_the_fingerprint_is_of_all_that_decides_the_outputs(model):
    other = replace(model, mean_image=model.mean_image + 1)
    assert len({model.fingerprint, other.fingerprint, replace(model, classes=["a", "b", "c"]).fingerprint}) == 3
    before = model.fingerprint
    with torch.no_grad():
        next(model.net.parameters())[0] += 1
    assert model.fingerprint != before
    assert replace(model, provenance={}).fingerprint == model.fingerprint


def test_what_is_missing_cut_short_or_newer_is_refused(model, tmp_path):
    with pytest.raises(BadArtefact, match=r"^no model at .*: it has no model.safetensors$"):
        Model.load(tmp_path)
    model.save(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(BadArtefact, match=r"model.safetensors is damaged or no model \("):
        Model.load(tmp_path)
    file.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    with pytest.raises(
        BadArtefact, match=r"model.safetensors is damaged \(its checksum differs\): make the model again$"
    ):
        Model.load(tmp_path)
    write_tensors(file, {"w": np.ones(1)}, {"alexnet_format": "2"})
    with pytest.raises(BadArtefact, match="has format version 2, this program reads up to 1: upgrade alexnet-cli"):
        Model.load(tmp_path)
    write_tensors(file, {"w": np.ones(1)}, {})
    with pytest.raises(BadArtefact, match="is damaged: it has no format version"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"classes": "[1, 2"}, "Expecting ',' delimiter"),
        ({"classes": "3"}, "object of type 'int' has no len"),
        ({"classes": '["a", "b"]'}, "Error\\(s\\) in loading state_dict for ColumnNetwork"),
        ({"recipe": "= 3"}, "damaged recipe: Invalid statement"),
        (
            {"recipe": ("size = 72", "size = 1000000000")},
            "image.size = 1000000000 does not fit: it takes a whole number",
        ),
        (
            {"recipe": ("stride = 4", "stride = 0")},
            "conv1.stride = 0 does not fit: it takes a whole number from 1 to 4096",
        ),
        ({"recipe": ("size = 72", "size = 80")}, r"its mean image is float32 of \(72, 72, 3\)"),
        ({"recipe": ("units = 32", "units = 65536")}, "Error|the network has"),
    ],
)
def test_what_no_model_can_be_is_refused_before_memory_is_taken(changed, reason, model, tmp_path):
    model.save(tmp_path)
    metadata, tensors = read_tensors(tmp_path / MODEL_FILE, what="model")
    for key, value in changed.items():
        metadata[key] = metadata[key].replace(*value) if isinstance(value, tuple) else value
    write_tensors(tmp_path / MODEL_FILE, tensors, metadata)
    with pytest.raises(
        BadArtefact, match=rf"^\S*model.safetensors is damaged \(.*{reason}.*\): train or fetch it again$"
    ):
        Model.load(tmp_path)


class Bomb:
    """Leaves a file if it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_refused_and_does_not_run(tmp_path):
    for name in ("model.safetensors", CHECKPOINT_FILE):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    with pytest.raises(BadArtefact):
        Model.load(tmp_path)
    with pytest.raises(BadArtefact, match="is damaged"):
        checkpoint.read_state(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_model_whose_weights_changed_is_saved_with_another_fingerprint(model, tmp_path):
    model.save(tmp_path / "a")
    loaded = Model.load(tmp_path / "a")
    loaded.net.fc8.bias.data += 1
    loaded.save(tmp_path / "b")
    assert Model.load(tmp_path / "b").fingerprint != model.fingerprint


def test_a_model_keeps_the_fingerprint_it_was_saved_with(model, tmp_path):
    """Recipes get new keys; the indexes and ONNX files of models that were saved before stay theirs."""
    model.save(tmp_path)
    metadata, tensors = read_tensors(tmp_path / MODEL_FILE, what="model")
    write_tensors(tmp_path / MODEL_FILE, tensors, metadata | {"fingerprint": "of an older time"})
    assert Model.load(tmp_path).fingerprint == "of an older time"


def test_an_exported_file_has_its_models_name(tmp_path):
    for file in ("", "model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        assert model_name(tmp_path / "photos" / file) == "photos"
    assert model_name(tmp_path / "photos" / "mine.v2.onnx") == "mine.v2"
