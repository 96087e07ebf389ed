"""`alexnet duplicates`: groups of near-identical pictures of an index of any kind, exact however they are found."""

import csv
import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import test_search
from PIL import Image
from test_index import archive, error_of, update
from test_search import answer

from alexnet_cli.commands import main
from alexnet_cli.retrieval import duplicates as module
from alexnet_cli.retrieval.duplicates import FRACTION, find_duplicates
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS
from alexnet_cli.retrieval.layout import write_facts


def groups_by_hand(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Connected components of all pairs within ``threshold``, by flooding."""
    near = np.linalg.norm(vectors[:, None] - vectors[None], axis=2) <= threshold
    groups, seen = [], set[int]()
    for row in range(len(vectors)):
        group, pending = set[int](), [row]
        while pending:
            one = pending.pop()
            if one not in group:
                group.add(one)
                pending += np.flatnonzero(near[one]).tolist()
        if row not in seen and len(group) > 1:
            groups.append(sorted(group))
        seen |= group
    return groups


@pytest.fixture
def copied(searchable: Path) -> Path:
    """The index, with two copies of one picture and one of another."""
    with Image.open("photos/dog/2.png") as image:
        image.save("photos/dog/again.png")
        image.convert("RGB").save("photos/dog/small.jpg", quality=95)
    with Image.open("photos/cat/1.png") as image:
        image.save("photos/cat/1.bmp")
    update(model="models/pets/model.onnx")
    return searchable


GROUPS = [
    ["photos/cat/1.bmp", "photos/cat/1.png"],
    ["photos/dog/2.png", "photos/dog/again.png", "photos/dog/small.jpg"],
]


def test_copies_are_found(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = answer("duplicates", capsys=capsys)
    assert printed["index"] == "photos"
    assert sorted(sorted(group) for group in printed["groups"]) == GROUPS
    with closing(Index.open(Path("indexes/photos"))) as index:
        vectors = index.vectors.read(0, len(index)).astype(np.float64)
    pairs = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)[np.triu_indices(len(vectors), 1)]
    assert printed["median_distance"] == pytest.approx(np.median(pairs), rel=1e-6)
    assert printed["threshold"] == pytest.approx(FRACTION * np.median(pairs), rel=1e-6)


def test_a_copy_that_was_deleted_is_no_copy(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/cat/1.bmp").unlink()
    Path("photos/dog/again.png").unlink()
    groups = answer("duplicates", capsys=capsys)["groups"]
    assert [sorted(group) for group in groups] == [["photos/dog/2.png", "photos/dog/small.jpg"]]


def test_the_table_and_the_csv_file(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = answer("duplicates", "photos", capsys=capsys)["groups"]
    assert main(["duplicates", "photos"]) == 0
    out, err = capsys.readouterr()
    assert "comparing 15 pictures of indexes/photos\n" in err
    assert all(path in out for group in GROUPS for path in group)
    assert out.splitlines()[-1].startswith("2 groups of 5 pictures, at a distance of ")
    assert main(["duplicates", "photos", "--csv", "same.csv"]) == 0
    assert capsys.readouterr().out.startswith("wrote same.csv\n2 groups of 5 pictures")
    with open("same.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["path"]) for row in rows] == [
        (str(number), path) for number, group in enumerate(printed, 1) for path in group
    ]
    assert [float(row["distance"]) for row in rows][:2] == [0.0, 0.0]


def test_a_chain_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(test_search, "ROWS", 400)
    test_search.write_made_up_index(tmp_path / "large", seed=3)
    assert main(["duplicates", str(tmp_path / "large"), "--max-distance", "8"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "(chain)" in line]
    assert lines
    assert all(re.match(r"│ \d+ \(chain\) +│ +0\.00 │ 3/\d+\.jpg +│$", line) for line in lines)


def test_the_threshold_can_be_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact = answer("duplicates", "--max-distance", "0", capsys=capsys)
    assert exact["threshold"] == 0
    assert sorted(map(sorted, exact["groups"])) == [GROUPS[0], GROUPS[1][:2]]
    (everything,) = answer("duplicates", "--max-distance", "1000", capsys=capsys)["groups"]
    assert len(everything) == 15


def test_without_duplicates(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("duplicates", "--max-distance", "1e-9", capsys=capsys)["groups"] == []
    assert main(["duplicates", "--max-distance", "1e-9"]) == 0
    assert capsys.readouterr().out.startswith("no two pictures are at a distance of 1e-09 or less (")


@pytest.mark.parametrize("threshold", [7.5, 8.0, 8.5])  # pairs, then chains
@pytest.mark.parametrize("components", [8, 64])
def test_groups_are_those_of_all_pairs(
    tmp_path: Path, threshold: float, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_search, "ROWS", 400)
    monkeypatch.setattr(module, "COMPONENTS", components)
    monkeypatch.setattr(module, "CHUNK", 7)
    with closing(Index.open(test_search.write_made_up_index(tmp_path / "large", seed=3))) as index:
        vectors = index.vectors.read(0, len(index)).astype(np.float64)
        found = find_duplicates(index, threshold)
    expected = groups_by_hand(vectors, threshold)
    assert [group.rows for group in found.groups] == expected
    assert expected
    for group in found.groups:
        exact = np.linalg.norm(vectors[group.rows] - vectors[group.rows[0]], axis=1)
        np.testing.assert_allclose(group.distances, exact)
        assert found.is_chain(group) == (exact.max() > threshold)
    assert any(map(found.is_chain, found.groups)) == (threshold > 7.5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_index_gives_the_same_groups(copied: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer("index", "photos", "--model", "pets", "--out", kind, "--kind", kind, capsys=capsys)
    groups = answer("duplicates", kind, capsys=capsys)["groups"]
    assert sorted(sorted(group) for group in groups) == GROUPS


def test_an_archive(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update(archive(copied, "zip"), model="models/pets/model.onnx", name="packed")
    (group,) = answer("duplicates", "packed", "--max-distance", "0", capsys=capsys)["groups"]
    assert group == ["photos/dog/2.png", "photos/dog/again.png"]


def test_what_is_no_index(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of("duplicates", "none", capsys=capsys).startswith("no index 'none': there is neither none/index.json")
    assert main(["duplicates", "--max-distance", "-1"]) == 2
    assert json.loads(Path("indexes/photos/index.json").read_text())["count"] == 12


def test_what_is_gone_or_not_yet_indexed_is_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer("index", "photos", "--model", "pets", "--out", "some", capsys=capsys)
    groups = answer("duplicates", "some", capsys=capsys)["groups"]
    Path(groups[0][0]).unlink()
    facts = json.loads(Path("indexes/some/index.json").read_text())
    del facts["checksum"]
    write_facts(Path("indexes/some"), facts | {"unfinished": 3})
    capsys.readouterr()
    assert main(["duplicates", "some"]) == 0
    err, again = capsys.readouterr().err, "alexnet index ./photos --out some"
    assert f"not in the index yet: 3 pictures; to add: {again}\n" in err
    assert f"1 picture of the groups is no longer there; to bring the index up to date: {again}\n" in err
    assert main(again.split()[1:]) == 0
    capsys.readouterr()
    assert main(["duplicates", "some"]) == 0
    assert "index" not in capsys.readouterr().err.replace("indexes/some", "")


def test_where_most_pictures_are_alike_it_is_said(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Image.open("photos/cat/0.png").convert("RGB")
    Path("series").mkdir()
    for quality in (95, 80, 60):
        one.save(f"series/{quality}.jpg", quality=quality)
    update("series", model="models/pets/model.onnx", name="series")
    note = "most of these pictures are alike, so the distance that was chosen may be too small"
    for words, is_noted in (["series"], True), (["series", "--max-distance", "9"], False), (["photos"], False):
        capsys.readouterr()
        assert main(["duplicates", *words]) == 0
        assert (note in capsys.readouterr().err) == is_noted
