"""A class by what a person calls it."""

import difflib
from collections.abc import Sequence

from alexnet_cli.errors import AlexNetError, abbreviate

NEAR, LISTED = 3, 5  # how many words of similar spelling are looked for, and how many classes a message names


def find_class(wanted: str, labels: Sequence[str], names: Sequence[str]) -> int:
    """The number of the class that is called ``wanted``: its label or what people call it, in letters of any case.

    ``labels``, ``names``: of all classes, in their order. A class called "crane (wading bird)" is also found as
    "crane", and one called "tench, Tinca tinca" by either word. Raises AlexNetError, which names the classes that may
    be meant, if there is no such class, or if there are several.
    """
    if wanted in labels:
        return labels.index(wanted)
    called = [_what_it_is_called(label, name) for label, name in zip(labels, names, strict=True)]
    word = wanted.strip().casefold()
    found = [number for number, words in enumerate(called) if word in words]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{labels[number]} is {names[number]}" for number in found)
        raise AlexNetError(f"{len(found)} classes are called {wanted!r}, name one by its label: {several}")
    raise AlexNetError(f"the model has no class {wanted!r}: {_near(word, called, names)}")


def _what_it_is_called(label: str, name: str) -> set[str]:
    """A class's label, its name, the parts of its name, and its name without what follows in brackets."""
    words = {label, name, name.partition(" (")[0], *name.split(",")}
    return {word.strip().casefold() for word in words}


def _near(word: str, called: Sequence[set[str]], names: Sequence[str]) -> str:
    """The classes whose name has ``word`` in it or is spelled like it; else some of all."""
    similar = difflib.get_close_matches(word, sorted(set().union(*called)), n=NEAR)
    near = {
        name
        for words, name in zip(called, names, strict=True)
        if not words.isdisjoint(similar) or (word and any(word in each for each in words))
    }
    return f"near are {abbreviate(near, LISTED)}" if near else f"it has {abbreviate(names, LISTED)}"
