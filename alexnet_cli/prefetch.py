"""Read the next item in a thread while the caller works on the current one."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")


def prefetch(read: Callable[[Item], Content], items: Sequence[Item]) -> Iterator[Content]:
    """Yield ``read(item)`` of each item in order. One result is read ahead, so two are in memory at a time."""
    with ThreadPoolExecutor(1) as reader:
        pending = [reader.submit(read, item) for item in items[:1]]
        for i in range(1, len(items) + 1):
            current = pending.pop()
            pending += [reader.submit(read, item) for item in items[i : i + 1]]
            yield current.result()
