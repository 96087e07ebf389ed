"""Indexes that grow: what is new is written, and nothing else; every answer is that of an index made at once."""

import contextlib
import os
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from pictures import picture
from test_index import content, counts, error_of, fresh, update

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.retrieval import changes, vectors
from alexnet_cli.retrieval.coding import GROWTH, Before, build_kind
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS, recall
from alexnet_cli.retrieval.layout import read_facts
from alexnet_cli.retrieval.pieces import Pieces, are_ranges, ranges
from alexnet_cli.retrieval.vectors import VectorFile, VectorWriter

FOLDER = Path("indexes/photos")
WIDE = 16


def write(path: Path, values: np.ndarray) -> VectorFile:
    with contextlib.closing(VectorWriter(path, values.shape[1])) as writer:
        writer.add(values)
        writer.finish()
    return VectorFile.open(path, len(values), values.shape[1], writer.checksum)


def pieces_of(folder: Path, parts: list[np.ndarray], live: np.ndarray) -> Pieces:
    """``parts`` in a file each; ``live``: bool, of all rows."""
    files = [write(folder / f"{i}.faiss", part) for i, part in enumerate(parts)]
    found = ranges(np.flatnonzero(live))
    return Pieces(
        folder=folder, count=int(live.sum()), dimension=WIDE, checksum=None, check_rows=None, files=files, live=found
    )


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_those_that_are_live_one_file_after_the_other(seed: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 7)
    random = np.random.default_rng(seed)
    parts = [random.standard_normal((count, WIDE)).astype(np.float32) for count in random.integers(1, 40, seed + 1)]
    whole = np.concatenate(parts)
    live = random.random(len(whole)) < random.choice([0.2, 0.8, 1.0])
    live[random.integers(len(live))] = True
    with contextlib.closing(pieces_of(tmp_path, parts, live)) as stored:
        expected = whole[live]
        np.testing.assert_array_equal(stored.read(0, stored.count), expected)
        for _ in range(20):
            first, last = sorted(random.integers(0, stored.count + 1, 2))
            out = np.empty((last - first + 3, WIDE), np.float32)
            np.testing.assert_array_equal(stored.read(first, last, out), expected[first:last])
        rows = random.integers(0, stored.count, 30)
        np.testing.assert_array_equal(stored.take(rows), expected[rows])
        np.testing.assert_array_equal(stored.places(rows), np.flatnonzero(live)[rows])
        row = 0
        for first, chunk in stored.chunks():
            assert first == row
            np.testing.assert_array_equal(chunk, expected[row : row + len(chunk)])
            row += len(chunk)
        assert row == stored.count


def test_a_piece_is_compared_with_its_checksum_also_where_it_is_not_live(tmp_path: Path) -> None:
    parts = [np.ones((5, WIDE), np.float32), np.ones((5, WIDE), np.float32)]
    live = np.ones(10, bool)
    live[7] = False
    with contextlib.closing(pieces_of(tmp_path, parts, live)) as stored:
        content = bytearray((tmp_path / "1.faiss").read_bytes())
        content[-3 * WIDE * 4 + 1] ^= 1  # in row 7
        (tmp_path / "1.faiss").write_bytes(content)
        with pytest.raises(BadArtefact, match="the checksum of its vectors differs"):
            list(stored.chunks())


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        ([[0, 2], [3, 5]], True),
        ([[0, 2], [2, 4]], True),
        ([[0, 4]], True),
        ([[0, 5]], False),
        ([[0, 3], [2, 3]], False),
        ([[2, 6]], False),
        ([[-1, 3]], False),
        ([[0, 4, 5]], False),
        ([[4, 0]], False),
        ([0, 4], False),
        ([None], False),
        ([[False, True], [1, 4]], False),
    ],
)
def test_ranges_are_ascending_and_apart(value: object, is_right: bool) -> None:
    assert are_ranges(value, 5, 4) == is_right


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.has_codes])
def test_codes_that_have_grown_are_those_of_all_vectors(name: str, tmp_path: Path) -> None:
    """Learned from what was there before, they are the same as if all had been coded at once."""
    random = np.random.default_rng(0)
    values = np.maximum(random.standard_normal((1600, WIDE)), 0).astype(np.float32)
    old, new = values[:1200], values[1200:]
    stays = random.random(1200) < (0.9 if name != "hnsw" else 2)
    live = np.concatenate([stays, np.ones(400, bool)])
    kind = KINDS[name]()
    facts = build_kind(name, write(tmp_path / "old", old), tmp_path / "codes") | {"count": 1200}
    kind.load(tmp_path / "codes", facts)
    with contextlib.closing(pieces_of(tmp_path, [old, new], live)) as stored:
        gone = np.flatnonzero(~stays)
        found = build_kind(name, stored, tmp_path / "grown", Before(kind=kind, facts=facts, gone=gone))
        assert found == {key: value for key, value in facts.items() if key != "count"}  # nothing is measured again
        grown, at_once = KINDS[name](), KINDS[name]()
        grown.load(tmp_path / "grown", found)
        at_once.load(tmp_path / "codes", facts)
        at_once.index.reset()
        at_once.add(values[live])
        assert grown.shape == at_once.shape == (live.sum(), WIDE)
        for candidates in (5, stored.count):
            grown.candidate_count = at_once.candidate_count = candidates
            found, right = (np.sort(kind.candidates(stored, values[::100], 5)) for kind in (grown, at_once))
            if name == "hnsw":  # a graph depends on what was added with what
                assert recall(found, right) > 0.9
            else:
                np.testing.assert_array_equal(found, right)


def test_an_index_that_has_grown_by_half_is_learned_and_measured_again(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((1501, WIDE)).astype(np.float32)
    facts = build_kind("sq8", write(tmp_path / "old", values[:1000]), tmp_path / "codes") | {"count": 1000}
    for count, measured_on in ((1500, 1000), (1501, 1501)):
        kind = KINDS["sq8"]()
        kind.load(tmp_path / "codes", facts)
        stored = write(tmp_path / "new", values[:count])
        before = Before(kind=kind, facts=facts, gone=np.empty(0, np.int64))
        assert build_kind("sq8", stored, tmp_path / "grown", before)["measured_on"] == measured_on
    assert GROWTH == 1.5


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.in_engine])
def test_updates_leave_what_is_there_and_answer_as_an_index_made_at_once(kind: str, space: Path, capsys) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    base = (FOLDER / "index.faiss").stat()
    for step in range(3):
        picture(space / f"photos/owl/{step}.png", 50 + step)
        if step == 1:
            (space / "photos/dog/0.png").unlink()
            shutil.move("photos/cat/1.png", "photos/dog/1-cat.png")  # another path: removed, and added
        assert main(["index", "photos"]) == 0
        capsys.readouterr()
        assert content() == fresh()
        now = (FOLDER / "index.faiss").stat()
        assert (now.st_ino, now.st_mtime_ns) == (base.st_ino, base.st_mtime_ns)
    assert [one["count"] for one in read_facts(FOLDER)["pieces"]] == [12, 1, 2, 1]
    with contextlib.closing(Index.open(FOLDER)) as index:
        index.verify()
        every = index.vectors.read(0, len(index))
        flat = faiss.IndexFlatL2(every.shape[1])
        flat.add(every)
        for row in range(len(index)):
            distances, _ = flat.search(every[row : row + 1], 5)
            found = [one.distance for one in index.neighbours(every[row : row + 1], 5)[0]]
            np.testing.assert_allclose(np.square(found), distances[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rule", "least"), [("MOST_FILES", 2), ("MOST_RANGES", 1), ("MOST_GONE", 0.0)])
def test_what_is_in_too_many_pieces_is_written_into_one(rule: str, least: float, space: Path, monkeypatch) -> None:
    update()
    monkeypatch.setattr(changes, rule, least)
    for step in range(2):
        picture(space / f"photos/owl/{step}.png", 50 + step)
        (space / f"photos/dog/{step}.png").unlink()
        update()
    assert len(read_facts(FOLDER)["pieces"]) == 1
    assert sorted(os.listdir(FOLDER)) == ["images.sqlite", "index.faiss", "index.json"]
    assert content() == fresh()


def test_removals_alone_write_no_piece(space: Path) -> None:
    update()
    (space / "photos/dog/0.png").unlink()
    assert counts(update()) == (11, 0, 11, 1, 0)
    assert read_facts(FOLDER)["live"] == [[0, 6], [7, 12]]
    assert sorted(os.listdir(FOLDER)) == ["images.sqlite", "index.faiss", "index.json"]
    assert content() == fresh()


def test_a_piece_that_is_missing_or_damaged_is_one_line(space: Path, capsys) -> None:
    update()
    picture(space / "photos/owl/new.png", 50)
    update()
    whole = (FOLDER / "index-1.faiss").read_bytes()
    advice = "remove it and build the index again"
    for damage, said in (
        (None, "index-1.faiss is missing"),
        (whole[:-1], f"1 vectors of 24 values take {len(whole)} bytes, index-1.faiss has {len(whole) - 1}"),
        (b"x" + whole[1:], "index-1.faiss is not of 1 vectors of 24 values"),
    ):
        (FOLDER / "index-1.faiss").unlink(missing_ok=True)
        if damage is not None:
            (FOLDER / "index-1.faiss").write_bytes(damage)
        for command in (["search", "photos/cat/0.png"], ["index", "photos"], ["info", "indexes/photos"]):
            assert error_of(*command, capsys=capsys) == f"indexes/photos is damaged: {said}; {advice}"
    (FOLDER / "index-1.faiss").unlink()
    os.mkfifo(FOLDER / "index-1.faiss")
    assert "index-1.faiss is not a regular file" in error_of("search", "photos/cat/0.png", capsys=capsys)
