"""The 2012 ImageNet network, whole and faithful: data, network, training, evaluation, export and search.

The functions below are imported when they are first used: `import alexnet_cli` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet_cli.interface import (
        build_index,
        evaluate,
        export,
        find_duplicates,
        open_dataset,
        open_index,
        open_model,
        prepare,
        resume,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "build_index",
    "evaluate",
    "export",
    "find_duplicates",
    "open_dataset",
    "open_index",
    "open_model",
    "prepare",
    "resume",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("alexnet_cli.interface"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
