"""The Python interface: the example of docs/python.md, and names that are imported when they are used."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, write_folder

import alexnet_cli as alexnet
from alexnet_cli import interface
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.model import Model

DOCUMENT = Path(__file__).parent.parent / "docs" / "python.md"


def test_every_name_is_there_and_has_a_docstring():
    for name in alexnet.__all__:
        assert name in dir(alexnet)
        assert getattr(alexnet, name) is getattr(interface, name)
        assert getattr(alexnet, name).__doc__
    with pytest.raises(AttributeError, match=r"^module 'alexnet_cli' has no attribute 'tarin'$"):
        alexnet.tarin  # noqa: B018


def test_the_example_of_the_document_runs(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    content = {
        f"photos/{split}/{name}/{i}.jpg": encoded(random.integers(low, low + 100, (80, 90, 3), dtype=np.uint8), "JPEG")
        for split, count in (("train", 4), ("val", 2))
        for name, low in (("dark", 0), ("light", 150))
        for i in range(count)
    }
    content |= {"a.jpg": content["photos/val/dark/0.jpg"], "b.jpg": content["photos/val/light/0.jpg"]}
    write_folder(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(code, names)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "['dark', 'light'] {'train': 8, 'val': 4} 0"
    assert names["features"].shape == (1, 512)
    assert names["built"].images == 12
    first = next(i for i, line in enumerate(printed) if line.startswith("1 photos/val/dark/0.jpg dark 0.0"))  # itself
    assert printed[first + 3 : first + 5] == ["2", "3"]


def test_settings_change_a_recipe_object_too(packed, narrow, tmp_path):
    model = alexnet.train(packed.path, tmp_path / "m", recipe=narrow, settings=["training.batch=7"], epochs=1)
    assert (model.recipe.training.batch, model.recipe.training.epochs) == (7, 1)


def test_a_run_can_be_resumed_from_another_folder(packed, narrow, tmp_path, monkeypatch):
    monkeypatch.chdir(packed.path.parent)
    start = alexnet.train(packed.path.name, tmp_path / "start", recipe=narrow, epochs=1)
    alexnet.train(packed.path.name, tmp_path / "m", recipe=narrow, start=start, epochs=1)
    monkeypatch.chdir(tmp_path)
    assert len(alexnet.resume("m", epochs=2).provenance) > 0


def test_outputs_that_are_not_finite_are_an_error(packed, narrow, tmp_path):
    """NaN would count as a right answer."""
    model = alexnet.train(packed.path, tmp_path / "m", recipe=narrow, epochs=1)
    with torch.no_grad():
        model.net.fc8.bias[0] = float("nan")
    Model.save(replace(model, saved_fingerprint=None), tmp_path / "broken")
    message = r"^the outputs of model broken are not finite: its weights are damaged, or its training has diverged$"
    with pytest.raises(BadArtefact, match=message):
        alexnet.evaluate(tmp_path / "broken", packed)


def test_a_precision_has_a_file_of_its_own(packed, exported_folder, tmp_path):
    shutil.copytree(exported_folder, tmp_path / "m")
    half = alexnet.export(tmp_path / "m", precision="fp16", datasets=[packed.path]).path
    assert (exported_folder / "model.onnx").read_bytes() == (tmp_path / "m" / "model.onnx").read_bytes()
    assert half.name == "model.fp16.onnx"
    assert alexnet.open_model(tmp_path / "m").precision == "fp32"


def test_arguments_that_make_no_sense_get_one_line(packed, searchable, tmp_path):
    with alexnet.open_index("indexes/photos") as index:
        query = next(path for path in Path("photos").rglob("*") if path.is_file())
        for k in (0, -1):
            with pytest.raises(AlexNetError, match=rf"^k is {k}: ask for 1 neighbour or more$"):
                index.search(query, k)
            with pytest.raises(AlexNetError, match=rf"^k is {k}: ask for 1 neighbour or more$"):
                index.neighbours_of_row(0, k)
    with pytest.raises(AlexNetError, match=r"^seed is -1: it must be 0 or more$"):
        alexnet.train(packed.path, tmp_path / "m", recipe="tiny", seed=-1)
    with pytest.raises(AlexNetError, match=r"^no model to evaluate: name one or more$"):
        alexnet.evaluate([], packed)


def test_the_models_to_evaluate_may_come_from_a_generator(packed, exported_folder):
    one = alexnet.evaluate(exported_folder, packed, views=1)
    assert alexnet.evaluate((folder for folder in [exported_folder]), packed, views=1) == one
    assert alexnet.evaluate((exported_folder, str(exported_folder)), packed, views=1) == one
