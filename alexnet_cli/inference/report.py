"""What `alexnet eval` shows of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_cli.artefacts import model_name
from alexnet_cli.data.store import Dataset
from alexnet_cli.experiments.published import TABLE2, are_of_table2
from alexnet_cli.inference.evaluation import Evaluation

Table = tuple[str, list[str], list[list[str]], str]  # title, columns, rows, note


def evaluation_json(
    evaluation: Evaluation, paths: Sequence[Path], dataset: Dataset, split: str, views: int
) -> dict[str, object]:
    """What `alexnet eval --json` prints; errors are fractions."""
    return {
        "models": [_name(path) for path in paths],
        "dataset": dataset.name,
        "split": split,
        "views": views,
        "images": evaluation.images,
        "top1_error": evaluation.top1,
        "top5_error": evaluation.top5,
        "top1_error_ci95": list(evaluation.top1_ci95),
        "top5_error_ci95": list(evaluation.top5_ci95),
    }


def evaluation_table(evaluation: Evaluation, paths: Sequence[Path], dataset: Dataset, split: str, views: int) -> Table:
    """The measured row; for ten views of ILSVRC-2012's validation images, the paper's published rows above it."""
    ilsvrc = views == 10 and are_of_table2(dataset, split)
    measured = [
        " + ".join(_name(path) for path in paths) + (" (measured here)" if ilsvrc else ""),
        *(
            f"{100 * error:.1f}  ({100 * low:.1f}-{100 * high:.1f})"
            for error, (low, high) in (
                (evaluation.top1, evaluation.top1_ci95),
                (evaluation.top5, evaluation.top5_ci95),
            )
        ),
    ]
    title = f"{dataset.name}, {split}: {evaluation.images:,} images, {views} view{'s' if views > 1 else ''}"
    columns = ["model", "top-1 error, %  (95 % interval)", "top-5 error, %  (95 % interval)"]
    note = "published: table 2 of the paper, ILSVRC-2012 validation images, ten views" if ilsvrc else ""
    published = [[f"{row.name} (published)", row.top1, row.top5] for row in TABLE2 if row.top1 != "–"]
    return title, columns, [*(published if ilsvrc else []), measured], note


def _name(path: Path) -> str:
    """A model's folder by its name, an ONNX file by its folder's name and its own."""
    return f"{path.resolve().parent.name}/{path.name}" if path.suffix == ".onnx" else model_name(path)
