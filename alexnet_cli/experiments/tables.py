"""Tables 1 and 2: ten-view errors of one network, of several averaged, and of pre-trained ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import model_name
from alexnet_cli.data.store import Dataset
from alexnet_cli.experiments.published import TABLE1, TABLE2, Published, are_of_table2
from alexnet_cli.experiments.report import Report, measured_once, percent
from alexnet_cli.inference.evaluation import evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.progress import SILENT, Progress

COLUMNS = ["model", "views", "top-1 error, %", "top-5 error, %", "top-5 error of the test images, %"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row to measure: the models whose predictions are averaged, and over how many views."""

    name: str
    models: Sequence[Path]
    views: int = 10


@dataclass(frozen=True, kw_only=True)
class Table:
    """One of the paper's tables: its own rows, and those to measure."""

    name: str  # what `alexnet reproduce` calls it
    title: str
    published: Sequence[Published]
    measured: Sequence[Row]


def table1(
    models: Sequence[Path],
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Report:
    """ILSVRC-2010: the published rows, then the first of ``models`` over ten views and over one."""
    rows = [
        Row(name="CNN", models=models[:1]),
        Row(name="CNN, centre view", models=models[:1], views=1),
    ]
    table = Table(name="table-1", title="Table 1: ILSVRC-2010", published=TABLE1, measured=rows)
    return _report(table, dataset, folder, command, device=device, progress=progress)


def table2(
    models: Sequence[Path],
    pretrained: Sequence[Path],
    dataset: Dataset,
    folder: Path,
    command: str,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Report:
    """ILSVRC-2012: the published rows, then the first of ``models``, all of ``models`` averaged, the first of
    ``pretrained``, and all of both averaged."""
    together = [*pretrained, *models]
    rows = [
        Row(name="1 CNN", models=models[:1]),
        Row(name=f"{max(len(models), 2)} CNNs", models=models if len(models) > 1 else []),
        Row(name="1 CNN*", models=pretrained[:1]),
        Row(name=f"{max(len(together), 2)} CNNs*", models=together if pretrained and models else []),
    ]
    table = Table(name="table-2", title="Table 2: ILSVRC-2012", published=TABLE2, measured=rows)
    return _report(table, dataset, folder, command, device=device, progress=progress)


def _report(table: Table, dataset: Dataset, folder: Path, command: str, *, device: str, progress: Progress) -> Report:
    """Measure the rows of ``table`` on ``dataset``, and write them below the published ones."""
    loaded = {path: Model.load(path) for row in table.measured for path in row.models}
    split = "test" if "test" in dataset.counts and (table.name == "table-1" or "val" not in dataset.counts) else "val"
    dataset.split(split)  # raises if it has neither
    facts = {
        row.name: _measure(row, [loaded[path] for path in row.models], dataset, split, folder, device, progress)
        for row in table.measured
        if row.models
    }
    rows = [[f"{one.name} (published)", one.views, one.top1, one.top5, one.test] for one in table.published]
    for row in table.measured:
        measured = facts.get(row.name)
        cells = [percent(measured, "top1"), percent(measured, "top5")] if measured else ["", ""]
        rows.append([f"{row.name} (measured here)", str(row.views), *cells, ""])
    other = ""
    if table.name == "table-1":  # prep has no layout for it
        other = " The published rows are of ILSVRC-2010's test images; whether these are they, the program cannot tell."
    elif not are_of_table2(dataset, split):
        other = " These are other images than the published rows': the numbers cannot be compared."
    used = [f"{model_name(path)} ({model.recipe.name}, {model.fingerprint})" for path, model in loaded.items()]
    note = (
        f"Measured on the {dataset.counts[split]:,} {split} images of dataset {dataset.name}, with 95 % intervals; "
        f"rows whose models were not given are empty.{other} Models: {'; '.join(used) or 'none'}."
    )
    report = Report(
        name=table.name, title=table.title, columns=COLUMNS, rows=rows, note=note, command=command, facts=facts
    )
    report.write(folder, {f"{model_name(path)}-{model.fingerprint}": model.recipe for path, model in loaded.items()})
    return report


def _measure(
    row: Row, models: Sequence[Model], dataset: Dataset, split: str, folder: Path, device: str, progress: Progress
) -> dict[str, Any]:
    """The errors of the averaged ``models``, those of ``row``."""

    def measure() -> dict[str, Any]:
        progress.note(f"measuring {row.name}: {', '.join(map(model_name, row.models))}")
        networks = [NetworkModel.of(model, device) for model in models]
        return asdict(evaluate(networks, dataset, split, views=row.views, progress=progress))

    inputs = {"dataset": dataset.fingerprint, "split": split, "views": row.views}
    return measured_once(folder, inputs | {"models": sorted(model.fingerprint for model in models)}, measure)
