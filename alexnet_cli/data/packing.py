"""Pack shards on all cores: worker processes, signals and progress."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alexnet_cli.data import shards
from alexnet_cli.data.shards import ShardJob, pack_shard, publish_shard
from alexnet_cli.distributed import World
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.progress import Progress


def pack_shards(
    pending: Sequence[ShardJob], jobs: Sequence[ShardJob], workers: int, progress: Progress, world: World
) -> float:
    """Pack this rank's share of the ``pending`` shards of all ``jobs``. Returns pictures per second, over all ranks.

    Raises Interrupted on Ctrl-C and SIGTERM, and AlexNetError if a worker dies. Finished shards stay.
    """
    own = pending[world.rank :: world.size]
    total = count_pictures(own)
    done_before = count_pictures(jobs) - count_pictures(pending)
    packed, start = 0, time.monotonic()
    in_this_process = workers == 1 or total <= shards.SHARD_SIZE  # faster than starting a worker
    with _interruptible():
        for job in _pack_here(own) if in_this_process else _pack_in_workers(own, workers):
            packed += len(job.entries)
            rate = packed / (time.monotonic() - start)
            progress.advance("packing", done_before + packed, done_before + total, f"{rate:,.0f} images/s")
    (packed_by_all,) = world.all_reduce(packed)
    return packed_by_all / (time.monotonic() - start) if packed_by_all else 0.0


def count_pictures(jobs: Sequence[ShardJob]) -> int:
    """The number of pictures in all ``jobs``."""
    return sum(len(job.entries) for job in jobs)


def _pack_here(jobs: Sequence[ShardJob]) -> Iterator[ShardJob]:
    """Pack shards in this process, and yield each when it is finished."""
    for job in jobs:
        publish_shard(job, pack_shard(job))
        yield job


def _pack_in_workers(jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardJob]:
    """Pack shards in worker processes, and yield each when it is finished, in any order."""
    # The fork server imports this module once; workers forked from it start faster than workers that import it.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _initialize_worker) as pool:
        pending: dict[Future[dict[str, Any]], ShardJob] = {}
        try:
            with _ignored(signal.SIGINT):  # inherited by the fork server: on Ctrl-C, this process ends the workers
                pending = {pool.submit(pack_shard, job): job for job in jobs}
            for future in as_completed(pending):
                publish_shard(pending[future], future.result())
                yield pending.pop(future)
        except BrokenProcessPool:
            raise AlexNetError(
                "a worker process died, perhaps out of memory: run the same command with fewer --workers to resume"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
            for future, job in pending.items():  # shards that were finished while the pool shut down
                if future.done() and not future.cancelled() and future.exception() is None:
                    publish_shard(job, future.result())


def _initialize_worker() -> None:
    """Leave Ctrl-C to the parent, and exit when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def exit_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise Interrupted on Ctrl-C and SIGTERM in the block. Only the main thread may handle signals."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, interrupt) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; finished shards are kept: run the same command again to resume") from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal in the block, also in processes that are started there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, handler)
