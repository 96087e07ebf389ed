"""What every benchmark shares: jobs run in turns, so that what else the machine does falls on all; medians; a file."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import write_json
from alexnet_cli.experiments.report import circumstances

RESULTS = Path(__file__).parent / "results"
RUNS = 5


def compare(
    name: str,
    jobs: Mapping[str, Callable[[], float]],
    *,
    ours: str,
    unit: str = "images/s",
    less: bool = False,
    runs: int = RUNS,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run ``jobs``, each giving a figure in ``unit``, ``runs`` times in turns after one run that is not counted.

    Prints each job's median and spread and how many times as fast ``ours`` is, where more is better or, if ``less``,
    less; writes all, and ``facts`` as they are by then, to `results/NAME.json`.
    """
    found: dict[str, list[float]] = {job: [] for job in jobs}
    for turn in range(runs + 1):
        for job, run in jobs.items():
            speed = run()
            if turn:
                found[job].append(speed)
    medians = {job: statistics.median(speeds) for job, speeds in found.items()}
    table = {
        job: {
            "median": medians[job],
            "lowest": min(speeds),
            "highest": max(speeds),
            "ratio": medians[job] / medians[ours] if less else medians[ours] / medians[job],
        }
        for job, speeds in found.items()
    }
    print(f"{name} ({unit}, median of {runs})")
    for job, row in table.items():
        times = "" if job == ours else f"; ours is {row['ratio']:.2f} times as fast"
        print(f"  {job}: {_short(row['median'])} ({_short(row['lowest'])}-{_short(row['highest'])}){times}", flush=True)
    result = {
        "name": name,
        "unit": unit,
        "runs": runs,
        "ours": ours,
        **circumstances(),
        **(facts or {}),
        "found": table,
    }
    write_json(RESULTS / f"{name}.json", result)
    return result


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"


def per_second(count: int, work: Callable[[], object]) -> float:
    """How many of ``count`` things a second ``work`` does."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)
