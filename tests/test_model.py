"""Models and checkpoints on disk: whole or refused, and never run."""

import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alexnet_cli.artefacts import CHECKPOINT_FILE, MODEL_FILE
from alexnet_cli.errors import BadArtefact
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import initialize
from alexnet_cli.training import checkpoint


@pytest.fixture
def model(narrow, packed):
    net = initialize(narrow.build(3), 0)
    mean_image = packed.statistics().mean_image
    return Model(net=net, recipe=narrow, classes=packed.classes, mean_image=mean_image, provenance={"seed": 0})


def test_a_model_comes_back_as_it_was(model, tmp_path):
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert (again.recipe, again.classes, again.provenance) == (model.recipe, model.classes, {"seed": 0})
    assert again.fingerprint == model.fingerprint
    assert (again.mean_image == model.mean_image).all()
    for name, weight in model.net.state_dict().items():
        assert torch.equal(weight, again.net.state_dict()[name])


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
    save_file({"w": torch.ones(1)}, file, {"alexnet_format": "2"})
    with pytest.raises(BadArtefact, match="has format version 2, this program reads up to 1: upgrade alexnet-cli"):
        Model.load(tmp_path)
    save_file({"w": torch.ones(1)}, file)
    with pytest.raises(BadArtefact, match="is damaged: it has no format version"):
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


def test_a_model_keeps_the_fingerprint_it_was_saved_with(model, tmp_path):
    """Recipes get new keys; the indexes and ONNX files of models that were saved before stay theirs."""
    model.save(tmp_path)
    with safe_open(tmp_path / MODEL_FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | {"fingerprint": "of an older time"}
    save_file(tensors, tmp_path / MODEL_FILE, metadata)
    assert Model.load(tmp_path).fingerprint == "of an older time"
