"""The files that the pictures of a packed dataset were made from, where they are still there."""

from pathlib import Path

from alexnet_cli.data.sources import leads_outside
from alexnet_cli.data.store import Dataset


def original(dataset: Dataset, name: str) -> Path | None:
    """The file of the picture called ``name``; None if it is not there, or lies in an archive.

    The dataset knows its source as it was typed: from the current folder, or from the workspace.
    """
    if leads_outside(name):
        return None
    source = Path(dataset.source["path"])
    for folder in (source, dataset.path.resolve().parent.parent / source):
        if (folder / name).is_file():
            return (folder / name).absolute()
    return None
