"""Imports point downwards only, through the rooms of docs/architecture.md in their order."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "alexnet_cli"
TOP = ("__init__.py", "__main__.py")  # the lazy interface, and the command


def rooms() -> dict[str, int]:
    """The row of the table of rooms that each file or folder stands in, from the top."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("| room | what it does |")[1].split("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in table.strip().splitlines()[1:]]
    return {name.rstrip("/"): i for i, names in enumerate(rows) for name in names}


def imports(file: Path) -> Iterator[str]:
    """The modules of the package that ``file`` imports anywhere, as paths within the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in named:
            first, *rest = name.split(".")
            path = "/".join(rest)
            if first == "alexnet_cli" and rest:
                if (PACKAGE / f"{path}.py").is_file():
                    yield f"{path}.py"
                elif (PACKAGE / path / "__init__.py").is_file():
                    yield path


def test_a_room_knows_the_rooms_below_it_and_none_above() -> None:
    rows = rooms()
    assert all((PACKAGE / name).exists() for name in rows)
    lowest = max(rows.values())  # what every room uses

    def row(path: str) -> int:
        """The row of ``path``, or of the folder that it is in."""
        known = [name for name in (path, path.split("/")[0]) if name in rows]
        assert known or "/" not in path, f"{path} stands in no row"
        return rows[known[0]] if known else lowest

    files = [file.relative_to(PACKAGE).as_posix() for file in sorted(PACKAGE.rglob("*.py"))]
    upwards = [
        f"{file} imports {other}"
        for file in files
        if file not in TOP
        for other in imports(PACKAGE / file)
        if row(other) < row(file)
    ]
    assert upwards == []
