"""How cost grows: seconds of each command for 1,000 to 100,000 pictures, in one process and in two.

    python benchmarks/scale.py photos.zip [--sizes 1000 10000 100000] [--scratch FOLDER]

The pictures of the zip or folder are repeated as hard links to the same files. They are packed, trained on for one
epoch, evaluated (one view), indexed (from the JPEGs) and searched, each by the command a user types in its own process.
The network is `tiny`, so that the cost of everything else shows; the slope is the time of each further 1,000 pictures.
Then the same with --shared pictures, in one process on one core and in two on one core each: the ideal speed-up is 2.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import RESULTS
from prep import extract
from search import OBSERVER

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json

DISTINCT = 500  # different files; all others are links to them
ALONE = [sys.executable, "-m", "alexnet_cli"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "alexnet_cli"]


def link(distinct: Path, folder: Path, count: int) -> None:
    """Hard-link ``count`` files into the class folders of ``folder``."""
    files = sorted(distinct.glob("*/*.jpg"))
    for i in range(count):
        file = files[i % len(files)]
        path = folder / file.parent.name / f"{i:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, path)


def timed(command: Sequence[str], workspace: Path, cores: set[int] | None = None) -> dict[str, float]:
    """Seconds and peak memory in MB of a command in ``workspace``, on all cores or on ``cores`` only."""
    threads = {} if cores is None else {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OBSERVER, *command],
        cwd=workspace,
        env=os.environ | threads,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    seconds, kilobytes = done.stdout.split()
    return {"seconds": float(seconds), "megabytes": int(kilobytes) / 1e3}


def commands(workspace: Path, query: Path) -> dict[str, list[str]]:
    return {
        "prep": ["prep", str(workspace / "photos"), "--val-fraction", "0"],
        "train": ["train", "photos", "--recipe", "tiny", "--epochs", "1", "--out", "tiny"],
        "eval": ["eval", "tiny", "--data", "photos", "--split", "train", "--views", "1"],
        "export": ["export", "tiny"],
        "index": ["index", str(workspace / "photos"), "--model", "tiny"],
        "search": ["search", str(query), "--index", "photos"],
    }


def by_size(distinct: Path, sizes: Sequence[int], scratch: Path) -> dict[int, dict[str, dict[str, float]]]:
    """Seconds and megabytes of every command at every size."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    query = next(distinct.glob("*/*.jpg"))
    for count in sizes:
        workspace = scratch / str(count)
        link(distinct, workspace / "photos", count)
        found[count] = {name: timed([*ALONE, *words], workspace) for name, words in commands(workspace, query).items()}
        print(f"{count:,}: " + ", ".join(f"{name} {one['seconds']:.1f} s" for name, one in found[count].items()))
        sys.stdout.flush()
        shutil.rmtree(workspace)
    return found


def by_processes(distinct: Path, count: int, scratch: Path) -> dict[str, dict[str, float]]:
    """Seconds of one process on one core and of two processes on two; search always runs in one process."""
    found: dict[str, dict[str, float]] = {}
    query = next(distinct.glob("*/*.jpg"))
    for processes, start, cores in ((1, ALONE, {0}), (2, TWO, {0, 1})):
        workspace = scratch / f"by-{processes}"
        link(distinct, workspace / "photos", count)
        for name, words in commands(workspace, query).items():
            shared = name in ("prep", "train", "eval", "index")
            one = timed([*(start if shared else ALONE), *words], workspace, cores)
            if shared:
                found.setdefault(name, {})[str(processes)] = one["seconds"]
        shutil.rmtree(workspace)
    for name, seconds in found.items():
        print(f"{name}, {count:,}: {seconds['1']:.1f} s in one process, {seconds['2']:.1f} s in two", flush=True)
    return found


def slopes(found: dict[int, dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """For each command, the seconds per further 1,000 pictures between each size and the next."""
    sizes = sorted(found)
    return {
        name: [
            1000 * (found[large][name]["seconds"] - found[small][name]["seconds"]) / (large - small)
            for small, large in itertools.pairwise(sizes)
        ]
        for name in found[sizes[0]]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--shared", type=int, default=16_000)
    parser.add_argument("--scratch", type=Path, help="a folder with 200 KB of free space per picture")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.scratch) as temporary:
        scratch = Path(temporary)
        extract(given.source, scratch / "distinct", DISTINCT)
        found = by_size(scratch / "distinct", given.sizes, scratch)
        processes = by_processes(scratch / "distinct", given.shared, scratch)
    content = {
        "recipe": "tiny",
        **environment(),
        "by_size": found,
        "slopes": slopes(found),
        "shared": given.shared,
        "processes": processes,
    }
    print(json.dumps(content["slopes"]))
    write_json(RESULTS / "scale.json", content)


if __name__ == "__main__":
    main()
