"""Pictures to their neighbours: an index and its model, opened once and asked often, from several threads at once."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from alexnet_cli.artefacts import MODEL_FILE, ONNX_FILE, model_fingerprint
from alexnet_cli.errors import BadArtefact, BadPicture, WrongModel
from alexnet_cli.inference.predictor import Picture, Predictor
from alexnet_cli.retrieval.index import Index, Neighbour
from alexnet_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A query and its neighbours."""

    path: str  # of the query
    neighbours: list[Neighbour]  # nearest first
    pictures: Sequence[str] = ()  # paths of those whose mean was the query, if it was no picture

    def within(self, distance: float | None) -> "Answer":
        """With the neighbours up to ``distance``; all of them if None."""
        if distance is None:
            return self
        return replace(self, neighbours=[one for one in self.neighbours if one.distance <= distance])

    def as_json(self) -> dict[str, Any]:
        """As `alexnet search --json` prints it."""
        neighbours = [neighbour.as_json() for neighbour in self.neighbours]
        pictures = {"pictures": list(self.pictures)} if self.pictures else {}
        return {"path": self.path, **pictures, "neighbours": neighbours}


class Searcher:
    """An open index with the model it was built with. A context manager, which closes the index."""

    def __init__(self, index: Index, model: Predictor) -> None:
        """Raises WrongModel if ``model`` is not the one the index was built with."""
        index.check_model(model)
        self.index, self.model = index, model

    def __len__(self) -> int:
        return len(self.index)

    def search(self, picture: Picture, k: int = 10) -> list[Neighbour]:
        """The ``k`` pictures of the index nearest to ``picture``, nearest first; all of them if there are fewer.

        ``picture``: a path, the bytes of a file, or pixels (S, S, 3) uint8. Raises BadPicture if it cannot be read,
        AlexNetError if ``k`` is less than 1.
        """
        (neighbours,) = self.search_many([picture], k)
        return neighbours

    def search_many(self, pictures: Iterable[Picture], k: int = 10) -> list[list[Neighbour]]:
        """`search` for each of ``pictures``, in batches. Raises BadPicture, naming the first that cannot be read."""
        return self.index.neighbours(self.model.features(pictures), k)

    def search_each(
        self, pictures: Iterable[Picture], k: int = 10
    ) -> Iterator[tuple[Picture, list[Neighbour] | BadPicture]]:
        """Each picture with its `search`, or with why it cannot be read; pictures are read as they are used."""
        return self.model.answer_each(pictures, lambda images: self.index.neighbours(self.model.run(images)[1], k))

    def search_features(self, features: np.ndarray, k: int = 10) -> list[Neighbour]:
        """The ``k`` pictures nearest to ``features`` (D,), such as the mean of those of several pictures."""
        (neighbours,) = self.index.neighbours(features[None].astype(np.float32), k)
        return neighbours

    def neighbours_of_row(self, row: int, k: int = 10) -> list[Neighbour]:
        """The ``k`` pictures nearest to the one in ``row``, including itself and its exact duplicates, at distance 0.

        Raises IndexError if there is no such row.
        """
        return self.index.neighbours_of_row(row, k)

    def close(self) -> None:
        """Close the index. No thread may be searching it."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def model_of(index: Index, space: Workspace) -> Path:
    """The folder or ONNX file of the model that ``index`` was built with, wherever it is now. Raises WrongModel."""
    name, built_with = str(index.facts["model"]), Path(index.facts["model_path"])
    is_default = built_with.name == ONNX_FILE and index.facts["precision"] == "fp32"
    if built_with.is_file() and not is_default:
        return built_with  # an ONNX file of its own, or of another precision than the one of the model's folder
    for path in (space.home("model") / name, built_with, *space.all("model")):
        with contextlib.suppress(BadArtefact):  # of a damaged model; it may be another one
            if (path / MODEL_FILE).is_file() and model_fingerprint(path) == index.facts["model_fingerprint"]:
                return path
    if built_with.is_file():
        return built_with
    raise WrongModel(
        f"model {name}, which {index.path} was built with, is not in {space.home('model')} as it was: "
        "build the index again under another name with --out, or name the model with --model"
    )
