"""Writes alexnet_cli/wordnet/nouns.txt.xz, the words of WordNet's nouns, from WordNet's own data.noun.

    python tools/wordnet_names.py /usr/share/wordnet/data.noun

That is where Debian's package `wordnet-base` puts WordNet 3.0, whose numbers ImageNet uses. ImageNet's 21,841 classes
are among its 82,115 nouns; all of them take half a megabyte. A line is "number<TAB>word", where the word is the first
of its synset. If other synsets begin with that word, a third field says what kind of thing it is: the first word above.
"""

import lzma
import sys
from collections import Counter
from pathlib import Path

TABLE = Path(__file__).parent.parent / "alexnet_cli" / "wordnet" / "nouns.txt.xz"
HYPERNYMS = ("@", "@i")  # of a kind, of an instance such as a person or a place


def main(data: Path) -> None:
    """Read WordNet's nouns from ``data`` and write TABLE."""
    words, above = read(data)
    times = Counter(words.values())
    lines = []
    for number, word in sorted(words.items()):
        kind = words.get(above.get(number, "")) if times[word] > 1 else None
        lines.append("\t".join(filter(None, [number, word, kind])))
    TABLE.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode("ascii"), preset=9))
    print(f"{TABLE}: {len(lines):,} nouns, {TABLE.stat().st_size:,} bytes")


def read(data: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of each synset by its number of eight digits: its first word, and the number of the first synset above it.

    Each line is "number lexicographer n count (word sense)*count pointers (symbol number n where)* | gloss", where the
    first count is in hexadecimal; lines that begin with a space are the licence. See wndb(5WN).
    """
    words: dict[str, str] = {}
    above: dict[str, str] = {}
    for line in data.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):
            continue
        number, _, _, count, *fields = line.partition(" | ")[0].split()
        words[number] = fields[0].replace("_", " ")
        pointers = fields[2 * int(count, 16) + 1 :]
        for symbol, target in zip(pointers[::4], pointers[1::4], strict=True):
            if symbol in HYPERNYMS:
                above.setdefault(number, target)
    return words, above


if __name__ == "__main__":
    main(Path(sys.argv[1]))
