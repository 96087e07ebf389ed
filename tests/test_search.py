"""`alexnet search` and `alexnet predict`: exact answers, contact sheet and page, messages, and no torch on the way."""

import html.parser
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from onnx_files import CLASSES, FEATURES, SIZE, write_onnx
from pictures import folder_of_classes, picture
from PIL import Image
from safetensors.numpy import save_file
from test_index import archive, error_of, update

import alexnet_cli as alexnet
from alexnet_cli.commands import main
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.prepare import prepare
from alexnet_cli.errors import BadPicture
from alexnet_cli.figures.sheet import GAP, SIDE, TEXT
from alexnet_cli.files import file_checksum
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval import vectors as vectors_module
from alexnet_cli.retrieval.index import Index, Neighbour
from alexnet_cli.retrieval.layout import read_facts, tidy, write_facts
from alexnet_cli.retrieval.table import Table, TableWriter, row_checksums
from alexnet_cli.retrieval.vectors import VectorFile, VectorWriter


def answer(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict:
    """What a command prints with --json."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert isinstance(printed, dict)
    return printed


def brute_force(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Every Euclidean distance in float64: (Q, D), (N, D) to (Q, N)."""
    return np.sqrt(((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(axis=2))


@pytest.mark.parametrize("queries", [1, 3, 40])  # FAISS takes another formula from 20 on
def test_neighbours_are_those_of_brute_force(searchable: Path, queries: int) -> None:
    index = Index.open(Path("indexes/photos"))
    vectors = index.vectors.read(0, len(index))
    random = np.random.default_rng(0)
    near = vectors[random.integers(0, len(index), queries)]
    noisy = (near + random.normal(0, 1e-3, near.shape)).astype(np.float32)
    exact = brute_force(noisy, vectors)
    names = {name: row for row, name, _, _ in index.table.rows()}
    for line, found in zip(exact, index.neighbours(noisy, 5), strict=True):
        np.testing.assert_allclose([one.distance for one in found], np.sort(line)[:5], rtol=1e-5)
        np.testing.assert_allclose([line[names[one.source_path]] for one in found], np.sort(line)[:5], rtol=1e-5)
        assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    index.close()


THREADS, ROWS, WIDE = 8, 4000, 64


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An index of a few thousand made-up vectors."""
    return write_made_up_index(tmp_path / "large", seed=0)


def write_made_up_index(folder: Path, seed: int) -> Path:
    """Vectors (ROWS, WIDE) and their table, as an update of an index would put them into ``folder``."""
    folder.mkdir(exist_ok=True)
    vectors = np.random.default_rng(seed).standard_normal((ROWS, WIDE)).astype(np.float32)
    writer, table = VectorWriter(folder / "index.new.faiss", WIDE), TableWriter(folder / "images.new.sqlite")
    with closing(writer), closing(table):
        writer.add(vectors)
        table.add(((row, f"{seed}/{row}.jpg", str(seed), "") for row in range(ROWS)), row_checksums(vectors))
        writer.finish()
        table.finish()
    facts = {"format": 2, "kind": "flat", "named_kind": None, "metric": "euclidean", "generation": "new"}
    facts |= {"count": ROWS, "dimension": WIDE, "unfinished": 0, "image_size": SIZE, "model": "m", "model_path": "m"}
    facts |= {"model_fingerprint": "seed-0", "precision": "fp32", "source": str(folder), "named": str(folder)}
    facts |= {"split": None, "are_files": False, "files": {}, "names": {}}
    table = folder / "images.new.sqlite"
    facts["files"]["images.sqlite"] = {"bytes": table.stat().st_size, "checksum": file_checksum(table)}
    facts |= {"pieces": [{"count": ROWS, "checksum": writer.checksum}], "live": [[0, ROWS]], "measured_on": ROWS}
    write_facts(folder, facts)
    tidy(folder)
    return folder


def test_many_threads_get_right_answers_also_while_the_index_is_replaced(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some threads start before an update puts other files in the place of the open ones, some after."""
    monkeypatch.setattr(vectors_module, "CHUNK", 64)  # many reads, for threads to get in each other's way
    index = Index.open(large)
    random = np.random.default_rng(1)
    vectors = index.vectors.read(0, ROWS).copy()
    queries = random.standard_normal((THREADS, 24, WIDE)).astype(np.float32)
    expected = [np.argsort(brute_force(some, vectors), axis=1)[:, :5] for some in queries]

    def ask(thread: int) -> list[list[Neighbour]]:
        return [index.neighbours(query[None], 5)[0] for query in queries[thread]]

    def check(thread: int, answers: list[list[Neighbour]]) -> None:
        for found, rows, query in zip(answers, expected[thread], queries[thread], strict=True):
            assert [one.row for one in found] == rows.tolist()
            assert [one.path for one in found] == [f"0/{row}.jpg" for row in rows]
            exact = np.linalg.norm(vectors[rows].astype(np.float64) - query.astype(np.float64), axis=1)
            assert [one.distance for one in found] == exact.tolist()

    with ThreadPoolExecutor(THREADS) as pool:
        for thread, answers in enumerate(pool.map(ask, range(THREADS))):
            check(thread, answers)
    write_made_up_index(large, seed=9)
    with ThreadPoolExecutor(THREADS) as pool:  # new threads
        for thread, answers in enumerate(pool.map(ask, range(THREADS))):
            check(thread, answers)
    index.close()
    renewed = Index.open(large)
    assert renewed.neighbours(queries[0, :1], 1)[0][0].label == "9"
    renewed.close()


@pytest.mark.parametrize("moment", ["table", "vectors"])
def test_an_index_that_is_updated_while_it_is_opened(
    searchable: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates come between table and vectors, or before both, one at each attempt; all files keep their sizes."""
    owner, name = (Table, "open") if moment == "table" else (VectorFile, "open")
    original, updated, updating = getattr(owner, name), [], []

    def update_first(*given: object, **named: object) -> object:
        if len(updated) < 5 and not updating:
            updating.append(True)  # an update opens the index as well
            updated.append(True)
            Path(f"photos/cat/{len(updated)}.png").rename(f"photos/dog/{5 + len(updated)}.png")
            update(model="models/pets/model.onnx")
            updating.clear()
        return original(*given, **named)

    monkeypatch.setattr(owner, name, update_first)
    index = Index.open(Path("indexes/photos"))
    paths = {row: f"photos/{path}" for row, path, _, _ in index.table.rows()}
    assert "photos/dog/10.png" in paths.values()
    assert index.facts == read_facts(Path("indexes/photos"))
    features = OnnxModel.open(Path("models/pets/model.onnx")).features(paths.values())
    np.testing.assert_allclose(index.vectors.read(0, len(index)), features, rtol=1e-4, atol=1e-5)
    index.close()


def test_a_searcher_is_asked_by_paths_bytes_and_arrays_from_several_threads(searchable: Path) -> None:
    with alexnet.open_index("indexes/photos") as searcher:
        assert len(searcher) == 12
        paths = [f"photos/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]
        whole = searcher.search_many(paths, k=3)
        assert [found[0].path for found in whole] == paths
        assert [found[0].distance for found in whole] == [0.0] * len(paths)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda path: searcher.search(path, k=3), paths)) == whole
            content = [Path(path).read_bytes() for path in paths]
            assert list(pool.map(lambda one: searcher.search(one, k=3), content)) == whole
        pixels = load_picture(Path(paths[0]), searcher.model.image_size)
        assert searcher.search(pixels, k=3) == whole[0]
        row = whole[0][0].row
        assert [one.path for one in searcher.neighbours_of_row(row, k=3)] == [one.path for one in whole[0]]
        with pytest.raises(IndexError, match=r"^rows from 0 to 11, not 12$"):
            searcher.neighbours_of_row(12)
        with pytest.raises(BadPicture, match=r"^none.jpg: no such file$"):
            searcher.search("none.jpg")


def test_a_query_of_the_index_finds_itself(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = answer("search", "photos/dog/2.png", "photos/cat/1.png", "-k", "3", capsys=capsys)
    assert (printed["index"], printed["model"]) == ("photos", "pets")
    for query, path, label in zip(
        printed["queries"], ("photos/dog/2.png", "photos/cat/1.png"), ("dog", "cat"), strict=True
    ):
        assert query["path"] == path
        assert [one["rank"] for one in query["neighbours"]] == [1, 2, 3]
        first = query["neighbours"][0]
        assert (first["path"], first["label"]) == (path, label)
        assert first["distance"] == pytest.approx(0, abs=1e-3)
        assert set(first) == {"rank", "path", "label", "name", "distance"}


def test_more_neighbours_than_pictures_are_all_of_them(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (query,) = answer("search", "photos/dog/2.png", "-k", "50", capsys=capsys)["queries"]
    assert [one["rank"] for one in query["neighbours"]] == list(range(1, 13))
    assert len({one["path"] for one in query["neighbours"]}) == 12


def test_the_table(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["search", "photos/dog/2.png", "-k", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == "searching indexes/photos (12 pictures) with model models/pets\n"
    assert "nearest to photos/dog/2.png" in out
    assert "│ 1 │ dog   │     0.00 │ photos/dog/2.png │" in out


def test_paths_lead_to_the_files_from_wherever(
    searchable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    query = str(searchable / "photos/dog/2.png")
    (searchable / "elsewhere").mkdir()
    monkeypatch.chdir(searchable / "elsewhere")
    printed = answer("search", query, "-k", "1", "--workspace", "..", capsys=capsys)
    assert printed["queries"][0]["neighbours"][0]["path"] == query


def test_another_model_is_refused(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(searchable / "other.onnx", seed=1)
    assert error_of("search", "photos/dog/2.png", "--model", "other.onnx", capsys=capsys) == (
        "indexes/photos was built with model pets (seed-0), not with other (seed-1): take that one with --model, or "
        "build another index with --out photos-2"
    )


def test_the_index_finds_its_model(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was renamed since, and a newer one has its name."""
    shutil.move("models/pets", "models/old")
    write_onnx(searchable / "models/pets/model.onnx", seed=1)
    save_file({"w": np.zeros(1)}, searchable / "models/pets/model.safetensors", {"fingerprint": "seed-1"})
    assert answer("search", "photos/dog/2.png", capsys=capsys)["model"] == "old"
    shutil.rmtree("models/old")
    assert error_of("search", "photos/dog/2.png", capsys=capsys).startswith(
        "indexes/photos was built with model pets (seed-0), not with pets (seed-1): "
    )
    shutil.rmtree("models/pets")
    assert error_of("search", "photos/dog/2.png", capsys=capsys).startswith(
        "model pets, which indexes/photos was built with, is not in models as it was: build the index again"
    )


def test_an_index_of_a_file_of_another_precision_is_searched_with_that_file(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_onnx(searchable / "models/pets/small.onnx", precision="int8")
    answer("index", "photos", "--model", "models/pets/small.onnx", "--out", "small", capsys=capsys)
    assert answer("search", "photos/dog/2.png", "--index", "small", capsys=capsys)["model"] == "small"
    assert error_of("search", "photos/dog/2.png", "--index", "small", "--model", "pets", capsys=capsys).startswith(
        "indexes/small was built with an int8 file of its model, not fp32: take such a file with --model"
    )


def thumbnail_at(sheet: Image.Image, row: int, column: int) -> np.ndarray:
    """(SIDE, SIDE, 3): the query in column 0, then the neighbours."""
    left = GAP if column == 0 else 3 * GAP + column * (SIDE + GAP)
    top = GAP + row * (SIDE + TEXT + GAP)
    return np.asarray(sheet.convert("RGB").crop((left, top, left + SIDE, top + SIDE)))


def shrunk(path: str) -> np.ndarray:
    return np.asarray(Image.fromarray(load_picture(Path(path), SIZE)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def test_the_contact_sheet_shows_the_pictures(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = ["photos/dog/2.png", "photos/cat/1.png"]
    printed = answer("search", *queries, "-k", "3", "--sheet", "out/sheet.png", capsys=capsys)
    sheet = Image.open("out/sheet.png")
    for row, (query, path) in enumerate(zip(printed["queries"], queries, strict=True)):
        assert (thumbnail_at(sheet, row, 0) == shrunk(path)).all()
        for column, one in enumerate(query["neighbours"], 1):
            assert (thumbnail_at(sheet, row, column) == shrunk(one["path"])).all()


class Tags(html.parser.HTMLParser):
    """The images and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "b")
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "a":
            self.links.append(str(dict(attrs)["href"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_escapes(searchable: Path) -> None:
    folder_of_classes(searchable / "odd", 2)
    (searchable / "odd/cat").rename(searchable / "odd/<b>&'\"")
    update("odd", model="models/pets/model.onnx", name="odd")
    assert main(["search", "odd/dog/0.png", "--index", "odd", "--html", "page.html"]) == 0
    page = Path("page.html").read_text()
    tags = Tags(page)
    assert len(tags.images) == 1 + 4
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") and image["alt"] for image in tags.images)
    assert "<b>&'\"" in tags.text
    assert "http" not in page
    assert "query: odd/dog/0.png" in [image["alt"] for image in tags.images]


def test_the_page_names_the_layer_that_the_features_are_of(searchable: Path) -> None:
    write_onnx(Path("models/digits/model.onnx"), seed=1, feature="fc4")
    update("photos", model="models/digits/model.onnx", name="digits")
    assert main(["search", "photos/dog/0.png", "--index", "digits", "--html", "page.html"]) == 0
    said = Tags(Path("page.html").read_text()).text
    assert "distance between features (fc4)." in said


def test_a_name_with_a_line_break_is_drawn_with_an_escape(searchable: Path) -> None:
    for folder in ("plain", "broken"):
        (searchable / folder / "dog").mkdir(parents=True)
    shutil.copy("photos/dog/0.png", "plain/dog/a\\nb.png")
    shutil.copy("photos/dog/0.png", "broken/dog/a\nb.png")
    for folder in ("plain", "broken"):
        update(folder, model="models/pets/model.onnx", name=folder)
        (query,) = (searchable / folder / "dog").iterdir()
        assert main(["search", str(query), "--index", folder, "--sheet", f"{folder}.png"]) == 0
    assert Path("plain.png").read_bytes() == Path("broken.png").read_bytes()


def test_the_page_opens_the_original_whatever_its_name(searchable: Path) -> None:
    names = ['it\'s "50%" #1?.png', "zoë ☃.png", "a" * 60 + "-the-end.png"]
    for i, name in enumerate(names):
        picture(searchable / "my pictures" / "dog" / name, i)
    update("my pictures", model="models/pets/model.onnx", name="odd")
    query = f"my pictures/dog/{names[0]}"
    assert main(["search", query, "--index", "odd", "--html", "page.html"]) == 0
    tags = Tags(Path("page.html").read_text())
    opened = [Path(unquote(urlparse(address).path)) for address in tags.links]
    assert {urlparse(address).scheme for address in tags.links} == {"file"}
    assert {path.relative_to(searchable / "my pictures/dog").as_posix() for path in opened} == set(names)
    assert all(path.is_file() for path in opened)
    assert names[0] in tags.text
    assert f"{'a' * 24}…{'a' * 11}-the-end.png" in tags.text
    assert f"my pictures/dog/{names[2]}" in [image["alt"] for image in tags.images]


def test_pictures_that_are_gone_are_said_to_be(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = picture(searchable / "query.png", 102)
    (searchable / "photos/dog/2.png").unlink()
    drawn = ["--sheet", "sheet.png", "--html", "page.html"]
    printed = answer("search", str(query), "-k", "2", *drawn, capsys=capsys)
    assert printed["queries"][0]["neighbours"][0]["path"] == "photos/dog/2.png"
    sheet = Image.open("sheet.png")
    assert (thumbnail_at(sheet, 0, 0) == shrunk("query.png")).all()
    assert (thumbnail_at(sheet, 0, 1) > 250).mean() > 0.7  # some words on white
    tags = Tags(Path("page.html").read_text())
    assert "missing: not there any more" in tags.text
    assert len(tags.images) == 2
    assert not any("dog/2.png" in address for address in tags.links)
    shutil.rmtree("photos")
    capsys.readouterr()
    assert main(["search", str(query), "-k", "2", *drawn]) == 0
    assert "no longer there" not in capsys.readouterr().err  # one hint is enough: that for a folder that has moved
    tags = Tags(Path("page.html").read_text())
    assert tags.text.count("missing: no folder or archive at") == 2
    assert len(tags.images) == 1


def test_paths_that_lead_nowhere_are_said_to_with_the_command_that_helps(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = str(picture(searchable / "query.png", 102))
    Path("photos/dog/2.png").rename("photos/dog/moved.png")
    again = f"alexnet index {searchable / 'photos'} --out photos"
    for words, command in (([], "alexnet index"), (["--index", "photos"], again)):
        capsys.readouterr()
        assert main(["search", query, "-k", "2", "--paths", *words]) == 0
        assert capsys.readouterr().err.endswith(
            f"1 picture that the index has is no longer there; to bring it up to date: {command}\n"
        )
    assert main(command.split()[1:]) == 0
    capsys.readouterr()
    assert main(["search", query, "-k", "2", "--paths"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == str(searchable / "photos/dog/moved.png")
    assert "no longer" not in err


@pytest.mark.parametrize(
    ("kind", "source", "names"), [("zip", "photos.zip", "6 of 12"), ("dataset", "data/pets", "5 of 10")]
)
def test_paths_that_are_no_files_are_said_to_be_names_in_the_source(
    searchable: Path, kind: str, source: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "zip":
        update(archive(searchable, "zip"), model="models/pets/model.onnx", name="other")
    else:
        prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1, val_fraction=0.2)
        update("data/pets", model="models/pets/model.onnx", name="other")
    query = str(picture(searchable / "query.png", 102))
    shutil.rmtree("photos/dog")  # the cats are still where the names lead to
    command = ["search", query, "-k", "12", "--index", "other"]
    capsys.readouterr()
    assert main([*command, "--paths"]) == 0
    note = f"not files here, but names within {searchable / source}: {names} paths\n"
    assert capsys.readouterr().err.endswith(note)
    assert main(command) == 0
    assert "not files here" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zip", "dataset"])
def test_sheets_of_archives_and_datasets(searchable: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "zip":
        source = archive(searchable, "zip")
    else:
        prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1, val_fraction=0.2)
        source = "data/pets"
    update(source, model="models/pets/model.onnx", name="other")
    index = Index.open(Path("indexes/other"))
    name = next(name for _, name, _, _ in index.table.rows())
    index.close()
    query = f"photos/{name.removeprefix('photos/')}"
    printed = answer("search", query, "--index", "other", "-k", "1", "--sheet", "s.png", capsys=capsys)
    # Of a dataset the file that it was made from; of an archive the name within it.
    assert printed["queries"][0]["neighbours"][0]["path"] == (f"photos/{name}" if kind == "dataset" else name)
    assert (thumbnail_at(Image.open("s.png"), 0, 1) == shrunk(query)).all()


def test_predict(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["photos/dog/2.png", "photos/cat/1.png"]
    printed = answer("predict", *paths, capsys=capsys)
    assert printed["model"] == "pets"
    images = np.stack([load_picture(Path(path), SIZE) for path in paths])
    probabilities, _ = OnnxModel.open(Path("models/pets/model.onnx")).run(images)
    for one, path, expected in zip(printed["predictions"], paths, probabilities, strict=True):
        assert one["path"] == path
        order = np.argsort(-expected)[:5]
        assert [best["label"] for best in one["classes"]] == [CLASSES[i] for i in order]
        np.testing.assert_allclose([best["probability"] for best in one["classes"]], expected[order], rtol=1e-4)


def test_people_read_words_where_labels_are_wordnet_ids(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(searchable / "birds.onnx", classes=["n02012849", "n03126707"])
    (one,) = answer("predict", "photos/dog/2.png", "--model", "birds.onnx", capsys=capsys)["predictions"]
    named = {best["label"]: best["name"] for best in one["classes"]}
    assert named == {"n02012849": "crane (wading bird)", "n03126707": "crane (lifting device)"}
    shutil.copytree("photos/dog", "fish/n01440764")
    shutil.copytree("photos/cat", "fish/cat")
    update("fish", model="birds.onnx", name="fish")
    (query,) = answer("search", "photos/dog/2.png", "--index", "fish", "-k", "12", capsys=capsys)["queries"]
    assert {(near["label"], near["name"]) for near in query["neighbours"]} == {("n01440764", "tench"), ("cat", "cat")}
    assert main(["search", "photos/dog/2.png", "--index", "fish", "--html", "page.html", "-k", "1"]) == 0
    assert "tench" in Tags(Path("page.html").read_text()).text
    assert "│ 1 │ tench │" in capsys.readouterr().out
    described = answer("info", "birds.onnx", capsys=capsys)
    assert described["names"] == ["crane (wading bird)", "crane (lifting device)"]


def test_predict_with_fewer_than_five_classes(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(searchable / "two.onnx", classes=["cat", "dog"])
    (one,) = answer("predict", "photos/dog/2.png", "--model", "two.onnx", capsys=capsys)["predictions"]
    assert sorted(best["label"] for best in one["classes"]) == ["cat", "dog"]
    assert sum(best["probability"] for best in one["classes"]) == pytest.approx(1, abs=1e-5)


def test_no_torch_with_an_onnx_file_and_nothing_heavy_for_help(searchable: Path) -> None:
    code = (
        "import sys; from alexnet_cli.commands import main\n"
        "assert main(['--help']) == 0\n"
        "assert not {'torch', 'faiss', 'onnxruntime'} & set(sys.modules)\n"
        "for line in ('index photos', 'search photos/cat/0.png --html p.html --sheet s.png',\n"
        "             'predict photos/cat/0.png', 'predict photos --sort-into sorted --csv c.csv',\n"
        "             'duplicates', 'features photos'):\n"
        "    assert main(line.split()) == 0\n"
        "assert not {'torch', 'torchvision', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_terminal_that_has_only_ascii(searchable: Path) -> None:
    picture(searchable / "photos" / "dog" / "zoë ☃.png", 3)
    lines = [
        ["index", "photos", "--out", "more"],
        ["predict", "photos/dog/zoë ☃.png", "nowhere/é.jpg"],
        ["search", "photos/dog/zoë ☃.png", "--index", "more", "--html", "é.html"],
        ["search", "photos/dog/zoë ☃.png", "--index", "more", "--json"],
        ["info", "more"],
        ["recipes", "--help"],
        ["prep", "nowhere/é"],
    ]
    code = f"from alexnet_cli.commands import main\nprint([main(line) for line in {lines!r}])"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[0, 1, 0, 0, 0, 0, 1]", done.stderr
    assert "Unicode" not in done.stderr
    assert "no folder or archive at nowhere/\\xe9" in done.stderr
    assert "zo\\xeb \\u2603.png" in done.stdout
    (printed,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert printed["queries"][0]["path"] == "photos/dog/zoë ☃.png"
    assert (searchable / "é.html").exists()


def test_features_are_taken_after_the_relu(searchable: Path) -> None:
    index = Index.open(Path("indexes/photos"))
    vectors = index.vectors.read(0, len(index))
    assert vectors.shape == (12, FEATURES)
    assert vectors.min() == 0 < vectors.max()
    index.close()


def test_an_index_made_with_a_folders_fp16_file_is_searched_with_that_file(space: Path) -> None:
    file = write_onnx(Path("models/pets/model.onnx"), precision="fp16")
    save_file({"w": np.zeros(1)}, "models/pets/model.safetensors", {"fingerprint": "seed-0"})
    update(model=str(file))
    query = next(path for path in Path("photos").rglob("*") if path.is_file())
    with alexnet.open_index("indexes/photos") as index:
        assert index.model.precision == "fp16"
        assert index.search(query, 1)[0].distance == 0
