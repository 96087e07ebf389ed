"""What every benchmark shares: it runs jobs in turns, so that other load affects all alike, and reports medians."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json

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
    """Run ``jobs`` ``runs`` times in turns, after one run that is not counted. Each returns a figure in ``unit``.

    Prints the median and range of each job, and its ratio to ``ours``; with ``less``, smaller figures are better.
    Writes all of it to `results/NAME.json`, together with ``facts``, which the jobs may fill in.
    """
    measured: dict[str, list[float]] = {job: [] for job in jobs}
    for turn in range(runs + 1):
        for job, run in jobs.items():
            figure = run()
            if turn:
                measured[job].append(figure)
    medians = {job: statistics.median(figures) for job, figures in measured.items()}
    table = {
        job: {
            "median": medians[job],
            "lowest": min(figures),
            "highest": max(figures),
            "ratio": medians[job] / medians[ours] if less else medians[ours] / medians[job],
        }
        for job, figures in measured.items()
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
        **environment(),
        **(facts or {}),
        "found": table,
    }
    write_json(RESULTS / f"{name}.json", result)
    return result


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"


def per_second(count: int, work: Callable[[], object]) -> float:
    """``count`` divided by the seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)
