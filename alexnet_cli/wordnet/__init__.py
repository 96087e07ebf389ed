"""Words for ImageNet's classes, whose labels are numbers of WordNet 3.0: n01440764 is a tench.

`nouns.txt.xz` has all nouns of WordNet, as `tools/wordnet_names.py` writes them; it is read when a label needs it.
`ilsvrc-2012.txt` has the 1000 classes of ILSVRC-2012 in label order, that of their numbers, as the challenge's list
(https://image-net.org/challenges/LSVRC/2012/browse-synsets) and its devkit have them. LICENSE is WordNet's.
"""

import lzma
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

WORDNET_ID = re.compile(r"n(\d{8})")
_FOLDER = files(__name__)


def class_names(labels: Sequence[str], words: Mapping[str, str] | None = None) -> list[str]:
    """What people read for each of ``labels``, which are all different; the names are all different as well.

    ``words``: what the dataset's source calls its classes, by label. A label without such words is its own name, or, if
    it is a WordNet id, the first word of its synset. Where two would have the same name, those of WordNet ids get what
    kind of thing they are: "crane (wading bird)", "crane (lifting device)"; or if that is the same too, the label.
    """
    nouns = [_noun(label) for label in labels]
    names = [(words or {}).get(label) or word or label for label, (word, _) in zip(labels, nouns, strict=True)]
    with_kind = [f"{name} ({kind})" if kind else name for name, (_, kind) in zip(names, nouns, strict=True)]
    with_label = [name if name == label else f"{name} ({label})" for name, label in zip(names, labels, strict=True)]
    return _first_unique(_first_unique(names, with_kind), with_label)


def _first_unique(names: list[str], others: list[str]) -> list[str]:
    """``names``, with those of ``others`` in the place of what is there twice."""
    times = Counter(names)
    return [name if times[name] == 1 else other for name, other in zip(names, others, strict=True)]


def ilsvrc2012() -> list[str]:
    """The WordNet ids of the 1000 classes of ILSVRC-2012, in label order."""
    return (_FOLDER / "ilsvrc-2012.txt").read_text(encoding="ascii").split()


def _noun(label: str) -> tuple[str, str]:
    """The first word of the synset that ``label`` names, and its kind if others have that word; else empty."""
    number = WORDNET_ID.fullmatch(label)
    if number is None:
        return "", ""
    lines = _nouns()
    found = lines[(start := bisect_left(lines, number[1])) : start + 1]
    if not found or not found[0].startswith(number[1]):
        return "", ""
    _, word, *kind = found[0].split("\t")
    return word, "".join(kind)


@cache
def _nouns() -> list[str]:
    """The table's lines, by number: number, word and perhaps kind, with tabs between them."""
    return lzma.decompress((_FOLDER / "nouns.txt.xz").read_bytes()).decode("ascii").splitlines()
