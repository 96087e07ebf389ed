"""Index kinds: exact distances, measured recall, codes on disk, and a kind that a test adds."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from pictures import picture
from test_index import update

from alexnet_cli.commands import main
from alexnet_cli.errors import AlexNetError
from alexnet_cli.retrieval import kinds, vectors
from alexnet_cli.retrieval.coding import build_kind
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS, Coded, choose_kind, recall
from alexnet_cli.retrieval.vectors import VectorFile, Vectors

OTHERS = [name for name, kind in KINDS.items() if kind.has_codes]


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
    return VectorFile.open(file, count, dimension), values


def test_vectors_are_read_as_they_lie(tmp_path):
    stored, values = written(tmp_path, 100)
    assert np.array_equal(stored.read(90, 200), values[90:])
    assert np.array_equal(stored.sample(3), values[[0, 49, 99]])


def test_brute_force_a_chunk_at_a_time(tmp_path, monkeypatch):
    stored, values = written(tmp_path, 300)
    monkeypatch.setattr(vectors, "CHUNK", 64)
    squares = ((values[:5, None].astype(np.float64) - values[None]) ** 2).sum(2)
    nearest = np.argsort(squares, axis=1)[:, :10]
    assert np.array_equal(stored.brute_force(values[:5], 10), nearest)
    for query, rows in zip(values[:5], nearest, strict=True):
        found, distances = stored.rank(query, np.arange(300), 10)
        assert np.array_equal(found, rows)
        exact = np.linalg.norm(values[rows].astype(np.float64) - query.astype(np.float64), axis=1)
        assert np.array_equal(distances, exact)


def test_brute_force_tells_near_duplicates_apart_however_many_ask(tmp_path):
    random = np.random.default_rng(0)
    direction = random.random(4096)
    values = 60 * direction / np.linalg.norm(direction) + random.standard_normal((60, 4096)) * 0.05 / 64
    values = values.astype(np.float32)
    flat = faiss.IndexFlatL2(4096)
    flat.add(values)
    faiss.write_index(flat, str(tmp_path / "vectors"))
    stored = VectorFile.open(tmp_path / "vectors", 60, 4096)
    squares = ((values[:, None].astype(np.float64) - values[None]) ** 2).sum(2)
    found = stored.brute_force(values, 5)  # 60 queries
    assert recall(found, np.argsort(squares, axis=1)[:, :5]) == 1.0
    assert stored.brute_force(values[:0], 5).shape == (0, 5)


def test_recall_is_the_share_of_the_nearest_that_were_found():
    assert recall(np.array([[1, 2, 3], [4, 5, -1]]), np.array([[1, 9], [5, 4]])) == 0.75


@pytest.mark.parametrize("name", OTHERS)
def test_codes_find_what_is_near_and_measure_how_often(name, tmp_path):
    # A product quantizer trains one k-means for each component: with few of them it takes a second.
    stored, values = written(tmp_path, 1600, 16 if name == "ivfpq" else 64)
    facts = build_kind(name, stored, tmp_path / "codes")
    kind = KINDS[name]()
    kind.load(tmp_path / "codes", facts)
    queries = values[5::160]
    found = recall(kind.candidates(stored, queries, 10), stored.brute_force(queries, 10))
    assert facts["recall_at_10"] >= 0.9
    assert found >= 0.85
    assert facts["code_bytes_per_vector"] < 4 * 64 * 1.5
    assert kind.shape == (1600, stored.dimension)
    with ThreadPoolExecutor(8) as pool:  # each thread one query
        answers = list(pool.map(lambda query: kind.candidates(stored, query[None], 10)[0], values))
    assert np.array_equal(answers, [kind.candidates(stored, query[None], 10)[0] for query in values])
    assert kind.candidates(stored, queries, 1000).shape == (10, 1000)  # never fewer than are asked for


def test_an_exact_index_is_timed_and_its_recall_is_1(tmp_path, monkeypatch):
    stored, _ = written(tmp_path, 300)
    passes = []
    brute_force = Vectors.brute_force
    monkeypatch.setattr(Vectors, "brute_force", lambda *given: passes.append(1) or brute_force(*given))
    monkeypatch.setattr(kinds, "TIMED_SECONDS", 0)
    facts = build_kind("flat", stored, tmp_path / "codes")
    assert facts["recall_at_10"] == 1.0
    assert facts["milliseconds_per_query"] > 0
    assert len(passes) == 1  # of a large index, one pass over all vectors is enough
    assert not (tmp_path / "codes").exists()


def test_the_smallest_search_parameters_that_reach_the_wanted_recall_are_chosen(tmp_path, monkeypatch):
    stored, _ = written(tmp_path, 500)
    tried = []

    def pretend(self: Coded, _: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
        tried.append((self.candidate_count, self.value))
        good = (self.candidate_count, self.value) >= (100, 8)
        return stored.brute_force(queries, k + 1)[:, 1:] if good else np.full((len(queries), k), -1)

    monkeypatch.setattr(Coded, "candidates", pretend)
    facts = build_kind("ivfpq", stored, tmp_path / "codes")
    assert (facts["candidates"], facts["nprobe"], facts["recall_at_10"]) == (100, 8, 1.0)
    assert tried[: len(kinds.PARAMETER_VALUES)] == [(50, value) for value in kinds.PARAMETER_VALUES]


def test_lists_and_codes_learn_from_more_vectors_than_components(tmp_path, monkeypatch):
    stored, values = written(tmp_path, 1600, 16)
    monkeypatch.setattr(kinds, "TRAINED_ON", 100)
    monkeypatch.setattr(kinds, "CHUNK", 64)
    kind = KINDS["ivfpq"]()
    kind.train(stored)
    inner = faiss.downcast_index(kind.index.index)
    assert inner.nlist == 40  # of 64 vectors each
    wanted = kind.create(faiss, 16, 1600)
    components = faiss.downcast_VectorTransform(wanted.chain.at(0))
    components.train(stored.sample(100))
    expected = faiss.downcast_index(wanted.index)
    expected.train(components.apply(values))
    found, right = (faiss.downcast_index(one.quantizer).codes for one in (inner, expected))
    np.testing.assert_array_equal(faiss.vector_to_array(found), faiss.vector_to_array(right))
    found, right = (one.pq.centroids for one in (inner, expected))
    np.testing.assert_array_equal(faiss.vector_to_array(found), faiss.vector_to_array(right))


def test_a_kind_is_chosen_by_size_unless_it_is_named():
    assert choose_kind(None, 100_000, 4096) == "flat"
    assert choose_kind(None, 1_000_000, 4096) == "ivfpq"
    assert choose_kind("binary", 10, 4096) == "binary"
    with pytest.raises(
        AlexNetError, match=r"^no kind 'tree' of index: there are flat, sq8, ivfpq, hnsw, binary, autoencoder, milvus$"
    ):
        choose_kind("tree", 1, 1)


def test_another_kind_is_one_class_and_one_line_in_the_table(space, monkeypatch, capsys):
    class HalfPrecision(Coded):
        name = "fp16"

        def create(self, faiss, dimension, count):
            return faiss.index_factory(dimension, "SQfp16")

    monkeypatch.setitem(KINDS, "fp16", HalfPrecision)
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "fp16"]) == 0
    facts = json.loads(Path("indexes/photos/index.json").read_text())
    assert (facts["kind"], facts["recall_at_10"]) == ("fp16", 1.0)
    picture(Path("photos/cat/new.png"), 77)
    assert update().added == 1
    capsys.readouterr()
    assert main(["search", "photos/cat/new.png", "-k", "1", "--json"]) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    (nearest,) = query["neighbours"]
    assert nearest["path"] == "photos/cat/new.png"
    assert nearest["distance"] == pytest.approx(0, abs=1e-4)
    index = Index.open(Path("indexes/photos"))
    assert isinstance(index.kind, HalfPrecision)
    assert index.kind.shape == (13, 24)
    index.close()


@pytest.mark.parametrize("kind", OTHERS)
def test_index_and_search_by_command(kind, space, capsys):
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    facts = json.loads(Path("indexes/photos/index.json").read_text())
    assert facts["kind"] == kind
    assert {"recall_at_10", "milliseconds_per_query", "code_bytes_per_vector", "candidates"} <= set(facts)
    assert ("nprobe" in facts, "ef_search" in facts) == (kind == "ivfpq", kind == "hnsw")
    capsys.readouterr()
    assert main(["search", "photos/cat/3.png", "-k", "3", "--json"]) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    shutil.rmtree("indexes")
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    capsys.readouterr()
    assert main(["search", "photos/cat/3.png", "-k", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == [query]  # in so short an index all pictures are candidates


def test_an_update_keeps_the_kind_unless_another_is_named(space, capsys):
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    picture(Path("photos/cat/new.png"), 77)
    assert update().added == 1
    index = Index.open(Path("indexes/photos"))
    assert index.facts["kind"] == "sq8"
    assert index.kind.shape == (13, 24)
    index.close()
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "flat"]) == 0
    assert not Path("indexes/photos/codes.faiss").exists()
    assert update().added == 0


def test_a_kind_that_was_named_is_kept_at_any_size(space, monkeypatch):
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "flat"]) == 0
    monkeypatch.setattr(kinds, "FLAT_UP_TO", 0)
    picture(Path("photos/cat/new.png"), 77)
    assert update().added == 1
    assert json.loads(Path("indexes/photos/index.json").read_text())["kind"] == "flat"


def test_fewer_candidates_than_are_wanted_are_made_up_by_brute_force(space, monkeypatch):
    update()
    index = Index.open(Path("indexes/photos"))
    monkeypatch.setattr(index.kind, "candidates", lambda vectors, queries, k: np.array([[3, -1, -1]]))
    query = index.vectors.read(0, 1)
    assert [one.row for one in index.neighbours(query, 5)[0]] == index.vectors.brute_force(query, 5)[0].tolist()
    index.close()


def test_damaged_codes_are_reported(space, capsys):
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    file = Path("indexes/photos/codes.faiss")
    file.write_bytes(file.read_bytes()[:-4] + b"xx")
    assert main(["search", "photos/cat/3.png"]) == 1
    assert "error: indexes/photos is damaged: codes.faiss has" in capsys.readouterr().err
