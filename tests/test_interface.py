"""The Python interface: the example of docs/python.md, and names that are imported when they are used."""

import re
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, write_folder

import alexnet_cli as alexnet
from alexnet_cli import interface

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
    assert printed[-4].startswith("1 photos/val/dark/0.jpg dark 0.0")  # the picture itself
    assert printed[-1] == "2"
