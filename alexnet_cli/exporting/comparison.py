"""Whether an exported file computes what its network computes.

fp32 and fp16 are compared number by number. int8 is compared by what its users rely on, the most probable class and the
direction of the features: a probability may move far where two classes are nearly equally probable.
"""

from dataclasses import dataclass

import numpy as np

from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.exporting.pictures import CHECKED_BATCHES
from alexnet_cli.inference.predictor import Predictor
from alexnet_cli.inference.views import View, centre_view, ten_views

# Largest difference to the network: of a probability, and of a feature as a share of the largest feature of the view.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
# int8: on how many of the pictures the classes have to agree, and how near the features have to be on average.
SAME_CLASS, COSINE = 0.9, 0.95
NEARLY_AS_PROBABLE = 0.5  # classes agree if the network holds int8's for at least half as probable as its own


class ExportMismatch(AlexNetError):
    """The exported file does not compute what the network computes."""


@dataclass(frozen=True)
class Agreement:
    """How well int8 agrees with the network."""

    pictures: int
    same_class: float  # the share of pictures
    cosine: float  # between their features, on average


def compare(exported: Predictor, network: Predictor, pictures: np.ndarray, tolerance: float) -> tuple[float, float]:
    """The largest differences of probabilities and of features between ``exported`` and ``network``.

    Over two batch sizes of ``pictures`` (at least 5, S, S, 3) uint8, and the centre view and a reflected corner view.
    Raises ExportMismatch if one is beyond ``tolerance``; BadArtefact if the network's outputs are not finite.
    """
    size, crop = network.image_size, network.crop
    names, worst = ("probabilities", exported.feature_name), [0.0, 0.0]
    for batch in CHECKED_BATCHES:
        for view in (centre_view(size, crop), ten_views(size, crop)[-2]):
            expected, found = network.run(pictures[:batch], view), _run(exported, pictures[:batch], view)
            for i in range(2):
                difference = float(np.abs(expected[i] - found[i]).max())
                largest = 1.0 if i == 0 else max(1.0, float(np.abs(expected[i]).max()))
                worst[i] = max(worst[i], difference)
                if difference > tolerance * largest:
                    raise ExportMismatch(
                        f"the exported graph differs from the network by {difference:.2g} in {names[i]} "
                        f"at batch {batch}: nothing was written"
                    )
    return worst[0], worst[1]


def check_agreement(exported: Predictor, network: Predictor, pictures: np.ndarray, what: str) -> Agreement:
    """How well ``exported`` agrees with ``network`` on ``pictures`` (N, S, S, 3) uint8, which are ``what``.

    Raises ExportMismatch if that is less than SAME_CLASS or COSINE.
    """
    expected, features = network.run(pictures)
    found, other_features = _run(exported, pictures, None)
    of_found = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    agreement = Agreement(
        pictures=len(pictures),
        same_class=float((of_found >= NEARLY_AS_PROBABLE * expected.max(axis=1)).mean()),
        cosine=float(_cosines(features, other_features).mean()),
    )
    if agreement.same_class < SAME_CLASS or agreement.cosine < COSINE:
        raise ExportMismatch(
            f"in int8 the network finds the same class for {agreement.same_class:.0%} of {what} and features with a "
            f"cosine of {agreement.cosine:.2f}, and at least {SAME_CLASS:.0%} and {COSINE} are needed: "
            "nothing was written; export fp32"
        )
    return agreement


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between the rows of ``a`` and ``b``; 1 where both are zero."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0))


def _run(exported: Predictor, pictures: np.ndarray, view: View | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        return exported.run(pictures, view)
    except BadArtefact:  # its outputs are not finite, though the network's are
        advice = "" if exported.precision == "fp32" else "; export fp32, whose range is larger"
        raise ExportMismatch(f"the outputs of the exported graph are not finite: nothing was written{advice}") from None
