"""An index whose vectors are in Milvus, a real one: embedded in a file, and as a server of its own process."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from starlette.testclient import TestClient

from alexnet_cli.commands import main
from alexnet_cli.errors import BadArtefact
from alexnet_cli.retrieval import build
from alexnet_cli.retrieval.index import Index
from alexnet_cli.serving.app import create_app
from alexnet_cli.workspace import Workspace

FOLDER = Path("indexes/photos")
INDEX = ["index", "photos", "--model", "m.onnx"]
SEARCH = ["search", "photos/cat/3.png", "-k", "12", "--model", "m.onnx"]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a server on this machine alone."""
    with running(tmp_path_factory.mktemp("milvus"), free_port()) as uri:
        yield uri


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[str]:
    """A server with its data in ``folder``. Without --host it would listen everywhere."""
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:  # it says nothing that could be waited for before it listens
            with contextlib.suppress(MilvusException):
                MilvusClient(f"http://127.0.0.1:{port}", timeout=60).close()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=["file", "server"])
def place(request, space: Path) -> list[str]:
    """The options that put the vectors into Milvus."""
    named = ["--uri", request.getfixturevalue("server")] if request.param == "server" else []
    return ["--kind", "milvus", *named]


def collections(place: list[str]) -> set[str]:
    uri = place[-1] if "--uri" in place else str(FOLDER / "milvus.db")
    with contextlib.closing(MilvusClient(uri)) as client:
        return set(client.list_collections())


def answer(*words: str, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(list(words)) == 1
    return capsys.readouterr().err.splitlines()[-1]


def own() -> str:
    """The collection that the index names."""
    return json.loads((FOLDER / "milvus.json").read_text())["collection"]


def test_it_finds_what_a_flat_index_finds(place, capsys):
    flat = [answer(*command, capsys=capsys) for command in (INDEX, SEARCH, ["duplicates", "--max-distance", "40"])]
    vectors = stored()
    shutil.rmtree(FOLDER)
    assert answer(*INDEX, *place, capsys=capsys)["images"] == 12
    assert np.array_equal(stored(), vectors)  # to the last bit
    assert answer(*SEARCH, capsys=capsys) == flat[1]
    assert answer("duplicates", "--max-distance", "40", capsys=capsys) == flat[2]
    facts = answer("info", "indexes/photos", capsys=capsys)
    assert (facts["index_kind"], facts["recall_at_10"]) == ("milvus", 1.0)
    assert main(["info", "indexes/photos", "--verify"]) == 0


def stored() -> np.ndarray:
    with contextlib.closing(Index.open(FOLDER)) as index:
        return index.vectors.read(0, len(index))


def test_an_update_adds_and_drops_and_leaves_one_collection(place, capsys):
    before = collections(place) if "--uri" in place else set()
    assert main([*INDEX, *place]) == 0
    Path("photos/cat/3.png").rename("photos/cat/first.png")
    Path("photos/dog/2.png").unlink()
    picture(Path("photos/cat/new.png"), 77)
    built = answer("index", capsys=capsys)  # which knows its kind and its place
    assert (built["images"], built["added"], built["removed"]) == (12, 2, 2)
    assert collections(place) - before == {own()}
    found = answer("search", "photos/cat/new.png", "-k", "1", "--model", "m.onnx", capsys=capsys)
    assert found["queries"][0]["neighbours"][0]["path"] == "photos/cat/new.png"
    assert sorted(path.name for path in FOLDER.iterdir() if path.name != "milvus.db") == [
        *("images.sqlite", "index.json", "milvus.json")
    ]


def test_another_kind_or_place_takes_the_vectors_along_and_leaves_nothing(server, space, capsys):
    with contextlib.closing(MilvusClient(server)) as client:
        before = set(client.list_collections())
        vectors = []
        for options in ([], ["--kind", "milvus"], ["--uri", server], ["--uri", "m.db"], ["--kind", "flat"]):
            assert answer(*INDEX, *options, capsys=capsys)["images"] == 12
            vectors.append(stored())
            at_server = set(client.list_collections()) - before
            assert at_server == ({own()} if server in options else set())
        assert all(np.array_equal(one, vectors[0]) for one in vectors)
    assert sorted(os.listdir(FOLDER)) == ["images.sqlite", "index.faiss", "index.json"]


def test_an_update_that_is_cut_short_loses_nothing_and_leaves_nothing(place, monkeypatch, capsys):
    before = collections(place) if "--uri" in place else set()
    assert main([*INDEX, *place]) == 0
    first, found = own(), answer(*SEARCH, capsys=capsys)
    picture(Path("photos/cat/new.png"), 77)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt  # whatever is left to do

    with monkeypatch.context() as patched:
        patched.setattr(build, "write_facts", killed)  # all is written but what makes it count
        patched.setattr(build, "tidy", lambda folder: None)  # nor is anything done at the end
        with contextlib.suppress(KeyboardInterrupt):
            main(["index"])
    assert len(collections(place) - before) == 2
    assert answer(*SEARCH, capsys=capsys) == found
    assert own() == first
    assert answer("index", capsys=capsys)["added"] == 1
    assert collections(place) - before == {own()}


def test_a_server_that_is_away_is_one_line_before_the_work_and_loses_nothing(space, tmp_path, capsys):
    port = free_port()
    away = f"error: Milvus at http://127.0.0.1:{port}: "
    advice = ": is it there, and does it ask for MILVUS_TOKEN?"
    line = error_of(*INDEX, "--kind", "milvus", "--uri", f"http://127.0.0.1:{port}", capsys=capsys)
    assert line.startswith(away)
    assert line.endswith(advice)
    assert not FOLDER.exists() or not os.listdir(FOLDER)
    with running(tmp_path / "data", port) as uri:
        assert main([*INDEX, "--kind", "milvus", "--uri", uri]) == 0
        found = answer(*SEARCH, capsys=capsys)
    picture(Path("photos/cat/new.png"), 77)
    for words in (SEARCH, ["index"], ["duplicates"]):
        assert error_of(*words, capsys=capsys).startswith(away)
    assert answer("info", "indexes/photos", capsys=capsys)["count"] == 12  # which asks the engine for nothing
    with running(tmp_path / "data", port):  # other processes, since this one waits before it asks a lost server again
        again = [sys.executable, "-m", "alexnet_cli"]
        said = subprocess.run([*again, *SEARCH, "--json"], capture_output=True, text=True, check=True)
        assert json.loads(said.stdout) == found
        said = subprocess.run([*again, "index", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(said.stdout)["added"] == 1


def test_one_process_at_a_time_opens_a_file(space, capsys):
    assert main([*INDEX, "--kind", "milvus"]) == 0
    shutil.copytree(FOLDER / "milvus.db", "other.db")  # this process holds the other one until it ends
    (FOLDER / "milvus.json").write_text(json.dumps({"uri": str(space / "other.db"), "collection": own()}))
    facts = json.loads((FOLDER / "index.json").read_text())
    facts["files"]["milvus.json"]["bytes"] = (FOLDER / "milvus.json").stat().st_size
    facts.pop("checksum")
    build.write_facts(FOLDER, facts)
    holding = "from milvus_lite.db import MilvusLite; db = MilvusLite('other.db'); print(flush=True); input()"
    command = [sys.executable, "-c", holding]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        line = error_of(*SEARCH, capsys=capsys)
        other.communicate("\n")
    assert line.startswith(f"error: Milvus at {space}/other.db: ")
    assert line.endswith("one process at a time can open a file of Milvus; several need a server, named with --uri")
    assert main(SEARCH) == 0


def test_a_collection_that_is_gone_or_of_other_vectors_is_damage(place, server, capsys):
    assert main([*INDEX, *place]) == 0
    uri = server if "--uri" in place else str(FOLDER / "milvus.db")
    with contextlib.closing(MilvusClient(uri)) as client:
        client.upsert(own(), [{"row": 3, "vector": np.ones(24, np.float32)}])
        assert error_of(*SEARCH, capsys=capsys) == (
            "error: indexes/photos is damaged: the vector of row 3 is not the one that was written; remove it and "
            "build the index again"
        )
        client.delete(own(), ids=[3])
        assert "has no vector for row 3" in error_of("duplicates", capsys=capsys)
        client.drop_collection(own())
    assert f"has no collection {own()}" in error_of(*SEARCH, capsys=capsys)
    (FOLDER / "milvus.json").write_bytes(b"{}" + b" " * ((FOLDER / "milvus.json").stat().st_size - 2))
    with pytest.raises(BadArtefact, match=r"milvus.json does not say where the vectors are"):
        Index.open(FOLDER)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uri", "http://127.0.0.1:1"], "--uri http://127.0.0.1:1 is for --kind milvus; this index is flat"),
        (
            ["--kind", "milvus", "--uri", "place"],
            "--uri place: name a file that ends in .db, or a server such as http://127.0.0.1:19530",
        ),
    ],
)
def test_what_is_no_place(words, said, space, capsys):
    assert error_of(*INDEX, *words, capsys=capsys) == f"error: {said}"


def test_without_its_client_the_extra_is_named(space, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    assert error_of(*INDEX, "--kind", "milvus", capsys=capsys) == (
        "error: an index in Milvus needs its client: pip install 'alexnet-cli[milvus]'"
    )


def test_the_page_answers_from_it_and_sees_an_update(server, searchable, capsys):
    command = ["index", "photos", "--kind", "milvus", "--uri", server]
    with TestClient(create_app(Workspace(Path("."))), base_url="http://127.0.0.1:8224") as client:
        content = Path("photos/cat/3.png").read_bytes()
        flat = client.post("/api/search?k=4", content=content).json()["neighbours"]
        assert main(command) == 0
        assert client.post("/api/search?k=4", content=content).json()["neighbours"] == flat
        row = flat[0]["row"]
        assert client.get(f"/api/search?row={row}&k=4").json()["neighbours"][0]["path"] == flat[0]["path"]
        picture(Path("photos/cat/new.png"), 77)
        update = [sys.executable, "-m", "alexnet_cli", "index"]  # the page and an update share a server, not a file
        subprocess.run(update, check=True, capture_output=True)
        new = client.post("/api/search?k=1", content=Path("photos/cat/new.png").read_bytes()).json()
        assert new["neighbours"][0]["path"] == "photos/cat/new.png"
