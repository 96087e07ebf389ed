"""The folder in which datasets, models and indexes live, and what a command takes when nothing is named."""

from pathlib import Path

from alexnet_cli.errors import BadArtefact

# kind of artefact -> (its home, the file that is written last and makes it whole, the command that makes one)
HOMES = {
    "dataset": ("data", "dataset.json", "alexnet prep FOLDER"),
    "model": ("models", "model.safetensors", "alexnet train"),
    "index": ("indexes", "index.json", "alexnet index"),
}


class Workspace:
    """A folder with ``data/``, ``models/`` and ``indexes/``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def home(self, kind: str) -> Path:
        return self.root / HOMES[kind][0]

    def find(self, kind: str, named: str | None) -> Path:
        """The artefact ``named`` (a name in its home, or a path), or the newest of its kind.

        Raises BadArtefact if there is none.
        """
        home, marker, maker = HOMES[kind]
        if named is None:
            return self._newest(kind)
        for path in (self.root / home / named, Path(named)):
            if (path / marker).is_file():
                return path
        raise BadArtefact(
            f"no {kind} {named!r}: there is neither {self.root / home / named / marker} nor {Path(named) / marker}; "
            f"make one with `{maker}`"
        )

    def _newest(self, kind: str) -> Path:
        home, marker, maker = HOMES[kind]
        markers = list((self.root / home).glob(f"*/{marker}"))
        if not markers:
            raise BadArtefact(f"no {kind} in {self.root / home} yet: make one with `{maker}`, or name one")
        return max(markers, key=lambda file: (file.stat().st_mtime_ns, file)).parent
