"""Settings as typed dataclasses: a table of a TOML file becomes an object, or one line says what is wrong with it."""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from alexnet_cli.errors import BadRecipe

Kind = TypeVar("Kind", bound="Settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of everything that a section of a recipe describes; the fields are its keys."""

    type: ClassVar[str] = ""  # what a recipe calls the class, once it is registered


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
        if name not in self:
            if "type" in table or not table:
                raise BadRecipe(unknown(str(name), self, f"type in [{section}]" if table else "name"))
            raise BadRecipe(f"[{section}] needs a type: one of {', '.join(self)}")
        return parse(section, self[name], {key: value for key, value in table.items() if key != "type"})


def parse(section: str, cls: type[Kind], table: dict[str, Any]) -> Kind:
    """``table`` as a ``cls``. Raises BadRecipe for an unknown or missing key and for a value of another type."""
    types = {field.name: get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
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
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"unknown {what} {word!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


def _value(key: str, kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: a plain type, a list, a Literal or a union of these."""
    alternatives = get_args(kind) if get_origin(kind) not in (Literal, list) and get_args(kind) else (kind,)
    for one in alternatives:
        if get_origin(one) is list:
            if isinstance(value, list):
                return [_value(key, get_args(one)[0], item) for item in value]
        elif get_origin(one) is Literal:
            if value in get_args(one):
                return value
        elif one is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        elif type(value) is one:
            return value
    words = []
    for one in alternatives:
        words += [f'"{word}"' for word in get_args(one)] if get_origin(one) is Literal else [_name(one)]
    raise BadRecipe(f"{key} = {json.dumps(value, default=str)} does not fit: it takes {' or '.join(words)}")


def _name(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return plain.get(kind, "a list")
