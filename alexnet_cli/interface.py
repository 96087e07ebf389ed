"""The Python interface: what `import alexnet_cli` offers, and what the commands call. See docs/python.md.

Paths are those of artefacts: the folder of a dataset, a model or an index, or an .onnx file.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet_cli.data.store import Dataset
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import AlexNetError
from alexnet_cli.opening import open_model
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace, path_of

if TYPE_CHECKING:
    import numpy as np

    from alexnet_cli.data.prepare import prepare
    from alexnet_cli.exporting.export import Export
    from alexnet_cli.inference.evaluation import Evaluation
    from alexnet_cli.inference.predictor import Predictor
    from alexnet_cli.model import Model
    from alexnet_cli.recipe import Recipe
    from alexnet_cli.retrieval.build import Built
    from alexnet_cli.retrieval.duplicates import Duplicates
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.searcher import Searcher
    from alexnet_cli.training.loggers import Logger

__all__ = [
    "build_index",
    "evaluate",
    "export",
    "find_duplicates",
    "open_dataset",
    "open_index",
    "open_model",
    "prepare",
    "resume",
    "train",
]


def __getattr__(name: str) -> object:
    if name == "prepare":  # imported here, since a search should not wait for what starts worker processes
        from alexnet_cli.data.prepare import prepare

        return prepare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_dataset(path: Path | str) -> Dataset:
    """The packed dataset in folder ``path``. Raises BadArtefact if it is missing, incomplete or damaged."""
    return Dataset.open(Path(path))


def open_index(
    path: Path | str,
    *,
    model: Path | str | None = None,
    workspace: Path | str | None = None,
    pictures: int | None = None,
    progress: Progress = SILENT,
) -> "Searcher":
    """The index in folder ``path``, ready to be searched with its own model.

    ``model``: where that model is; if None, where it was when the index was built, or in the ``workspace``, which by
    default is the one that the index lies in. ``pictures``: how many queries there will be, if that is known: for a
    few, ONNX Runtime starts sooner. Raises BadArtefact if the index is missing or damaged, WrongModel if its model is
    not there or ``model`` is another one.
    """
    from alexnet_cli.retrieval.index import Index
    from alexnet_cli.retrieval.searcher import Searcher, model_of

    with contextlib.ExitStack() as opened:
        index = Index.open(Path(path))
        opened.callback(index.close)
        space = Workspace(index.path.resolve().parent.parent if workspace is None else Path(workspace))
        chosen = model_of(index, space) if model is None else Path(model)
        progress.note(f"searching {index.path} ({counted(len(index), 'picture')}) with model {chosen}")
        _note_if_moved(index, progress)
        if unfinished := index.facts["unfinished"]:
            again = _update(index, "--model", chosen)
            progress.note(f"not in the index yet: {counted(unfinished, 'picture')}; to add: {again}")
        predictor = open_model(chosen, pictures=pictures, datasets=space.all("dataset"), progress=progress)
        searcher = Searcher(index, predictor)
        opened.pop_all()  # the searcher closes it
        return searcher


def train(
    dataset: Path | str,
    folder: Path | str,
    *,
    recipe: "Recipe | Path | str | None" = None,
    settings: Sequence[str] = (),
    epochs: int | None = None,
    seed: int = 0,
    start: "Model | Path | str | None" = None,
    devices: Sequence[str] | None = None,
    precision: str = "fp32",
    checkpoint_minutes: float = 10.0,
    loggers: Sequence["Logger"] = (),
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> "Model":
    """Train a network on ``dataset`` into the new ``folder``, and return the model, which is also saved there.

    ``recipe``: its name or file; if None, that of the model ``start`` that is fine-tuned, else by the dataset's size.
    ``settings``: "section.key=value" on top. ``devices``: one for the whole network, or one per column; if None, a GPU
    if there is one. ``precision``: fp32 or bf16. ``loggers``: what is told of the run after each epoch, such as
    `alexnet_cli.training.tensorboard.TensorBoard()`. Raises Resumable if the folder holds an unfinished run,
    BadArtefact if it holds a model, AlexNetError if another process is training into it, BadRecipe, Diverged at a loss
    that is not finite, Interrupted after Ctrl-C.
    """
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.model import Model
    from alexnet_cli.recipe import Recipe, adjust
    from alexnet_cli.training.runs import choose_recipe, start_run
    from alexnet_cli.training.trainer import Options

    tuned = start if start is None or isinstance(start, Model) else Model.load(Path(start))
    data = open_dataset(dataset)
    if isinstance(recipe, Recipe):
        recipe = adjust(recipe, [*settings, *([] if epochs is None else [f"training.epochs={epochs}"])])
    else:
        recipe = choose_recipe(recipe, data, settings, epochs=epochs, start=tuned, progress=progress)
    options = Options(
        devices=tuple(devices or (pick_device(None),)),
        world=world,
        precision=precision,
        checkpoint_minutes=checkpoint_minutes,
        loggers=tuple(loggers),
    )
    return start_run(data, recipe, Path(folder), seed=seed, start=tuned, options=options, progress=progress)


def resume(
    folder: Path | str,
    *,
    dataset: Path | str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    precision: str | None = None,
    devices: Sequence[str] | None = None,
    checkpoint_minutes: float = 10.0,
    loggers: Sequence["Logger"] = (),
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> "Model":
    """Resume the training run in ``folder`` with the settings it was started with, and return the model.

    On a CPU, with as many threads and processes as before, it ends with the very weights of a run that did not stop. On
    a GPU batches, augmentation, dropout and learning rates are the same, but a GPU adds in an order that varies: its
    weights are nearly those.

    ``dataset``: where its dataset is, if it has moved. ``epochs``: another number of epochs. ``loggers``: as of
    `train`. Raises BadArtefact if
    there is nothing to resume, BadRecipe if ``seed`` or ``precision`` are given and differ, and what `train` raises.
    """
    from alexnet_cli.inference.devices import pick_device
    from alexnet_cli.training.runs import resume_run
    from alexnet_cli.training.trainer import Options

    placed = tuple(devices or (pick_device(None),))
    return resume_run(
        Path(folder),
        dataset=None if dataset is None else Path(dataset),
        epochs=epochs,
        seed=seed,
        precision=precision,
        options=Options(devices=placed, world=world, checkpoint_minutes=checkpoint_minutes, loggers=tuple(loggers)),
        progress=progress,
    )


def evaluate(
    models: "Iterable[Predictor | Path | str] | Predictor | Path | str",
    dataset: Dataset | Path | str,
    split: str = "val",
    *,
    views: int | None = None,
    device: str | None = None,
    report: Path | str | None = None,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> "Evaluation":
    """Top-1 and top-5 error on a split of ``dataset`` over ``views`` (1 or 10) views of each image (§4.1).

    With None they are ten, or one if a model was trained on no mirrored images. The predictions of several ``models``
    are averaged. A folder's network runs in torch on ``device``, an .onnx file in ONNX Runtime. ``report``: a folder
    to write pages and tables of every image to. Raises BadArtefact if classes or image sizes differ, or if the split
    is missing; AlexNetError if there are no models, or if ``report`` is a folder with anything else in it.
    """
    from alexnet_cli.inference.evaluation import score
    from alexnet_cli.inference.predictor import Predictor
    from alexnet_cli.reporting.folder import check_free, write_report

    several = [models] if isinstance(models, str | Path | Predictor) else list(models)
    if not several:
        raise AlexNetError("no model to evaluate: name one or more")
    if report is not None:
        check_free(Path(report))
    predictors = [
        open_model(model, device=device, backend="torch") if isinstance(model, str | Path) else model
        for model in several
    ]
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    scores = score(predictors, data, split, views=views, progress=progress, world=world)
    if report is not None and world.is_main:
        names = [model.name for model in predictors]
        write_report(scores, data, split, Path(report), models=names, progress=progress)
    return scores.evaluation()


def export(
    model: Path | str,
    out: Path | str | None = None,
    *,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    datasets: Iterable[Path] = (),
    progress: Progress = SILENT,
) -> "Export":
    """Write the model in folder ``model`` as one ONNX file, `model.onnx` in its folder if ``out`` is None.

    ``datasets``: folders of datasets, one of which gives the pictures that the file is checked on, and for int8 the
    training pictures that the ranges of activations come from. Raises ExportMismatch, and writes nothing, if the file
    does not compute what the network computes; AlexNetError if int8 finds no dataset with the model's classes.
    """
    from alexnet_cli.exporting.export import export_model
    from alexnet_cli.exporting.pictures import pictures_to_calibrate, pictures_to_check

    folder, datasets = Path(model), list(datasets)
    pictures: np.ndarray | None
    calibration: np.ndarray | None = None
    if precision == "int8":
        calibration, pictures = pictures_to_calibrate(datasets, folder)
    else:
        pictures = pictures_to_check(datasets, folder)
    return export_model(
        folder,
        None if out is None else Path(out),
        precision=precision,
        pictures=pictures,
        calibration=calibration,
        progress=progress,
    )


def build_index(
    source: Path | str,
    folder: Path | str,
    *,
    model: Path | str,
    split: str | None = None,
    kind: str | None = None,
    uri: str | None = None,
    datasets: Iterable[Path] = (),
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> "Built":
    """Make the index in ``folder`` of all pictures of ``source`` (a folder, an archive or a dataset), or update it.

    ``split``: of a dataset, the one to index, or "all"; train if None. ``kind``: flat, sq8, ivfpq, hnsw, binary,
    autoencoder or milvus; by size if None. ``uri``: of Milvus, for that kind: "http://host:port" or a file, one in
    ``folder`` if None. ``datasets``: as in `export`, if ``model`` has no ONNX file yet. An index whose source
    is gone may be updated from another that has most of its pictures. Raises BadSource if no picture can be embedded,
    WrongModel or BadArtefact if the index in ``folder`` is of another model, source or split.
    """
    from alexnet_cli.retrieval import build
    from alexnet_cli.retrieval.collection import open_collection

    with world.main_first():  # rank 0 may have to export the model
        predictor = open_model(model, datasets=datasets, progress=progress)
    with contextlib.closing(open_collection(Path(source), Path(folder), split)) as collection:
        return build.build_index(
            collection,
            predictor,
            Path(folder),
            model_path=Path(model),
            kind=kind,
            uri=uri,
            progress=progress,
            world=world,
        )


def _update(index: "Index", *words: object) -> str:
    """The command that brings ``index`` up to date."""
    source, name = path_of(index.reachable_source), index.path.name
    return Workspace(index.path.parent.parent).command("index", source, "--out", name, *words)


def _note_if_moved(index: "Index", progress: Progress) -> None:
    if not index.source.exists():
        mend = Workspace(Path(".")).to_mend(index.path, index.source)
        progress.note(f"its pictures are not at {index.source} any more: if they have moved, run {mend}")


def find_duplicates(
    index: Path | str, max_distance: float | None = None, *, progress: Progress = SILENT
) -> "Duplicates":
    """Groups of pictures of the index in folder ``index`` that are nearly the same, whatever its kind.

    ``max_distance``: between the features of two such pictures; if None, a quarter of the median distance between two
    pictures of the index. Raises BadArtefact if the index is missing or damaged.
    """
    from alexnet_cli.retrieval.duplicates import find_duplicates as find
    from alexnet_cli.retrieval.index import Index

    with contextlib.closing(Index.open(Path(index))) as opened:
        progress.note(f"comparing {counted(len(opened), 'picture')} of {opened.path}")
        _note_if_moved(opened, progress)
        if unfinished := opened.facts["unfinished"]:
            progress.note(f"not in the index yet: {counted(unfinished, 'picture')}; to add: {_update(opened)}")
        found = find(opened, max_distance, progress)
        if found.gone:
            gone = (
                f"{counted(found.gone, 'picture')} of the groups {'is' if found.gone == 1 else 'are'} no longer there"
            )
            progress.note(f"{gone}; to bring the index up to date: {_update(opened)}")
        return found
