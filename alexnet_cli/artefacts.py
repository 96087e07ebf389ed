"""Files that are either whole or not there: written beside, synced, renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_cli.errors import BadArtefact, first_line


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; when the block ends well it becomes ``path``, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name per process: two that write the same artefact cannot mix their bytes. The suffix stays, for
    # libraries that choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises BadArtefact, naming ``what`` it should have been, if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadArtefact(f"{path.parent} is no {what}: it has no {path.name}") from None
    except (ValueError, OSError) as error:
        raise BadArtefact(f"{path} is damaged ({error}): make the {what} again") from None
    if not isinstance(content, dict):
        raise BadArtefact(f"{path} is damaged (no JSON object): make the {what} again")
    return content


def check_format(found: object, known: int, path: Path) -> None:
    """Refuse an artefact of a newer format version than ``known``; a number or its digits. Raises BadArtefact."""
    if isinstance(found, str) and found.isdigit():
        found = int(found)
    if not isinstance(found, int):
        raise BadArtefact(f"{path} is damaged: it names no format version")
    if found > known:
        raise BadArtefact(f"{path} has format {found}, newer than this program's {known}: upgrade alexnet-cli")


def model_name(path: Path) -> str:
    """What the model in a folder or ONNX file is called; a `model.onnx` goes by its folder."""
    if path.name == "model.onnx":
        return path.resolve().parent.name
    return path.stem if path.suffix == ".onnx" else path.resolve().name


def model_fingerprint(folder: Path) -> str:
    """The fingerprint in the header of a model's `model.safetensors`. Raises BadArtefact."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            return str((file.metadata() or {})["fingerprint"])
    except (OSError, SafetensorError, KeyError) as error:
        raise BadArtefact(f"{folder} is no model, or damaged ({first_line(error)}): train it again") from None
