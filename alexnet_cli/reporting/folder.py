"""The folder of a report: pages, tables and thumbnails, written under a temporary name and renamed."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from alexnet_cli.data.store import Dataset
from alexnet_cli.environment import environment
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.html import encoded
from alexnet_cli.files import read_json, sweep, sync_folder, temporary_folder, write_json
from alexnet_cli.inference.evaluation import Scores
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.reporting.pages import Pages, class_file, picture_file
from alexnet_cli.reporting.results import Results
from alexnet_cli.reporting.tables import write_tables

FORMAT = 1
REPORT_FILE, FACTS_FILE = "report.html", "report.json"
OWN = re.compile(r"report\.(html|json)|(classes|confusion|predictions)\.csv|classes(/\d+\.html)?|pictures(/\d+\.jpg)?")
THUMBNAILS, SIDE = 10_000, 128  # how many pictures have one, mistakes first; and its side, in pixels
READ = 64  # images read at a time


def check_free(folder: Path) -> None:
    """Raises AlexNetError if ``folder`` holds anything but a report, which a new one would replace."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_mount():
        raise AlexNetError(f"{folder} is not a folder that can be replaced: choose another name for the report")
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    foreign = [name for name in names if not OWN.fullmatch(name)]
    if foreign or (names and FACTS_FILE not in names):
        what = (foreign or names)[0]
        raise AlexNetError(f"{folder} is no report, it has {what}: choose another name, or move that elsewhere")
    if names:
        read_json(folder / FACTS_FILE, what="report")


def write_report(
    scores: Scores,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    models: Sequence[str],
    progress: Progress = SILENT,
) -> None:
    """Write the report of the ``scores`` of a split of ``dataset`` to ``folder``, in the place of one that is there.

    ``models``: their names. Raises AlexNetError if the folder holds anything else. Until the
    report is complete, the folder is left as it was.
    """
    check_free(folder)
    measured = {"models": list(models), "dataset": dataset.name, "store": dataset.store, "split": split}
    measured |= {"source": dataset.source.get("absolute", ""), "dataset_path": str(dataset.path.resolve())}
    measured |= {"fingerprint": dataset.fingerprint}
    facts = measured | scores.evaluation().as_json() | environment()
    target = folder.resolve()
    results = Results(scores, dataset, split, facts)
    drawn = results.by_interest[:THUMBNAILS]
    with temporary_folder(target) as temporary:
        new, old = temporary / "new", temporary / "old"
        for part in (new, new / "classes", new / "pictures"):
            part.mkdir()
        _draw(results, drawn, new, progress)
        pages = Pages(results, drawn)
        (new / REPORT_FILE).write_text(pages.report(), encoding="utf-8")
        for index in range(len(dataset.classes)):
            (new / class_file(index)).write_text(pages.of_class(index), encoding="utf-8")
            progress.advance("writing pages", index + 1, len(dataset.classes))
        write_tables(results, new)
        write_json(new / FACTS_FILE, {"format": FORMAT, **facts})
        check_free(folder)  # much time has passed
        try:
            with suppress(FileNotFoundError):
                target.rename(old)
            new.rename(target)
        except BaseException:  # an interruption as well
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    sync_folder(target.parent)
    sweep(target.parent, of=target)  # last: what a killed run left may be the only report there was


def _draw(results: Results, positions: np.ndarray, folder: Path, progress: Progress) -> None:
    """Write the thumbnails of the images at ``positions``."""
    in_order, side = np.sort(positions), min(SIDE, results.images.size)
    for start in range(0, len(in_order), READ):
        some = in_order[start : start + READ]
        for position, pixels in zip(some.tolist(), results.images.read(some), strict=True):
            (folder / picture_file(position)).write_bytes(encoded(pixels, side))
        progress.advance("drawing thumbnails", start + len(some), len(in_order))
