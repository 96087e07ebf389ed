"""The runners-up of tables 1 and 2: hand-made features with a linear classifier, on the pictures of the network."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.distributed import available_cores
from alexnet_cli.errors import AlexNetError
from alexnet_cli.experiments.encoding import Encoder
from alexnet_cli.experiments.fisher_vectors import FisherVectors
from alexnet_cli.experiments.published import TABLE1, TABLE2
from alexnet_cli.experiments.report import Report, measured_once, percent
from alexnet_cli.experiments.sparse_coding import SparseCoding
from alexnet_cli.inference.evaluation import Evaluation, label_ranks
from alexnet_cli.memory import peak_memory, reset_peak_memory
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.wording import counted, duration

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

METHODS: dict[str, type[Encoder]] = {"Sparse coding": SparseCoding, "SIFT + FVs": FisherVectors}
SAMPLED_PICTURES, SAMPLE = 2000, 100_000  # the most training pictures, and descriptors of them, that encoders see
HELD_OUT = 5  # every fifth training picture of a class chooses C
CS, ITERATIONS = (1, 10, 100, 1000), 500  # of the linear classifier: values of C, and the most steps of L-BFGS
BATCH = 64  # pictures that are read and encoded at a time
COLUMNS = ["method", "top-1 error, %", "top-5 error, %", "values a picture", "time", "processor time", "peak memory"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A method fitted to training pictures."""

    encoder: Encoder
    classifier: "LogisticRegression"
    C: float  # the best of CS
    error_of: dict[float, float]  # C -> top-1 error of the held-out training pictures, of a fit to the others

    def scores(self, split: Split, progress: Progress = SILENT) -> np.ndarray:
        """A score for each class, (N, classes) float64, of each picture of ``split``."""
        rows = encode(self.encoder, split, np.arange(len(split)), "encoding the test pictures", progress)
        return scores(self.classifier, rows)


def baselines(dataset: Dataset, folder: Path, command: str, *, progress: Progress = SILENT) -> Report:
    """Fit each of METHODS to the training pictures, and count its errors on those of validation, or of test if there
    are none.

    A method that ``folder`` already has is not repeated. Raises AlexNetError if a library is missing or the training
    pictures are too few, and BadArtefact if there is nothing to test on.
    """
    check_libraries()
    test = "test" if "test" in dataset.counts and "val" not in dataset.counts else "val"
    dataset.split(test)  # raises before the fitting, not after it
    measured: dict[str, dict[str, Any]] = {}
    for name, method in METHODS.items():
        measured[name] = _measured(name, method, dataset, test, folder, progress)
        report = _report(measured, dataset, test, command)
        report.write(folder, {})
    return report


def check_libraries() -> None:
    """Raises AlexNetError if the extra `baselines` is not installed."""
    if any(find_spec(library) is None for library in ("cv2", "skimage")):
        raise AlexNetError(
            "alexnet reproduce baselines needs OpenCV and scikit-image: pip install 'alexnet-cli[baselines]'"
        )


def fit(method: type[Encoder], train: Split, classes: list[str], progress: Progress = SILENT) -> Baseline:
    """Fit a method to the pictures of ``train``, whose labels are positions in ``classes``.

    Raises AlexNetError if they are too few.
    """
    kept, held_out = divide(train, classes)
    progress.note(f"fitting the encoder to patches of {counted(min(len(train), SAMPLED_PICTURES), 'training picture')}")
    encoder = method.fit(sample(method, train))
    order = np.concatenate([kept, held_out])  # so that the kept are a part of the array, not a copy
    rows, labels = encode(encoder, train, order, "encoding the training pictures", progress), train.labels[order]
    progress.note(f"{counted(len(rows), 'picture')} of {rows.shape[1]:,} values, {rows.nbytes / 1e6:,.0f} MB")
    error_of: dict[float, float] = {}
    for C in CS:
        classifier = fit_linear(rows[: len(kept)], labels[: len(kept)], C)
        ranks = label_ranks(scores(classifier, rows[len(kept) :]), labels[len(kept) :])
        error_of[C] = float((ranks >= 1).mean())
        progress.note(f"C = {C:g}: error of the held-out training pictures {error_of[C]:.1%}")
    best = min(CS, key=lambda C: error_of[C])
    return Baseline(encoder=encoder, classifier=fit_linear(rows, labels, best), C=best, error_of=error_of)


def divide(train: Split, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``train``: all but every HELD_OUT-th picture of each class, and those.

    Raises AlexNetError if a class has fewer pictures, or if there is only one class.
    """
    if len(classes) < 2:
        raise AlexNetError("the dataset has one class: a classifier needs pictures of two")
    of_class = [np.flatnonzero(train.labels == label) for label in range(len(classes))]
    for name, positions in zip(classes, of_class, strict=True):
        if len(positions) < HELD_OUT:
            raise AlexNetError(
                f"class {name} has {counted(len(positions), 'training picture')}: give each {HELD_OUT} or more, since "
                "one in so many chooses C, the classifier's inverse regularization"
            )
    held_out = np.sort(np.concatenate([positions[HELD_OUT - 1 :: HELD_OUT] for positions in of_class]))
    return np.setdiff1d(np.arange(len(train)), held_out), held_out


def sample(method: type[Encoder], train: Split) -> np.ndarray:
    """At most about SAMPLE descriptors, (M, D) float32, of at most SAMPLED_PICTURES pictures of ``train``, by chance.

    Raises AlexNetError if they are fewer than the method needs.
    """
    pictures = np.random.default_rng(0).permutation(len(train))[:SAMPLED_PICTURES]
    each = -(-SAMPLE // len(pictures))

    def chosen(image: np.ndarray, position: int) -> np.ndarray:
        values = method.describe(image).values
        return values[np.random.default_rng((0, position)).permutation(len(values))[:each]]

    found = np.concatenate([part for _, part in _each(chosen, train, pictures)])
    if len(found) < method.min_descriptors:
        raise AlexNetError(
            f"{counted(len(train), 'training picture')} of {train.size} pixels have {len(found):,} patches, "
            f"{method.__name__} needs {method.min_descriptors:,}: prep more pictures, or larger ones"
        )
    return found


def encode(encoder: Encoder, split: Split, positions: np.ndarray, task: str, progress: Progress) -> np.ndarray:
    """The vectors of the pictures at ``positions`` in ``split``, (N, W) float32."""
    rows: np.ndarray | None = None
    vectors = _each(lambda image, _: encoder.encode(encoder.describe(image)), split, positions)
    for done, vector in vectors:
        if rows is None:
            rows = np.empty((len(positions), len(vector)), np.float32)
        rows[done] = vector
        progress.advance(task, done + 1, len(positions))
    assert rows is not None  # a split has pictures
    return rows


def _each(
    work: Callable[[np.ndarray, int], np.ndarray], split: Split, positions: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """``work`` on the image and position of each picture, on all cores: its number in ``positions``, and the result."""
    from threadpoolctl import threadpool_limits

    # Threads are enough: OpenCV and NumPy let go of Python's lock. Each computes on one core of its own.
    with threadpool_limits(1), ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(positions), BATCH):
            batch = positions[start : start + BATCH]
            yield from enumerate(pool.map(work, split.read(batch), batch.tolist()), start)


def fit_linear(rows: np.ndarray, labels: np.ndarray, C: float) -> "LogisticRegression":
    """Logistic regression; ``C`` is the inverse of the regularization strength, as in scikit-learn.

    The published methods have support vector machines by stochastic gradient descent, whose rate and epochs would have
    to be chosen as well.
    """
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=ITERATIONS).fit(rows, labels)


def scores(classifier: "LogisticRegression", rows: np.ndarray) -> np.ndarray:
    """The score of each class for each of ``rows``, (N, classes)."""
    found = classifier.decision_function(rows)
    return np.stack([-found, found], axis=1) if found.ndim == 1 else found  # of two classes it gives the second's


def _measured(
    name: str, method: type[Encoder], dataset: Dataset, test: str, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Errors, time and memory of one method."""
    inputs = {"dataset": dataset.fingerprint, "split": test, "method": name}

    def measure() -> dict[str, Any]:
        progress.note(f"measuring {name}: {method.settings}")
        reset_peak_memory()
        began, processor = time.monotonic(), time.process_time()
        fitted, images = fit(method, dataset.split("train"), dataset.classes, progress), dataset.split(test)
        ranks = label_ranks(fitted.scores(images, progress), images.labels)
        return inputs | {
            "settings": method.settings,
            "C": fitted.C,
            "held_out_errors": {f"{C:g}": error for C, error in fitted.error_of.items()},
            "values": fitted.classifier.coef_.shape[1],
            "seconds": time.monotonic() - began,
            "processor_seconds": time.process_time() - processor,
            "cores": available_cores(),
            "peak_memory": peak_memory(),
            **asdict(Evaluation.of(ranks)),
        }

    used = {space["__name__"]: constants(space) for space in (globals(), *method.namespaces)}
    return measured_once(folder, inputs | {"constants": used}, measure)


def constants(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of a module that are numbers, or tuples of numbers."""
    return {
        name: value
        for name, value in namespace.items()
        if name.isupper() and all(type(one) in (int, float) for one in (value if type(value) is tuple else [value]))
    }


def _report(measured: dict[str, dict[str, Any]], dataset: Dataset, test: str, command: str) -> Report:
    rows = [[f"{one.name} (published, table 1)", one.top1, one.top5, *[""] * 4] for one in TABLE1 if not one.views]
    rows += [
        [f"{one.name} (published, table 2)", one.top1, f"{one.test} (test images)", *[""] * 4]
        for one in TABLE2
        if not one.views
    ]
    for name, facts in measured.items():
        memory = facts["peak_memory"]
        rows.append(
            [
                f"{name} (measured here)",
                percent(facts, "top1"),
                percent(facts, "top5"),
                f"{facts['values']:,}",
                duration(facts["seconds"]),
                duration(facts["processor_seconds"]),
                "" if memory is None else f"{memory / 1e9:.1f} GB",
            ]
        )
    settings = " ".join(f"{name}: {facts['settings']}." for name, facts in measured.items())
    cores = {name: counted(facts["cores"], "core") for name, facts in measured.items()}
    are_alike = len(set(cores.values())) == 1
    machines = next(iter(cores.values())) if are_alike else " and ".join(f"{on} ({name})" for name, on in cores.items())
    note = (
        f"Measured on the {dataset.counts[test]:,} {test} images of dataset {dataset.name}, with 95 % intervals, after "
        f"fitting to its {dataset.counts['train']:,} training images. These are other images than the published rows', "
        "and each of ours is one kind of feature with a logistic regression: the published ones average six models of "
        "sparse codes, and two or more of Fisher vectors. "
        f"{settings} C of the regression was chosen on every fifth training image; the other settings on "
        f"700 training images of Imagenette. Time is from packed images to errors, on {machines}."
    )
    return Report(
        name="baselines",
        title=f"The runners-up on {dataset.name}",
        columns=COLUMNS,
        rows=rows,
        note=note,
        command=command,
        facts=measured,
    )
