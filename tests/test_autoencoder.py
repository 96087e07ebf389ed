"""Index kind `autoencoder`: what is learned, the bits, updates that keep the encoder, and what is refused."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from pictures import picture
from test_index import error_of, update
from test_kinds import written

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import file_checksum
from alexnet_cli.retrieval import autoencoder
from alexnet_cli.retrieval.autoencoder import gradients, initial, learn_encoder
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS, AutoEncoder, build_kind
from alexnet_cli.retrieval.layout import read_facts, write_facts
from alexnet_cli.retrieval.vectors import Vectors

FOLDER, CODES = Path("indexes/photos"), Path("indexes/photos/codes.faiss")


@pytest.fixture
def few(space: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which few pictures are enough, and learned from in no time."""
    monkeypatch.setattr(AutoEncoder, "least", 8)
    monkeypatch.setattr(autoencoder, "UPDATES", 100)
    return space


def codes_of(kind: AutoEncoder) -> np.ndarray:
    """(N, bytes) uint8, as FAISS holds them."""
    flat = faiss.downcast_index(kind.index.index)
    return faiss.vector_to_array(flat.codes).reshape(flat.ntotal, -1)


def made() -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "autoencoder"]) == 0


def encoder_of(folder: Path = FOLDER) -> tuple[np.ndarray, np.ndarray]:
    index = Index.open(folder)
    encoder = index.kind.encoder
    index.close()
    return faiss.vector_to_array(encoder.A), faiss.vector_to_array(encoder.b)


def forge(content: bytes) -> None:
    """``content`` as the codes of the index, with its right checksum."""
    CODES.write_bytes(content)
    facts = read_facts(FOLDER)
    facts["files"]["codes.faiss"] = {"bytes": len(content), "checksum": file_checksum(CODES)}
    write_facts(FOLDER, facts)


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
    kind.train(stored.sample(1000), 1000)
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
        kind.train(stored.sample(1000), 1000)
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


def test_features_that_never_change_are_no_trouble() -> None:
    weights, biases = learn_encoder(np.zeros((10, 8), np.float32), 8)
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
    stored = Vectors.open(tmp_path / "vectors", 1000, 64)
    facts = build_kind("autoencoder", stored, tmp_path / "codes")
    kind = KINDS["autoencoder"]()
    kind.load(tmp_path / "codes", facts)
    kind.candidate_count = 10
    for rows in (kind.candidates(stored, values[:100], 10), stored.brute_force(values[:100], 10)):
        assert (labels[rows] == labels[:100, None]).mean() > 0.99
    assert facts["learned_from"] == 1000


def test_an_update_keeps_the_encoder_until_there_is_twice_as_much_to_learn_from(few: Path) -> None:
    made()
    first, before = encoder_of(), Index.open(FOLDER)
    for i in range(11):  # 12 are there
        picture(few / f"photos/cat/new{i}.png", 100 + i)
    assert update().added == 11
    assert all(map(np.array_equal, encoder_of(), first))
    after = Index.open(FOLDER)
    assert (len(after), after.kind.shape, after.facts["learned_from"]) == (23, (23, 24), 12)
    old = {before.path_of(row): code.tobytes() for row, code in enumerate(codes_of(before.kind))}
    new = {after.path_of(row): code.tobytes() for row, code in enumerate(codes_of(after.kind))}
    assert old.items() <= new.items()
    before.close()
    after.close()
    picture(few / "photos/cat/last.png", 99)
    assert update().added == 1
    assert read_facts(FOLDER)["learned_from"] == 24
    assert not all(map(np.array_equal, encoder_of(), first))
    for i in range(11):
        (few / f"photos/cat/new{i}.png").unlink()
    for i in range(6):
        (few / f"photos/dog/{i}.png").unlink(missing_ok=True)
    assert update().removed > 11
    assert read_facts(FOLDER)["learned_from"] == 24  # few pictures need not teach anything


def test_too_few_pictures_to_learn_from(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of("index", "photos", "--model", "m.onnx", "--kind", "autoencoder", capsys=capsys) == (
        "an index of kind autoencoder learns its codes from 1,000 pictures or more, and there are 12: "
        "index more pictures, or name another kind, such as --kind flat"
    )
    assert not FOLDER.exists() or not list(FOLDER.iterdir())  # refused before the work
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    assert error_of("index", "photos", "--kind", "autoencoder", capsys=capsys).startswith("an index of kind autoenc")
    assert read_facts(FOLDER)["kind"] == "flat"


def test_codes_without_their_encoder_are_refused(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    good = CODES.read_bytes()

    def refusal() -> str:
        with pytest.raises(BadArtefact) as raised:
            Index.open(FOLDER).close()
        message = error_of("index", "photos", capsys=capsys)  # nor does an update take it over
        assert message == str(raised.value)
        return message.removeprefix("indexes/photos is damaged: codes.faiss ").removesuffix(
            "; remove it and build the index again"
        )

    CODES.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])  # a bit of a weight
    assert error_of("index", "photos", capsys=capsys).startswith("indexes/photos is damaged: the checksum of codes")
    CODES.write_bytes(good)
    for kind in ("binary", "sq8", "hnsw"):
        assert main(["index", "photos", "--model", "m.onnx", "--kind", kind, "--out", kind]) == 0
        forge(Path(f"indexes/{kind}/codes.faiss").read_bytes())
        assert refusal() == "cannot be used (no auto-encoder is in it)"
    forge(good)
    for value, told in ((0, "0 pictures"), ("all", "all pictures")):
        write_facts(FOLDER, read_facts(FOLDER) | {"learned_from": value})
        assert refusal() == f"cannot be used (learned from {told})"


def test_commands_read_such_an_index(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    for command in (["info", "photos", "--verify"], ["duplicates", "photos"], ["search", "photos/cat/3.png"]):
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    assert answer["queries"][0]["neighbours"][0]["path"] == "photos/cat/3.png"
