"""The model's mistakes among the pictures of an index, from the table of predictions of `alexnet eval --report`."""

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import DATASET_FILE
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import open_regular, read_json
from alexnet_cli.serving.library import Opened
from alexnet_cli.workspace import Workspace

REPORT_FILE, TABLE = "report.json", "predictions.csv"  # of a report, a folder in the workspace
PICTURE, LABEL, PREDICTED, PROBABILITY = "picture", "label", "label_1", "probability_of_label"  # its columns
MOST = 1000  # mistakes that are shown


def mistakes(opened: Opened, space: Workspace) -> dict[str, Any]:
    """The newest report on pictures of the index, how many of them it has, and the mistakes, the worst first.

    ``report`` is null if there is none. A report tells of an index of its dataset, or of the folder or archive that the
    dataset was packed from; there a picture is known by its path.
    """
    for folder, changed in _reports(space).items():
        if not _is_about(opened.index.source, folder):
            continue
        kept = opened.mistakes.get(folder)
        if kept is None or kept[0] != changed:
            kept = opened.mistakes[folder] = (changed, _mistakes_in(folder, opened))
        if kept[1] is not None:
            return kept[1]
    return {"report": None}


def _mistakes_in(report: Path, opened: Opened) -> dict[str, Any] | None:
    """What `mistakes` tells of one report; None if it has no picture of the index."""
    predictions = {row[PICTURE]: row for row in _rows(report / TABLE)}
    if not predictions:
        return None
    found = [(row, name, predictions[name]) for row, name, *_ in opened.index.table.rows() if name in predictions]
    if not found:
        return None
    wrong = [one for one in found if one[2][LABEL] != one[2][PREDICTED]]
    wrong.sort(key=lambda one: _number(one[2][PROBABILITY]))
    pictures = [_picture(opened, *one) for one in wrong[:MOST]]
    told = {"report": report.name, "images": len(found), "mistakes": len(wrong), "pictures": pictures}
    return told | {"generation": opened.generation}


def _picture(opened: Opened, row: int, name: str, prediction: dict[str, str]) -> dict[str, Any]:
    label, predicted = prediction[LABEL], prediction[PREDICTED]
    path = str(opened.index.file_of(name) or name)
    return {
        "row": row,
        "path": path,
        "label": label,
        "name": opened.name_of(label),
        "predicted": predicted,
        "predicted_name": opened.name_of(predicted),
    }


def _reports(space: Workspace) -> dict[Path, tuple[int, ...]]:
    """The folders of reports in the workspace, newest first, with the time, size and inode of the table of each."""
    states = {}
    for file in space.root.glob(f"*/{TABLE}"):
        with suppress(OSError):
            found = file.stat()
            states[file.parent] = (found.st_mtime_ns, found.st_size, found.st_ino)
    return dict(sorted(states.items(), key=lambda one: one[1], reverse=True))


def _is_about(source: Path, report: Path) -> bool:
    """Whether the pictures of ``source``, of which an index was made, are those of the report in folder ``report``."""
    with suppress(BadArtefact, OSError):
        facts = read_json(report / REPORT_FILE, what="report")
        if str(source) == facts.get("dataset_path"):  # which may have been packed of others since
            packed = read_json(source / DATASET_FILE, what="dataset")
            return bool(packed.get("fingerprint") == facts.get("fingerprint"))
        return str(source) == facts.get("source")
    return False


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Its rows; none from where it is no such table."""
    with suppress(OSError, ValueError, csv.Error), open(open_regular(file), encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if not all(isinstance(row.get(column), str) for column in (PICTURE, LABEL, PREDICTED, PROBABILITY)):
                return
            yield row


def _number(text: str) -> float:
    with suppress(ValueError):
        number = float(text)
        return number if math.isfinite(number) else 0.0
    return 0.0
