"""What `alexnet reproduce` calls each experiment, and how it comes by what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError
from alexnet_cli.experiments.ablations import ABLATIONS, ablations
from alexnet_cli.experiments.figure1 import figure1
from alexnet_cli.experiments.figure3 import figure3
from alexnet_cli.experiments.figure4 import figure4
from alexnet_cli.experiments.report import Report
from alexnet_cli.experiments.tables import table1, table2
from alexnet_cli.progress import Progress
from alexnet_cli.training.train import Options
from alexnet_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user said an experiment should be."""

    data: str | None
    models: list[str]
    pretrained: list[str]
    recipes: list[str]
    base: str
    width: float
    settings: list[str]
    epochs: int | None
    seeds: int
    options: Options
    command: str

    def check(self, name: str) -> None:
        """Raises AlexNetError for what was asked of experiment ``name`` that it has no use for."""
        plain = {"seeds": 3, "width": 1.0, "base": "paper", "epochs": None}
        asked = {key for key in OPTIONS if getattr(self, key) != plain.get(key, [])}
        if useless := sorted(OPTIONS[key] for key in asked - USES[name]):
            raise AlexNetError(f"{name} has no use for {', '.join(useless)}: leave it out")

    @property
    def device(self) -> str:
        return self.options.devices[0]


# field of Asked -> what the command calls it
OPTIONS = {
    "models": "--model",
    "pretrained": "--pretrained",
    "recipes": "--recipe",
    "base": "--base",
    "width": "--width",
    "settings": "--set",
    "epochs": "--epochs",
    "seeds": "--seeds",
}
USES = {
    "figure-1": {"settings", "epochs", "seeds"},
    "figure-3": {"models"},
    "figure-4": {"models"},
    "table-1": {"models"},
    "table-2": {"models", "pretrained"},
    "ablations": {"recipes", "base", "width", "settings", "epochs", "seeds"},
}

Experiment = Callable[[Workspace, Asked, Path, Progress], Report]


def _dataset(space: Workspace, asked: Asked) -> Dataset:
    return Dataset.open(space.find("dataset", asked.data))


def _models(space: Workspace, asked: Asked) -> list[Path]:
    """Those named; the newest if neither these nor pre-trained ones are."""
    if not asked.models and not asked.pretrained:
        return [space.find("model", None)]
    return [space.find("model", name) for name in asked.models]


def _figure1(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    return figure1(
        _dataset(space, asked),
        folder,
        asked.command,
        settings=asked.settings,
        seeds=asked.seeds,
        epochs=asked.epochs,
        options=asked.options,
        progress=progress,
    )


def _figure3(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    return figure3(_models(space, asked)[0], folder, asked.command)


def _figure4(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    model, dataset = _models(space, asked)[0], _dataset(space, asked)
    return figure4(model, dataset, folder, asked.command, device=asked.device, progress=progress)


def _table1(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    models, dataset = _models(space, asked), _dataset(space, asked)
    return table1(models, dataset, folder, asked.command, device=asked.device, progress=progress)


def _table2(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    models, dataset = _models(space, asked), _dataset(space, asked)
    pretrained = [space.find("model", name) for name in asked.pretrained]
    return table2(models, pretrained, dataset, folder, asked.command, device=asked.device, progress=progress)


def _ablations(space: Workspace, asked: Asked, folder: Path, progress: Progress) -> Report:
    return ablations(
        _dataset(space, asked),
        folder,
        asked.command,
        names=asked.recipes or ABLATIONS,
        base=asked.base,
        width=asked.width,
        settings=asked.settings,
        epochs=asked.epochs,
        seeds=asked.seeds,
        options=asked.options,
        progress=progress,
    )


EXPERIMENTS: dict[str, Experiment] = {
    "figure-1": _figure1,
    "figure-3": _figure3,
    "figure-4": _figure4,
    "table-1": _table1,
    "table-2": _table2,
    "ablations": _ablations,
}
