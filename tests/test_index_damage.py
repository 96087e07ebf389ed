"""A damaged index: every file, every fact in `index.json`, any bit; one line says so, and its advice works."""

import contextlib
import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from test_index import counts, error_of, update

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import file_checksum
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.kinds import KINDS
from alexnet_cli.retrieval.layout import read_facts, write_facts

FOLDER = Path("indexes/photos")
ADVICE = "remove it and build the index again"


def search_error(capsys: pytest.CaptureFixture[str]) -> str:
    return error_of("search", "photos/cat/0.png", "--model", "m.onnx", capsys=capsys)


def forge(name: str, content: bytes) -> None:
    """Replace a file of the index, with the right size and checksum in `index.json`."""
    facts = read_facts(FOLDER)
    (FOLDER / name).write_bytes(content)
    facts["files"][name] = {"bytes": len(content), "checksum": file_checksum(FOLDER / name)}
    write_facts(FOLDER, facts)


# Known damage


def test_damaged_files_are_reported(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update()
    shutil.copytree(FOLDER, "whole")

    def after(name: str, damage: bytes | None) -> str:
        """The error of a search after ``name`` was replaced, or removed."""
        shutil.rmtree(FOLDER)
        shutil.copytree("whole", FOLDER)
        (FOLDER / name).unlink() if damage is None else (FOLDER / name).write_bytes(damage)
        return search_error(capsys)

    facts, text = read_facts(FOLDER), Path("whole/index.json").read_text()
    vectors, table = Path("whole/index.faiss").read_bytes(), Path("whole/images.sqlite").read_bytes()
    assert after("index.faiss", None) == f"indexes/photos is damaged: index.faiss is missing; {ADVICE}"
    assert after("index.faiss", vectors[:-4]) == (
        f"indexes/photos is damaged: 12 vectors of 24 values take {len(vectors):,} bytes, index.faiss has "
        f"{len(vectors) - 4:,}; {ADVICE}"
    )
    assert after("index.faiss", b"\0" * len(vectors)) == (
        f"indexes/photos is damaged: index.faiss is not of 12 vectors of 24 values; {ADVICE}"
    )
    assert after("index.faiss", vectors[:-4] + b"\0\0\1\0") == (
        f"indexes/photos is damaged: the checksum of its vectors differs; {ADVICE}"
    )
    assert after("images.sqlite", None) == f"indexes/photos is damaged: images.sqlite is missing; {ADVICE}"
    for damage in (b"\0" * len(table), table.replace(b"cat/0.png", b"cat/1.png")):
        assert after("images.sqlite", damage) == (
            f"indexes/photos is damaged: the checksum of images.sqlite differs; {ADVICE}"
        )
    assert after("index.json", json.dumps(facts | {"format": 9}).encode()) == (
        "indexes/photos/index.json has format version 9, this program reads up to 2: upgrade alexnet-cli"
    )
    assert after("index.json", json.dumps(facts | {"format": 1}).encode()) == (
        "indexes/photos/index.json has format version 1, this program reads 2: remove indexes/photos and build the "
        "index again"
    )
    assert after("index.json", b"{") == (
        "indexes/photos/index.json is damaged (Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1)): remove indexes/photos and build the index again"
    )
    assert after("index.json", b"{}") == f"indexes/photos is damaged: index.json has no format version; {ADVICE}"
    assert after("index.json", text.replace('"source": "/', '"source": "/x').encode()) == (
        f"indexes/photos is damaged: the checksum of index.json differs; {ADVICE}"
    )
    assert after("index.json", None) == "no index in indexes yet: make one with `alexnet index FOLDER`, or name one"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kind", "tree", "there is no kind 'tree' of index"),
        ("kind", None, "index.json has 'kind' as 'None'"),
        ("count", -1, "index.json has 'count' as '-1'"),
        ("count", True, "index.json has 'count' as 'True'"),
        ("count", 10**18, "index.json has 'count' as '1000000000000000000'"),
        ("count", 10**11, "index.json has 100,000,000,000 vectors in other pieces"),
        ("live", [[0, 13]], "index.json has 12 vectors in other pieces"),
        ("live", [[0, 6], [5, 11]], "index.json has 12 vectors in other pieces"),
        ("live", [[0, "x"]], "index.json has 12 vectors in other pieces"),
        ("live", [5], "index.json has 12 vectors in other pieces"),
        ("live", 5, "index.json has 'live' as '5'"),
        ("live", None, "index.json has 'live' as 'None'"),
        ("pieces", [], "index.json has 12 vectors in other pieces"),
        ("pieces", [5], "index.json has 'pieces' as '[5]'"),
        ("measured_on", 0, "index.json has 'measured_on' as '0'"),
        (
            "dimension",
            2**31 - 1,
            "12 vectors of 2,147,483,647 values take 103,079,215,101 bytes, index.faiss has 1,197",
        ),
        ("dimension", 2**31, "index.json has 'dimension' as '2147483648'"),
        ("image_size", 10**9, "index.json has 'image_size' as '1000000000'"),
        ("generation", "../../x", "index.json has 'generation' as '../../x'"),
        ("source", 5, "index.json has 'source' as '5'"),
        ("files", {}, "index.json has 'files' as '{}'"),
        ("model_path", ..., "index.json has no 'model_path'"),
        ("unfinished", ..., "index.json has no 'unfinished'"),
    ],
)
def test_whatever_index_json_says_is_one_line(
    key: str,
    value: object,
    reason: str,
    space: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    update()
    facts = read_facts(FOLDER)
    write_facts(FOLDER, {k: v for k, v in facts.items() if k != key} if value is ... else facts | {key: value})
    message = f"indexes/photos is damaged: {reason}; {ADVICE}"
    assert search_error(capsys) == message
    assert error_of("index", "photos", "--model", "m.onnx", capsys=capsys) == message
    shutil.rmtree(FOLDER)
    assert counts(update()) == (12, 12, 0, 0, 0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("candidates", 10**12, "codes.faiss cannot be used (1000000000000 candidates, ef_search 4)"),
        ("candidates", "many", "codes.faiss cannot be used (many candidates, ef_search 4)"),
        ("ef_search", -1, "codes.faiss cannot be used (50 candidates, ef_search -1)"),
        ("ef_search", ..., "codes.faiss cannot be used ('ef_search')"),
    ],
)
def test_whatever_index_json_says_of_codes_is_one_line(
    key: str,
    value: object,
    reason: str,
    space: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "hnsw"]) == 0
    facts = read_facts(FOLDER)
    write_facts(FOLDER, {k: v for k, v in facts.items() if k != key} if value is ... else facts | {key: value})
    assert search_error(capsys) == f"indexes/photos is damaged: {reason}; {ADVICE}"


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.has_codes])
def test_codes_with_absurd_sizes_are_refused_before_memory_is_taken(
    kind: str,
    space: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every size in the file, one after the other: whatever FAISS says, it is one line, and never a terabyte."""
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    content = (FOLDER / "codes.faiss").read_bytes()
    sizes = [
        at for at in range(0, len(content) - 8) if 0 < int.from_bytes(content[at : at + 8], "little") <= len(content)
    ]
    assert sizes
    refused = 0
    for at in sizes[:: 1 + len(sizes) // 40]:
        forge("codes.faiss", content[:at] + (2**38).to_bytes(8, "little") + content[at + 8 :])
        message = ""
        try:
            Index.open(FOLDER).close()
        except BadArtefact as error:
            message = str(error)
        refused += bool(message)
        assert not message or message.startswith("indexes/photos is damaged: codes.faiss "), at
    assert refused


def test_codes_of_other_vectors_are_refused(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    picture(space / "photos/cat/new.png", 77)
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8", "--out", "other"]) == 0
    forge("codes.faiss", Path("indexes/other/codes.faiss").read_bytes())
    assert search_error(capsys) == f"indexes/photos is damaged: codes.faiss has codes of other vectors; {ADVICE}"


def test_verify_finds_what_a_search_by_codes_does_not_read(space: Path) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", "sq8"]) == 0
    index = Index.open(FOLDER)
    told: list[tuple[str, int, int]] = []

    class Told(Progress):
        def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
            told.append((task, done, total))

    index.verify(Told())
    assert told == [("verifying", 12, 12)]
    index.close()
    content = bytearray((FOLDER / "index.faiss").read_bytes())
    content[-3] ^= 1
    (FOLDER / "index.faiss").write_bytes(content)
    with (
        contextlib.closing(Index.open(FOLDER)) as index,
        pytest.raises(BadArtefact, match=r"^indexes/photos is damaged: the checksum of its vectors"),
    ):
        index.verify()
    # An update does not write a new checksum over the damage: neither one that leaves the vectors where they are ...
    picture(space / "photos/cat/new.png", 77)
    update()
    with (
        contextlib.closing(Index.open(FOLDER)) as index,
        pytest.raises(BadArtefact, match=r"^indexes/photos is damaged: the checksum of its vectors"),
    ):
        index.verify()
    for i in range(4):  # ... nor one that writes them all
        (space / f"photos/dog/{i}.png").unlink()
    with pytest.raises(BadArtefact, match=r"^indexes/photos is damaged: the checksum of its vectors"):
        update()
    assert not [name for name in os.listdir(FOLDER) if name.count(".") > 1 and not name.startswith("part-")]


def test_vectors_that_are_not_numbers_are_damage(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the checksum was made after it."""
    update()
    vectors, table = (FOLDER / "index.faiss").read_bytes(), (FOLDER / "images.sqlite").read_bytes()
    header = len(vectors) - 12 * 24 * 4
    nan = np.full((12, 24), np.nan, np.float32).tobytes()
    forge("index.faiss", vectors[:header] + nan)
    facts = read_facts(FOLDER)
    facts["pieces"][0]["checksum"] = file_checksum(FOLDER / "index.faiss", header)
    write_facts(FOLDER, facts)
    assert search_error(capsys) == f"indexes/photos is damaged: not all values of its vectors are numbers; {ADVICE}"
    # A table that lacks a row, or has something else in the place of a path
    shutil.rmtree(FOLDER)
    update()
    forge("images.sqlite", table.replace(b"cat/0.png", b"cat/\xff.png"))
    assert search_error(capsys).startswith("indexes/photos is damaged: images.sqlite cannot be read (Could not decode")
    forge("images.sqlite", table[:100] + bytes(len(table) - 100))
    assert search_error(capsys).startswith("indexes/photos is damaged: images.sqlite cannot be opened (")


@pytest.mark.parametrize("kind", ["sq8", "hnsw", "binary"])
def test_a_search_by_codes_checks_the_vectors_it_measures(kind: str, space: Path, capsys) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    vectors = (FOLDER / "index.faiss").read_bytes()
    (FOLDER / "index.faiss").write_bytes(vectors[:60] + bytes(len(vectors) - 60))
    assert "is not the one that was written" in search_error(capsys)


VIEW = (
    "ALTER TABLE images RENAME TO hidden; CREATE VIEW images AS WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL "
    "SELECT n + 1 FROM r) SELECT n AS row, 'x' AS path, 'y' AS label, 's' AS stamp, 0 AS vector FROM r"
)
COLUMN = "ALTER TABLE images ADD COLUMN computed TEXT AS (printf('%.*c', 1000, label))"


@pytest.mark.parametrize("computed", [VIEW, COLUMN])
def test_a_table_that_computes_is_refused(computed: str, space: Path, capsys) -> None:
    """A view without end would never answer; nor would a column that takes long."""
    update()
    table = sqlite3.connect(FOLDER / "images.sqlite")
    table.executescript(computed)
    table.close()
    forge("images.sqlite", (FOLDER / "images.sqlite").read_bytes())
    assert search_error(capsys) == f"indexes/photos is damaged: images.sqlite has other tables than an index; {ADVICE}"


def interior(child: int) -> bytes:
    """A page of SQLite's b-tree that leads 501 times to page ``child``."""
    cells = b"".join(struct.pack(">IB", child, 100) for _ in range(500))
    start = 4096 - len(cells)
    pointers = struct.pack(">500H", *range(start, 4096, 5))
    page = struct.pack(">BHHHBI", 5, 0, 500, start, 0, child) + pointers
    return page + bytes(start - len(page)) + cells


def test_a_table_whose_pages_lead_in_circles_is_refused(searchable: Path, client) -> None:
    """Its schema is right, and so are the checksums; to read it would take 501 to the 5th times as long."""
    content = bytearray((FOLDER / "images.sqlite").read_bytes())
    last = len(content) // 4096
    pages = [bytes(content[4096:8192]), *(interior(last + i) for i in range(1, 5))]
    content[4096:8192] = interior(last + 5)
    content += b"".join(pages)
    content[28:32] = struct.pack(">I", len(content) // 4096)
    forge("images.sqlite", bytes(content))
    for address in ("/api/classes", "/api/pictures?label=none"):
        answer = client.get(address)
        assert answer.status_code == 500
        assert "images.sqlite cannot be read (interrupted)" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "addresses"),
    [
        ("label = x'00ff'", ["/api/classes", "/api/search?row=0&k=12"]),
        ("path = NULL", ["/api/pictures?label=cat", "/api/search?row=0&k=12"]),
        ("path = 'a' || char(0)", ["/api/pictures?label=cat", "/api/search?row=0&k=12"]),
        ("path = hex(zeroblob(40000))", ["/api/pictures?label=cat", "/api/search?row=0&k=12"]),
        ("label = hex(zeroblob(3000))", ["/api/classes", "/api/search?row=0&k=12"]),
    ],
)
def test_what_is_no_text_is_damage_in_the_page_as_well(change, addresses, searchable, client) -> None:
    table = sqlite3.connect(FOLDER / "images.sqlite")
    table.execute(f"UPDATE images SET {change} WHERE row < 9")
    table.commit()
    table.close()
    forge("images.sqlite", (FOLDER / "images.sqlite").read_bytes())
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 500, address
        assert "images.sqlite has no picture in row" in answer.json()["error"]


@pytest.mark.parametrize("name", ["images.sqlite", "index.faiss"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_may_never_end_is_not_read(name, kind, space, capsys) -> None:
    update()
    if name != "index.faiss":
        facts = read_facts(FOLDER)
        facts["files"][name]["bytes"] = 0
        write_facts(FOLDER, facts)
    (FOLDER / name).unlink()
    os.mkfifo(FOLDER / name) if kind == "fifo" else (FOLDER / name).symlink_to("/dev/zero")
    wanted = f"indexes/photos is damaged: {name} is not a regular file; {ADVICE}"
    assert search_error(capsys) == wanted
    assert error_of("info", "indexes/photos", "--verify", capsys=capsys) == wanted
    if name == "images.sqlite":
        assert error_of("duplicates", capsys=capsys) == wanted


def test_a_folder_that_has_become_a_link_in_a_circle_is_searched_as_if_it_had_moved(space: Path, capsys) -> None:
    update()
    capsys.readouterr()
    shutil.move("photos", "moved")
    Path("photos").symlink_to("photos")
    assert main(["search", "moved/cat/0.png", "--model", "m.onnx"]) == 0
    assert "cat/0.png" in capsys.readouterr().out
    said = error_of("index", "photos", "--model", "m.onnx", capsys=capsys)
    assert said == "no folder, archive or dataset 'photos'"


def test_half_a_pair_of_surrogates_is_no_name(space: Path, capsys) -> None:
    update()
    write_facts(FOLDER, read_facts(FOLDER) | {"named": "a\ud800"})
    assert "index.json has 'named' as" in search_error(capsys)


def test_a_table_that_leads_out_of_its_folder_is_refused(space: Path, capsys) -> None:
    update()
    table = sqlite3.connect(FOLDER / "images.sqlite")
    table.execute("UPDATE images SET path = '/etc/passwd'")
    table.commit()
    table.close()
    forge("images.sqlite", (FOLDER / "images.sqlite").read_bytes())
    assert search_error(capsys) == (
        f"indexes/photos is damaged: a path in images.sqlite leads out of the indexed folder; {ADVICE}"
    )


def test_info_checks_what_it_tells(space: Path, capsys) -> None:
    update()
    assert main(["info", "photos", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["index_kind"], facts["count"]) == ("index", "flat", 12)
    index = FOLDER / "index.json"
    index.write_text(index.read_text().replace('"count": 12', '"count": 13'))
    assert main(["info", "photos"]) == 1
    assert (
        capsys.readouterr().err == f"error: indexes/photos is damaged: the checksum of index.json differs; {ADVICE}\n"
    )


# Any damage


def damages(content: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """``content`` with a flipped bit, cut short, with zeros in the place of some bytes, and with bytes appended."""
    for _ in range(8):
        at, bit = int(random.integers(len(content))), 1 << int(random.integers(8))
        yield content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        yield content[:at]
        yield content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :]
    yield content + b"\0"


@pytest.mark.parametrize("kind", ["flat", "sq8", "hnsw"])
def test_any_damage_is_told_or_does_not_matter(kind: str, space: Path) -> None:
    """A search by codes does not read all vectors: it answers rightly, and `verify` finds the damage."""
    assert main(["index", "photos", "--model", "m.onnx", "--kind", kind]) == 0
    random = np.random.default_rng(0)
    with contextlib.closing(Index.open(FOLDER)) as index:
        queries = index.vectors.read(0, 3)
        sound = index.neighbours(queries, 3)
    for name in sorted(os.listdir(FOLDER)):
        content = (FOLDER / name).read_bytes()
        for damage in damages(content, random):
            if damage == content:
                continue
            (FOLDER / name).write_bytes(damage)
            with contextlib.suppress(BadArtefact), contextlib.closing(Index.open(FOLDER)) as index:
                assert index.neighbours(queries, 3) == sound
                index.verify()
                pytest.fail(f"{name} is not as it was written")
        (FOLDER / name).write_bytes(content)
    with contextlib.closing(Index.open(FOLDER)) as index:
        assert index.neighbours(queries, 3) == sound
