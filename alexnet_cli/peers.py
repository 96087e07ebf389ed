"""The processes of a run under torchrun as each sees the others: who is lost, and which one tells the user.

gloo says at once that a connection is closed, but not whose it was; a call into gloo or NCCL that waits for a process
that is gone may never return. So each rank knows the process numbers of the ranks on its machine, and watches them.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_cli.console import fail
from alexnet_cli.errors import Interrupted, LostProcess

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

LOOK_EVERY = 0.2  # seconds between two looks at the other processes
GRACE = 5.0  # seconds between a loss and the end of a process that still waits for the lost one
FAREWELL = 2.0  # seconds in which a process that closed its connections ends, or tells why


class Peers:
    """All ranks of a run. ``store``: the key-value store of torchrun's rendezvous, which all of them reach."""

    def __init__(self, store: "Store", rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.advices: Callable[[], list[str]] = list  # what to do after a loss; if none, to run the command again
        self._store, self._attempt = store, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._processes: dict[int, int] = {}  # rank -> process number, of the others on this machine

    def meet(self) -> None:
        """Wait until every rank is there; in Python, so that a signal ends the waiting."""
        self._store.set(self._key(self.rank), str(os.getpid()))
        first = self.rank - int(os.environ.get("LOCAL_RANK", "0"))
        neighbours = set(range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", "1")))) - {self.rank}
        while True:
            missing = self._missing()
            self._processes = {rank: int(self._store.get(self._key(rank))) for rank in neighbours - set(missing)}
            if not missing:
                return
            time.sleep(LOOK_EVERY / 4)

    def lost(self) -> list[int]:
        """The ranks on this machine that are gone."""
        return sorted(rank for rank, process in self._processes.items() if not _is_alive(process))

    def loss(self) -> LostProcess:
        """An error that names the lost ranks, as far as they can be known, and what to do."""
        waited = 0.0
        while not (lost := self.lost()) and waited < FAREWELL and not self._is_told():
            time.sleep(LOOK_EVERY / 4)
            waited += LOOK_EVERY / 4
        error = LostProcess(_sentence(lost or self._missing()))
        for advice in self.advices() or ["run the same command again"]:
            error.add_note(advice)
        return error

    def tells(self) -> bool:
        """Whether this rank is the first that asks: one line tells the user what ended the run."""
        try:
            return self._store.add(self._key("told"), 1) == 1
        except RuntimeError:  # the store was in a process that is gone
            return True

    def last_word(self, error: BaseException, *, lost_peer: bool) -> BaseException:
        """What this rank raises after ``error``: that error, LostProcess, or the silent SystemExit if all is said.

        ``lost_peer``: whether the error means that the connection to another rank is closed.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which ends the others when one is lost
        if lost_peer or (isinstance(error, KeyboardInterrupt | LostProcess) and (self.lost() or self._missing())):
            error = self.loss()
        stopped = isinstance(error, Interrupted)  # which all ranks raise at the same update
        if (stopped and self.rank != 0) or not self.tells():
            return SystemExit(130 if stopped else 1)
        return error

    @contextmanager
    def watched(self) -> Iterator[threading.Event]:
        """During the block, end this process GRACE seconds after the loss of another, should it still wait for it.

        Yields an event that ends the watch once no rank needs another one: from then on they may end.
        """
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK_EVERY):
                if self.lost() and not ended.wait(GRACE):
                    if self.tells():
                        loss = self.loss()
                        fail("; ".join([str(loss), *loss.__notes__]))
                    sys.stderr.flush()
                    os._exit(1)  # nothing else ends a thread that waits inside gloo or NCCL

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield ended
        finally:
            ended.set()
            thread.join()

    def _missing(self) -> list[int]:
        """The ranks that have not come yet."""
        try:
            return [rank for rank in range(self.size) if not self._store.check([self._key(rank)])]
        except RuntimeError:
            return []

    def _is_told(self) -> bool:
        try:
            return self._store.check([self._key("told")])
        except RuntimeError:
            return False

    def _key(self, what: object) -> str:
        return f"alexnet/{self._attempt}/{what}"


def _sentence(lost: list[int]) -> str:
    if not lost:
        return "another process of this run was lost"
    if len(lost) == 1:
        return f"rank {lost[0]} of this run was lost"
    return f"ranks {', '.join(map(str, lost))} of this run were lost"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's, or this system has no /proc
        return True
    return state not in "ZX"  # it has ended, and its parent has not looked yet
