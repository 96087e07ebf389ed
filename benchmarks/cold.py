"""Seconds from typing to answer: `alexnet --help`, and `alexnet search` with nothing loaded yet.

    python benchmarks/cold.py PICTURE [--workspace FOLDER]

Whole processes, one after the other; the newest index of the workspace is asked. One run more than is counted comes
first, so that the files are in the system's cache.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str], runs: int) -> list[float]:
    """Wall seconds of each counted run."""
    found = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - began)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--workspace", default=".")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    alexnet = str(Path(sys.executable).parent / "alexnet")
    commands = {
        "alexnet --help": [alexnet, "--help"],
        "alexnet search": [alexnet, "search", str(given.picture), "--workspace", given.workspace],
    }
    for name, command in commands.items():
        found = seconds(command, given.runs)
        print(f"{name}: {statistics.median(found):.2f} s  ({min(found):.2f}-{max(found):.2f})")


if __name__ == "__main__":
    main()
