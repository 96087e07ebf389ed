"""The interface that everything above inference uses: pictures in, class probabilities and features out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import AlexNetError, BadPicture, NotFinite
from alexnet_cli.inference.views import View
from alexnet_cli.inference.views import views as views_of
from alexnet_cli.prefetch import batched, prefetch
from alexnet_cli.wordnet import class_names

BATCH = 64  # images per forward pass: bounds memory

Picture = str | Path | bytes | np.ndarray  # a path, the content of a file, or pixels (S, S, 3) uint8 RGB
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """A class and its probability."""

    label: str
    name: str  # what people read: words where the label is a WordNet id, else the label
    probability: float  # 0 to 1


class Predictor(ABC):
    """A trained network that is ready for inference. Its methods may be called from several threads at once."""

    name: str  # of the model
    classes: list[str]  # labels, in the order of the probabilities
    words: Mapping[str, str] = {}  # class -> its meaning, if the source of the model's dataset has that
    image_size: int  # S, in pixels
    crop: int  # side of a view, in pixels
    feature_size: int  # D; 4096 for the paper's fc7
    feature_name: str  # the layer the features come from: the last hidden one
    fingerprint: str  # of weights, mean image, classes and recipe
    precision: str  # fp32, fp16, bf16 or int8
    views: int = 10  # how many views of an image its error is measured over: `Recipe.views`

    @abstractmethod
    def run(self, images: np.ndarray, view: View | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and features (N, D), float32, of ``images`` (N, S, S, 3) uint8 RGB.

        ``view``: the crop that the network is shown; the central one if None.
        """

    def activations(self, images: np.ndarray, layer: str) -> np.ndarray:
        """What leaves the hidden ``layer`` for the centre view of ``images`` (N, S, S, 3) uint8, at most a batch.

        (N, C, H, W) or (N, units) float32. Raises AlexNetError if there is no such layer, or if this is an ONNX file,
        which has ``feature_name`` alone.
        """
        if layer != self.feature_name:
            raise AlexNetError(f"an ONNX file has only {self.feature_name}: for {layer}, name the model's folder")
        return self.run(images)[1]

    def average(self, images: np.ndarray, views: int) -> np.ndarray:
        """Mean of the probabilities over ``views`` (1 or 10) views: ``images`` (N, S, S, 3) uint8 to (N, classes).

        Raises AlexNetError for another number of views.
        """
        shown = views_of(views, self.image_size, self.crop)
        if len(shown) == 1:
            return self.run(images)[0]
        return np.asarray(np.mean([self.run(images, view)[0] for view in shown], axis=0, dtype=np.float64))

    def predict(self, pictures: Picture | Iterable[Picture], top: int = 5, *, views: int = 1) -> list[list[Prediction]]:
        """The ``top`` most probable classes of each picture, most probable first.

        ``pictures``: one or many. A file of any size and format that `alexnet prep` reads is cut to its central square
        and resized to S; an array must have that form already. ``views``: 1, the centre, or 10, whose probabilities are
        averaged (§4.1). Raises BadPicture, naming the first picture that cannot be read; AlexNetError for another
        number of views, or if ``top`` is less than 1.
        """
        return _results(self.predict_each(pictures, top, views=views))

    def predict_each(
        self, pictures: Picture | Iterable[Picture], top: int = 5, *, views: int = 1
    ) -> Iterator[tuple[Picture, list[Prediction] | BadPicture]]:
        """Each picture with its `predict`, or with why it cannot be read; pictures are read as they are used."""
        if top < 1:
            raise AlexNetError(f"top is {top}: ask for 1 class or more")
        yield from self.answer_each(
            pictures, lambda images: [self.best(row, top) for row in self.average(images, views)]
        )

    def features(self, pictures: Picture | Iterable[Picture]) -> np.ndarray:
        """Activations of layer ``feature_name`` for each picture's centre view, (N, D) float32.

        ``pictures`` and errors: as in `predict`.
        """
        rows = _results(self.features_each(pictures))
        return np.array(rows, np.float32).reshape(-1, self.feature_size)

    def features_each(self, pictures: Picture | Iterable[Picture]) -> Iterator[tuple[Picture, np.ndarray | BadPicture]]:
        """Each picture with its `features` (D,), or with why it cannot be read; pictures are read as they are used."""
        return self.answer_each(pictures, lambda images: self.run(images)[1])

    def answer_each(
        self, pictures: Picture | Iterable[Picture], answer: Callable[[np.ndarray], Iterable[Result]]
    ) -> Iterator[tuple[Picture, Result | BadPicture]]:
        """Each picture with what ``answer`` makes of its pixels, or with why it cannot be read.

        ``answer`` gets the pixels (n, S, S, 3) uint8 of BATCH pictures, less those that cannot be read, and returns n
        results. Pictures are read as they are used: the next batch is read during inference.
        """
        for some, images, bad in prefetch(self._load, batched(_each(pictures), BATCH)):
            results = iter(answer(images) if len(images) else ())
            for position, picture in enumerate(some):
                yield picture, bad[position] if position in bad else next(results)

    def best(self, probabilities: np.ndarray, top: int = 5) -> list[Prediction]:
        """The ``top`` most probable classes of ``probabilities`` (classes,), most probable first."""
        return [self._prediction(int(i), probabilities) for i in np.argsort(-probabilities, kind="stable")[:top]]

    def _prediction(self, i: int, probabilities: np.ndarray) -> Prediction:
        return Prediction(label=self.classes[i], name=self.class_names[i], probability=float(probabilities[i]))

    @cached_property
    def class_names(self) -> list[str]:
        """What people read for each of ``classes``."""
        return class_names(self.classes, self.words)

    def _load(self, pictures: list[Picture]) -> tuple[list[Picture], np.ndarray, dict[int, BadPicture]]:
        """``pictures``, the pixels (n, S, S, 3) uint8 of those that can be read, and why the others cannot."""
        images, bad = [np.empty((0, self.image_size, self.image_size, 3), np.uint8)], dict[int, BadPicture]()
        for position, picture in enumerate(pictures):
            try:
                images.append(_pixels(picture, self.image_size)[None])
            except BadPicture as error:
                bad[position] = error
        return pictures, np.concatenate(images), bad

    def _run_in_batches(
        self, images: np.ndarray, run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The outputs of ``run`` for all ``images`` (N, S, S, 3), BATCH of them at a time.

        Raises NotFinite if one is not finite: NaN would count as a right answer.
        """
        probabilities = np.empty((len(images), len(self.classes)), np.float32)
        features = np.empty((len(images), self.feature_size), np.float32)
        for start in range(0, len(images), BATCH):
            batch = slice(start, start + BATCH)
            probabilities[batch], features[batch] = run(images[batch])
            if not (np.isfinite(probabilities[batch]).all() and np.isfinite(features[batch]).all()):
                network = f"model {self.name}" if self.name else "the network"
                raise NotFinite(
                    f"the outputs of {network} are not finite: its weights are damaged, or its training has diverged"
                )
        return probabilities, features


def _each(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    if isinstance(pictures, str | Path | bytes):
        return [pictures]
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        return [pictures]
    return pictures


def _results(pairs: Iterable[tuple[Picture, Result | BadPicture]]) -> list[Result]:
    """The results alone. Raises BadPicture, naming the first picture that has none."""
    results = []
    for number, (picture, result) in enumerate(pairs):
        if isinstance(result, BadPicture):
            named = picture if isinstance(picture, str | Path) else f"pictures[{number}]"
            raise BadPicture(f"{named}: {result}")
        results.append(result)
    return results


def _pixels(picture: Picture, size: int) -> np.ndarray:
    """(size, size, 3) uint8. Raises BadPicture without naming the picture."""
    if isinstance(picture, np.ndarray):
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise BadPicture(
                f"an array of shape {picture.shape} and type {picture.dtype}: "
                f"it must be ({size}, {size}, 3) of uint8, or give the file"
            )
        return picture
    return load_picture(Path(picture) if isinstance(picture, str) else picture, size)
