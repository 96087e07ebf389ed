"""The codes of an index: learned from its vectors, or grown from those that it had."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_cli.files import atomic_write
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.kinds import KINDS, Kind
from alexnet_cli.retrieval.vectors import CHUNK, Vectors

GROWTH = 1.5  # times as many vectors as were measured: then all is learned and measured again
MEASURED = (  # facts of an index that stay when it grows
    "recall_at_10",
    "milliseconds_per_query",
    "measured_on",
    "candidates",
    "nprobe",
    "ef_search",
    "code_bytes_per_vector",
    "build_seconds",
)


@dataclass(frozen=True, kw_only=True)
class Before:
    """An index that has grown: its kind as it was, which is changed, its facts, and which of its rows are gone."""

    kind: Kind
    facts: Mapping[str, Any]
    gone: np.ndarray  # (n,) int64; the others have moved up, and what is new comes after them


def build_kind(
    name: str, vectors: Vectors, file: Path, before: Before | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Build the kind called ``name`` over ``vectors``; its codes, if it has any, are written to ``file``.

    Returns what `load` needs to know, and what was measured. Memory holds the codes, a sample of the vectors to learn
    them from, and a chunk. What was there ``before`` is not learned nor measured again, until it has grown by GROWTH.
    """
    if (
        before is not None
        and before.kind.name == name
        and vectors.count <= GROWTH * before.facts["measured_on"]
        and before.kind.forget(before.gone)
    ):
        return _grown(before, vectors, file, progress)
    kind, began = KINDS[name](), time.monotonic()
    if not kind.has_codes:
        return kind.tune(vectors) | {"measured_on": vectors.count}
    progress.note(f"learning {name} codes")
    kind.train(vectors)
    for first, chunk in vectors.chunks():
        kind.add(chunk)
        progress.advance("coding", first + len(chunk), vectors.count)
    with atomic_write(file) as temporary:
        kind.save(temporary)
    progress.note("measuring recall against brute force")
    facts = kind.tune(vectors)
    facts["code_bytes_per_vector"] = round(file.stat().st_size / vectors.count, 1)
    return facts | {"measured_on": vectors.count, "build_seconds": round(time.monotonic() - began, 1)}


def _grown(before: Before, vectors: Vectors, file: Path, progress: Progress) -> dict[str, Any]:
    """Add the codes of what is new to those of ``before``, and keep what was learned and measured."""
    kind = before.kind
    if kind.has_codes:
        for first in range(before.facts["count"] - len(before.gone), vectors.count, CHUNK):
            kind.add(vectors.read(first, first + CHUNK))
            progress.advance("coding", min(first + CHUNK, vectors.count), vectors.count)
        with atomic_write(file) as temporary:
            kind.save(temporary)
    return {key: before.facts[key] for key in MEASURED if key in before.facts}
