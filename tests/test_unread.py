"""Pictures in formats that are not read: counted by reason, once; HEIC with and without the extra `heic`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from onnx_files import write_onnx
from pictures import encoded, files, folder_of_classes, pixels, write_folder, write_zip
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.data import sources, unread
from alexnet_cli.data.pictures import ORIENTATION, load_picture
from alexnet_cli.data.unread import advices, is_heic
from alexnet_cli.errors import BadPicture

# The first bytes of a telephone's picture
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(64)
SIZE = ["--size", "16"]


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra."""
    for module in (unread, sources):
        monkeypatch.setattr(module, "reads_heic", lambda: False)
    unread.register_heic.cache_clear()


def heic(image: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encoded(image, "HEIF", quality=90, **options)


def test_what_is_left_out_is_told_by_reason() -> None:
    assert advices({}) == []
    assert advices({".HEIC": 12, ".CR2": 3}) == [
        "12 .HEIC pictures: install alexnet-cli[heic]",
        "3 .CR2: convert them first",
    ]
    assert advices({".psd": 1, ".NEF": 1200}) == ["1,200 .NEF, 1 .psd pictures: convert them first"]
    assert advices({".NEF": 1}) == ["1 .NEF picture: convert it first"]
    assert advices({".heif": 1}) == ["1 .heif picture: install alexnet-cli[heic]"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (HEIC, True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(8), True),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(8), False),
        (b"\0\0\0\x14ftypmp42\0\0\0\0isomheic", False),  # behind the box
        (b"", False),
    ],
)
def test_heic_is_told_by_content(content: bytes, wanted: bool) -> None:
    assert is_heic(content) is wanted


def test_index_counts_what_it_leaves_out(space: Path, without_heic, capsys) -> None:
    write_folder(space / "photos", {f"IMG_{i}.HEIC": HEIC for i in range(3)} | {"cat/raw.CR2": b"x", ".x/a.heic": b"x"})
    write_folder(space / "photos", {"cat/a.jpg": b"text", "cat/b.jpg": b"text", "cat/c.jpg": HEIC})
    command = ["index", "photos", "--model", "m.onnx"]
    for _ in range(2):  # also where there is nothing to do
        assert main(command) == 0
        lines = capsys.readouterr().err.splitlines()
        assert lines[-3:] == [
            "refused 2 pictures: not a picture that can be read (cat/a.jpg, cat/b.jpg)",
            "refused cat/c.jpg: a HEIC picture: install alexnet-cli[heic]",
            "left out: 3 .HEIC pictures: install alexnet-cli[heic]; 1 .CR2: convert it first",
        ]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == [
        "3 .HEIC pictures: install alexnet-cli[heic]",
        "1 .CR2: convert it first",
    ]


def test_an_index_of_a_dataset_says_which_splits_it_leaves_out(space: Path, capsys) -> None:
    assert main(["prep", "photos", *SIZE]) == 0
    write_onnx(space / "small.onnx", size=16)
    assert main(["index", "--model", "small.onnx"]) == 0
    assert "left out: 2 val pictures: --split all takes them\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["index", "prep"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_source_of_heic_alone_is_one_clear_error(command, kind, space: Path, without_heic, capsys) -> None:
    content = {"a/1.heic": HEIC, "a/2.heic": HEIC, "a/notes.txt": b"x"}
    source = write_folder(space / "mine", content) if kind == "folder" else write_zip(space / "mine.zip", content)
    assert main([command, source.name, *(["--model", "m.onnx"] if command == "index" else [])]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: no pictures in {source.name} that can be read: 2 .heic pictures: install alexnet-cli[heic]"
    )


def test_one_heic_picture_is_one_line(searchable: Path, without_heic, capsys) -> None:
    Path("a.heic").write_bytes(HEIC)
    for command in ("predict", "search"):
        assert main([command, "a.heic"]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == ("error: a.heic: a HEIC picture: install alexnet-cli[heic]")


def test_prep_counts_what_it_leaves_out_and_packs_the_rest(tmp_path: Path, without_heic, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(
        tmp_path / "p", files() | {"cats/1.HEIC": HEIC, "2.CR2": b"x", "birds/1.heic": HEIC, "cats/x.jpg": HEIC}
    )
    assert main(["prep", "p", *SIZE]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == (
        "left out: 1 .HEIC, 1 .heic pictures: install alexnet-cli[heic]; 1 .CR2: convert it first"
    )
    assert "2 classes, 1 rejected" in out
    with open("data/p/rejected.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [["cats/x.jpg", "a HEIC picture: install alexnet-cli[heic]"]]


def test_with_the_extra_heic_is_read_like_any_other(space: Path, capsys, monkeypatch) -> None:
    image = Image.fromarray(pixels(3, 48, 32))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    wanted = load_picture(encoded(image.transpose(Image.Transpose.ROTATE_270)), 16)
    found = load_picture(heic(image, exif=exif.tobytes()), 16)
    assert np.abs(found.astype(int) - wanted).mean() < 4
    with monkeypatch.context() as patch:  # refused at first, and tried again once the extra is there
        patch.setattr(unread, "reads_heic", lambda: False)
        patch.setattr(sources, "reads_heic", lambda: False)
        unread.register_heic.cache_clear()
        write_folder(space / "photos", {"cat/a.HEIC": heic(image), "cat/b.jpg": heic(image)})
        assert main(["index", "photos", "--model", "m.onnx"]) == 0
        assert "12 pictures (12 added, 0 kept, 0 removed, 1 refused)" in capsys.readouterr().out
    assert main(["index", "photos", "--model", "m.onnx"]) == 0
    assert "14 pictures (2 added, 12 kept, 0 removed, 0 refused)" in capsys.readouterr().out
    with pytest.raises(BadPicture, match="not a picture that can be read"):
        load_picture(HEIC, 16)


def test_a_folder_of_avif_and_webp_needs_nothing_more(space: Path, capsys) -> None:
    folder_of_classes(Path("new"), 1)
    for format in ("AVIF", "WEBP"):
        (space / f"new/{format}.{format.lower()}").write_bytes(encoded(pixels(1, 48, 48), format))
    assert main(["index", "new", "--model", "m.onnx"]) == 0
    out, err = capsys.readouterr()
    assert "4 pictures (4 added, 0 kept, 0 removed, 0 refused)" in out
    assert "left out" not in err


@pytest.mark.parametrize("command", ["predict", "search", "features"])
def test_what_a_folder_or_pattern_leaves_out_is_told(searchable: Path, command: str, without_heic, capsys) -> None:
    write_folder(
        Path("photos"), {"cat/1.CR2": b"x", "b.NEF": b"x", "c.heic": HEIC, ".x/d.CR2": b"x", "notes.txt": b"x"}
    )
    wanted = ["1 .heic picture: install alexnet-cli[heic]", "1 .CR2, 1 .NEF: convert them first"]
    for name in ("photos", "photos/**"):
        assert main([command, name]) == 0
        assert capsys.readouterr().err.splitlines()[-1] == f"left out: {'; '.join(wanted)}"
        assert main([command, name, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["failed"], printed["left_out"]) == ([], wanted)
    assert main([command, "photos/dog"]) == 0
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "search", "features"])
def test_a_folder_or_pattern_of_unread_pictures_alone(searchable: Path, command: str, capsys) -> None:
    write_folder(Path("raw"), {"1.CR2": b"x", "2.NEF": b"x"})
    for name, reason in (
        ("raw", "no pictures in this folder that can be read"),
        ("raw/*.CR2", "no picture that can be read matches this pattern"),
    ):
        assert main([command, name]) == 1
        advice = "1 .CR2, 1 .NEF pictures: convert them first" if name == "raw" else "1 .CR2 picture: convert it first"
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {name}: {reason}: {advice}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1.CR2", "a camera's RAW: convert it first"),
        ("1.psd", "a .psd picture: convert it first"),
        ("1.heic", "a HEIC picture: install alexnet-cli[heic]"),
        ("1.jpg", "not a picture that can be read"),
    ],
)
def test_one_picture_that_is_not_read_says_why(searchable: Path, name: str, reason: str, without_heic, capsys) -> None:
    Path(name).write_bytes(b"what Pillow does not know")
    assert main(["predict", name]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {name}: {reason}"
