"""Settings as typed dataclasses: a table of a TOML file becomes an object, or one line says what is wrong with it."""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alexnet_cli.errors import BadRecipe

Kind = TypeVar("Kind", bound="Settings")

MAX_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class Within:
    """What a number may be, ends included: `Annotated[int, Within(1, 9)]`. Every number of a recipe has such bounds."""

    low: float
    high: float


Side = Annotated[int, Within(1, MAX_SIDE)]  # of pictures, maps and windows, in pixels or positions
Width = Annotated[int, Within(1, 65_536)]  # kernels, units or images
Epochs = Annotated[int, Within(1, 1_000_000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of everything that a section of a recipe describes; the fields are its keys."""

    type: ClassVar[str] = ""  # what a recipe calls the class, once it is registered

    def __post_init__(self) -> None:
        """Raises BadRecipe for a value of another type than its key has, and for a number out of its bounds."""
        for key, kind in _types(type(self)).items():
            _value(key, kind, getattr(self, key))


class Registry(dict[str, type[Kind]]):
    """Classes by the name that recipes call them."""

    def register(self, name: str) -> Callable[[type[Kind]], type[Kind]]:
        """Class decorator: makes ``type = "name"`` mean this class."""

        def add(cls: type[Kind]) -> type[Kind]:
            cls.type = name
            self[name] = cls
            return cls

        return add

    def parse(self, section: str, table: dict[str, Any]) -> Kind:
        """The object that ``[section]`` describes. Its class is the section's `type`, or by default the section's
        name. Raises BadRecipe."""
        name = table.get("type", section)
        if not isinstance(name, str) or name not in self:
            if "type" in table or not table:
                raise BadRecipe(unknown(str(name), self, f"type in [{section}]" if table else "name"))
            raise BadRecipe(f"[{section}] needs a type: one of {', '.join(self)}")
        return parse(section, self[name], {key: value for key, value in table.items() if key != "type"})


def parse(section: str, cls: type[Kind], table: dict[str, Any]) -> Kind:
    """``table`` as a ``cls``. Raises BadRecipe for an unknown or missing key, and for a value that does not fit."""
    types = _types(cls)
    for key in table:
        if key not in types:
            raise BadRecipe(unknown(f"{section}.{key}", [f"{section}.{known}" for known in types]))
    values = {key: _value(f"{section}.{key}", types[key], value) for key, value in table.items()}
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in table:
            raise BadRecipe(f'{section}.{field.name} is missing: give it, or start from `base = "paper"`')
    try:
        return cls(**values)
    except BadRecipe as error:
        raise BadRecipe(f"{section}.{error}") from None


def require(holds: bool, message: str) -> None:
    """For `__post_init__`: raises BadRecipe, which `parse` completes to "section.message"."""
    if not holds:
        raise BadRecipe(message)


def unknown(word: str, known: Iterable[str], what: str = "recipe key") -> str:
    """The message for a word that is not one of ``known``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"unknown {what} {word!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


def _types(cls: Any) -> dict[str, Any]:
    """The keys of a section and their types, with bounds."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _value(key: str, kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: a plain type, a number within bounds, a list, a Literal or a union of these."""
    alternatives = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for one in alternatives:
        plain, bounds = get_args(one) if get_origin(one) is Annotated else (one, Within(-math.inf, math.inf))
        if get_origin(plain) is list:
            if isinstance(value, list):
                return [_value(key, get_args(plain)[0], item) for item in value]
        elif get_origin(plain) is Literal:
            if value in get_args(plain):
                return value
        elif plain in (int, float):
            is_number = type(value) is int or (plain is float and type(value) is float)
            if is_number and bounds.low <= value <= bounds.high and abs(value) != math.inf:
                return plain(value)
        elif type(value) is plain:
            return value
    words = [word for one in alternatives for word in _words(one)]
    raise BadRecipe(f"{key} = {_shown(value)} does not fit: it takes {' or '.join(words)}")


def _words(kind: Any) -> list[str]:
    """What a key takes, in words."""
    if get_origin(kind) is Literal:
        return [f'"{word}"' for word in get_args(kind)]
    if get_origin(kind) is Annotated:
        plain, bounds = get_args(kind)
        return [f"{_words(plain)[0]} from {_shown(bounds.low)} to {_shown(bounds.high)}"]
    return [{int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a list")]


def _shown(value: object) -> str:
    """``value`` as it stands in a recipe, shortened."""
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]} ..."
