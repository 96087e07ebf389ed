"""Read the next item in a thread while the caller works on the current one."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")


def prefetch(read: Callable[[Item], Content], items: Iterable[Item]) -> Iterator[Content]:
    """Yield ``read(item)`` of each item in order. One result is read ahead, so two are in memory at a time."""
    current: Future[Content] | None = None
    with ThreadPoolExecutor(1) as reader:
        for item in items:
            following = reader.submit(read, item)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """``items`` in lists of ``count``; the last may be shorter. Python 3.12 has this in itertools."""
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, count)):
        yield batch
