"""Reading ahead: what comes next is read while what came last is in use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Content = TypeVar("Content")


def prefetch(read: Callable[[Part], Content], parts: Sequence[Part]) -> Iterator[Content]:
    """``read`` of each of ``parts``, in their order, one ahead; memory holds two."""
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(read, part) for part in parts[:1]]
        for i in range(1, len(parts) + 1):
            ready = ahead.pop()
            ahead += [reader.submit(read, part) for part in parts[i : i + 1]]
            yield ready.result()
