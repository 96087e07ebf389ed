"""`alexnet predict`."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.commands.common import (
    HERE,
    CsvOption,
    Failures,
    JsonOption,
    ModelOption,
    PicturesArgument,
    Views,
    WorkspaceOption,
    inputs_of,
    with_progress,
)
from alexnet_cli.console import Console, JsonArray, percent, show, show_json, show_table
from alexnet_cli.errors import abbreviate
from alexnet_cli.outputs import write_csv
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from alexnet_cli.inference.predictor import Prediction
    from alexnet_cli.sorting import Sorter

COLUMNS = ("path", "rank", "label", "name", "probability")  # of the CSV file


def predict(
    pictures: PicturesArgument,
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes per picture.")] = 5,
    views: Annotated[
        Views, typer.Option(help="Views of each picture: the centre, or ten, whose probabilities are averaged.")
    ] = Views.one,
    table: CsvOption = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Copy each picture into a folder of FOLDER, named after its class."),
    ] = None,
    at_least: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="P", help="Probability, 0 to 1, below which a picture goes into unsure/."),
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what --sort-into would copy, and copy nothing.")] = (
        False
    ),
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Predict the classes of pictures.

    Prints the most probable classes of each picture. With --csv or --sort-into it writes or copies instead. Copies keep
    their names; no file is written over, and none is copied twice. A picture that cannot be read does not stop the
    others.

    Example: alexnet predict photos/ --sort-into sorted/
    """
    import alexnet_cli as alexnet
    from alexnet_cli.inference.predictor import BATCH
    from alexnet_cli.prefetch import batched
    from alexnet_cli.sorting import Sorter

    if sort_into is None and (at_least or dry_run):
        raise typer.BadParameter("--at-least and --dry-run belong to --sort-into FOLDER")
    console, space, inputs = Console(), Workspace(workspace), inputs_of(pictures, sort_into)
    path = space.find_classifier(model)
    console.note(f"predicting with model {path}")
    predictor = alexnet.open_model(path, pictures=len(inputs), datasets=space.all("dataset"), progress=console)
    failures = Failures(inputs, console)
    copies = None if sort_into is None else _Copies(Sorter(sort_into, predictor, dry_run=dry_run), at_least, as_json)
    predictions, is_quiet = JsonArray(), as_json or table is not None or copies is not None
    pairs = predictor.predict_each(inputs.pictures, top, views=int(views))
    if is_quiet:
        pairs = with_progress(pairs, "predicting", len(inputs.pictures), console)
    with contextlib.nullcontext() if table is None else write_csv(table, COLUMNS) as write:
        for some in batched(failures.without(pairs), BATCH):
            for image, classes in some:
                if as_json:
                    predictions.append({"path": image, "classes": [vars(best) for best in classes]})
                if write is not None:
                    for rank, best in enumerate(classes, 1):
                        write((image, rank, best.label, best.name, best.probability))
                if copies is not None:
                    copies.add(image, classes[0])
            if not is_quiet:
                _show(some)
    if as_json:
        answers = {"model": predictor.name, "predictions": predictions, **failures.as_json()}
        show_json(answers | ({} if copies is None else {"copies": copies.array}))
    else:
        if copies is not None:
            copies.show()
        if table is not None:
            show(f"wrote {table}: {counted(len(inputs) - len(failures.failed), 'picture')}")
    if copies is not None:
        copies.note_others(console)
    failures.check()


def _show(pairs: "Sequence[tuple[str, list[Prediction]]]") -> None:
    rows = [
        ["" if i else image, best.name, percent(best.probability)]
        for image, classes in pairs
        for i, best in enumerate(classes)
    ]
    show_table("", ["picture", "class", "probability"], rows)


class _Copies:
    """Copies pictures by class, and tells of it."""

    def __init__(self, sorter: "Sorter", at_least: float, as_json: bool) -> None:
        self.sorter, self.at_least, self.as_json = sorter, at_least, as_json
        self.array, self.counts = JsonArray(), Counter[tuple[str, bool]]()  # folder, is_new
        self.others = dict[str, None]()  # where pictures lie elsewhere in the folder, one place for each

    def add(self, image: str, best: "Prediction") -> None:
        copy = self.sorter.add(Path(image), best.label if best.probability >= self.at_least else None)
        self.counts[copy.path.parent.name, copy.is_new] += 1
        self.others |= dict.fromkeys(map(str, copy.others[:1]))
        if self.as_json:
            others = {"others": [str(path) for path in copy.others]} if copy.others else {}
            self.array.append({"path": image, "copy": str(copy.path), "new": copy.is_new, **others})
        elif self.sorter.dry_run:
            told = "would copy {} to {} ({})" if copy.is_new else "there already: {} as {} ({})"
            show(told.format(image, copy.path, percent(best.probability)))

    def show(self) -> None:
        """Print how many pictures each folder got."""
        verb = "would be copied" if self.sorter.dry_run else "copied"
        folders = sorted({folder for folder, _ in self.counts})
        rows = [[folder, f"{self.counts[folder, True]:,}", f"{self.counts[folder, False]:,}"] for folder in folders]
        if rows:
            show_table("", ["folder", verb, "there already"], rows)
        copied, present = (sum(self.counts[folder, is_new] for folder in folders) for is_new in (True, False))
        verb_of_present = "is" if present == 1 else "are"
        show(f"{self.sorter.folder}: {counted(copied, 'picture')} {verb}, {present:,} {verb_of_present} there already")

    def note_others(self, console: Console) -> None:
        """Tell of pictures that lie in another class's folder, most often from an earlier run."""
        if self.others:
            lie = "picture also lies" if len(self.others) == 1 else "pictures also lie"
            console.note(
                f"{len(self.others):,} {lie} in another folder of {self.sorter.folder}: {abbreviate(self.others)}"
            )
