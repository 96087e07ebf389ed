"""Files of datasets, models and indexes: their names, and how they are written and read.

Every artefact is written under a temporary name and then atomically renamed, so a file with an artefact's name is
always complete.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_cli.errors import BadArtefact, first_line

# In data/NAME/
DATASET_FILE = "dataset.json"  # written last: its presence marks a complete dataset
STATISTICS_FILE = "statistics.safetensors"
REJECTED_FILE = "rejected.csv"

# In models/NAME/
MODEL_FILE = "model.safetensors"  # its presence marks a trained model
RECIPE_FILE = "recipe.toml"
ONNX_FILE = "model.onnx"
HISTORY_FILE = "history.jsonl"
CHECKPOINT_FILE = "checkpoint/state.safetensors"

# In indexes/NAME/
INDEX_FILE = "index.json"  # written last: its presence marks a complete index


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success sync it and rename it to ``path``.

    If the block raises, the temporary file is removed and ``path`` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process id and token keep processes and threads that write the same artefact apart. The suffix stays, because some
    # libraries choose the file format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` atomically as indented JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read the JSON object in ``path``, a file of a ``what`` ("dataset", "index").

    Raises BadArtefact if the file is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadArtefact(f"{path.parent} is not {with_article(what)}: it has no {path.name}") from None
    except (ValueError, OSError) as error:
        raise BadArtefact(f"{path} is damaged ({error}): make the {what} again") from None
    if not isinstance(content, dict):
        raise BadArtefact(f"{path} is damaged (not a JSON object): make the {what} again")
    return content


def with_article(noun: str) -> str:
    """ "a model", "an index"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def check_format(version: object, supported: int, path: Path) -> None:
    """Check the format version, an int or its digits, that was read from ``path``.

    Raises BadArtefact if ``version`` is not a number, or is newer than ``supported``.
    """
    if isinstance(version, str) and version.isdigit():
        version = int(version)
    if not isinstance(version, int):
        raise BadArtefact(f"{path} is damaged: it has no format version")
    if version > supported:
        raise BadArtefact(
            f"{path} has format version {version}, this program reads up to {supported}: upgrade alexnet-cli"
        )


def model_name(path: Path) -> str:
    """The name of the model in a folder or an ONNX file: the folder's name, or the file's if it has its own."""
    if path.name == ONNX_FILE:
        return path.resolve().parent.name
    return path.stem if path.suffix == ".onnx" else path.resolve().name


def model_header(folder: Path) -> dict[str, str]:
    """What the file of the model in ``folder`` says of it: fingerprint, recipe, classes; the weights are not read.

    Raises BadArtefact if there is no model, or if it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / MODEL_FILE, framework="numpy") as file:
            header = dict(file.metadata() or {})
        return {"fingerprint": header["fingerprint"], **header}
    except FileNotFoundError:
        raise BadArtefact(f"no model at {folder}: it has no {MODEL_FILE}") from None
    except (OSError, SafetensorError, KeyError) as error:
        raise BadArtefact(f"{folder} is not a model, or is damaged ({first_line(error)}): train it again") from None


def model_fingerprint(folder: Path) -> str:
    """The fingerprint of the model in ``folder``. Raises BadArtefact."""
    return model_header(folder)["fingerprint"]
