"""The hook of a run: what else is told of it, beside the history and the curves in its folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from alexnet_cli.training.checkpoint import TrainingState


class Logger(Protocol):
    """Follows a run. In a run of several processes rank 0 alone calls it."""

    def log(self, folder: Path, state: TrainingState) -> None:
        """Called when the run in ``folder`` starts or is resumed, and after each epoch.

        The checkpoint and the first layer's kernels of the epochs in ``state.history`` are in ``folder`` by then.
        """

    def close(self) -> None:
        """Called when the run has ended, was stopped or has failed; it may be resumed with the same logger."""


@contextmanager
def closing_all(loggers: Sequence[Logger]) -> Iterator[None]:
    """Closes ``loggers`` when the block ends."""
    try:
        yield
    finally:
        for logger in loggers:
            logger.close()
