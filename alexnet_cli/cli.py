"""The commands: parse, call the library, show. Heavy libraries are imported inside the command using them."""

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.console import Console, fail, show, show_json, show_table
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.workspace import Workspace

app = typer.Typer(
    name="alexnet",
    help="The 2012 ImageNet network: reproduce it, train it on your own pictures, search with it. "
    "`--debug` after any command shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The folder with data/, models/ and indexes/.", show_default="here"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
HERE = Path(".")


@app.callback()
def _alexnet() -> None:
    pass


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


class ExportPrecision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"


class Views(StrEnum):
    one = "1"
    ten = "10"


DatasetArgument = Annotated[str | None, typer.Argument(help="Name or path of a dataset; the newest if none.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")]


@app.command()
def train(
    dataset: DatasetArgument = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or .toml file; `paper` if none.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value on top of the recipe; repeatable.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Name of the model; DATASET-RECIPE if none.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="All that is random follows from it; 0 if none.")] = None,
    device: DeviceOption = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the network's arithmetic; fp32 if none.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    start: Annotated[str | None, typer.Option("--from", help="Fine-tune this model: all layers but the last.")] = None,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints within an epoch.")] = 10,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train a network by the paper's rules; stop it at any time, go on with --resume.

    Example: alexnet train photos --recipe small-data --precision bf16
    """
    from alexnet_cli.training import runs

    console, space = Console(), Workspace(workspace)
    asked = runs.Asked(
        dataset=dataset, recipe=recipe, settings=settings or [], out=out, epochs=epochs, seed=seed, start=start
    )
    where = runs.Where(device=_device(device), precision=precision, checkpoint_minutes=checkpoint_minutes)
    result = (runs.resume if resume else runs.begin)(space, asked, where, console)
    console.close()
    if as_json:
        show_json(result)
    else:
        show(f"trained models/{result['model']}: {result['epochs']} epochs")
        show(f"Next: alexnet eval {result['model']}")


@app.command(name="eval")
def evaluate(
    models: Annotated[list[str] | None, typer.Argument(help="Models or .onnx files; the newest model if none.")] = None,
    data: Annotated[str | None, typer.Option(help="Name or path of a dataset; the newest if none.")] = None,
    split: Annotated[str, typer.Option(help="The split whose images are counted.")] = "val",
    views: Annotated[Views, typer.Option(help="How many views of each image are averaged.")] = Views.ten,
    device: DeviceOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Top-1 and top-5 error over one or ten views; the predictions of several models are averaged.

    Example: alexnet eval photos-small-data --views 10
    """
    from alexnet_cli import evaluate as evaluation
    from alexnet_cli.data.store import Dataset

    console, space = Console(), Workspace(workspace)
    paths = [space.find_classifier(named) for named in (models or (None,))]
    dataset = Dataset.open(space.find("dataset", data))
    console.note(f"evaluating {', '.join(map(str, paths))} on the {split} images of {dataset.path}")
    classifiers = [evaluation.open_classifier(path, _device(device)) for path in paths]
    errors = evaluation.evaluate(classifiers, dataset, split, views=int(views), progress=console)
    console.close()
    if as_json:
        show_json(evaluation.as_json(errors, paths, dataset, split, int(views)))
    else:
        show_table(*evaluation.as_table(errors, paths, dataset, split, int(views)))
        show("Next: alexnet export")


@app.command()
def export(
    model: Annotated[str | None, typer.Argument(help="Name or path of a model; the newest if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file; model.onnx in the model's folder if none.")] = None,
    precision: Annotated[ExportPrecision, typer.Option(help="Of the weights and arithmetic.")] = ExportPrecision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file, checked in ONNX Runtime before it takes its name.

    Example: alexnet export photos-small-data --precision fp16 --out photos.onnx
    """
    from alexnet_cli.export import export_model, pictures_to_check

    console, space = Console(), Workspace(workspace)
    folder = space.find("model", model)
    console.note(f"exporting {folder}")
    pictures = pictures_to_check(space.all("dataset"), folder)
    done = export_model(folder, out, precision=precision.value, pictures=pictures, progress=console)
    if as_json:
        show_json(done.as_json())
    else:
        show(f"wrote {done.path}: {done.path.stat().st_size / 1e6:.0f} MB, {precision}")
        show(
            f"largest difference to the network on {done.pictures} pictures: "
            f"{done.probabilities_difference:.1e} in probabilities, {done.fc7_difference:.1e} in fc7"
        )
        show("Next: alexnet index")


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """The recipes that come with alexnet, and the lines in which each differs from `paper`.

    Example: alexnet recipes
    """
    from alexnet_cli.nets.summary import describe_recipes

    described = describe_recipes()
    if as_json:
        show_json(described)
        return
    for one in described:
        show(f"{one['name']}: {one['says']}  ({one['parameters']:,} parameters for 1000 classes)")
        for key, value in one["differs"].items():
            show(f"    {key} = {value}")


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A dataset, model, index or .onnx file: a name or a path.")],
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """What an artefact is and where it came from.

    Example: alexnet info models/photos-small-data
    """
    from alexnet_cli.describe import describe

    described = describe(Workspace(workspace), path)
    if as_json:
        show_json(described)
    else:
        show_table("", ["", str(path)], [[key, str(value)] for key, value in described.items()])


def _device(named: str | None) -> str:
    """The device asked for, or the GPU if there is one. Raises AlexNetError if there is no such device."""
    import torch

    if named is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError):
        raise AlexNetError(f"no device {named!r} here: try --device cpu") from None
    return named


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0 done, 1 an error (one line said what to do), 2 wrong usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        return int(app([word for word in given if word != "--debug"], standalone_mode=False) or 0)
    except typer.TyperException as error:
        fail(f"{error.format_message()} (see `alexnet --help`, or `--help` after a command)")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort, Interrupted) as error:
        fail(str(error) or "interrupted")
        return 130
    except Exception as error:
        if debug:
            raise
        fail(_one_line(error))
        return 1


def _one_line(error: Exception) -> str:
    if isinstance(error, AlexNetError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'}): free some space and run the command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    first = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {first} (run again with --debug for the traceback)"
