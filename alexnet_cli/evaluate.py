"""Top-1 and top-5 error over one or ten views (§4.1), of one model or the averaged predictions of several."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from alexnet_cli.artefacts import model_name
from alexnet_cli.data.preprocess import Crops, Preprocessor
from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.distributed import SINGLE_PROCESS, World
from alexnet_cli.errors import BadArtefact
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.published import TABLE2, are_of_table2

BATCH = 64  # pictures at a time


class Classifier(Protocol):
    """What evaluation needs of a model or its ONNX file."""

    classes: list[str]
    image_size: int
    crop: int

    def probabilities(self, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(B, classes) float32, of the view at pixel ``rows`` and ``columns`` (crop,) of ``images`` (B, S, S, 3)."""
        ...


class Network:
    """A network on its device as a Classifier."""

    def __init__(
        self, net: AlexNet, preprocessor: Preprocessor, classes: list[str], *, precision: str = "fp32"
    ) -> None:
        self.net, self.preprocessor, self.classes, self.precision = net, preprocessor, classes, precision
        self.image_size, self.crop = preprocessor.image.size, preprocessor.image.crop

    @classmethod
    def of(cls, model: Model, device: torch.device) -> "Network":
        keep_freed_memory()
        preprocessor = Preprocessor(model.recipe.image, model.mean_image, device)
        return cls(model.net.to(device).eval(), preprocessor, model.classes)

    def probabilities(self, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.outputs(images, rows, columns)[0]

    def features(self, images: np.ndarray) -> np.ndarray:
        """fc7 (B, D) float32 of the central view of ``images`` (B, S, S, 3) uint8."""
        return self.outputs(images, *centre_view(self.image_size, self.crop)[0])[1]

    @torch.inference_mode()
    def outputs(self, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (B, classes) and fc7 (B, D), float32, of a view of ``images`` (B, S, S, 3) uint8."""
        device, count = self.preprocessor.device, len(images)
        crops = Crops(
            rows=np.broadcast_to(rows, (count, len(rows))), columns=np.broadcast_to(columns, (count, len(columns)))
        )
        inputs = self.preprocessor.crop(torch.from_numpy(images).to(device), crops)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits, fc7 = self.net(inputs)
        return logits.float().softmax(dim=1).cpu().numpy(), fc7.float().cpu().numpy()


class OnnxFile:
    """An ONNX file in ONNX Runtime as a Classifier."""

    def __init__(self, runtime: OnnxModel) -> None:
        self.runtime, self.classes = runtime, runtime.classes
        self.image_size, self.crop = runtime.image_size, runtime.crop

    def probabilities(self, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        probabilities, _ = self.runtime.run(images, rows, columns)
        return probabilities


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors as fractions, with their 95 % intervals."""

    images: int
    top1: float
    top5: float
    top1_ci95: tuple[float, float]
    top5_ci95: tuple[float, float]


def evaluate(
    classifiers: Sequence[Classifier],
    dataset: Dataset,
    split: str = "val",
    *,
    views: int = 10,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> Errors:
    """Errors of the averaged softmax of ``classifiers`` over ``views`` (1 or 10) views of every image of the split.

    The processes of a ``world`` each take a part of the images, and all get the errors of all.

    Raises BadArtefact if a classifier's classes or picture size are not the dataset's, or the split is missing.
    """
    for classifier in classifiers:
        check_fit(classifier, dataset)
    images = dataset.split(split)
    top1, top5 = count_errors(classifiers, images, views=views, progress=progress, world=world)
    total = len(images)
    return Errors(
        images=total,
        top1=top1 / total,
        top5=top5 / total,
        top1_ci95=interval(top1, total),
        top5_ci95=interval(top5, total),
    )


def check_fit(classifier: Classifier, dataset: Dataset) -> None:
    """Raises BadArtefact if a classifier's classes or picture size are not the dataset's."""
    if classifier.classes != dataset.classes:
        raise BadArtefact(
            f"the model knows {len(classifier.classes)} classes ({', '.join(classifier.classes[:3])} ...), "
            f"dataset {dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])} ...): "
            "evaluate on a dataset with the model's classes"
        )
    if classifier.image_size != dataset.image_size:
        raise BadArtefact(
            f"the model takes pictures of {classifier.image_size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep it with --size {classifier.image_size}"
        )


def count_errors(
    classifiers: Sequence[Classifier],
    split: Split,
    *,
    views: int,
    progress: Progress = SILENT,
    world: World = SINGLE_PROCESS,
) -> tuple[int, int]:
    """How many images have their label not first, and not among the first five; every image counts once."""
    top1 = top5 = counted = 0
    mine = np.arange(len(split))[world.shard(len(split))]
    for start in range(0, len(mine), BATCH):
        positions = mine[start : start + BATCH]
        probabilities = predict(classifiers, split.read(positions), views=views)
        ranks = label_ranks(probabilities, split.labels[positions])
        top1, top5 = top1 + int((ranks >= 1).sum()), top5 + int((ranks >= 5).sum())
        counted += len(positions)
        progress.advance("evaluating", counted, len(mine), f"top-1 error {top1 / counted:.1%}")
    all_top1, all_top5, all_counted = world.all_reduce(top1, top5, counted)
    assert all_counted == len(split)
    return int(all_top1), int(all_top5)


def predict(classifiers: Sequence[Classifier], images: np.ndarray, *, views: int) -> np.ndarray:
    """Softmax outputs averaged over views and classifiers: (B, S, S, 3) uint8 to (B, classes) float64."""
    total: np.ndarray | float = 0.0
    for classifier in classifiers:
        for rows, columns in VIEWS[views](classifier.image_size, classifier.crop):
            total = total + classifier.probabilities(images, rows, columns).astype(np.float64)
    return np.asarray(total) / (len(classifiers) * views)


def label_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes are more probable than the true one; a tie counts against it. (B, classes), (B,) to (B,)."""
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return np.asarray((probabilities >= of_label).sum(axis=1) - 1)


View = tuple[np.ndarray, np.ndarray]  # pixel rows (crop,) and columns (crop,)


def centre_view(size: int, crop: int) -> list[View]:
    """The central crop."""
    return _views(size, crop, [((size - crop) // 2, (size - crop) // 2)], reflections=[False])


def ten_views(size: int, crop: int) -> list[View]:
    """Four corners and the centre, and their reflections (§4.1)."""
    end = size - crop
    corners = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    return _views(size, crop, corners, reflections=[False, True])


VIEWS: dict[int, Callable[[int, int], list[View]]] = {1: centre_view, 10: ten_views}


def _views(size: int, crop: int, corners: list[tuple[int, int]], reflections: list[bool]) -> list[View]:
    along = np.arange(crop)
    return [
        (top + along, left + (along[::-1] if reflected else along))
        for reflected in reflections
        for top, left in corners
    ]


def interval(errors: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    z, p = 1.959963984540054, errors / total
    middle, spread = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    return (max(0.0, (middle - spread) / (1 + z * z / total)), min(1.0, (middle + spread) / (1 + z * z / total)))


Table = tuple[str, list[str], list[list[str]], str]  # title, columns, rows, note


def as_json(errors: Errors, paths: Sequence[Path], dataset: Dataset, split: str, views: int) -> dict[str, object]:
    """What `alexnet eval --json` prints; errors are fractions."""
    return {
        "models": [name_of(path) for path in paths],
        "dataset": dataset.name,
        "split": split,
        "views": views,
        "images": errors.images,
        "top1_error": errors.top1,
        "top5_error": errors.top5,
        "top1_error_ci95": list(errors.top1_ci95),
        "top5_error_ci95": list(errors.top5_ci95),
    }


def as_table(errors: Errors, paths: Sequence[Path], dataset: Dataset, split: str, views: int) -> Table:
    """Our measured row; over ten views of ILSVRC's validation images the paper's published rows above it."""
    ilsvrc = views == 10 and are_of_table2(dataset, split)
    ours = [
        " + ".join(name_of(path) for path in paths) + (" (measured here)" if ilsvrc else ""),
        *(
            f"{100 * error:.1f}  ({100 * low:.1f}-{100 * high:.1f})"
            for error, (low, high) in ((errors.top1, errors.top1_ci95), (errors.top5, errors.top5_ci95))
        ),
    ]
    title = f"{dataset.name}, {split}: {errors.images:,} images, {views} view{'s' if views > 1 else ''}"
    columns = ["model", "top-1 error, %  (95 % interval)", "top-5 error, %  (95 % interval)"]
    note = "published: table 2 of the paper, ILSVRC-2012 validation images, ten views" if ilsvrc else ""
    published = [[f"{row.name} (published)", row.top1, row.top5] for row in TABLE2 if row.top1 != "–"]
    return title, columns, [*(published if ilsvrc else []), ours], note


def name_of(path: Path) -> str:
    """A model by its folder, an ONNX file by its own name too."""
    return f"{path.resolve().parent.name}/{path.name}" if path.suffix == ".onnx" else model_name(path)


def open_classifier(path: Path, device: str) -> Classifier:
    """A model's folder, or an ONNX file, as a Classifier. Raises BadArtefact."""
    if path.suffix == ".onnx":
        return OnnxFile(OnnxModel.open(path))
    return Network.of(Model.load(path), torch.device(device))
