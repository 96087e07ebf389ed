"""The tables of a report: classes.csv, confusion.csv, predictions.csv. Errors and probabilities are fractions."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet_cli.reporting.results import Results

CLASSES_FILE, CONFUSION_FILE, PREDICTIONS_FILE = "classes.csv", "confusion.csv", "predictions.csv"


def write_tables(results: Results, folder: Path) -> None:
    """Write the three tables to ``folder``."""
    _write(folder / CLASSES_FILE, _class_columns(), _class_rows(results))
    labels = results.dataset.classes
    pairs = ([labels[one.label], labels[one.predicted], one.images] for one in results.confusions)
    _write(folder / CONFUSION_FILE, ["label", "predicted", "images"], pairs)
    top = results.scores.best.shape[1]
    best = [f"{what}_{i}" for i in range(1, top + 1) for what in ("label", "probability")]
    columns = ["picture", "label", "rank_of_label", "probability_of_label", *best]
    _write(folder / PREDICTIONS_FILE, columns, _prediction_rows(results))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _class_columns() -> list[str]:
    of_error = [f"{top}_{what}" for top in ("top1", "top5") for what in ("errors", "error", "low", "high")]
    return ["label", "name", "images", *of_error]


def _class_rows(results: Results) -> Iterable[Sequence[object]]:
    """The interval of each error is from low to high; of a class without images there are none."""
    for one in results.classes:
        rates = [f"{value:.4f}" for error, (low, high) in one.rates() for value in (error, low, high)] or [""] * 6
        label = results.dataset.classes[one.index]
        yield [label, results.name(one.index), one.images, one.top1, *rates[:3], one.top5, *rates[3:]]


def _prediction_rows(results: Results) -> Iterable[Sequence[object]]:
    """The rank of the label is 1 where the prediction is right."""
    labels, scores = results.dataset.classes, results.scores
    for position, picture in enumerate(results.images.names):
        best = zip(scores.best[position].tolist(), scores.probabilities[position].tolist(), strict=True)
        yield [
            picture,
            labels[results.labels[position]],
            int(scores.ranks[position]) + 1,
            f"{scores.of_label[position]:.6f}",
            *(cell for index, probability in best for cell in (labels[index], f"{probability:.6f}")),
        ]
