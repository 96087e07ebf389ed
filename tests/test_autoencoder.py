"""Index kind `autoencoder`: what is learned, the bits, and the commands."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from test_index import update
from test_kinds import written

from alexnet_cli.commands import main
from alexnet_cli.errors import Interrupted
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval import autoencoder, embedding
from alexnet_cli.retrieval.autoencoder import gradients, initial, learn_encoder
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.coding import build_kind
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS, AutoEncoder
from alexnet_cli.retrieval.layout import read_facts
from alexnet_cli.retrieval.vectors import VectorFile


def codes_of(kind: AutoEncoder) -> np.ndarray:
    """(N, bytes) uint8, as FAISS holds them."""
    flat = faiss.downcast_index(kind.index.index)
    return faiss.vector_to_array(flat.codes).reshape(flat.ntotal, -1)


def test_gradients_are_those_of_torch() -> None:
    """The slope of a unit that is drawn is that of its mean: straight through."""
    random = np.random.default_rng(0)
    layers = [one.astype(np.float64) + 0.1 * random.standard_normal(one.shape) for one in initial(random, 7, 5)]
    x, drawn = random.standard_normal((6, 7)), random.random((6, 5))
    w, b, v, c = (torch.tensor(one, requires_grad=True) for one in layers)
    mean = torch.tanh(torch.tensor(x) @ w + b)
    units = torch.where(torch.tensor(drawn) < torch.sigmoid(2 * (torch.tensor(x) @ w + b)), 1.0, -1.0)
    code = mean + (units - mean).detach()
    (0.5 * (code @ v + c - torch.tensor(x)).square().sum(1).mean()).backward()
    for found, right in zip(gradients(layers, x, drawn), (w, b, v, c), strict=True):
        np.testing.assert_allclose(found, right.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_the_bits_are_those_of_the_encoder_in_torch(tmp_path: Path) -> None:
    stored, values = written(tmp_path, 1000, 24)
    kind = AutoEncoder()
    kind.train(stored)
    kind.add(values)
    weights, biases = learn_encoder(stored.sample(1000), 24)
    with torch.no_grad():
        layer = torch.nn.Linear(24, 24, dtype=torch.float64)
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor(biases))
        inputs = layer(torch.tensor(values, dtype=torch.float64)).numpy()
    bits = np.unpackbits(codes_of(kind), axis=1, bitorder="little").astype(bool)
    sure = np.abs(inputs) > 1e-4  # float32 may round the others to the other side
    assert bits.shape == inputs.shape
    assert sure.mean() > 0.99
    assert np.array_equal(bits[sure], inputs[sure] >= 0)


def test_a_code_has_256_bits_or_as_many_as_there_are_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "UPDATES", 2)
    for dimension, size in ((24, 3), (300, 32)):
        stored, values = written(tmp_path, 1000, dimension)
        kind = AutoEncoder()
        kind.train(stored)
        kind.add(values)
        assert codes_of(kind).shape == (1000, size)
        assert kind.shape == (1000, dimension)


def test_learning_makes_the_vectors_again_and_the_same_each_time() -> None:
    random = np.random.default_rng(1)
    sample = np.maximum(random.standard_normal((500, 6)) @ random.standard_normal((6, 40)), 0).astype(np.float32)
    weights, biases = learn_encoder(sample, 32)
    again = learn_encoder(sample, 32)
    assert weights.dtype == biases.dtype == np.float32
    assert np.array_equal(weights, again[0])
    assert np.array_equal(biases, again[1])

    def unexplained(weights: np.ndarray, biases: np.ndarray) -> float:
        """The share of the variance that the best linear decoder of the codes leaves."""
        codes = np.c_[np.where(sample @ weights.T + biases >= 0, 1.0, -1.0), np.ones(len(sample))]
        rest = sample - codes @ np.linalg.lstsq(codes, sample, rcond=None)[0]
        return float(rest.var(axis=0).sum() / sample.var(axis=0).sum())

    drawn = random.standard_normal((32, 40)).astype(np.float32)
    assert unexplained(weights, biases) < 0.8 * unexplained(drawn, -drawn @ sample.mean(axis=0))


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, 1e6])
@pytest.mark.filterwarnings("error")
def test_features_that_never_change_are_no_trouble(value: float) -> None:
    weights, biases = learn_encoder(np.full((1000, 8), value, np.float32), 8)
    assert np.isfinite(weights).all()
    assert np.isfinite(biases).all()


def test_clusters_are_found_by_codes_alone(tmp_path: Path) -> None:
    """The 10 nearest codes are of the query's cluster, as the 10 nearest vectors are."""
    random = np.random.default_rng(0)
    labels = random.integers(20, size=1000)
    centres = np.maximum(random.standard_normal((20, 64)), 0)
    values = np.maximum(centres[labels] + 0.2 * random.standard_normal((1000, 64)), 0).astype(np.float32)
    flat = faiss.IndexFlatL2(64)
    flat.add(values)
    faiss.write_index(flat, str(tmp_path / "vectors"))
    stored = VectorFile.open(tmp_path / "vectors", 1000, 64)
    facts = build_kind("autoencoder", stored, tmp_path / "codes")
    kind = KINDS["autoencoder"]()
    kind.load(tmp_path / "codes", facts)
    kind.candidate_count = 10
    for rows in (kind.candidates(stored, values[:100], 10), stored.brute_force(values[:100], 10)):
        assert (labels[rows] == labels[:100, None]).mean() > 0.99


class CtrlC(Progress):
    """The user presses Ctrl-C once, after the first batch."""

    pressed = False

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt


def test_stopped_it_learns_from_the_pictures_that_it_has(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 5)
    model, folder = Path("m.onnx"), Path("indexes/photos")
    with pytest.raises(
        Interrupted, match=r"^stopped; 5 pictures are in the index, 7 are not yet: run the same command to resume$"
    ):
        build_index(
            open_collection(Path("photos")),
            OnnxModel.open(model),
            folder,
            model_path=model,
            kind="autoencoder",
            progress=CtrlC(),
        )
    assert read_facts(folder)["unfinished"] == 7
    assert update().added == 7
    index = Index.open(folder)
    assert (index.facts["kind"], index.kind.shape) == ("autoencoder", (12, 24))
    index.close()


def test_commands_read_such_an_index(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "autoencoder"]) == 0
    for command in (["info", "photos", "--verify"], ["duplicates", "photos"], ["search", "photos/cat/3.png"]):
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    assert answer["queries"][0]["neighbours"][0]["path"] == "photos/cat/3.png"
