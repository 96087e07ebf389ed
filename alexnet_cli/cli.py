"""The commands: parse, call the library, show. Heavy libraries are imported inside the command using them."""

import contextlib
import errno
import shlex
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli.console import Console, fail, show, show_json, show_table
from alexnet_cli.errors import AlexNetError, BadArtefact, BadRecipe, Interrupted, first_line
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alexnet_cli.distributed import World
    from alexnet_cli.inference.onnx_model import OnnxModel
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.search import Answer

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
    int8 = "int8"


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
    devices: Annotated[
        str | None, typer.Option(help="A device for each column, as in 2012: cuda:0,cuda:1 or cpu,cpu.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="2: --devices cuda:0,cuda:1.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the network's arithmetic; fp32 if none.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    start: Annotated[str | None, typer.Option("--from", help="Fine-tune this model: all layers but the last.")] = None,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints within an epoch.")] = 10,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train a network by the paper's rules; stop it at any time, go on with --resume.

    Started by torchrun, its processes share each batch: the recipe's batch and learning rate stay what they are.

    Example: alexnet train photos --recipe small-data --precision bf16
    """
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.model import Model
    from alexnet_cli.training import runs
    from alexnet_cli.training.trainer import Options

    space, placed = Workspace(workspace), _devices(device, devices, gpus)
    home = space.home("model")
    folder = None if out is None else home / out if Path(out).name == out else Path(out)
    with _together(placed[0]) as (world, console):
        options = Options(
            devices=placed, world=world, precision=precision or "fp32", checkpoint_minutes=checkpoint_minutes
        )
        if resume:
            for option, given in {"--recipe": recipe, "--set": settings, "--from": start}.items():
                if given:
                    raise BadRecipe(f"{option} cannot change a run that is resumed: leave it out, or start another run")
            folder = folder or runs.newest_unfinished(home)
            named = None if dataset is None else space.find("dataset", dataset)
            model = runs.resume_run(
                folder,
                dataset=named,
                seed=seed,
                epochs=epochs,
                precision=precision,
                options=options,
                progress=console,
            )
        else:
            data = Dataset.open(space.find("dataset", dataset))
            tuned = None if start is None else Model.load(space.find("model", start))
            chosen = runs.choose_recipe(recipe, settings or [], epochs=epochs, start=tuned)
            folder = folder or runs.new_folder(home, f"{data.name}-{chosen.name}", console)
            model = runs.start_run(data, chosen, folder, seed=seed or 0, start=tuned, options=options, progress=console)
        result = runs.run_facts(folder, model)
    if not world.is_main:
        return
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
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.inference import evaluation
    from alexnet_cli.inference.report import evaluation_json, evaluation_table
    from alexnet_cli.opening import open_model

    space, place = Workspace(workspace), _device(device)
    paths = [space.find_classifier(named) for named in (models or (None,))]
    dataset = Dataset.open(space.find("dataset", data))
    with _together(place) as (world, console):
        console.note(f"evaluating {', '.join(map(str, paths))} on the {split} images of {dataset.path}")
        opened = [open_model(path, device=device, backend="torch", progress=console) for path in paths]
        errors = evaluation.evaluate(opened, dataset, split, views=int(views), progress=console, world=world)
    if not world.is_main:
        return
    if as_json:
        show_json(evaluation_json(errors, paths, dataset, split, int(views)))
    else:
        show_table(*evaluation_table(errors, paths, dataset, split, int(views)))
        show("Next: alexnet export")


@app.command()
def export(
    model: Annotated[str | None, typer.Argument(help="Name or path of a model; the newest if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file; model.onnx in the model's folder if none.")] = None,
    precision: Annotated[ExportPrecision, typer.Option(help="fp16 is for GPUs, int8 for CPUs.")] = ExportPrecision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file, checked in ONNX Runtime before it takes its name.

    Example: alexnet export photos-small-data --precision fp16 --out photos.onnx
    """
    from alexnet_cli.exporting.export import export_model
    from alexnet_cli.exporting.pictures import pictures_to_calibrate, pictures_to_check

    console, space = Console(), Workspace(workspace)
    folder = space.find("model", model)
    console.note(f"exporting {folder}")
    datasets = space.all("dataset")
    done = export_model(
        folder,
        out,
        precision=precision.value,
        pictures=pictures_to_check(datasets, folder),
        calibration=pictures_to_calibrate(datasets, folder) if precision == "int8" else None,
        progress=console,
    )
    if as_json:
        show_json(done.as_json())
    else:
        show(f"wrote {done.path}: {done.path.stat().st_size / 1e6:.0f} MB, {precision}")
        show(
            f"largest difference to the network on {done.pictures} pictures: "
            f"{done.probabilities_difference:.1e} in probabilities, {done.features_difference:.1e} in fc7"
        )
        show("Next: alexnet index")


class OnBad(StrEnum):
    skip = "skip"
    stop = "stop"


ModelOption = Annotated[str | None, typer.Option(help="A model or .onnx file; the newest model if none.")]


@app.command()
def prep(
    source: Annotated[Path, typer.Argument(help="A folder, .zip or .tar of pictures in class folders; see README.")],
    dataset: Annotated[str | None, typer.Argument(help="Name of the dataset; that of SOURCE if none.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if none.")] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help="Share of each class's training pictures to validate on, instead of SOURCE's own val/."
        ),
    ] = None,
    on_bad: Annotated[OnBad, typer.Option(help="What to do at a picture that cannot be read.")] = OnBad.skip,
    size: Annotated[int, typer.Option(min=8, help="Side of the packed pictures, in pixels.")] = 256,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Pack pictures into a dataset: 256×256 RGB, mean image and colour PCA. Stopped, it goes on where it was.

    Started by torchrun, on one machine or on several that share a disk, its processes each pack a part.

    Example: alexnet prep photos/
    """
    from alexnet_cli.data.prepare import dataset_name, prepare

    space = Workspace(workspace)
    folder = space.home("dataset") / dataset_name(source, dataset)
    with _together() as (world, console):
        made = prepare(
            source,
            folder,
            size=size,
            workers=workers,
            val_fraction=val_fraction,
            on_bad=on_bad.value,
            progress=console,
            world=world,
        )
    if not world.is_main:
        return
    if as_json:
        show_json(made.as_json())
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in made.dataset.counts.items())
    show(f"packed {folder}: {splits} pictures, {len(made.dataset.classes):,} classes, {made.rejected:,} rejected")
    if made.rejected:
        show(f"what was rejected, and why: {folder / 'rejected.csv'}")
    show("Next: alexnet train")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures of any kind Pillow reads.")],
    model: ModelOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """The five most probable classes of each picture.

    Example: alexnet predict image.jpg
    """
    from alexnet_cli.artefacts import model_name

    console, space = Console(), Workspace(workspace)
    path = space.find_classifier(model)
    found = _runtime(space, path, console, pictures=len(images)).predict(images)
    if as_json:
        predictions = [
            {"path": str(image), "classes": [{"label": one.label, "probability": one.probability} for one in best]}
            for image, best in zip(images, found, strict=True)
        ]
        show_json({"model": model_name(path), "predictions": predictions})
        return
    rows = [
        [str(image) if i == 0 else "", one.label, f"{100 * one.probability:.1f} %"]
        for image, best in zip(images, found, strict=True)
        for i, one in enumerate(best)
    ]
    show_table("", ["picture", "class", "probability"], rows)


@app.command()
def index(
    images: Annotated[
        str | None, typer.Argument(help="A folder, an archive or a dataset; the newest dataset's training pictures.")
    ] = None,
    model: ModelOption = None,
    out: Annotated[str | None, typer.Option(help="Name of the index; that of IMAGES if none.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="flat, which is exact; sq8, ivfpq, hnsw, binary; by size if none.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make or update an index of pictures: fc7 of each. Run again, it embeds only what is new and drops what is gone.

    Started by torchrun, on one machine or on several that share a disk, its processes each embed a part.

    Example: alexnet index photos/
    """
    from alexnet_cli.artefacts import model_name
    from alexnet_cli.retrieval.build import build
    from alexnet_cli.retrieval.collection import index_name, open_collection

    space = Workspace(workspace)
    source, path = space.find_pictures(images), space.find_classifier(model)
    folder = space.home("index") / (out or index_name(source))
    with _together() as (world, console):
        console.note(f"indexing {source} into {folder} with model {path}")
        with world.main_first():  # who may have to export the model
            runtime = _runtime(space, path, console)
        built = build(open_collection(source), runtime, folder, model=path, kind=kind, progress=console, world=world)
        for name, reason in built.refused:
            console.note(f"refused {name}: {reason}")
    if not world.is_main:
        return
    if as_json:
        show_json(built.as_json(folder.name, model_name(path)))
    else:
        show(
            f"index {folder}: {built.images:,} pictures "
            f"({built.added:,} added, {built.kept:,} kept, {built.removed:,} removed, {len(built.refused):,} refused)"
        )
        show("Next: alexnet search IMAGE")


@app.command()
def search(
    images: Annotated[list[Path], typer.Argument(help="Pictures of any kind Pillow reads.")],
    index: Annotated[str | None, typer.Option("--index", help="Name or path; the newest index if none.")] = None,
    model: Annotated[str | None, typer.Option(help="A model or .onnx file; the index's own if none.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet, a PNG.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with thumbnails.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """The pictures of an index that are most similar to each picture, by the distance of their fc7.

    Example: alexnet search image.jpg
    """
    from alexnet_cli.artefacts import model_name
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.search import model_of
    from alexnet_cli.retrieval.search import search as find

    console, space = Console(), Workspace(workspace)
    asked = Index.open(space.find("index", index))
    path = model_of(asked, space) if model is None else space.find_classifier(model)
    console.note(f"searching {asked.path} ({len(asked):,} pictures) with model {path}")
    if asked.facts["unfinished"]:
        console.note(f"{asked.facts['unfinished']:,} pictures are not in the index yet: run `alexnet index` again")
    answers = find(asked, _runtime(space, path, console, pictures=len(images)), images, k)
    if sheet or page:
        _draw(answers, asked, sheet, page, model_name(path), console)
    if as_json:
        queries = [answer.as_json() for answer in answers]
        show_json({"index": asked.path.name, "model": model_name(path), "queries": queries})
        return
    for answer in answers:
        rows = [[str(n.rank), n.label or "", f"{n.distance:.2f}", n.path] for n in answer.neighbours]
        show_table(f"nearest to {answer.path}", ["", "class", "distance", "picture"], rows)


def _draw(
    answers: "list[Answer]", asked: "Index", sheet: Path | None, page: Path | None, model: str, console: Console
) -> None:
    from alexnet_cli.figures.page import write_page
    from alexnet_cli.figures.sheet import draw_sheet, thumbnails
    from alexnet_cli.retrieval.collection import open_collection

    try:
        pictures = open_collection(asked.source)
    except AlexNetError:
        pictures = None  # moved since: the distances are still right
    rows = thumbnails(answers, pictures, asked.facts["image_size"])
    if sheet:
        draw_sheet(answers, rows, sheet)
        console.note(f"wrote {sheet}")
    if page:
        write_page(answers, rows, page, index=asked.path.name, model=model)
        console.note(f"wrote {page}")


def _given(context: typer.Context) -> set[str]:
    """The options that stand in the command line."""
    sources = {param.opts[0]: context.get_parameter_source(str(param.name)) for param in context.command.params}
    return {
        name for name, source in sources.items() if name.startswith("--") and source and source.name == "COMMANDLINE"
    }


@contextlib.contextmanager
def _together(device: str = "cpu") -> "Iterator[tuple[World, Progress]]":
    """The processes of this run, as torchrun started them, and what tells the user: of the first alone."""
    from alexnet_cli.distributed import process_group

    with process_group(device) as world, contextlib.closing(Console() if world.is_main else SILENT) as console:
        yield world, console


def _runtime(space: Workspace, path: Path, console: Progress, pictures: int | None = None) -> "OnnxModel":
    """The model at ``path`` in ONNX Runtime; one that has no ONNX file yet, or an old one, is exported first."""
    from alexnet_cli.artefacts import model_fingerprint
    from alexnet_cli.inference.onnx_model import OnnxModel

    if path.suffix == ".onnx":
        return OnnxModel.open(path, pictures=pictures, progress=console)
    file = path / "model.onnx"
    if file.exists():
        runtime = OnnxModel.open(file, pictures=pictures, progress=console)
        if runtime.fingerprint == model_fingerprint(path):
            return runtime
    from alexnet_cli.exporting.export import export_model
    from alexnet_cli.exporting.pictures import pictures_to_check

    console.note(f"exporting {path} first")
    export_model(path, pictures=pictures_to_check(space.all("dataset"), path), progress=console)
    return OnnxModel.open(file, pictures=pictures, progress=console)


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """The recipes that come with alexnet, and the lines in which each differs from `paper`.

    Example: alexnet recipes
    """
    from alexnet_cli import recipe

    described = recipe.summaries()
    if as_json:
        show_json(described)
        return
    for one in described:
        show(f"{one['name']}: {one['description']}  ({one['parameters']:,} parameters for 1000 classes)")
        if one["published"]:
            show(f"    published: {recipe.published_line(one['published'])}")
        for key, value in one["differs"].items():
            show(f"    {key} = {value}")


class Experiment(StrEnum):
    figure_1 = "figure-1"
    figure_3 = "figure-3"
    figure_4 = "figure-4"
    table_1 = "table-1"
    table_2 = "table-2"
    ablations = "ablations"


@app.command()
def reproduce(
    context: typer.Context,
    name: Annotated[Experiment, typer.Argument(help="The experiment.")],
    data: Annotated[str | None, typer.Option(help="Name or path of a dataset; the newest if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the result; reproduced/NAME if none.")] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="figures 3, 4, tables: trained models; the newest if none.")
    ] = None,
    pretrained: Annotated[
        list[str] | None, typer.Option(help="table-2: models that were pre-trained on more classes.")
    ] = None,
    recipes: Annotated[list[str] | None, typer.Option("--recipe", help="ablations: which; all if none.")] = None,
    base: Annotated[str, typer.Option(help="ablations: what this recipe changes of `paper`, all have.")] = "paper",
    width: Annotated[float, typer.Option(min=0.01, max=1, help="ablations: of every layer.")] = 1.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value on top of every recipe; repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipes'.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each net.")] = 3,
    device: DeviceOption = None,
    precision: Annotated[Precision, typer.Option(help="Of the network's arithmetic.")] = Precision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run one of the paper's experiments, from data to table and figure; stopped, the same command goes on.

    figure-1 and ablations train; figures 3 and 4 and the tables look at models that are trained.

    Example: alexnet reproduce figure-1 --data cifar10
    """
    from alexnet_cli.experiments import reproduction
    from alexnet_cli.training.trainer import Options

    console, space = Console(), Workspace(workspace)
    asked = reproduction.Request(
        data=data,
        models=models or [],
        pretrained=pretrained or [],
        recipes=recipes or [],
        base=base,
        width=width,
        settings=settings or [],
        epochs=epochs,
        seeds=seeds,
        options=Options(devices=(_device(device),), precision=precision.value),
        command=shlex.join(["alexnet", *sys.argv[1:]]),
    )
    experiment = reproduction.EXPERIMENTS[name.value]
    experiment.check(name.value, _given(context) - {"--out", "--workspace", "--json"}, asked)
    folder = out or workspace / "reproduced" / name.value
    console.note(f"reproducing {name.value} into {folder}")
    with contextlib.closing(console):
        report = experiment.run(space, asked, folder, console)
    if as_json:
        show_json({"experiment": report.name, "folder": str(folder), "rows": report.rows, "facts": report.facts})
    else:
        show_table(report.title, report.columns, report.rows, report.note)
        show(f"Written to {folder}: {', '.join(['table.md', 'table.json', 'recipes/', *report.figures])}")


@app.command(name="import")
def import_weights(
    source: Annotated[str, typer.Argument(help="A .pth, .safetensors, .caffemodel or .onnx file, or: torchvision.")],
    out: Annotated[str | None, typer.Option(help="Name of the model; that of SOURCE if none.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="A dataset, or a text file with a class a line; ImageNet's if there are 1000.")
    ] = None,
    mean: Annotated[Path | None, typer.Option(help="A .binaryproto mean image; the mean colour if none.")] = None,
    recipe: Annotated[str | None, typer.Option(help="caffenet or caffe-alexnet, if the file does not tell.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a model of weights from elsewhere: torchvision's AlexNet, Caffe's AlexNet and CaffeNet, the ONNX zoo's.

    Example: alexnet import bvlc_alexnet.caffemodel --classes ilsvrc
    """
    from alexnet_cli.data.store import Dataset
    from alexnet_cli.importing import import_model, read_classes
    from alexnet_cli.nets.alexnet import parameter_count

    console, space = Console(), Workspace(workspace)
    folder = space.home("model") / (out or Path(source).stem)
    if folder.exists():
        raise BadArtefact(f"{folder} exists: choose another name with --out")
    named = None
    if classes is not None:
        is_file = Path(classes).is_file()
        named = read_classes(Path(classes)) if is_file else Dataset.open(space.find("dataset", classes)).classes
    console.note(f"importing {source} into {folder}")
    model = import_model(source, recipe=recipe, classes=named, mean=mean)
    model.save(folder)
    parameters = parameter_count(model.net)
    if as_json:
        facts = {"model": folder.name, "path": str(folder), "recipe": model.recipe.name, "parameters": parameters}
        show_json(facts | {"classes": len(model.classes), "fingerprint": model.fingerprint})
    else:
        show(
            f"imported {folder}: recipe {model.recipe.name}, {parameters:,} parameters, {len(model.classes):,} classes"
        )
        show(f"Next: alexnet export {folder.name}")


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
        show_table("", ["", str(path)], [[key, _in_short(value)] for key, value in described.items()])


def _in_short(value: object) -> str:
    """A value in a table's cell: of a long list, the first few."""
    if isinstance(value, list):
        first = ", ".join(map(str, value[:10]))
        return first if len(value) <= 10 else f"{first} ... ({len(value):,})"
    return str(value)


@app.command()
def demo(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="The folder for pictures, dataset, model and index.")
    ] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """The whole chain, prep to search, on photographs that come with scikit-image; a minute or two.

    Each photograph is a class, random views of it its pictures. Run again, it goes on with what is there.

    Example: alexnet demo --workspace demo
    """
    from alexnet_cli.demo import demonstrate

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        done = demonstrate(workspace, lambda words: app(words, standalone_mode=False))
    if as_json:
        show_json(done)
        return
    show(f"\ntop-1 error {done['top1_error']:.1%} of {done['images']} views; by chance {done['chance']:.1%}")
    show("Trained and validated on views of the same photographs: this shows the chain, not generalization.")
    show(f"Look at {done['sheet']}, {done['page']} and {done['curves']}")


def _devices(device: str | None, devices: str | None, gpus: int | None) -> tuple[str, ...]:
    """One device, or one for each column. Raises AlexNetError if one is not here."""
    if sum(given is not None for given in (device, devices, gpus)) > 1:
        raise typer.BadParameter("give one of --device, --devices and --gpus")
    if gpus is not None:
        from alexnet_cli.distributed import local_rank

        return tuple(_device(f"cuda:{local_rank() * gpus + i}") for i in range(gpus))
    return tuple(_device(named) for named in devices.split(",")) if devices else (_device(device),)


def _device(named: str | None) -> str:
    """The device asked for, or the GPU if there is one. Raises AlexNetError if there is no such device."""
    import torch

    from alexnet_cli.distributed import local_rank

    if named is None:
        return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError):
        raise AlexNetError(f"no device {named!r} here: try --device cpu") from None
    return named


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0 done, 1 an error (one line said what to do), 2 wrong usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # asked to end: as by Ctrl-C
    try:
        code = int(app([word for word in given if word != "--debug"], standalone_mode=False) or 0)
        if code == 130:  # typer's answer to Ctrl-C, given without a word
            raise KeyboardInterrupt
        return code
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


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    if isinstance(error, AlexNetError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'}): free some space and run the command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {first_line(error)} (run again with --debug for the traceback)"
