"""`alexnet demo`: the views of the photographs, and every step on them."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from alexnet_cli import demo
from alexnet_cli.commands import app, main
from alexnet_cli.errors import AlexNetError

NAMES = ("galaxies", "tissue", "rocket")
VIEWS = {"train": 8, "val": 3}


def run(words: list[str]) -> None:
    app(words, standalone_mode=False)


@pytest.fixture
def no_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "skimage" else find_spec(name))


def test_views_are_jpegs_and_the_same_every_time(tmp_path: Path) -> None:
    photos = {name: path for name, path in demo.photographs().items() if name in NAMES}
    for again in ("once", "twice"):
        demo.write_views(photos, tmp_path / again, VIEWS)
    files = sorted((tmp_path / "once").rglob("*.*"))
    assert len(files) == len(NAMES) * sum(VIEWS.values())
    assert len({file.read_bytes() for file in files}) == len(files)  # no view twice
    for file in files:
        assert file.read_bytes() == (tmp_path / "twice" / file.relative_to(tmp_path / "once")).read_bytes()
        with Image.open(file) as picture:
            picture.load()
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (demo.SIDE, demo.SIDE))


def test_existing_views_are_kept(tmp_path: Path) -> None:
    photos = {"cat": demo.photographs()["cat"]}
    demo.write_views(photos, tmp_path, {"train": 1})
    (tmp_path / "train" / "cat" / "cat-00.jpg").write_bytes(b"mine")
    demo.write_views(photos, tmp_path, {"train": 2})
    assert (tmp_path / "train" / "cat" / "cat-00.jpg").read_bytes() == b"mine"
    assert (tmp_path / "train" / "cat" / "cat-01.jpg").exists()


def test_views_stay_inside_the_photograph(tmp_path: Path) -> None:
    Image.new("RGB", (120, 300), "white").save(tmp_path / "white.png")
    demo.write_views({"white": tmp_path / "white.png"}, tmp_path, {"train": 40})
    for file in (tmp_path / "train" / "white").iterdir():
        with Image.open(file) as view:
            low, high = view.convert("L").getextrema()
        assert high - low <= 2  # one shade: no black pixel from beyond the edges


def test_every_step_and_a_second_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    small = {"names": NAMES, "views": VIEWS, "queries": ("rocket",), "epochs": 6}
    done = demo.demonstrate(folder, run, **small)
    assert done["top1_error"] < done["chance"] - 0.2
    assert done["images"] == len(NAMES) * VIEWS["val"]
    for drawn in ("sheet", "curves"):
        with Image.open(done[drawn]) as picture:
            assert picture.format == "PNG"
    printed = capsys.readouterr().out
    for command in ("prep", "train", "eval", "export", "index", "search"):
        assert f"$ alexnet {command} " in printed
    history = (folder / "models" / "photos-tiny" / "history.jsonl").read_bytes()
    again = demo.demonstrate(folder, run, **small)  # keeps what the first call finished
    assert again == done
    assert (folder / "models" / "photos-tiny" / "history.jsonl").read_bytes() == history
    assert [path.name for path in (folder / "models").iterdir()] == ["photos-tiny"]


def test_standard_output_is_only_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(folder: Path, _run: demo.Run) -> dict[str, str]:
        print("a step")  # noqa: T201
        return {"sheet": str(folder)}

    monkeypatch.setattr(demo, "demonstrate", stand_in)
    assert main(["demo", "--json", "--workspace", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"sheet": str(tmp_path)}
    assert printed.err == "a step\n"


@pytest.mark.usefixtures("no_scikit_image")
def test_without_scikit_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--workspace", str(tmp_path / "demo")]) == 1
    message = "alexnet demo needs the photographs in scikit-image: pip install 'alexnet-cli[demo]'"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("after", [0, 5])
def test_an_error_in_a_step_reaches_the_caller(tmp_path: Path, after: int) -> None:
    begun: list[str] = []

    def fails(words: list[str]) -> None:
        begun.append(words[0])
        if len(begun) > after:
            raise AlexNetError("the reason")

    with pytest.raises(AlexNetError, match="the reason"):
        demo.demonstrate(tmp_path, fails, names=NAMES, views={"train": 1, "val": 1})
    assert begun == ["prep", "train", "eval", "export", "index", "search"][: after + 1]
