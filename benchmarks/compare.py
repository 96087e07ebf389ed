"""Two models on the same pictures: how much their top-1 errors differ, with the standard error of that difference.

    alexnet eval A --report a
    alexnet eval B --report b
    python benchmarks/compare.py a b

Only pictures that one of the two gets right and the other wrong tell them apart. Of N pictures, with n10 that only the
first gets right and n01 that only the second does, the difference is (n10 - n01) / N, and its standard error
sqrt(n10 + n01 - (n10 - n01)² / N) / N.
"""

import argparse
import csv
from math import sqrt
from pathlib import Path

from alexnet_cli.reporting.tables import PREDICTIONS_FILE


def is_right(report: Path) -> dict[str, bool]:
    """Of each picture's name, whether the report's most probable class is its own."""
    with open(report / PREDICTIONS_FILE, encoding="utf-8", newline="") as file:
        return {row["picture"]: row["rank_of_label"] == "1" for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="a folder of alexnet eval --report")
    parser.add_argument("second", type=Path)
    given = parser.parse_args()
    first, second = is_right(given.first), is_right(given.second)
    if first.keys() != second.keys():
        parser.error("the two reports are of different pictures")
    only_first = sum(right and not second[name] for name, right in first.items())
    only_second = sum(right and not first[name] for name, right in second.items())
    difference = only_first - only_second
    deviation = sqrt(only_first + only_second - difference**2 / len(first)) / len(first)
    print(f"{len(first):,} pictures: {only_first} only the first gets right, {only_second} only the second")
    print(f"top-1 error of the second less that of the first: {difference / len(first):+.1%} ± {deviation:.1%}")


if __name__ == "__main__":
    main()
