"""The folder that an experiment writes: its table, its figure, the exact recipes, and what was measured on the way."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from alexnet_cli.artefacts import model_name
from alexnet_cli.environment import environment
from alexnet_cli.files import atomic_write, read_json, write_json
from alexnet_cli.wording import counted

if TYPE_CHECKING:
    from alexnet_cli.model import Model
    from alexnet_cli.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of an experiment."""

    name: str  # what `alexnet reproduce` calls it
    title: str
    columns: list[str]
    rows: list[list[str]]  # as shown; a cell that was not measured is empty
    note: str  # what the rows were measured on: network, images, seeds
    command: str  # the command line that made it
    facts: dict[str, Any] = field(default_factory=dict)  # the numbers behind the rows
    figures: list[str] = field(default_factory=list)  # file names in the folder

    def write(self, folder: Path, recipe_of: "Mapping[str, Recipe]") -> None:
        """Write `table.md`, `table.json` and, for each of ``recipe_of``, `recipes/NAME.toml` to ``folder``."""
        from alexnet_cli.recipe import dumps  # it imports torch, which `environment` does not need

        for name, recipe in recipe_of.items():
            with atomic_write(folder / "recipes" / f"{name}.toml") as temporary:
                temporary.write_text(dumps(recipe), encoding="utf-8")
        content = {key: getattr(self, key) for key in self.__dataclass_fields__} | environment()
        write_json(folder / "table.json", content)
        with atomic_write(folder / "table.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The table as Markdown, with everything needed to repeat it."""
        made = environment()
        lines = [f"# {self.title}", "", self.note, "", *table(self.columns, self.rows), ""]
        lines += [f"![{name}]({name})\n" for name in self.figures if name.endswith(".png")]
        lines += [f"Made by `{self.command}` on {made['date']}: {made['machine']}; alexnet {made['version']}."]
        return "\n".join(lines) + "\n"


def measured_once(folder: Path, inputs: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` returns, JSON. `measured` in ``folder`` keeps it, in a file of its own for each ``inputs``.

    ``inputs``, JSON too, are all that the result depends on: data, models, constants.
    """
    digest = xxhash.xxh3_64_hexdigest(json.dumps(inputs, sort_keys=True).encode())
    file = folder / "measured" / f"{digest}.json"
    if not file.exists():
        write_json(file, {"result": measure(), "inputs": inputs})
    result: dict[str, Any] = read_json(file, what="measurement")["result"]
    return result


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    head, *body = [f"| {' | '.join(row)} |" for row in cells]
    return [head, "|" + "---|" * len(columns), *body]


def percent(measured: Mapping[str, Any], error: str) -> str:
    """A cell: ``error``, "top1" or "top5", of what was ``measured``, in percent with its 95 % interval."""
    low, high = measured[f"{error}_ci95"]
    return f"{100 * measured[error]:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def model_sentence(model: "Model", path: Path) -> str:
    """One sentence that identifies the model: name, fingerprint, recipe, size, classes, epochs."""
    from alexnet_cli.nets.network import parameter_count

    parameters = parameter_count(model.net)
    epochs = model.provenance.get("epochs")
    trained = f", {counted(epochs, 'epoch')}" if epochs else ""
    return (
        f"Model {model_name(path)} ({model.fingerprint}): recipe {model.recipe.name}, {parameters:,} parameters, "
        f"{len(model.classes):,} classes{trained}."
    )
