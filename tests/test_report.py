"""`alexnet eval --report`: its tables against plain counting, its pages as a browser reads them, what it replaces."""

import csv
import html.parser
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from conftest import save_untrained
from pictures import encoded, pixels, write_folder, write_zip
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.evaluation import Scores, interval
from alexnet_cli.reporting import folder as folder_module
from alexnet_cli.reporting import pages
from alexnet_cli.reporting.folder import write_report

ODD = ["<b>bold&amp;", "plain", "quote ' and \" #1 100%", "zoë"]


def scores_of(labels: np.ndarray, classes: int, seed: int = 0) -> Scores:
    """Of predictions that are often right."""
    random = np.random.default_rng(seed).random((len(labels), classes))
    random[np.arange(len(labels)), labels] += 0.4
    probabilities = random / random.sum(axis=1, keepdims=True)
    best = np.argsort(-probabilities, axis=1)[:, :5]
    of_label = probabilities[np.arange(len(labels)), labels]
    return Scores(
        best=best,
        probabilities=np.take_along_axis(probabilities, best, axis=1),
        ranks=(probabilities > of_label[:, None]).sum(axis=1),
        of_label=of_label,
        views=10,
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four classes whose names, and those of their pictures, mean something in HTML or in an address."""
    content = {
        f"{split}/{name}/{i} {name[0]}#%?.png": encoded(pixels(100 * number + i))
        for split in ("train", "val")
        for number, name in enumerate(ODD)
        for i in range(6)
    }
    source = write_folder(tmp_path_factory.mktemp("odd") / "it's a source", content)
    return prepare(source, source.parent / "data" / "odd", size=16, workers=1).dataset


class Page(html.parser.HTMLParser):
    """The tags, links, images and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.tags, self.ids, self.text = path, set[str](), set[str](), ""
        self.links: list[str] = []
        self.images: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of_tag = dict(attrs)
        self.tags.add(tag)
        self.ids.add(str(of_tag.get("id")))
        self.links += [str(of_tag["href"])] if tag == "a" else []
        self.images += [str(of_tag["src"])] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.text += data

    def target(self, address: str) -> tuple[Path, str]:
        """The file and the fragment that an address leads to, as a browser finds them."""
        parts = urlparse(address)
        assert parts.scheme in ("", "file")
        assert not parts.query
        named = Path(unquote(parts.path))
        return (named if parts.scheme else self.path.parent / named if parts.path else self.path), parts.fragment


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report_of(dataset: Dataset, folder: Path, seed: int = 0) -> Scores:
    split = dataset.split("val")
    scores = scores_of(split.labels, len(dataset.classes), seed)
    write_report(scores, dataset, "val", folder, models=["m"])
    return scores


def test_the_tables_of_a_report_are_counted_from_the_predictions(odd: Dataset, tmp_path: Path) -> None:
    scores = report_of(odd, tmp_path / "report")
    split = odd.split("val")
    predictions = rows_of(tmp_path / "report" / "predictions.csv")
    assert [row["picture"] for row in predictions] == list(split.names)
    for row, label, best, rank in zip(predictions, split.labels, scores.best, scores.ranks, strict=True):
        assert row["label"] == odd.classes[label]
        assert [row[f"label_{i}"] for i in range(1, 5)] == [odd.classes[i] for i in best]
        assert int(row["rank_of_label"]) == rank + 1
        assert row[f"label_{rank + 1}"] == row["label"]
        assert row[f"probability_{rank + 1}"] == row["probability_of_label"]
    pairs = Counter((row["label"], row["label_1"]) for row in predictions)
    confusion = rows_of(tmp_path / "report" / "confusion.csv")
    assert {(row["label"], row["predicted"]): int(row["images"]) for row in confusion} == pairs
    for row in rows_of(tmp_path / "report" / "classes.csv"):
        wrong = sum(count for (label, predicted), count in pairs.items() if label == row["label"] != predicted)
        assert (int(row["images"]), int(row["top1_errors"]), int(row["top5_errors"])) == (6, wrong, 0)
        low, high = interval(wrong, 6)
        assert [float(row[key]) for key in ("top1_error", "top1_low", "top1_high")] == pytest.approx(
            [wrong / 6, low, high], abs=1e-4
        )
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    assert facts["top1_error"] == sum(row["rank_of_label"] != "1" for row in predictions) / 24


def test_the_pages_of_a_report_lead_where_they_say_and_need_nothing_else(odd: Dataset, tmp_path: Path) -> None:
    scores, folder = report_of(odd, tmp_path / "a report"), tmp_path / "a report"
    report, classes = Page(folder / "report.html"), sorted((folder / "classes").iterdir())
    assert len(classes) == 4
    originals = set()
    for page in (report, *map(Page, classes)):
        assert not page.tags & {"script", "link", "iframe", "b", "object"}
        assert "http" not in page.path.read_text(encoding="utf-8")
        for address in page.links:
            file, fragment = page.target(address)
            assert file.is_file(), address
            assert not fragment or fragment in Page(file).ids, address
            if address.startswith("file:"):
                originals.add(file)
        for address in page.images:
            assert Image.open(page.path.parent / address).size == (16, 16)
    source = Path(odd.source["path"])
    assert originals == {source / name for name in odd.split("val").names}
    assert all(name in report.text for name in ODD)
    wrong = [i for i in np.argsort(-scores.probabilities[:, 0], kind="stable") if scores.ranks[i]]
    shown = [odd.split("val").names[int(Path(image).stem)] for image in report.images]
    assert shown == [odd.split("val").names[i] for i in wrong]  # the worst mistakes, surest first
    first = Page(classes[0])
    assert f"{(odd.split('val').labels == 0).sum()} pictures, top-1 error" in first.text
    assert len(first.images) == 6


def test_a_report_says_what_its_limits_leave_out(odd: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limit, value in ((pages, "MATRIX", 2), (pages, "LISTED", 1), (folder_module, "THUMBNAILS", 7)):
        monkeypatch.setattr(module, limit, value)
    report_of(odd, tmp_path / "r")
    report = Page(tmp_path / "r" / "report.html")
    assert "7 of the 24 pictures have a thumbnail: mistakes first." in report.text
    assert "The 2 of 4 classes with the most mistakes; the column “others” counts" in report.text
    assert len(list((tmp_path / "r" / "pictures").iterdir())) == 7
    of_class = "".join(Page(path).text for path in (tmp_path / "r" / "classes").iterdir())
    assert "The first 1; the others are in predictions.csv" in of_class
    assert "no thumbnail" in of_class


def test_pictures_in_an_archive_have_no_link(tmp_path: Path) -> None:
    content = {f"val/{name}/{i}.png": encoded(pixels(i)) for name in "ab" for i in range(3)}
    content |= {name.replace("val", "train"): picture for name, picture in content.items()}
    dataset = prepare(write_zip(tmp_path / "z.zip", content), tmp_path / "data" / "z", size=16, workers=1).dataset
    report_of(dataset, tmp_path / "report")
    assert "file:" not in (tmp_path / "report" / "report.html").read_text()


def test_a_report_replaces_a_report_and_nothing_else(odd: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    report_of(odd, folder)  # an empty folder is free
    before = (folder / "predictions.csv").read_bytes()
    report_of(odd, folder, seed=1)
    assert (folder / "predictions.csv").read_bytes() != before
    assert os.listdir(tmp_path) == ["report"]  # no temporary folder
    for name in ("notes.txt", "classes/mine.html", "pictures/holiday.jpg"):
        shutil.copytree(folder, tmp_path / "other")
        (tmp_path / "other" / name).write_text("precious")
        with pytest.raises(AlexNetError, match=f"other is no report, it has {name}: choose another name"):
            report_of(odd, tmp_path / "other")
        assert (tmp_path / "other" / name).read_text() == "precious"
        shutil.rmtree(tmp_path / "other")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(
        AlexNetError, match="file is not a folder that can be replaced: choose another name for the report"
    ):
        report_of(odd, tmp_path / "file")


def test_a_report_that_fails_leaves_the_last_one(odd: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_of(odd, tmp_path / "report")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "report").rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_tables", full)
    with pytest.raises(OSError, match="No space left"):
        report_of(odd, tmp_path / "report", seed=1)
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "report").rglob("*")) == before
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_report_that_is_interrupted_while_it_takes_its_place_leaves_the_last_one(
    odd: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    report_of(odd, tmp_path / "report")
    before = (tmp_path / "report" / "predictions.csv").read_bytes()
    rename, done = Path.rename, []

    def interrupted(path: Path, target: Path) -> None:
        done.append(rename(path, target))
        if len(done) == renames + 1:
            monkeypatch.setattr(Path, "rename", rename)
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report_of(odd, tmp_path / "report", seed=1)
    assert ((tmp_path / "report" / "predictions.csv").read_bytes() == before) == (renames == 0)  # else the new one


def test_eval_writes_a_report_of_several_models(
    packed: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        save_untrained(packed, tmp_path / "models" / f"m{seed}", seed)
    command = ["eval", "m0", "m1", "--data", str(packed.path), "--workspace", str(tmp_path), "--views", "1"]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").touch()
    assert main([*command, "--report", str(tmp_path / "foreign")]) == 1
    assert "foreign is no report, it has a.txt" in capsys.readouterr().err
    assert main([*command, "--report", str(tmp_path / "report"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == str(tmp_path / "report")
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {key: facts[key] for key in printed if key != "report"} == {
        key: value for key, value in printed.items() if key != "report"
    }
    assert Page(tmp_path / "report" / "report.html").text.startswith("Report: m0 + m1 on colours, val")
    assert main([*command, "--report", str(tmp_path / "report")]) == 0
    assert f"wrote {tmp_path / 'report' / 'report.html'}" in capsys.readouterr().out
