"""`alexnet index`: what it takes for granted, which pictures of a source it takes, and folders that have moved."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from onnx_files import SIZE, write_onnx
from pictures import folder_of_classes, picture
from test_index import content, error_of, update

from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.layout import read_facts


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Standard output and standard error of a command that succeeds."""
    capsys.readouterr()
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    return out, err


def missing(name: str = "photos") -> int:
    with contextlib.closing(Index.open(Path("indexes") / name)) as index:
        return index.missing()


def test_a_folder_means_all_of_it_whatever_datasets_there_are(space: Path, capsys) -> None:
    prepare(Path("photos"), Path("data/photos"), size=SIZE, workers=1)
    picture(Path("photos/at the root.png"), 50)
    picture(Path("photos/a/b/c/deep.png"), 51)
    picture(Path("photos/val/one.png"), 52)
    out, _ = run("index", "photos", "--model", "m.onnx", capsys=capsys)
    assert "15 pictures (15 added" in out
    assert {"at the root.png", "a/b/c/deep.png", "val/one.png", "cat/0.png"} < set(content())


def test_without_images_the_newest_index_is_brought_up_to_date_with_its_own_model(space: Path, capsys) -> None:
    write_onnx(Path("models/other/model.onnx"), seed=1)
    (Path("models/other/model.safetensors")).write_bytes(b"")  # newer than the index
    prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1)
    update()
    picture(Path("photos/owl/new.png"), 7)
    out, err = run("index", capsys=capsys)
    assert out.startswith("index indexes/photos: 13 pictures (1 added, 12 kept, 0 removed, 0 refused)\n")
    assert f"indexing photos into indexes/photos with model {space}/m.onnx" in err
    out, err = run("index", "photos", capsys=capsys)  # also where the source is named
    assert "(0 added, 13 kept" in out
    assert f"with model {space}/m.onnx" in err


def test_out_chooses_the_index_that_is_brought_up_to_date(space: Path, capsys) -> None:
    folder_of_classes(Path("more"), 3)
    update()
    update("more", name="more")
    picture(Path("photos/owl/new.png"), 7)
    assert run("index", "--out", "photos", capsys=capsys)[0].startswith("index indexes/photos: 13 pictures (1 added")
    prepare(Path("more"), Path("data/more"), size=SIZE, workers=1)
    out, _ = run("index", "--out", "third", "--model", "m.onnx", capsys=capsys)
    assert out.startswith("index indexes/third: 4 pictures (4 added")  # no such index yet: of the newest dataset


def test_a_dataset_gives_the_split_that_is_asked_for(space: Path, capsys) -> None:
    counts = prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1).dataset.counts
    assert counts == {"train": 10, "val": 2}
    for split, count in (("train", 10), ("val", 2), ("all", 12)):
        run("index", "pets", "--split", split, "--model", "m.onnx", capsys=capsys)
        assert len(content(f"pets-{split}")) == count
        assert missing(f"pets-{split}") == 0
    assert content("pets-all") == content("pets-train") | content("pets-val")
    assert run("index", capsys=capsys)[0].startswith("index indexes/pets-all: 12 pictures (0 added, 12 kept")
    for split, why in (
        ("test", "dataset pets has no split 'test': it has train and val"),
        (
            "val",
            "indexes/pets-all is an index of the split all of data/pets, not of val: "
            "name another with --out pets-all-2",
        ),
    ):
        assert error_of("index", "pets", "--split", split, "--out", "pets-all", capsys=capsys) == why
    assert error_of("index", "photos", "--split", "val", "--model", "m.onnx", capsys=capsys) == (
        "photos is not a dataset: only a dataset has splits to choose from with --split"
    )
    assert main(["index", "pets", "--split", "vla"]) == 2


def test_a_sheet_finds_the_pictures_of_any_split(space: Path, capsys) -> None:
    prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1)
    run("index", "pets", "--split", "val", "--model", "m.onnx", capsys=capsys)
    shutil.rmtree("photos/dog")
    run("search", "photos/cat/0.png", "--model", "m.onnx", "--html", "page.html", capsys=capsys)
    assert Path("page.html").stat().st_size > 1000


def test_a_folder_that_is_gone_is_one_line_with_the_command_that_mends_it(space: Path, capsys) -> None:
    update()
    Path("photos").rename("new place")
    assert missing() == 12
    assert error_of("index", capsys=capsys) == (
        f"{space}/photos, which indexes/photos is an index of, is not there: "
        "if it has moved, run alexnet index FOLDER --out photos"
    )
    before = content()
    out, _ = run("index", "new place", "--out", "photos", capsys=capsys)
    assert out.startswith("index indexes/photos: 12 pictures (0 added, 12 kept, 0 removed, 0 refused)\n")
    assert content() == before
    assert missing() == 0
    facts = read_facts(Path("indexes/photos"))
    assert (facts["source"], facts["named"]) == (str(space / "new place"), "new place")
    picture(Path("new place/owl/new.png"), 7)
    assert "(1 added, 12 kept" in run("index", capsys=capsys)[0]


def test_another_folder_is_not_taken_for_one_that_is_gone(space: Path, capsys) -> None:
    update()
    Path("photos").rename("away")
    folder_of_classes(Path("photos-2/photos"), 3)
    before = content()
    assert error_of("index", "photos-2/photos", capsys=capsys) == (
        f"indexes/photos is an index of {space}/photos, not of photos-2/photos, where only 6 of its 12 pictures are: "
        "name another with --out photos-2"
    )
    assert content() == before


def test_a_dataset_is_not_taken_for_a_folder_that_is_away(space: Path, capsys) -> None:
    update()
    prepare(Path("photos"), Path("data/photos"), size=SIZE, workers=1)
    Path("photos").rename("away")
    before = content()
    assert error_of("index", "photos", "--split", "all", "--out", "photos", capsys=capsys) == (
        f"indexes/photos is an index of {space}/photos, which is not there, not of data/photos: "
        "name another with --out photos-2"
    )
    assert content() == before


@pytest.mark.parametrize("kind", ["folder", "archive", "dataset"])
def test_pictures_that_are_gone_are_counted(kind: str, space: Path, capsys) -> None:
    folder_of_classes(Path("fewer"), 5)
    if kind == "folder":
        update()
        shutil.rmtree("photos/dog")
        count = 6
    elif kind == "archive":
        shutil.make_archive("photos", "zip", "photos")
        update("photos.zip")
        shutil.make_archive("photos", "zip", "fewer")
        count = 2
    else:
        prepare(Path("photos"), Path("data/photos"), size=SIZE, workers=1, val_fraction=0)
        update("data/photos")
        shutil.rmtree("data/photos")
        prepare(Path("fewer"), Path("data/photos"), size=SIZE, workers=1, val_fraction=0)
        count = 2
    assert missing() == count
    out, _ = run("info", "indexes/photos", "--json", capsys=capsys)
    assert (json.loads(out)["missing"], json.loads(out)["mend"]) == (count, "alexnet index --out photos")


def test_info_tells_how_to_mend_an_index_of_a_folder_that_has_moved(space: Path, capsys, monkeypatch) -> None:
    update()
    Path("photos").rename("elsewhere")
    assert main(["search", "elsewhere/cat/0.png", "--model", "m.onnx"]) == 0
    lost = f"its pictures are not at {space}/photos any more: if they have moved, run "
    note = f"{lost}alexnet index FOLDER --out photos\n"
    assert note in capsys.readouterr().err
    (space / "deep").mkdir()
    monkeypatch.chdir(space / "deep")
    out, _ = run("info", "photos", "--workspace", "..", "--json", capsys=capsys)
    told = json.loads(out)
    assert (told["missing"], told["mend"]) == (12, "alexnet index FOLDER --out photos --workspace ..")
