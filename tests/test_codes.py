"""Indexes of other kinds than flat: exact distances, measured recall, and the files that go with it."""

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from test_index import folder_of_classes, picture, space, update  # noqa: F401

from alexnet_cli.commands import main
from alexnet_cli.errors import AlexNetError
from alexnet_cli.retrieval import codes as module
from alexnet_cli.retrieval.codes import KINDS, Codes, Vectors, chosen, exact, load, make, recall
from alexnet_cli.retrieval.index import Index

OTHERS = [kind for kind in KINDS if kind != "flat"]


def written(tmp_path: Path, count: int, dimension: int = 64) -> tuple[Vectors, np.ndarray]:
    """Vectors like fc7: not negative, many zeros, of a few dozen kinds."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, dimension))
    rows = centres[random.integers(40, size=count)] + 0.7 * random.standard_normal((count, dimension))
    values = np.maximum(rows, 0).astype(np.float32)
    file = tmp_path / "vectors"
    flat = faiss.IndexFlatL2(dimension)
    flat.add(values)
    faiss.write_index(flat, str(file))
    return Vectors.of(file, count, dimension), values


def test_vectors_are_read_as_they_lie(tmp_path):
    vectors, values = written(tmp_path, 100)
    assert np.array_equal(vectors.read(90, 200), values[90:])
    assert np.array_equal(vectors.spread(3), values[[0, 49, 99]])


def test_brute_force_a_chunk_at_a_time(tmp_path, monkeypatch):
    vectors, values = written(tmp_path, 300)
    monkeypatch.setattr(module, "CHUNK", 64)
    squares = ((values[:5, None].astype(np.float64) - values[None]) ** 2).sum(2)
    assert np.array_equal(exact(vectors, values[:5], 10), np.argsort(squares, axis=1)[:, :10])


def test_recall_is_the_share_of_the_nearest_that_were_found():
    assert recall(np.array([[1, 2, 3], [4, 5, -1]]), np.array([[1, 9], [5, 4]])) == 0.75


@pytest.mark.parametrize("kind", OTHERS)
def test_codes_find_what_is_near_and_say_how_often(kind, tmp_path):
    vectors, values = written(tmp_path, 4000)
    facts = make(kind, vectors, tmp_path / "codes", module.SILENT)
    codes = load(tmp_path / "codes", facts)
    queries = values[5::400]
    found = recall(codes.rows(queries, 10), exact(vectors, queries, 10))
    assert facts["recall_at_10"] >= 0.9
    assert found >= 0.85
    assert facts["code_bytes_per_vector"] < 4 * 64 * 1.5
    assert codes.rows(queries, 1000).shape == (10, 1000)  # never fewer than are asked for


def test_the_least_that_is_good_enough_is_chosen(tmp_path, monkeypatch):
    vectors, _ = written(tmp_path, 500)
    seen = []

    def pretend(self: Codes, queries: np.ndarray, k: int) -> np.ndarray:
        seen.append((self.shortlist, self.effort))
        good = (self.shortlist, self.effort) >= (100, 8)
        return exact(vectors, queries, k + 1)[:, 1:] if good else np.full((len(queries), k), -1)

    monkeypatch.setattr(Codes, "rows", pretend)
    facts = make("ivfpq", vectors, tmp_path / "codes", module.SILENT)
    assert (facts["shortlist"], facts["effort"], facts["recall_at_10"]) == (100, 8, 1.0)
    assert seen[: len(module.EFFORTS)] == [(50, effort) for effort in module.EFFORTS]


def test_a_kind_is_chosen_by_size_unless_it_is_named():
    assert chosen(None, 100_000, 4096) == "flat"
    assert chosen(None, 1_000_000, 4096) == "ivfpq"
    assert chosen("binary", 10, 4096) == "binary"
    with pytest.raises(AlexNetError, match=r"^no kind 'tree' of index: there are flat, sq8, ivfpq, hnsw, binary$"):
        chosen("tree", 1, 1)


@pytest.mark.parametrize("kind", OTHERS)
def test_index_and_search_by_command(kind, space, capsys):  # noqa: F811
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    facts = json.loads(Path("indexes/photos/index.json").read_text())
    assert facts["kind"] == kind
    assert {"recall_at_10", "milliseconds_per_query", "code_bytes_per_vector", "shortlist", "effort"} <= set(facts)
    capsys.readouterr()
    assert main(["search", "photos/cat/3.png", "-k", "3", "--json"]) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    shutil.rmtree("indexes")
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    capsys.readouterr()
    assert main(["search", "photos/cat/3.png", "-k", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == [query]  # all are on so short an index's shortlist


def test_an_update_keeps_the_kind_and_another_kind_makes_it_anew(space, capsys):  # noqa: F811
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    picture(Path("photos/cat/new.png"), 77)
    assert update().added == 1
    index = Index.open(Path("indexes/photos"))
    assert index.facts["kind"] == "sq8"
    assert index.codes is not None
    assert index.codes.index.ntotal == len(index) == 13
    index.close()
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "flat"]) == 0
    assert not Path("indexes/photos/codes.faiss").exists()
    assert update().added == 0


def test_damaged_codes_are_told(space, capsys):  # noqa: F811
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    file = Path("indexes/photos/codes.faiss")
    file.write_bytes(file.read_bytes()[:-4] + b"xx")
    assert main(["search", "photos/cat/3.png"]) == 1
    assert "error: indexes/photos is damaged: codes.faiss has" in capsys.readouterr().err
