"""The server of `alexnet serve`, asked in-process: its answers, its errors, and indexes that change meanwhile."""

import asyncio
import io
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2 as httpx
import pytest
from onnx_files import CLASSES, write_onnx
from pictures import encoded, picture, write_zip
from PIL import Image
from starlette.testclient import TestClient

import alexnet_cli as alexnet
from alexnet_cli.data.prepare import prepare
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.serving import app as app_module
from alexnet_cli.serving import library, mistakes
from alexnet_cli.serving.app import LIMIT, PAGE, create_app
from alexnet_cli.serving.thumbnails import SIDE
from alexnet_cli.workspace import Workspace

PHOTOS = 12  # of `searchable`
LOCAL = "http://127.0.0.1:8224"


def index_photos(name: str = "photos", source: Path = Path("photos"), **model: object) -> None:
    """Make or update an index with the model `pets`."""
    path = Path("models/pets/model.onnx")
    build_index(open_collection(source), OnnxModel.open(path), Path("indexes") / name, model_path=path)


def error(answer: httpx.Response, status: int) -> str:
    """The message of an error."""
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    return str(answer.json()["error"])


class Notes(Progress):
    """Keeps what the server says in the terminal."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str, detail: str = "") -> None:
        self.said.append(text)


# Answers


def test_the_page_is_whole_and_asks_nobody_else(client: TestClient) -> None:
    home = client.get("/")
    assert home.status_code == 200
    assert home.headers["content-type"].startswith("text/html")
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert client.get(f"/page/{file.name}").text == text
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")  # no address
    assert "<script>" not in home.text
    assert "style=" not in home.text
    assert "onclick" not in home.text


def test_info_tells_of_the_newest_index(client: TestClient) -> None:
    info = client.get("/api/info").json()
    assert {key: info[key] for key in ("model", "index", "pictures", "classes")} == {
        "model": "pets",
        "index": "photos",
        "pictures": PHOTOS,
        "classes": CLASSES,
    }


def test_a_picture_gets_the_answers_of_the_command(client: TestClient) -> None:
    content = Path("photos/cat/3.png").read_bytes()
    answer = client.post("/api/search?k=4", content=content).json()
    with alexnet.open_index("indexes/photos") as searcher:
        neighbours = searcher.search("photos/cat/3.png", 4)
        (predictions,) = searcher.model.predict("photos/cat/3.png")
    assert answer["predictions"] == [vars(prediction) for prediction in predictions]
    assert answer["neighbours"] == [{"row": one.row, **one.as_json()} for one in neighbours]
    assert set(answer["neighbours"][0]) == {"row", "rank", "path", "label", "name", "distance"}
    assert answer["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-5)


def test_a_row_gets_the_answers_of_its_picture(client: TestClient) -> None:
    content = Path("photos/cat/3.png").read_bytes()
    by_picture = client.post("/api/search", content=content).json()
    row = by_picture["neighbours"][0]["row"]
    by_row = client.get(f"/api/search?row={row}").json()
    assert [one["path"] for one in by_row["neighbours"]] == [one["path"] for one in by_picture["neighbours"]]
    assert len(by_row["neighbours"]) == 10
    assert by_row["predictions"] == by_picture["predictions"]
    assert by_row["label"] == "cat"


def test_classes_and_their_pictures_in_pages(client: TestClient) -> None:
    assert client.get("/api/classes").json()["classes"] == [
        {"label": "cat", "name": "cat", "pictures": 6},
        {"label": "dog", "name": "dog", "pictures": 6},
    ]
    seen, after, more = [], -1, True
    while more:
        page = client.get(f"/api/pictures?label=dog&count=4&after={after}").json()
        seen += [one["path"] for one in page["pictures"]]
        after, more = page["pictures"][-1]["row"], page["more"]
    assert seen == [f"photos/dog/{i}.png" for i in range(6)]
    assert client.get("/api/pictures?label=cow").json()["pictures"] == []
    spread = client.get("/api/pictures?spread=4").json()["pictures"]
    assert [one["row"] for one in spread] == [1, 4, 7, 10]
    assert len(client.get("/api/pictures?spread=100").json()["pictures"]) == PHOTOS


def test_thumbnails_and_originals(client: TestClient) -> None:
    thumbnail = client.get("/api/pictures/0")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (SIDE, SIDE)
    original = client.get("/api/pictures/0?full")
    assert original.content == Path("photos/cat/0.png").read_bytes()
    assert original.headers["content-type"] == "image/png"
    assert original.headers["x-content-type-options"] == "nosniff"
    assert original.headers["content-disposition"] == 'inline; filename="0.png"'


def test_a_picture_that_no_browser_shows_is_downloaded(searchable: Path, client: TestClient) -> None:
    Image.open("photos/cat/0.png").save("photos/cat/0.tif")
    Path("photos/cat/0.tif").replace("photos/cat/0.png")
    original = client.get("/api/pictures/0?full")
    assert original.status_code == 200
    assert original.headers["content-type"] == "application/octet-stream"
    assert original.headers["content-disposition"].startswith("attachment")


def test_a_picture_that_is_sent_has_a_preview(tmp_path: Path) -> None:
    with TestClient(create_app(Workspace(tmp_path)), base_url=LOCAL) as client:
        preview = client.post("/api/preview", content=encoded(Image.new("RGB", (90, 60), (200, 30, 30)), "TIFF"))
        assert preview.headers["content-type"] == "image/jpeg"
        assert preview.headers["cache-control"] == "no-store"
        shown = Image.open(io.BytesIO(preview.content))
        assert shown.size == (SIDE, SIDE)
        assert shown.getpixel((99, 99))[0] > 190
        assert error(client.post("/api/preview", content=b"x"), 400) == "not a picture that can be read"
        assert error(client.get("/api/preview"), 405) == "Method Not Allowed"


def test_archives_and_datasets_have_thumbnails_and_no_originals(searchable: Path, client: TestClient) -> None:
    archive = write_zip(Path("zipped.zip"), {f"cat/{i}.png": Path(f"photos/cat/{i}.png").read_bytes() for i in (1, 2)})
    index_photos("zipped", archive)
    prepare(Path("photos"), Path("data/packed"), size=32, workers=1, val_fraction=0.2)
    index_photos("packed", Path("data/packed"))
    for name in ("zipped", "packed"):
        thumbnail = client.get(f"/api/pictures/0?index={name}")
        assert thumbnail.headers["content-type"] == "image/jpeg"
        assert client.get(f"/api/search?row=1&index={name}").json()["predictions"]
        assert "not in a file of its own" in error(client.get(f"/api/pictures/0?full&index={name}"), 404)


# Errors


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/api/search?row=12", 404, "the index has no row 12: its rows go from 0 to 11"),
        ("/api/search", 400, "row must be a whole number"),
        ("/api/search?row=-1", 400, "row must be from 0 to"),
        ("/api/search?row=1&k=0", 400, "k must be from 1 to 1000"),
        ("/api/search?row=1&k=many", 400, "k must be a whole number"),
        ("/api/search?row=1_0", 400, "row must be a whole number"),
        ("/api/search?row=%2B1", 400, "row must be a whole number"),
        ("/api/search?row=\uff11", 400, "row must be a whole number"),
        ("/api/pictures/12", 404, "the index has no row 12"),
        ("/api/pictures/12?full", 404, "the index has no row 12"),
        ("/api/pictures/x", 404, "Not Found"),
        (f"/api/pictures/{'9' * 5000}", 404, "Not Found"),
        ("/api/info?index=other", 404, "there is no index 'other' in indexes"),
        ("/api/info?index=../indexes/photos", 404, "there is no index '../indexes/photos' in indexes"),
        ("/api/pictures?count=5000", 400, "count must be from 1 to 1000"),
        ("/page/../app.py", 404, "Not Found"),
        ("/page/%2e%2e/app.py", 404, "Not Found"),
        ("/api/pictures/..%2f..%2fphotos", 404, "Not Found"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_errors_are_json(client: TestClient, address: str, status: int, said: str) -> None:
    assert said in error(client.get(address), status)


def test_what_is_no_picture_is_refused(client: TestClient) -> None:
    assert error(client.post("/api/search"), 400) == (
        "an empty file, no picture: the body of the request must be the bytes of one"
    )
    assert error(client.post("/api/search", content=b"no picture"), 400) == "not a picture that can be read"
    assert error(client.delete("/api/search"), 405) == "Method Not Allowed"


def test_the_name_of_a_picture_that_cannot_be_read_says_why(client: TestClient) -> None:
    for address in ("/api/search?name=a.CR3", "/api/preview?name=a.CR3"):
        assert error(client.post(address, content=b"no picture"), 400) == "a camera's RAW: convert it first"
    assert error(client.post("/api/search?name=a.png", content=b"x"), 400) == "not a picture that can be read"


def test_decompression_bombs_are_refused(client: TestClient) -> None:
    bomb = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(bomb) < 100_000
    assert "more than 67,108,864 pixels" in error(client.post("/api/search", content=bomb), 400)


def test_too_large_a_picture_is_refused_while_it_comes(client: TestClient) -> None:
    told = client.post("/api/search", content=b"", headers={"content-length": str(LIMIT + 1)})
    assert error(told, 413) == "a picture may have 20 MB"

    read = 0

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 1_000_000
        return {"type": "http.request", "body": bytes(1_000_000), "more_body": True}  # without end

    assert status_of_upload(client, receive) == 413
    assert read == LIMIT + 1_000_000


def status_of_upload(client: TestClient, receive: Callable[[], Awaitable[dict[str, object]]]) -> int:
    """The status of a POST whose body comes from ``receive``."""
    messages: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/search", "query_string": b"", "root_path": ""}
    client.portal.call(client.app, {**scope, "headers": [(b"host", b"localhost")]}, receive, send)
    return int(str(messages[0]["status"]))


def test_a_picture_that_comes_too_slowly_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(app_module, "UPLOAD_SECONDS", 0.01)
    assert status_of_upload(client, never) == 408


def test_a_client_that_leaves_during_its_upload_is_no_error(searchable: Path) -> None:
    async def leaves() -> dict[str, object]:
        return {"type": "http.disconnect"}

    notes = Notes()
    with TestClient(create_app(Workspace(Path(".")), progress=notes), base_url=LOCAL) as client:
        assert status_of_upload(client, leaves) == 400
    assert notes.said == []


def test_pictures_that_are_gone_are_told_and_their_neighbours_stay(searchable: Path, client: TestClient) -> None:
    Path("photos/cat/0.png").unlink()
    assert "is not there any more: update the index" in error(client.get("/api/pictures/0"), 404)
    assert "is not there any more" in error(client.get("/api/pictures/0?full"), 404)
    answer = client.get("/api/search?row=0").json()
    assert answer["predictions"] == []
    assert answer["neighbours"][0]["row"] == 0


def test_a_file_that_is_no_picture_any_more_is_not_sent(searchable: Path, client: TestClient) -> None:
    for content in (b"secret", b'<svg xmlns="http://www.w3.org/2000/svg"/>'):
        Path("photos/cat/0.png").write_bytes(content)
        assert "not a picture that can be read" in error(client.get("/api/pictures/0?full"), 404)
    Path("photos/cat/0.png").write_bytes(b"P6 #" + b"c" * 2**20 + b"\n1 1 255\nabc")  # the limits hold here too
    assert "a PPM whose header has more than 64 KiB" in error(client.get("/api/pictures/0?full"), 404)
    for start in (b"BM<html>", b"GIF8<html>"):
        Path("photos/cat/0.png").write_bytes(start + b" " * 100)
        assert error(client.get("/api/pictures/0?full"), 404)
    Path("photos/cat/0.png").unlink()
    os.mkfifo("photos/cat/0.png")
    assert "is not there any more" in error(client.get("/api/pictures/0?full"), 404)
    assert "not a regular file" in error(client.get("/api/pictures/0"), 404)


def test_without_an_index_the_command_is_told(tmp_path: Path) -> None:
    with TestClient(create_app(Workspace(tmp_path)), base_url=LOCAL) as client:
        assert "make one with `alexnet index`" in error(client.get("/api/info"), 404)
        assert client.get("/api/indexes").json() == {"indexes": [], "workspace": str(tmp_path)}
        assert client.get("/").status_code == 200


def test_what_is_no_file_is_named(client: TestClient, searchable: Path) -> None:
    Path("indexes/photos/embedding.safetensors").mkdir()
    assert error(client.get("/api/embedding"), 500) == "indexes/photos/embedding.safetensors: Is a directory"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "x", ""])
def test_what_is_no_probability_counts_as_none(text: str) -> None:
    assert mistakes._number(text) == 0


def test_an_unexpected_error_says_so_and_shows_no_traceback(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(library.Library, "borrow", fails)
    assert error(client.get("/api/info"), 500).startswith("unexpected RuntimeError")


# Several indexes, and indexes that change


def test_indexes_to_choose_from(searchable: Path, client: TestClient) -> None:
    picture(Path("others/one.png"), 7)
    index_photos("others", Path("others"))
    found = client.get("/api/indexes").json()["indexes"]
    assert found == [
        {"index": "others", "pictures": 1, "model": "pets"},
        {"index": "photos", "pictures": PHOTOS, "model": "pets"},
    ]
    assert client.get("/api/info").json()["index"] == "others"
    assert client.get("/api/info?index=photos").json()["pictures"] == PHOTOS
    assert client.get("/api/classes").json()["classes"] == [{"label": None, "name": None, "pictures": 1}]
    assert [one["path"] for one in client.get("/api/pictures").json()["pictures"]] == ["others/one.png"]
    models = {id(opened.searcher.model) for opened in client.app.app.state.library._open.values()}
    assert len(models) == 1  # in memory once


def test_an_index_that_cannot_be_read_takes_no_other_from_the_page(searchable: Path, client: TestClient) -> None:
    shutil.copytree("indexes/photos", "indexes/other")
    Path("indexes/other/index.json").unlink()
    Path("indexes/other/index.json").symlink_to("/proc/self/mem")  # a file that the system does not let anybody read
    photos = {"index": "photos", "pictures": PHOTOS, "model": "pets"}
    other, readable = sorted(client.get("/api/indexes").json()["indexes"], key=lambda one: one["index"])
    assert other["index"] == "other"
    assert "Input/output error" in other["error"]
    assert readable == photos
    Path("indexes/other/index.json").unlink()
    os.mkfifo("indexes/other/index.json")  # no index at all
    assert client.get("/api/indexes").json()["indexes"] == [photos]
    assert client.get("/api/info").json()["index"] == "photos"


def test_folders_whose_names_are_not_utf8_take_nothing_from_the_page(searchable: Path) -> None:
    odd = os.fsdecode(b"odd\xff")
    try:
        shutil.copytree("photos", odd)
    except OSError:
        pytest.skip("the file system takes no such name")
    index_photos("of-odd", Path(odd))
    shutil.copytree("indexes/photos", f"indexes/{odd}")  # the newest
    shutil.copytree("models/pets", f"models/{odd}")
    for name in ("pets", odd):
        Path("models", name, "recipe.toml").touch()
        Path("models", name, "history.jsonl").touch()
    Path(odd, "predictions.csv").touch()
    notes = Notes()
    with TestClient(create_app(Workspace(Path(".")), progress=notes), base_url=LOCAL) as client:
        for _ in range(2):
            assert {one["index"] for one in client.get("/api/indexes").json()["indexes"]} == {"of-odd", "photos"}
            assert client.get("/api/info").json()["index"] in ("of-odd", "photos")
        assert client.get("/api/info?index=of-odd").json()["source"] == odd
        assert client.get("/api/search?row=0&index=of-odd").json()["neighbours"][0]["path"] == f"{odd}/cat/0.png"
        assert client.get("/api/pictures/0?index=of-odd").status_code == 200
        assert client.get("/api/mistakes").json() == {"report": None}
        assert {one["name"] for one in client.get("/api/runs").json()["runs"]} == {"pets", r"odd\udcff"}
    assert notes.said == [f"indexes/{odd} is not on the page: its name is not UTF-8, so rename it"]


def test_an_index_that_is_updated_while_it_is_served(searchable: Path, client: TestClient) -> None:
    before = client.get("/api/info").json()
    assert client.get(f"/api/pictures/0?generation={before['generation']}").status_code == 200
    picture(Path("photos/ant/0.png"), 300)
    index_photos()
    for address in ("/api/pictures/0?", "/api/pictures/0?full&", "/api/search?row=0&", "/api/pictures?label=cat&"):
        answer = client.get(f"{address}generation={before['generation']}")
        assert error(answer, 409) == "the index photos was updated meanwhile: search again"
    after = client.get("/api/info").json()
    assert after["pictures"] == PHOTOS + 1
    found = client.post("/api/search", content=Path("photos/ant/0.png").read_bytes()).json()
    assert found["generation"] == after["generation"]
    assert found["neighbours"][0]["path"] == "photos/ant/0.png"


def test_an_index_that_is_removed_or_damaged_is_told_and_one_that_is_made_again_is_served(
    searchable: Path, client: TestClient
) -> None:
    assert client.get("/api/info").status_code == 200
    shutil.copytree("indexes/photos", "kept")
    shutil.rmtree("indexes/photos")
    assert "there is no index" in error(client.get("/api/info"), 404)
    shutil.copytree("kept", "indexes/photos")
    assert client.get("/api/info").status_code == 200
    file = Path("indexes/photos/index.json")
    file.write_text(file.read_text().replace("pets", "pest"))
    assert "checksum of index.json differs" in error(client.get("/api/info"), 500)
    (damaged,) = client.get("/api/indexes").json()["indexes"]
    assert "checksum of index.json differs" in damaged["error"]


def test_no_more_indexes_are_open_than_the_bound(searchable: Path, client: TestClient) -> None:
    for i in range(library.OPEN + 2):
        shutil.copytree("indexes/photos", f"indexes/copy-{i}")
        assert client.get(f"/api/info?index=copy-{i}").status_code == 200
    assert len(client.app.app.state.library._open) == library.OPEN
    assert client.get("/api/search?row=0&index=copy-0").status_code == 200


# What the network sees


def test_maps_are_a_picture_for_each_layer_of_a_model_that_names_its_layers(
    exported_folder: Path, source: Path, tmp_path: Path
) -> None:
    onnx = exported_folder / "model.onnx"
    build_index(open_collection(source), OnnxModel.open(onnx), tmp_path / "indexes" / "colours", model_path=onnx)
    with TestClient(create_app(Workspace(tmp_path)), base_url=LOCAL) as client:
        assert client.get("/api/layers").json()["maps"] == [f"conv{i}" for i in range(1, 6)]
        first = client.get("/api/pictures/0?full").content
        maps = client.post("/api/maps?layer=conv1", content=first)
        assert maps.headers["content-type"] == "image/png"
        assert maps.headers["x-maps"] == "8 15 15"  # kernels, height, width
        assert Image.open(io.BytesIO(maps.content)).mode == "L"
        assert client.get("/api/maps?layer=conv1&row=0").content == maps.content
        assert client.get("/api/maps?layer=conv5&row=0").content != maps.content
        assert "no layer 'fc6' with maps: conv1, conv2" in error(client.post("/api/maps?layer=fc6", content=first), 404)
        assert error(client.post("/api/maps", content=b"x"), 400) == "not a picture that can be read"


def test_mistakes_are_those_of_the_newest_report_on_the_pictures(client: TestClient) -> None:
    assert client.get("/api/mistakes").json() == {"report": None}

    def report(name: str, *lines: str) -> None:
        Path(name).mkdir()
        Path(name, "predictions.csv").write_text("\n".join(lines) + "\n")
        facts = {"source": str(Path("photos").resolve()), "dataset_path": "/gone"}
        Path(name, "report.json").write_text(json.dumps(facts))

    head = "picture,label,rank_of_label,probability_of_label,label_1,probability_1"
    rows = ["cat/0.png,cat,1,0.9,cat,0.9", "cat/1.png,cat,2,0.3,dog,0.7", "dog/2.png,dog,2,0.1,cat,0.9"]
    report("good", head, *rows, "cat/gone.png,cat,2,0.0,dog,1.0")
    report("of-others", head, "owl/1.png,owl,2,0.3,dog,0.7")
    report("foreign", "a,b", "1,2")
    report("of-another-folder", head, *rows)  # with pictures of the same names
    Path("of-another-folder/report.json").write_text(json.dumps({"source": "/other", "dataset_path": "/gone"}))
    Path("pipe").mkdir()
    os.mkfifo("pipe/predictions.csv")
    answer = client.get("/api/mistakes").json()
    assert {key: answer[key] for key in ("report", "images", "mistakes")} == {
        "report": "good",
        "images": 3,
        "mistakes": 2,
    }
    assert [(one["path"], one["label"], one["predicted"]) for one in answer["pictures"]] == [
        ("photos/dog/2.png", "dog", "cat"),
        ("photos/cat/1.png", "cat", "dog"),
    ]
    assert client.get(f"/api/search?row={answer['pictures'][0]['row']}").json()["label"] == "dog"


def test_a_report_is_read_once_until_it_or_the_index_changes(client: TestClient, monkeypatch) -> None:
    def write(*rows: str) -> None:
        head = "picture,label,rank_of_label,probability_of_label,label_1,probability_1"
        Path("rep/new.csv").write_text("\n".join([head, *rows]) + "\n")
        os.replace("rep/new.csv", "rep/predictions.csv")

    read, rows_of = [], mistakes._rows
    monkeypatch.setattr(mistakes, "_rows", lambda file: read.append(file) or rows_of(file))
    Path("rep").mkdir()
    Path("rep/report.json").write_text(json.dumps({"source": str(Path("photos").resolve())}))
    write("cat/0.png,cat,2,0.3,dog,0.7")
    first = client.get("/api/mistakes").json()
    assert (first["images"], first["mistakes"]) == (1, 1)
    assert [client.get("/api/mistakes").json() for _ in range(3)] == [first] * 3
    assert len(read) == 1
    write("cat/0.png,cat,2,0.3,dog,0.7", "cat/1.png,cat,1,0.9,cat,0.9")
    os.utime("rep/predictions.csv", ns=(0, 1))  # whatever the clock's resolution
    assert client.get("/api/mistakes").json()["images"] == 2
    assert len(read) == 2
    picture(Path("photos/ant/0.png"), 300)
    index_photos()
    again = client.get("/api/mistakes").json()
    assert (again["images"], len(read)) == (2, 3)
    assert again["generation"] != first["generation"]


def test_wordnet_labels_are_told_in_words(searchable: Path, client: TestClient) -> None:
    tench, cassette = "n01440764", "n02979186"
    write_onnx(
        Path("models/fish/model.onnx"),
        seed=1,
        classes=[tench, cassette, "n03445777", "n02102040", "n03000684", "n03028079"],
    )
    picture(Path(f"fishes/{tench}/1.png"), 3)
    build_index(
        open_collection(Path("fishes")),
        OnnxModel.open(Path("models/fish/model.onnx")),
        Path("indexes/fishes"),
        model_path=Path("models/fish/model.onnx"),
    )
    Path("rep").mkdir()
    Path("rep/predictions.csv").write_text(
        f"picture,label,rank_of_label,probability_of_label,label_1,probability_1\n{tench}/1.png,{tench},2,0.3,{cassette},0.7\n"
    )
    Path("rep/report.json").write_text(json.dumps({"source": str(Path("fishes").resolve())}))
    for address in ("/api/classes", "/api/pictures", "/api/mistakes"):
        answer = client.get(address, params={"index": "fishes", "label": tench}).json()
        (told,) = answer.get("classes") or answer["pictures"]
        assert (told["label"], told["name"]) == (tench, "tench")
    assert (told["predicted"], told["predicted_name"]) == (cassette, "cassette player")


def test_a_picture_that_cannot_be_shown_is_tried_once(searchable: Path, client: TestClient, monkeypatch) -> None:
    """It may have taken its decoder's whole time."""
    picture(Path("photos/cat/0.png"), 3)
    decoders, asked = client.app.app.state.decoders, []
    load = decoders.load
    monkeypatch.setattr(decoders, "load", lambda source, size: asked.append(source) or load(source, size))
    Path("photos/cat/0.png").write_bytes(b"text")
    monkeypatch.setattr(library, "LONG", 600)
    for _ in range(2):  # a refusal that took no time may be another next time: who may read a file changes
        assert "not a picture that can be read" in error(client.get("/api/pictures/0"), 404)
    assert len(asked) == 2
    monkeypatch.setattr(library, "LONG", -1)
    for _ in range(3):
        assert "not a picture that can be read" in error(client.get("/api/pictures/0"), 404)
        assert "not a picture that can be read" in error(client.get("/api/pictures/0?full"), 404)
        assert client.get("/api/search?row=0").json()["predictions"] == []
    assert len(asked) == 3
    picture(Path("photos/cat/0.png"), 4)
    assert client.get("/api/pictures/0").status_code == 200
