"""Pack chunks on all cores: worker processes, signals and progress."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from alexnet_cli.data import chunks
from alexnet_cli.data.chunks import Chunk, pack_chunk
from alexnet_cli.distributed import World
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.memory import keep_freed_memory
from alexnet_cli.progress import Progress


def pack_chunks(
    pending: Sequence[Chunk], every: Sequence[Chunk], workers: int, progress: Progress, world: World
) -> float:
    """Pack this rank's share of the ``pending`` chunks of ``every`` one. Returns pictures per second, over all ranks.

    Raises Interrupted on Ctrl-C and SIGTERM, and AlexNetError if a worker dies. Finished chunks stay.
    """
    own = pending[world.rank :: world.size]
    total = count_pictures(own)
    done_before = count_pictures(every) - count_pictures(pending)
    packed, start = 0, time.monotonic()
    in_this_process = workers == 1 or total <= chunks.CHUNK_SIZE  # faster than starting a worker
    with _interruptible():
        for chunk in _pack_here(own) if in_this_process else _pack_in_workers(own, workers):
            packed += len(chunk.entries)
            rate = packed / (time.monotonic() - start)
            progress.advance("packing", done_before + packed, done_before + total, f"{rate:,.0f} images/s")
    (packed_by_all,) = world.all_reduce(packed)
    return packed_by_all / (time.monotonic() - start) if packed_by_all else 0.0


def count_pictures(chunks: Sequence[Chunk]) -> int:
    """The number of pictures in all ``chunks``."""
    return sum(len(chunk.entries) for chunk in chunks)


def _pack_here(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Pack chunks in this process, and yield each when it is finished."""
    for chunk in chunks:
        pack_chunk(chunk)
        yield chunk


def _pack_in_workers(chunks: Sequence[Chunk], workers: int) -> Iterator[Chunk]:
    """Pack chunks in worker processes, and yield each when it is finished, in any order."""
    # The fork server imports this module once; workers forked from it start faster than workers that import it.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _initialize_worker) as pool:
        try:
            with _ignored(signal.SIGINT):  # inherited by the fork server: on Ctrl-C, this process ends the workers
                pending = {pool.submit(pack_chunk, chunk): chunk for chunk in chunks}
            for future in as_completed(pending):
                future.result()
                yield pending[future]
        except BrokenProcessPool:
            raise AlexNetError(
                "a worker process died, perhaps out of memory: run the same command with fewer --workers to resume"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


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
        raise Interrupted("stopped; what is packed is kept: run the same command again to resume") from None
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
