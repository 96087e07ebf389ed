"""What defines a model: a recipe is a TOML file; a variant is `base = "paper"` and the lines that differ.

Sections: `[image]`, `[network]`, `[training]`, and one for each layer, operation and augmentation that these name. The
class of such a section is its `type`, or its own name: `[relu]` needs no type. What a class can be set to stands with
the class (nets/layers.py, data/augmentations.py). A packaged recipe may also say what errors were `[published]` for it;
that is no part of the model.
"""

import dataclasses
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from alexnet_cli.data.augmentations import AUGMENTATIONS, Augmentation, ColourNoise, Geometric, RandomCrop
from alexnet_cli.data.preprocess import Image
from alexnet_cli.errors import BadRecipe, first_line
from alexnet_cli.nets.layers import LAYERS, Network
from alexnet_cli.nets.network import ColumnNetwork, parameter_count, parameters_by_layer
from alexnet_cli.nets.operations import OPERATIONS
from alexnet_cli.recipes import FOLDER, names
from alexnet_cli.settings import Epochs, Registry, Settings, Width, Within, parse, unknown
from alexnet_cli.wording import counted

MAX_PARAMETERS = 500_000_000  # weights and biases: 2 GB, which is as much as an ONNX file can hold

Tables = dict[str, Any]  # of a TOML file: section -> key -> value, and a few keys outside sections


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """The paper's update rule and its schedule (§5)."""

    batch: Width  # images, of all processes together
    momentum: Annotated[float, Within(0, 0.9999)]
    weight_decay: Annotated[float, Within(0, 1)]
    learning_rate: Annotated[float, Within(1e-30, 1e30)]
    schedule: Literal["plateau", "linear", "milestones"]
    warmup_epochs: Annotated[float, Within(0, 1_000_000)] = 0.0  # the learning rate rises to its value over these
    patience: Epochs = 5  # plateau: epochs without a better validation error before the learning rate falls
    drops: Annotated[int, Within(0, 100)] = 3  # plateau: how often it is divided by 10 before the end
    epochs: Epochs  # plateau: at most; linear: the learning rate reaches 0 here
    milestones: list[Epochs] = field(default_factory=list)  # the epochs from which on it is divided by 10 once more
    bias_rate: Annotated[float, Within(0, 1000)] = 1.0  # the biases' learning rate, as a multiple of the weights'
    bias_rate_falls: bool = True  # whether it falls with the weights'
    bias_decay: bool = True  # whether weight decay applies to biases too
    augmentation: list[str] = field(default_factory=list)  # in this order (§4.1)
    window: Annotated[int, Within(0, 1_000_000_000)] = 0  # images that are shuffled together; 0: all (`data/order.py`)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe, every value given."""

    name: str
    description: str  # one line
    image: Image
    network: Network
    training: Training
    augmentations: dict[str, Augmentation]  # what training.augmentation names, in this order

    @property
    def views(self) -> int:
        """How many views of an image its error is measured over: ten, as in the paper (§4.1), or one.

        Half of the ten are mirrored, and who was never trained on a mirrored image should not be shown one.
        """
        return 10 if "reflection" in self.augmentations else 1

    def build(self, classes: int) -> ColumnNetwork:
        """The network for ``classes`` classes, without weights yet. Raises BadRecipe, before memory is taken."""
        net = ColumnNetwork(self.network, self.image.shape, classes)
        if (count := parameter_count(net)) > MAX_PARAMETERS:
            layer, most = max(parameters_by_layer(net).items(), key=lambda pair: pair[1])
            raise BadRecipe(
                f"the network has {count:,} weights, and {MAX_PARAMETERS:,} are possible: "
                f"make {layer} smaller, which has {most:,}"
            )
        return net

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with other values in [training]."""
        return replace(self, training=replace(self.training, **changes))

    def scaled(self, width: float) -> "Recipe":
        """The recipe with ``width`` times the kernels and units in every hidden layer."""
        return replace(self, network=self.network.scaled(width))


# Finding and reading recipes


def load(named: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe called ``named``, or in the file ``named``, with `section.key=value` ``settings`` on top.

    Raises BadRecipe for an unknown recipe, an unknown section or key, or a value that does not fit.
    """
    name, tables = _read(str(named))
    return _parse(name, _set(tables, settings))


def adjust(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """``recipe`` with `section.key=value` ``settings`` on top. Raises BadRecipe."""
    return _parse(recipe.name, _set(_tables(recipe), settings))


def loads(text: str) -> Recipe:
    """The resolved recipe in ``text``, as `dumps` writes it. Raises BadRecipe."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecipe(f"damaged recipe: {first_line(error)}") from None
    return _parse(str(tables.pop("name", "unnamed")), tables)


def dumps(recipe: Recipe, comments: Mapping[str, str] = MappingProxyType({})) -> str:
    """The whole recipe as TOML, every value given. ``comments``: `section.key` -> what to write behind its value."""

    def line(section: str, key: str, value: object) -> str:
        comment = comments.get(f"{section}.{key}")
        return f"{key} = {_toml(value)}" + (f"  # {comment}" if comment else "")

    lines = [f"name = {_toml(recipe.name)}", f"description = {_toml(recipe.description)}"]
    for section, table in _tables(recipe).items():
        if isinstance(table, dict):
            lines += ["", f"[{section}]", *(line(section, key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A value of a recipe; for these, JSON is TOML, save for a character that only TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def sections(recipe: Recipe) -> set[str]:
    """The sections that have something to set."""
    return {name for name, table in _tables(recipe).items() if isinstance(table, dict)}


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """`section.key` -> value, where ``recipe`` differs from ``base``; a section that ``base`` lacks is there whole."""
    mine, theirs = flat(recipe), flat(base)
    return {key: value for key, value in mine.items() if key not in theirs or theirs[key] != value}


def changed(recipe: Recipe) -> int:
    """In how many values ``recipe`` differs from the one of its name that comes with the program; 0 if none does."""
    return len(differences(recipe, load(recipe.name))) if recipe.name in names() else 0


def summary(named: str) -> dict[str, Any]:
    """Of the recipe called ``named``, or in the file ``named``: name, description, parameters for 1000 classes,
    published errors, and the lines in which it differs from `paper`. Raises BadRecipe."""
    recipe = load(named)
    return {
        "name": recipe.name,
        "description": recipe.description,
        "parameters": parameter_count(recipe.build(1000)),
        "published": published(named),
        "differs": differences(recipe, load("paper")),
    }


def annotated(named: str) -> str:
    """The whole recipe as `dumps` writes it, with comments: its `summary`, and what `paper` has where they differ."""
    recipe, facts = load(named), summary(named)
    theirs, mine = flat(load("paper")), flat(recipe)
    comments = {key: f"paper: {_toml(theirs[key])}" if key in theirs else "not in paper" for key in facts["differs"]}
    size = f"# {facts['parameters']:,} parameters for 1,000 classes"
    if facts["published"]:
        size += f"\n# published: {published_line(facts['published'])}"
    few = f"{counted(len(comments), 'line')} of {len(mine)} {'differs' if len(comments) == 1 else 'differ'} from paper"
    return f"{size}\n# {few}\n{dumps(recipe, comments)}"


def published(name: str) -> dict[str, Any]:
    """The errors that were published for a packaged recipe: fractions, and `where`; empty if there are none."""
    file = FOLDER / f"{name}.toml"
    return dict(tomllib.loads(file.read_text(encoding="utf-8")).get("published", {})) if file.is_file() else {}


def published_line(published: dict[str, Any]) -> str:
    """What `published` returns, in one line."""
    words = []
    for key, value in published.items():
        if key != "where":
            name, kind = key.split("_")
            sign = "+" if kind == "increase" else ""
            words.append(f"{name.replace('top', 'top-')} error {sign}{100 * value:.4g} %")
    return f"{', '.join(words)} ({published['where']})"


def _read(named: str, readers: tuple[str, ...] = ()) -> tuple[str, Tables]:
    """Name and tables of a recipe, merged with those of its bases; ``readers`` are the recipes whose base it is."""
    if named in readers:
        raise BadRecipe(f"the recipe {named} is its own base: {' -> '.join([*readers, named])}")
    packaged = FOLDER / f"{named}.toml"
    try:
        if packaged.is_file():
            name, text = named, packaged.read_text(encoding="utf-8")
        elif named.endswith(".toml"):
            name, text = Path(named).stem, Path(named).read_text(encoding="utf-8")
        else:
            message = unknown(named, names(), "recipe")
            raise BadRecipe(message if message.endswith("?") else f"{message}; a file's name ends in .toml")
        tables = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # of ValueError: what is no text, or no TOML
        raise BadRecipe(f"cannot read the recipe {named}: {first_line(error)}") from None
    base = tables.pop("base", None)
    for key in ("name", "published"):
        tables.pop(key, None)
    merged: Tables = {}
    if base is not None:
        beside = Path(named).parent / str(base)  # a file's base is relative to that file
        _, merged = _read(str(beside if str(base).endswith(".toml") else base), (*readers, named))
    for section, table in tables.items():
        merged[section] = _merged(_section(merged, section), table) if isinstance(table, dict) else table
    used = _used(merged)
    for section, table in tables.items():
        if section not in used:
            raise BadRecipe(unknown(section, used, "section" if isinstance(table, dict) else "recipe key"))
    return name, merged


def _merged(inherited: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """A section of a base and the lines that differ; of a section that becomes another type nothing is kept."""
    return table if table.get("type", inherited.get("type")) != inherited.get("type") else inherited | table


def _used(tables: Tables) -> list[str]:
    """The sections that a recipe uses. A base may have more: a variant can leave out a layer."""
    layers = _names(_section(tables, "network").get("layers"))
    steps = [step for layer in layers for step in _names(_section(tables, layer).get("then"))]
    augmentations = _names(_section(tables, "training").get("augmentation"))
    return [*dict.fromkeys(["description", "image", "network", "training", *layers, *steps, *augmentations])]


def _names(value: object) -> list[str]:
    """The texts of a list; what is no list of texts is refused when it is parsed."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _section(tables: Tables, name: object) -> dict[str, Any]:
    table = tables.get(name, {}) if isinstance(name, str) else {}
    return table if isinstance(table, dict) else {}


def _set(tables: Tables, settings: Sequence[str]) -> Tables:
    """``tables`` with each `section.key=value` put in, in whatever order; a value is TOML, or a bare word."""
    changes: Tables = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and section and key):
            raise BadRecipe(f"--set {setting}: write section.key=value, for example training.batch=64")
        try:
            parsed = tomllib.loads(f"value = {value.strip()}")["value"]
        except (ValueError, RecursionError):
            parsed = value.strip()
        changes.setdefault(section, {})[key] = parsed
    tables = tables | {section: _merged(_section(tables, section), table) for section, table in changes.items()}
    used = [name for name in _used(tables) if name != "description"]
    for section in changes:  # one setting may name the section of another
        if section not in used:
            raise BadRecipe(unknown(section, used, "section"))
    return tables


# Tables to a recipe, and back


def _parse(name: str, tables: Tables) -> Recipe:
    """A recipe from TOML tables that lack nothing. Raises BadRecipe."""
    image = parse("image", Image, _section(tables, "image"))
    training = parse("training", Training, _section(tables, "training"))
    description = tables.get("description", "")
    if not isinstance(description, str):
        raise BadRecipe("description must be a line of text")
    augmentations = _named(tables, training.augmentation, AUGMENTATIONS, "training.augmentation")
    _check_augmentations(augmentations, image)
    return Recipe(
        name=name,
        description=description,
        image=image,
        network=_network(tables),
        training=training,
        augmentations=augmentations,
    )


def _check_augmentations(augmentations: Mapping[str, Augmentation], image: Image) -> None:
    """Raises BadRecipe if the list has two crops, not first what must be first, or colours for a grey network."""
    crops = [name for name, each in augmentations.items() if isinstance(each, RandomCrop)]
    if len(crops) > 1:
        raise BadRecipe(f"training.augmentation: {' and '.join(crops)} are random crops, and one is possible: drop one")
    moved = [name for name, each in augmentations.items() if isinstance(each, Geometric)]
    if moved and image.mean_crop == "central":
        raise BadRecipe(f'training.augmentation: {moved[0]} needs image.mean_crop = "same"')
    if moved != list(augmentations)[: len(moved)]:
        raise BadRecipe(
            f"training.augmentation: {' and '.join(moved)} must come first, so that a picture is resampled once, and "
            "before it is cropped"
        )
    if image.mean_crop == "central" and augmentations and [next(iter(augmentations))] != crops:
        raise BadRecipe('training.augmentation: with image.mean_crop = "central" a random crop must come first')
    noise = [name for name, each in augmentations.items() if isinstance(each, ColourNoise)]
    if noise and image.colour == "grey":
        raise BadRecipe(
            f'training.augmentation: {noise[0]} needs colours, and image.colour is "grey": drop one of them'
        )


@dataclass(frozen=True, kw_only=True)
class _NetworkSection(Settings):
    """The section [network] of the file."""

    columns: Annotated[int, Within(1, 64)]
    layers: list[str]
    width: Annotated[float, Within(0.001, 1000)] = 1.0  # what every hidden layer's kernels or units are multiplied by


def _network(tables: Tables) -> Network:
    section = parse("network", _NetworkSection, _section(tables, "network"))
    for name in section.layers:
        if name not in tables and re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise BadRecipe(f"network.layers names {name!r}, but there is no section [{name}]")
    layers = _named(tables, section.layers, LAYERS, "network.layers")
    steps = {step: name for name, layer in layers.items() for step in layer.then}
    operations: dict[str, Any] = {}
    for step, name in steps.items():
        operations |= _named(tables, [step], OPERATIONS, f"{name}.then")
    try:
        network = Network(columns=section.columns, layers=layers, operations=operations)
        return network if section.width == 1 else network.scaled(section.width)
    except BadRecipe as error:
        raise BadRecipe(f"network.{error}") from None


def _named(tables: Tables, named: Sequence[str], registry: Registry[Any], where: str) -> dict[str, Any]:
    """The objects that a list of a recipe names, by name."""
    if repeated := [name for name, times in Counter(named).items() if times > 1]:
        raise BadRecipe(f"{where} names {repeated[0]} twice")
    for name in named:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise BadRecipe(f"{where}: {name!r} cannot be a name: letters, digits, _ and - only")
        if name not in registry and name not in tables:
            raise BadRecipe(f"{where}: {unknown(name, [*registry, *_sections_of(tables, registry)], 'name')}")
    return {name: registry.parse(name, _section(tables, name)) for name in named}


def _sections_of(tables: Tables, registry: Registry[Any]) -> list[str]:
    return [name for name, table in tables.items() if isinstance(table, dict) and table.get("type") in registry]


def _tables(recipe: Recipe) -> Tables:
    """What `_parse` makes the recipe of."""
    network = {"columns": recipe.network.columns, "layers": list(recipe.network.layers)}
    tables: Tables = {
        "description": recipe.description,
        "image": dataclasses.asdict(recipe.image),
        "network": network,
        "training": dataclasses.asdict(recipe.training),
    }
    groups: list[Mapping[str, Settings]] = [recipe.augmentations, recipe.network.operations, recipe.network.layers]
    for group in groups:
        for name, each in group.items():
            table = ({} if each.type == name else {"type": each.type}) | dataclasses.asdict(each)
            if table:  # there is nothing to set of a ReLU
                tables[name] = table
    return tables


def flat(recipe: Recipe) -> dict[str, Any]:
    """`section.key` -> value, of all that can be set."""
    return {
        f"{section}.{key}": value
        for section, table in _tables(recipe).items()
        if isinstance(table, dict)
        for key, value in table.items()
    }
