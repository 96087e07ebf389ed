"""What a report is made of: every image's prediction, counted by class and by pair of classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.inference.evaluation import TOP, Scores, interval
from alexnet_cli.wordnet import class_names


@dataclass(frozen=True, kw_only=True)
class ClassErrors:
    """How many of the images of one class are wrong."""

    index: int  # of the class, in label order
    images: int
    top1: int
    top5: int

    def rates(self) -> list[tuple[float, tuple[float, float]]]:
        """Top-1 and top-5 error with their 95 % intervals, as fractions; nothing if the class has no image."""
        return [(n / self.images, interval(n, self.images)) for n in (self.top1, self.top5) if self.images]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The images of one class that are taken for another, or for it."""

    label: int
    predicted: int
    images: int


class Results:
    """The scores of a split, with what its images are called."""

    def __init__(self, scores: Scores, dataset: Dataset, split: str, facts: dict[str, Any]) -> None:
        """``facts``: what was measured, where and when: "models" (names), "dataset", "split", "views", "date" ..."""
        self.scores, self.dataset, self.facts = scores, dataset, facts
        self.images: Split = dataset.split(split)
        self.labels, self.predicted = self.images.labels.astype(np.int64), scores.best[:, 0]
        self.wrong = scores.ranks >= 1

    def name(self, index: int) -> str:
        """A class in words, or its label where they are not known."""
        return self._names[index]

    @cached_property
    def _names(self) -> list[str]:
        return class_names(self.dataset.classes, self.dataset.words)

    @cached_property
    def classes(self) -> list[ClassErrors]:
        """The classes in label order."""
        count = len(self.dataset.classes)
        of_all, of_wrong, of_missed = (
            np.bincount(self.labels[chosen], minlength=count).tolist()
            for chosen in (self.scores.ranks >= 0, self.wrong, self.scores.ranks >= TOP)
        )
        return [ClassErrors(index=i, images=of_all[i], top1=of_wrong[i], top5=of_missed[i]) for i in range(count)]

    @cached_property
    def confusions(self) -> list[Confusion]:
        """Every pair of classes that has images, right ones too; by label, then by number of images."""
        pairs, counts = np.unique(np.stack([self.labels, self.predicted], axis=1), axis=0, return_counts=True)
        order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
        return [Confusion(label=int(pairs[i, 0]), predicted=int(pairs[i, 1]), images=int(counts[i])) for i in order]

    @cached_property
    def by_interest(self) -> np.ndarray:
        """Positions of all images (N,): the mistakes, surest first, then the right ones, least sure first."""
        sure = self.scores.probabilities[:, 0]
        return np.lexsort((np.where(self.wrong, -sure, sure), ~self.wrong))

    def worst(self, count: int) -> np.ndarray:
        """Positions of at most ``count`` mistakes, surest first."""
        return self.by_interest[: min(count, int(self.wrong.sum()))]

    def cells(self, label: int) -> Iterator[tuple[Confusion, np.ndarray]]:
        """The confusions of a class, each with the positions of its images in the order of `by_interest`."""
        of_class = self._by_class[label]
        for confusion in self._confusions_by_class[label]:
            yield confusion, of_class[self.predicted[of_class] == confusion.predicted]

    @cached_property
    def _by_class(self) -> list[np.ndarray]:
        labels = self.labels[self.by_interest]
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=len(self.dataset.classes)))
        return np.split(self.by_interest[order], ends[:-1])

    def taken_for(self, index: int) -> list[Confusion]:
        """The confusions of other classes with this one, by number of images."""
        return self._mistakes_by_prediction[index]

    @cached_property
    def _confusions_by_class(self) -> list[list[Confusion]]:
        found: list[list[Confusion]] = [[] for _ in self.dataset.classes]
        for confusion in self.confusions:
            found[confusion.label].append(confusion)
        return found

    @cached_property
    def _mistakes_by_prediction(self) -> list[list[Confusion]]:
        found: list[list[Confusion]] = [[] for _ in self.dataset.classes]
        for confusion in sorted(self.confusions, key=lambda each: -each.images):
            if confusion.label != confusion.predicted:
                found[confusion.predicted].append(confusion)
        return found
