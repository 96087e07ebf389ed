"""Golden numbers: what is computed stays the same, to the last digit where the machine is the one that recorded them.

`OMP_NUM_THREADS=1 python tests/test_golden.py` records them anew in tests/golden.json. That is right only after a
change that is meant to change what is computed; its commit says why.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, write_folder

from alexnet_cli import recipe as recipes
from alexnet_cli.data.prepare import prepare
from alexnet_cli.environment import processor
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.retrieval.index import Index
from alexnet_cli.training.train import train

GOLDEN = Path(__file__).with_name("golden.json")
UPDATES = ["training.batch=2", "training.epochs=2", "training.learning_rate=0.0005"]  # of 20 pictures: 20 updates
NARROW = [f"conv{i}.kernels=16" for i in range(1, 6)] + ["fc6.units=32", "fc7.units=32"]
RUNS = {
    "tiny": [],
    "paper": ["training.learning_rate=1e-5"],  # the whole network
    "original-2012": NARROW,
    "caffenet": NARROW,
    "no-communication": NARROW,
}


def source(folder: Path, side: int) -> Path:
    """Twenty made-up pictures of two classes; resizing would leave these alone, so no resizer's rounding is in them."""
    random = np.random.default_rng(0)
    content = {
        f"{name}/{i}.png": encoded(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
        for name in ("noise", "static")
        for i in range(10)
    }
    return write_folder(folder / "pictures", content)


def dataset(folder: Path):
    return prepare(source(folder, 256), folder / "data", workers=1, val_fraction=0.0).dataset


def losses(recipe: str, folder: Path) -> list[float]:
    """Mean loss of the first ten updates and of the next ten."""
    train(dataset(folder), recipes.load(recipe, [*UPDATES, *RUNS[recipe]]), folder / "model")
    return [json.loads(line)["loss"] for line in (folder / "model" / "history.jsonl").read_text().splitlines()]


def distances(folder: Path) -> list[float]:
    """Of five pictures to the ten nearest, in an index by a network that was trained for 20 updates."""
    losses("tiny", folder)
    export_model(folder / "model")
    runtime = OnnxModel.open(folder / "model" / "model.onnx")
    build_index(open_collection(folder / "pictures"), runtime, folder / "index", model_path=folder / "model")
    images = np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8)
    found = Index.open(folder / "index").neighbours(runtime.run(images)[1], 10)
    return [neighbour.distance for near in found for neighbour in near]


def machine() -> dict[str, object]:
    """What the last digits depend on."""
    instructions = torch.backends.cpu.get_cpu_capability()  # processors of one name may have others
    return {
        "processor": processor(),
        "instructions": instructions,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def check(name: str, found: list[float]) -> None:
    golden = json.loads(GOLDEN.read_text())
    if golden["machine"] == machine():
        assert found == golden[name]
    assert found == pytest.approx(golden[name], rel=1e-5)


@pytest.mark.parametrize("recipe", RUNS)
def test_losses_of_20_updates(recipe, tmp_path):
    check(recipe, losses(recipe, tmp_path))


def test_distances_of_an_index(tmp_path):
    check("distances", distances(tmp_path))


def test_fingerprint_of_a_dataset(tmp_path):
    assert dataset(tmp_path).fingerprint == json.loads(GOLDEN.read_text())["fingerprint"]


if __name__ == "__main__":
    import tempfile

    found: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        for number, name in enumerate(RUNS):
            found[name] = losses(name, Path(temporary, str(number)))
        found["distances"] = distances(Path(temporary, "index"))
        found["fingerprint"] = dataset(Path(temporary, "data")).fingerprint
    Path(sys.argv[1] if len(sys.argv) > 1 else GOLDEN).write_text(json.dumps(found, indent=1) + "\n")
