"""`alexnet index`: what is embedded, kept, removed and refused; damage, crashes and Ctrl-C."""

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from onnx_files import SIZE, write_onnx
from pictures import folder_of_classes, picture

from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.sources import Source, open_source
from alexnet_cli.errors import BadArtefact, Interrupted
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.progress import Progress
from alexnet_cli.retrieval import embedding
from alexnet_cli.retrieval.build import Built, build_index
from alexnet_cli.retrieval.collection import FileCollection, Loaded, labels, open_collection
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.layout import read_facts


def update(source: str = "photos", model: str = "m.onnx", name: str = "photos") -> Built:
    path = Path(model)
    return build_index(open_collection(Path(source)), OnnxModel.open(path), Path("indexes") / name, model_path=path)


def counts(built: Built) -> tuple[int, int, int, int, int]:
    return built.images, built.added, built.kept, built.removed, len(built.refused)


def content(name: str = "photos") -> dict[str, tuple[str | None, bytes]]:
    """Name -> (label, vector) of everything in an index."""
    index = Index.open(Path("indexes") / name)
    found = {path: (label, index.vectors.read(row, row + 1).tobytes()) for row, path, label, _ in index.table.rows()}
    index.close()
    return found


def test_a_folder(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (space / "photos/cat/bad.jpg").write_text("no picture")
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "index indexes/photos: 12 pictures (12 added, 0 kept, 0 removed, 1 refused)\n"
        "Next: alexnet search photos/cat/0.png --index photos\n"
    )
    assert err.count("refused cat/bad.jpg: not a picture") == 1
    assert "13 pictures, 13 to embed: 24 features of 4 bytes each make an index of 1 MB on disk" in err
    facts = json.loads(Path("indexes/photos/index.json").read_text())
    assert {key: facts[key] for key in ("format", "kind", "metric", "count", "dimension", "model", "recall_at_10")} == {
        "format": 2,
        "kind": "flat",
        "metric": "euclidean",
        "count": 12,
        "dimension": 24,
        "model": "m",
        "recall_at_10": 1.0,
    }
    assert sorted(os.listdir("indexes/photos")) == ["images.sqlite", "index.faiss", "index.json"]


@pytest.mark.parametrize("kind", ["folder", "dataset", "zip", "dataset of a zip"])
def test_the_next_search_is_of_a_picture_that_is_there(
    space: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (space / "photos").rename(space / "my photos")
    source, named = Path("my photos"), "'my photos/cat/0.png'"
    if "zip" in kind:
        with zipfile.ZipFile("packed.zip", "w") as zipped:
            for path in source.rglob("*.png"):
                zipped.write(path)
        shutil.rmtree(source)
        source, named = Path("packed.zip"), "PICTURE"
    if "dataset" in kind:
        source = prepare(source, Path("data/pets"), size=SIZE, workers=1, val_fraction=0).dataset.path
    capsys.readouterr()
    assert main(["index", str(source), "--model", "m.onnx", "--out", "mine"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    filled = ", with a picture for PICTURE" if named == "PICTURE" else ""
    assert said == f"Next{filled}: alexnet search {named} --index mine"
    if named != "PICTURE":
        assert main(shlex.split(said)[2:]) == 0


def test_json_is_the_only_output(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "photos", "--model", "m.onnx", "--out", "mine", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("images_per_second") > 0
    assert printed.pop("left_out") == []
    assert printed == {"index": "mine", "model": "m", "images": 12, "added": 12, "kept": 0, "removed": 0, "refused": 0}


def test_vectors_are_fc7_of_the_pictures(space: Path) -> None:
    update()
    pictures, runtime = open_collection(Path("photos")), OnnxModel.open(Path("m.onnx"))
    for name, (label, vector) in content().items():
        _, fc7 = runtime.run(np.stack(pictures.load([name], SIZE)))
        np.testing.assert_allclose(np.frombuffer(vector, np.float32), fc7[0], rtol=1e-4, atol=1e-5)
        assert label == name.split("/")[0]


def test_a_file_faiss_wrote_has_the_same_bytes(space: Path, tmp_path: Path) -> None:
    update()
    flat = faiss.read_index("indexes/photos/index.faiss")
    again = faiss.IndexFlatL2(flat.d)
    again.add(flat.reconstruct_n(0, flat.ntotal))
    faiss.write_index(again, str(tmp_path / "again.faiss"))
    assert (tmp_path / "again.faiss").read_bytes() == Path("indexes/photos/index.faiss").read_bytes()


def test_an_update_embeds_what_is_new_or_changed_and_drops_what_is_gone(space: Path) -> None:
    assert counts(update()) == (12, 12, 0, 0, 0)
    before = content()
    assert counts(update()) == (12, 0, 12, 0, 0)
    picture(space / "photos/owl/new.png", 7)
    picture(space / "photos/cat/0.png", 8)  # changed
    (space / "photos/dog/3.png").unlink()
    (space / "photos/dog/4.png").write_text("no picture any more")
    assert counts(update()) == (11, 2, 9, 1, 1)
    after = content()
    assert set(after) == set(before) - {"dog/3.png", "dog/4.png"} | {"owl/new.png"}
    same = set(after) - {"cat/0.png", "owl/new.png"}
    assert all(after[name] == before[name] for name in same)
    assert after["cat/0.png"] != before["cat/0.png"]
    shutil.rmtree("indexes")
    assert counts(update()) == (11, 11, 0, 0, 1)  # from nothing it is the same index
    assert {name: label for name, (label, _) in content().items()} == {
        name: label for name, (label, _) in after.items()
    }
    for name, (_, vector) in content().items():
        np.testing.assert_allclose(
            np.frombuffer(vector, "f4"), np.frombuffer(after[name][1], "f4"), rtol=1e-4, atol=1e-5
        )


class RecordingCollection(FileCollection):
    """A folder that records which pictures are loaded from it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.loaded: list[str] = []

    def load(self, names: Sequence[str], size: int) -> list[Loaded]:
        self.loaded += names
        return super().load(names, size)


def test_an_update_loads_nothing_twice(space: Path) -> None:
    (space / "photos/cat/bad.jpg").write_text("no picture")
    update()
    collection = RecordingCollection(Path("photos"))
    built = build_index(collection, OnnxModel.open(Path("m.onnx")), Path("indexes/photos"), model_path=Path("m.onnx"))
    assert (counts(built), collection.loaded) == ((12, 0, 12, 0, 1), [])
    picture(space / "photos/cat/bad.jpg", 5)
    collection = RecordingCollection(Path("photos"))
    built = build_index(collection, OnnxModel.open(Path("m.onnx")), Path("indexes/photos"), model_path=Path("m.onnx"))
    assert (counts(built), collection.loaded) == ((13, 1, 12, 0, 0), ["cat/bad.jpg"])


def test_a_moved_class_changes_its_label_only(space: Path) -> None:
    update()
    for path in (space / "photos").iterdir():
        path.rename(space / f"{path.name}-2")
    (space / "cat-2").rename(space / "photos/pug")
    assert counts(update()) == (6, 6, 0, 12, 0)
    assert {label for label, _ in content().values()} == {"pug"}


def test_classes_that_change_in_a_dataset_are_new_labels_of_the_same_vectors(space: Path, monkeypatch) -> None:
    from alexnet_cli.retrieval import collection

    update()
    monkeypatch.setattr(collection, "labels", lambda names: ["pet"] * len(names))
    assert counts(update()) == (12, 0, 12, 0, 0)
    assert {label for label, _ in content().values()} == {"pet"}


def archive(space: Path, kind: str) -> str:
    name = f"photos.{kind}"
    files = sorted(path for path in (space / "photos").rglob("*.png"))
    if kind == "zip":
        with zipfile.ZipFile(space / name, "w") as zipped:
            for path in files:
                zipped.write(path, path.relative_to(space))
    else:
        with tarfile.open(space / name, "w") as tar:
            for path in files:
                tar.add(path, path.relative_to(space))
    return name


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_the_same_as_its_folder(space: Path, kind: str) -> None:
    update()
    folder = content()
    name = archive(space, kind)
    assert counts(update(name, name="packed")) == (12, 12, 0, 0, 0)
    assert content("packed") == {f"photos/{path}": rest for path, rest in folder.items()}
    assert counts(update(name, name="packed")) == (12, 0, 12, 0, 0)


def test_a_dataset_gives_its_training_pictures(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1)
    assert main(["index", "--model", "m.onnx"]) == 0
    assert "indexing data/pets into indexes/pets with model m.onnx" in capsys.readouterr().err
    split = made.dataset.split("train")
    runtime = OnnxModel.open(Path("m.onnx"))
    _, fc7 = runtime.run(split.read(np.arange(len(split))))
    found = content("pets")
    assert len(found) == len(split)
    for name, label, vector in zip(split.names, split.labels, fc7, strict=True):
        assert found[name][0] == made.dataset.classes[label]
        np.testing.assert_allclose(np.frombuffer(found[name][1], np.float32), vector, rtol=1e-4, atol=1e-5)


def test_labels() -> None:
    assert labels(["cat/1.png", "dog/old/2.png"]) == ["cat", "dog"]
    assert labels(["a.png", "b.png"]) == [None, None]
    assert labels(["a.png", "cat/b.png"]) == [None, "cat"]
    assert labels(["cat/a.png", "cat/b.png"]) == ["cat", "cat"]
    assert labels(["pets/train/cat/1.png", "pets/val/cat/2.png", "pets/val/dog/2.png"]) == ["cat", "cat", "dog"]
    assert labels(["wrap/cat/1.png", "wrap/dog/1.png"]) == ["cat", "dog"]


def error_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("error: ") == 1
    return err[err.index("error: ") + 7 :].rstrip("\n")


def test_what_cannot_be_indexed(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: str) -> str:
        return error_of("index", *arguments, "--model", "m.onnx", capsys=capsys)

    Path("empty").mkdir()
    picture(Path("text/a.png"), 0).write_text("no picture")
    assert fails("empty").startswith("no pictures in empty")
    assert fails("gone") == "no folder, archive or dataset 'gone'"
    assert fails("") == "no folder, archive or dataset ''"  # as an unset variable of the shell
    assert fails("m.onnx").startswith("m.onnx is neither a folder nor a .zip nor a .tar")
    assert fails("text").startswith("none of 1 pictures could be embedded (a.png: not a picture")
    assert (
        fails("photos", "--kind", "tree")
        == "no kind 'tree' of index: there are flat, sq8, ivfpq, hnsw, binary, autoencoder, milvus"
    )
    assert fails().startswith("no dataset in data yet")
    assert not list(Path("indexes").iterdir())


def test_another_model_or_source_is_refused(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(space / "other.onnx", seed=1)
    write_onnx(space / "half.onnx", precision="fp16")
    folder_of_classes(space / "more/photos")
    update()
    before = content()
    assert error_of("index", "photos", "--model", "other.onnx", capsys=capsys) == (
        "indexes/photos was built with model m (seed-0), not with other (seed-1): take that one with --model, or build "
        "another index with --out photos-2"
    )
    assert error_of("index", "photos", "--model", "half.onnx", capsys=capsys) == (
        "indexes/photos was built with an fp32 file of its model, not fp16: take such a file with --model, or build "
        "another index with --out photos-2"
    )
    assert error_of("search", "photos/cat/0.png", "--model", "half.onnx", capsys=capsys).startswith(
        "indexes/photos was built with an fp32 file of its model, not fp16"
    )
    assert error_of("index", "more/photos", "--model", "m.onnx", capsys=capsys) == (
        f"indexes/photos is an index of {space}/photos, not of more/photos: name another with --out photos-2"
    )
    assert content() == before


def fresh() -> dict[str, tuple[str | None, bytes]]:
    """`content` of an index of the same pictures that was made at once."""
    arguments = {"model_path": Path("m.onnx")}
    build_index(open_collection(Path("photos")), OnnxModel.open(Path("m.onnx")), Path("indexes/fresh"), **arguments)
    return content("fresh")


CRASH = """
import os, sys
from pathlib import Path
from alexnet_cli.retrieval import build as b
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.inference.onnx_model import OnnxModel
step, calls = sys.argv[1], 0
def crash(*_):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os._exit(9)  # as by kill -9: no clean-up of any kind
original = getattr(b if step != "replace" else os, step)
def stepped(*given, **named):
    crash()
    return original(*given, **named)
setattr(b if step != "replace" else os, step, stepped)
model = OnnxModel.open(Path("m.onnx"))
b.build_index(open_collection(Path("photos")), model, Path("indexes/photos"), model_path=Path("m.onnx"))
"""


@pytest.mark.parametrize(
    ("step", "call", "gone", "is_new"),
    [
        ("embed", 1, 1, False),
        ("replace", 2, 1, False),
        ("replace", 3, 1, False),
        ("replace", 4, 1, False),
        ("replace", 5, 1, True),
        ("embed", 1, 4, False),
        ("replace", 2, 4, False),
        ("replace", 4, 4, False),
        ("replace", 5, 4, True),
        ("replace", 6, 4, True),
    ],
)
def test_killed_in_an_update_the_index_is_the_old_or_the_new_one(
    space: Path, step: str, call: int, gone: int, is_new: bool
) -> None:
    """`replace` 1 completes a part, 2 and 3 the two files, 4 `index.json`; 5 and 6 give the files their names.

    If one picture of twelve is gone, the vectors stay where they are, and only the table gets its name; if four are
    gone, all are written.
    """
    update()
    before = content()
    picture(space / "photos/owl/new.png", 7)
    lost = [f"dog/{i}.png" for i in range(gone)]
    for name in lost:
        (space / "photos" / name).unlink()
    done = subprocess.run([sys.executable, "-c", CRASH, step, str(call)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    found = content()
    if not is_new:
        assert found == before
    else:
        assert set(found) == set(before) - set(lost) | {"owl/new.png"}
    after = update()
    assert counts(after)[0] == 13 - gone
    assert counts(after)[1] == (0 if is_new else 1)
    picture(space / "photos/owl/newer.png", 9)
    assert counts(update())[0] == 14 - gone
    pieces = ["index-1.faiss", "index-2.faiss"] if gone == 1 else ["index-1.faiss"]
    assert sorted(os.listdir("indexes/photos")) == ["images.sqlite", *pieces, "index.faiss", "index.json"]
    assert content() == fresh()


class CtrlC(Progress):
    """The user presses Ctrl-C after the first batch."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        raise KeyboardInterrupt


def test_interrupted_it_keeps_what_is_embedded(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 5)
    runtime, folder, model = OnnxModel.open(Path("m.onnx")), Path("indexes/photos"), Path("m.onnx")
    with pytest.raises(
        Interrupted, match=r"^stopped; 5 pictures are in the index, 7 are not yet: run the same command to resume$"
    ):
        build_index(open_collection(Path("photos")), runtime, folder, model_path=model, progress=CtrlC())
    index = Index.open(folder)
    assert (len(index), index.facts["unfinished"]) == (5, 7)
    index.close()
    assert counts(update()) == (12, 7, 5, 0, 0)
    assert Index.open(folder).facts["unfinished"] == 0


def test_pictures_that_were_never_reached_and_are_gone_are_no_longer_missing(space, monkeypatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 5)
    model, folder = OnnxModel.open(Path("m.onnx")), Path("indexes/photos")
    with pytest.raises(Interrupted):
        build_index(open_collection(Path("photos")), model, folder, model_path=Path("m.onnx"), progress=CtrlC())
    index = Index.open(folder)
    kept = {path for _, path, _, _ in index.table.rows()}
    index.close()
    for file in Path("photos").rglob("*.png"):
        if str(file.relative_to("photos")) not in kept:
            file.unlink()
    update()
    assert json.loads((folder / "index.json").read_text())["unfinished"] == 0


def test_leftovers_of_an_update_that_was_cut_short_are_removed(space: Path) -> None:
    update()
    there = sorted(os.listdir("indexes/photos"))
    for stale in (
        "index-1.faiss",
        "index.ab12.faiss",
        "images.ab12.sqlite",
        "codes.ab12.faiss",
        ".index.12-ab12.part.faiss",
    ):
        Path("indexes/photos", stale).write_bytes(b"half")
    assert counts(update()) == (12, 0, 12, 0, 0)
    assert sorted(os.listdir("indexes/photos")) == there


def test_a_name_that_is_not_utf8_refuses_itself_alone(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        shutil.copy("photos/cat/0.png", b"photos/cat/\xff.png")
    except OSError:
        pytest.skip("the file system takes no such name")
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    out, err = capsys.readouterr()
    assert "12 pictures (12 added, 0 kept, 0 removed, 1 refused)" in out
    assert r"refused cat/\udcff.png: its name is not UTF-8: rename it" in err
    assert counts(update()) == (12, 0, 12, 0, 1)


def test_an_index_may_be_of_a_folder_whose_name_is_not_utf8_but_not_have_that_name(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.fsdecode(b"ph\xff")
    try:
        shutil.copytree("photos", folder)
    except OSError:
        pytest.skip("the file system takes no such name")
    said = error_of("index", folder, "--model", "m.onnx", capsys=capsys)
    assert said == r"an index cannot be called 'ph\udcff', which is not UTF-8: give it another name with --out"
    assert not Path("indexes").exists() or not any(Path("indexes").iterdir())
    assert main(["index", folder, "--model", "m.onnx", "--out", "ph"]) == 0
    assert main(["search", "photos/cat/0.png", "--index", "ph", "--json"]) == 0
    with contextlib.closing(Index.open(Path("indexes/ph"))) as index:
        assert index.source == Path(folder).resolve()


def test_the_table_is_sqlite(space: Path) -> None:
    update()
    table = sqlite3.connect("indexes/photos/images.sqlite")
    assert table.execute("SELECT path, label FROM images WHERE row = 0").fetchall() == [("cat/0.png", "cat")]
    table.close()


def test_a_folder_that_is_not_an_index(space: Path) -> None:
    with pytest.raises(BadArtefact, match=r"^photos is not an index: it has no index\.json$"):
        Index.open(Path("photos"))


def test_a_kind_that_is_named_is_kept_though_no_picture_has_changed(space: Path) -> None:
    update()
    before, files = read_facts(Path("indexes/photos")), content()
    assert before["named_kind"] is None
    arguments = {"model_path": Path("m.onnx"), "kind": "flat"}
    built = build_index(
        open_collection(Path("photos")), OnnxModel.open(Path("m.onnx")), Path("indexes/photos"), **arguments
    )
    assert counts(built) == (12, 0, 12, 0, 0)
    assert read_facts(Path("indexes/photos")) == before | {"named_kind": "flat"}
    assert content() == files


def test_threads_that_load_first_open_an_archive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from Python 3.12 on, whose `cached_property` takes no lock."""
    opened, both = [], threading.Event()

    def open_slowly(path: Path, scratch: Path | None) -> Source:
        opened.append(path)
        if len(opened) == 2:
            both.set()
        both.wait(0.2)
        return open_source(path, scratch)

    monkeypatch.setattr("alexnet_cli.retrieval.collection.open_source", open_slowly)
    with contextlib.closing(FileCollection(folder_of_classes(tmp_path / "photos"))) as collection:
        threads = [threading.Thread(target=lambda: collection.load(["no.png"], 8)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(opened) == 1


def test_every_question_to_the_table_takes_its_lock_and_none_keeps_it(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update()
    with contextlib.closing(Index.open(Path("indexes/photos"))) as index:
        table, asked = index.table, []
        execute = table.connection.execute

        class Watched:
            def execute(self, *question: object) -> sqlite3.Cursor:
                asked.append(table._lock.locked())
                return execute(*question)

        with monkeypatch.context() as patch:
            patch.setattr(table, "connection", Watched())
            assert len(table) == 12
            rows = table.rows()
            next(rows)
            table.picture(0)  # between two rows
            assert len(list(rows)) == 11
            assert list(table.refused()) == []
    assert asked == [True] * 4
