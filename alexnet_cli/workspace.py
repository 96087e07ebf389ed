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
            for newest in self.all(kind):
                return newest
            raise BadArtefact(f"no {kind} in {self.root / home} yet: make one with `{maker}`, or name one")
        for path in (self.root / home / named, Path(named)):
            if (path / marker).is_file():
                return path
        raise BadArtefact(
            f"no {kind} {named!r}: there is neither {self.root / home / named / marker} nor {Path(named) / marker}; "
            f"make one with `{maker}`"
        )

    def all(self, kind: str) -> list[Path]:
        """Every artefact of a kind, newest first."""
        home, marker, _ = HOMES[kind]
        files = (self.root / home).glob(f"*/{marker}")
        return [file.parent for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file), reverse=True)]

    def find_classifier(self, named: str | None) -> Path:
        """A model's folder, or an ONNX file. Raises BadArtefact if there is none."""
        if named is not None and named.endswith(".onnx"):
            for path in (Path(named), self.home("model") / named):
                if path.is_file():
                    return path
            raise BadArtefact(f"no file {named}: make one with `alexnet export`")
        return self.find("model", named)

    def find_pictures(self, named: str | None) -> Path:
        """A dataset, or any folder or archive of pictures; the newest dataset if none is named."""
        if named is None or (self.home("dataset") / named / HOMES["dataset"][1]).is_file():
            return self.find("dataset", named)
        return Path(named)
