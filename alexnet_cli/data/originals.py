"""The files that the pictures of a packed dataset were made from, where they are still there."""

import os
from pathlib import Path

from alexnet_cli.data.sources import leads_outside
from alexnet_cli.data.store import Dataset


def original(dataset: Dataset, name: str) -> Path | None:
    """The file of the picture called ``name``; None if it is not there, or lies in an archive."""
    if leads_outside(name):
        return None
    file = _source(dataset) / name
    return file if os.path.isfile(file) else None  # not Path's: it raises where reading is not allowed


def _source(dataset: Dataset) -> Path:
    """Where the source was when it was packed; if it is there no more, where it is if it moved with the workspace.

    Never as typed from the current folder: there, the same words may lead to another source.
    """
    absolute = Path(dataset.source.get("absolute", ""))  # older datasets do not have it
    if absolute.is_absolute() and os.path.exists(absolute):
        return absolute
    return dataset.path.resolve().parent.parent / dataset.source["path"]
