"""What defines a model: a recipe is a TOML file; a variant is `base = "paper"` and the lines that differ.

Sections: `[image]`, `[network]`, `[response_norm]`, `[map_norm]`, `[pooling]`, `[training]`, and one a layer, `[conv1]`
... `[fc8]`. A packaged recipe may also say what was `[published]` of its errors; that is no part of the model.
"""

import dataclasses
import difflib
import json
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from alexnet_cli.errors import BadRecipe

RECIPES = resources.files("alexnet_cli") / "recipes"

Rounds = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """What the network sees of a packed picture (§2, §4.1)."""

    size: int  # side of the packed pictures
    crop: int  # side of a view
    divide_by: float  # the centred 0-255 pixels are divided by this
    colour_noise: float  # standard deviation of the colour PCA's factors; 0 is none
    colour_noise_until: int = 0  # the epoch from which on there is none; 0: to the end
    reflect: bool = True  # half of the training views are reflected

    def __post_init__(self) -> None:
        _require(0 < self.crop <= self.size, "image.crop must be between 1 and image.size")
        _require(self.divide_by > 0, "image.divide_by must be positive")
        _require(self.colour_noise >= 0, "image.colour_noise must not be negative")


@dataclass(frozen=True, kw_only=True)
class ResponseNorm:
    """Constants of local response normalization (§3.3); alpha is not divided by n."""

    k: float
    n: int
    alpha: float
    beta: float
    sees: Literal["own", "both"] = "own"  # neighbours in its own column, or beyond its border: Caffe knows no columns

    def __post_init__(self) -> None:
        _require(self.n >= 1, "response_norm.n must be at least 1")


@dataclass(frozen=True, kw_only=True)
class MapNorm:
    """Response norm within each map, over windows of size x size positions; the 2012 code has it, the paper not."""

    k: float
    size: int
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        _require(self.size % 2 == 1, "map_norm.size must be odd")


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """Max-pooling (§3.4): windows of `size`, `stride` apart; stride < size is overlapping pooling."""

    size: int
    stride: int
    rounds: Rounds = "up"  # whether a window that only begins within the maps counts

    def __post_init__(self) -> None:
        _require(self.size >= 1 and self.stride >= 1, "pooling.size and pooling.stride must be at least 1")


Step = Literal["relu", "tanh", "response_norm", "map_norm", "pooling", "dropout"]


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolutional layer; `kernels` counts those of all columns."""

    kernels: int
    size: int
    stride: int
    padding: int
    sees: Literal["own", "both"]  # the maps of its own column, or of both
    weights: float | Literal["he"]  # standard deviation of the initial weights; "he": sqrt(2 / fan-in)
    bias: float  # initial bias
    then: list[Step]  # what follows the convolution, in this order; dropout is last
    rounds: Rounds = "up"  # 224 -> 54.25 -> 55: a kernel that only begins within the maps counts
    steps: list[int] = field(default_factory=list)  # schedule "steps": its own epochs instead of training.steps
    frozen_from: int = 0  # the epoch from which on it stays as it is; 0: never


@dataclass(frozen=True, kw_only=True)
class FullyConnected:
    """A fully-connected layer; `units` counts those of all columns."""

    units: int | Literal["classes"]
    sees: Literal["own", "both"]
    weights: float | Literal["he"]
    bias: float
    then: list[Step]
    steps: list[int] = field(default_factory=list)
    frozen_from: int = 0


Layer = Convolution | FullyConnected


@dataclass(frozen=True, kw_only=True)
class Network:
    """How many columns, and which layers in which order (§3.5)."""

    columns: int
    layers: list[str]
    dropout: float  # the share of units dropped, in layers that drop

    def __post_init__(self) -> None:
        _require(self.columns >= 1, "network.columns must be at least 1")
        _require(0 <= self.dropout < 1, "network.dropout must be at least 0 and less than 1")


@dataclass(frozen=True, kw_only=True)
class Training:
    """The paper's update rule and its schedule (§5)."""

    batch: int
    momentum: float
    weight_decay: float
    learning_rate: float
    schedule: Literal["plateau", "linear", "steps"]
    warmup_epochs: float  # the learning rate rises to its value over these
    patience: int  # plateau: epochs without a better validation error before the learning rate falls
    drops: int  # plateau: how often it is divided by 10 before the end
    epochs: int  # plateau: at most; linear: the learning rate reaches 0 here
    steps: list[int] = field(default_factory=list)  # steps: the epochs from which on it is divided by 10 once more
    bias_rate: float = 1.0  # the biases' learning rate, as a multiple of the weights'
    bias_decay: bool = True  # whether weight decay is for biases too

    def __post_init__(self) -> None:
        _require(self.batch >= 1, "training.batch must be at least 1")
        _require(self.epochs >= 1, "training.epochs must be at least 1")
        _require(self.learning_rate > 0, "training.learning_rate must be positive")
        _require(0 <= self.momentum < 1, "training.momentum must be at least 0 and less than 1")
        _require(self.patience >= 1, "training.patience must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe, every value given."""

    name: str
    says: str  # one line: what it is
    image: Image
    network: Network
    response_norm: ResponseNorm
    map_norm: MapNorm
    pooling: Pooling
    training: Training
    layers: dict[str, Layer]  # in order, as network.layers names them

    def __post_init__(self) -> None:
        names = list(self.layers)
        _require(len(names) >= 2, "network.layers must name at least two layers")
        kinds = [isinstance(layer, Convolution) for layer in self.layers.values()]
        _require(kinds == sorted(kinds, reverse=True), "network.layers: convolutional layers come before the others")
        last = self.layers[names[-1]]
        _require(
            isinstance(last, FullyConnected) and last.units == "classes" and last.sees == "both" and not last.then,
            f'the last layer, {names[-1]}, must have units = "classes", sees = "both" and then = []',
        )
        for name, layer in self.layers.items():
            _require("dropout" not in layer.then[:-1], f"{name}.then: dropout is the last step")
            _require(
                isinstance(layer, Convolution) or not {"response_norm", "map_norm", "pooling"} & set(layer.then),
                f"{name}.then: a fully-connected layer has no maps to normalize or pool",
            )
        for name, layer in list(self.layers.items())[:-1]:
            width = layer.kernels if isinstance(layer, Convolution) else layer.units
            _require(
                isinstance(width, int) and width > 0 and width % self.network.columns == 0,
                f"{name} must have a positive number of kernels or units that {self.network.columns} columns can share",
            )


SECTIONS: dict[str, type] = {
    "image": Image,
    "network": Network,
    "response_norm": ResponseNorm,
    "map_norm": MapNorm,
    "pooling": Pooling,
    "training": Training,
}


def names() -> list[str]:
    """The recipes that come with the package."""
    found = [file.name.removesuffix(".toml") for file in RECIPES.iterdir() if file.name.endswith(".toml")]
    return sorted(found, key=lambda name: (name != "paper", name))


def load(named: str | Path, settings: list[str] | None = None) -> Recipe:
    """The recipe called ``named``, or in the file ``named``, with `section.key=value` ``settings`` on top.

    Raises BadRecipe for an unknown recipe, an unknown key or a value that does not fit.
    """
    name, tables = _read(str(named))
    for section, values in tables.items():
        if isinstance(values, dict) and (kind := _kind(section, values)):
            tables[section] = _defaults(kind) | values
    for setting in settings or []:
        _apply(tables, setting)
    return parse(name, tables)


def adjust(recipe: Recipe, settings: list[str]) -> Recipe:
    """``recipe`` with `section.key=value` ``settings`` on top. Raises BadRecipe."""
    tables = tomllib.loads(dumps(recipe))
    for setting in settings:
        _apply(tables, setting)
    return parse(str(tables.pop("name")), tables)


def loads(text: str) -> Recipe:
    """The resolved recipe in ``text``, as `dumps` wrote it."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"damaged recipe: {error}") from None
    return parse(str(tables.pop("name", "unnamed")), tables)


def dumps(recipe: Recipe) -> str:
    """The whole recipe as TOML, every value given."""
    lines = [f"name = {json.dumps(recipe.name)}", f"says = {json.dumps(recipe.says, ensure_ascii=False)}"]
    for section in (*SECTIONS, *recipe.layers):
        values = recipe.layers.get(section) or getattr(recipe, section)
        lines += ["", f"[{section}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(values).items()]
    return "\n".join(lines) + "\n"


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """`section.key` -> value, where ``recipe`` differs from ``base``; a section `base` lacks is there whole."""
    mine, theirs = _flat(recipe), _flat(base)
    return {key: value for key, value in mine.items() if key not in theirs or theirs[key] != value}


def _flat(recipe: Recipe) -> dict[str, Any]:
    sections = {name: getattr(recipe, name) for name in SECTIONS} | recipe.layers
    return {
        f"{section}.{key}": value
        for section, values in sections.items()
        for key, value in dataclasses.asdict(values).items()
    }


def parse(name: str, tables: dict[str, Any]) -> Recipe:
    """A recipe from TOML tables that lack nothing. Raises BadRecipe."""
    tables = dict(tables)
    says = str(tables.pop("says", ""))
    sections = {section: _section(section, kind, tables.pop(section, {})) for section, kind in SECTIONS.items()}
    layers: dict[str, Layer] = {}
    for layer in sections["network"].layers:
        if layer not in tables:
            raise BadRecipe(f"network.layers names {layer!r}, but there is no section [{layer}]")
        layers[layer] = _section(layer, _kind(layer, tables[layer]), tables[layer])
    for section in tables:
        if not isinstance(tables[section], dict):
            raise BadRecipe(_unknown(section, [*SECTIONS, *layers]))
        if not section.startswith(("conv", "fc")):
            raise BadRecipe(_unknown(section, [*SECTIONS, *layers]))
    return Recipe(name=name, says=says, layers=layers, **sections)


def published(name: str) -> dict[str, Any]:
    """What was published of a packaged recipe's errors: fractions, and where; empty if nothing was."""
    found = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8")).get("published", {})
    return dict(found)


def told(published: dict[str, Any]) -> str:
    """What `published` found, in a line."""
    words = []
    for key, value in published.items():
        if key != "where":
            name, kind = key.split("_")
            sign = "+" if kind == "increase" else ""
            words.append(f"{name.replace('top', 'top-')} error {sign}{100 * value:.4g} %")
    return f"{', '.join(words)} ({published['where']})"


def scaled(recipe: Recipe, width: float) -> Recipe:
    """``recipe`` with ``width`` times the kernels and units in every hidden layer, whole numbers a column."""
    columns = recipe.network.columns

    def narrowed(layer: Layer) -> Layer:
        if isinstance(layer, Convolution):
            return dataclasses.replace(layer, kernels=max(1, round(layer.kernels * width / columns)) * columns)
        if layer.units == "classes":
            return layer
        return dataclasses.replace(layer, units=max(1, round(layer.units * width / columns)) * columns)

    return dataclasses.replace(recipe, layers={name: narrowed(layer) for name, layer in recipe.layers.items()})


def _kind(section: str, values: dict[str, Any]) -> Any:
    """The class of a section, None if it is unknown."""
    if section.startswith(("conv", "fc")):
        return Convolution if "kernels" in values else FullyConnected
    return SECTIONS.get(section)


def _defaults(kind: Any) -> dict[str, Any]:
    """What a section's keys are where a recipe does not say."""
    plain = {item.name: item.default for item in dataclasses.fields(kind)}
    made = {item.name: item.default_factory() for item in dataclasses.fields(kind) if callable(item.default_factory)}
    return {key: value for key, value in (plain | made).items() if value is not dataclasses.MISSING}


def _read(named: str) -> tuple[str, dict[str, Any]]:
    """Name and merged tables of a recipe and its bases."""
    packaged = RECIPES / f"{named}.toml"
    try:
        if packaged.is_file():
            name, text = named, packaged.read_text(encoding="utf-8")
        elif named.endswith(".toml"):
            name, text = Path(named).stem, Path(named).read_text(encoding="utf-8")
        else:
            raise BadRecipe(_unknown(named, names(), "recipe") + "; a file's name ends in .toml")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRecipe(f"cannot read the recipe {named}: {error}") from None
    base = tables.pop("base", None)
    for key in ("name", "published"):
        tables.pop(key, None)
    if base is None:
        return name, tables
    _, merged = _read(str(base))
    for key, value in tables.items():
        merged[key] = merged.get(key, {}) | value if isinstance(value, dict) else value
    return name, merged


def _apply(tables: dict[str, Any], setting: str) -> None:
    """Put `section.key=value` into ``tables``; the value is TOML, or a bare word."""
    path, equals, value = setting.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and section and key):
        raise BadRecipe(f"--set {setting}: write section.key=value, for example training.batch=64")
    if section not in tables:
        raise BadRecipe(_unknown(section, [name for name in tables if isinstance(tables[name], dict)], "section"))
    if key not in tables[section]:
        raise BadRecipe(_unknown(f"{section}.{key}", [f"{section}.{known}" for known in tables[section]]))
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    tables[section] = tables[section] | {key: parsed}


def _section(section: str, kind: type, table: dict[str, Any]) -> Any:
    """``table`` as a ``kind``, every key there and of its type."""
    types = get_type_hints(kind)
    for key in table:
        if key not in types:
            raise BadRecipe(_unknown(f"{section}.{key}", [f"{section}.{known}" for known in types]))
    table = _defaults(kind) | table
    for key in types:
        if key not in table:
            raise BadRecipe(f'{section}.{key} is missing: give it, or start from `base = "paper"`')
    return kind(**{key: _value(f"{section}.{key}", types[key], value) for key, value in table.items()})


def _value(where: str, kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: a plain type, a list, a Literal or a union of these."""
    alternatives = get_args(kind) if get_origin(kind) not in (Literal, list) and get_args(kind) else (kind,)
    for one in alternatives:
        if get_origin(one) is list:
            if isinstance(value, list):
                return [_value(where, get_args(one)[0], item) for item in value]
        elif get_origin(one) is Literal:
            if value in get_args(one):
                return value
        elif one is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif type(value) is one:
            return value
    words = []
    for one in alternatives:
        words += [f'"{word}"' for word in get_args(one)] if get_origin(one) is Literal else [_name(one)]
    raise BadRecipe(f"{where} = {json.dumps(value, default=str)} does not fit: it takes {' or '.join(words)}")


def _name(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return plain.get(kind, "a list")


def _unknown(word: str, known: list[str], what: str = "recipe key") -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"unknown {what} {word!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise BadRecipe(message)
