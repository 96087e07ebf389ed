"""The folder of an index: its files, the generation that they belong to, and `index.json`, which makes it complete.

`index.json` names the generation of the files: an update writes `index.GENERATION.faiss` and
`images.GENERATION.sqlite`, then `index.json`, and only then renames them to `index.faiss` and `images.sqlite`. Wherever
that is cut short, `index.json` says which files belong together, and the next update completes it. An update may also
leave `index.faiss` as it is, and put what is new into `index-1.faiss`, the next one into `index-2.faiss`: those are the
`pieces` that `index.json` tells of, the first of which is `index.faiss`. An index that is not
flat has codes as well, `codes.faiss`. An index whose vectors are in Milvus has `milvus.json` instead of `index.faiss`.
"""

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_cli.artefacts import INDEX_FILE, check_format
from alexnet_cli.errors import BadArtefact
from alexnet_cli.files import checksum, file_checksum, read_json, write_json

FORMAT = 2
NAMES = VECTORS, TABLE, CODES, ENGINE = "index.faiss", "images.sqlite", "codes.faiss", "milvus.json"


def damaged(folder: Path, why: str) -> BadArtefact:
    """The error for an index whose content is not what was written."""
    return BadArtefact(f"{folder} is damaged: {why}; remove it and build the index again")


# index.json


def is_count(value: object, least: int = 0, most: int = 2**40) -> bool:
    """Whether ``value`` is an int in the range; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_text(value: object) -> bool:
    """Whether ``value`` is a text that can be, or be in, the name of a file."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False


def _is_generation(value: object) -> bool:  # it becomes part of file names
    return isinstance(value, str) and re.fullmatch(r"[0-9a-z]{1,32}", value) is not None


def _are_pieces(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and is_count(one.get("count"), least=1) and _is_text(one.get("checksum")) for one in value
    )


def _is_files(value: object) -> bool:
    return (
        isinstance(value, dict)
        and TABLE in value
        and all(
            isinstance(one, dict) and is_count(one.get("bytes")) and _is_text(one.get("checksum"))
            for one in value.values()
        )
    )


CHECKS: dict[str, Callable[[Any], bool]] = {
    "metric": lambda value: value == "euclidean",
    "kind": _is_text,
    "named_kind": lambda value: value is None or _is_text(value),
    "count": lambda value: is_count(value, least=1),
    "dimension": lambda value: is_count(value, least=1, most=2**31 - 1),  # FAISS's int
    "unfinished": is_count,
    "measured_on": lambda value: is_count(value, least=1),
    "image_size": lambda value: is_count(value, least=1, most=2**14),
    "model": _is_text,
    "model_path": _is_text,
    "model_fingerprint": _is_text,
    "precision": _is_text,
    "source": _is_text,
    "named": _is_text,
    "names": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "split": lambda value: value is None or _is_text(value),
    "are_files": lambda value: isinstance(value, bool),
    "generation": _is_generation,
    "files": _is_files,
    "pieces": _are_pieces,
    "live": lambda value: isinstance(value, list),
}


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``facts`` to `index.json` with their checksum: from here on their generation is the index."""
    write_json(folder / INDEX_FILE, facts | {"checksum": _checksum(facts)})


def read_facts(folder: Path) -> dict[str, Any]:
    """What `index.json` says of the index in ``folder``; whatever the program uses has the right type and range.

    Raises BadArtefact if it is missing, damaged or of a newer format.
    """
    path = folder / INDEX_FILE
    try:
        facts = read_json(path, what="index")
    except BadArtefact as error:
        if not path.exists():
            raise
        advice = f"remove {folder} and build the index again"
        raise BadArtefact(str(error).replace("make the index again", advice)) from None
    if not is_count(facts.get("format")):
        raise damaged(folder, f"{INDEX_FILE} has no format version")
    check_format(facts["format"], FORMAT, path, f"remove {folder} and build the index again")
    if facts.pop("checksum", None) != _checksum(facts):
        raise damaged(folder, f"the checksum of {INDEX_FILE} differs")
    for key, is_right in CHECKS.items():
        if key not in facts:
            raise damaged(folder, f"{INDEX_FILE} has no {key!r}")
        if not is_right(facts[key]):
            raise damaged(folder, f"{INDEX_FILE} has {key!r} as {str(facts[key])[:60]!r}")
    return facts


def _checksum(facts: dict[str, Any]) -> str:
    return checksum(json.dumps(facts, sort_keys=True).encode())


# The other files


def file_of(folder: Path, facts: dict[str, Any], name: str) -> Path:
    """TABLE, CODES or ENGINE of the generation in ``facts``. Raises BadArtefact if it is missing or of another size.

    An update may rename the file between this call and the next: then there is FileNotFoundError.
    """
    if name not in facts["files"]:
        raise damaged(folder, f"{INDEX_FILE} does not tell of {name}")
    for file in (of_generation(folder, name, facts["generation"]), folder / name):
        size = _size(file)
        if size is None:
            continue
        if size != (wanted := facts["files"][name]["bytes"]):
            raise damaged(folder, f"{name} has {size:,} bytes, not {wanted:,}")
        return file
    raise damaged(folder, f"{name} is missing")


def piece(folder: Path, number: int | str) -> Path:
    """The file of what an update has added; ``number``: from 1, or * for a pattern."""
    stem, suffix = os.path.splitext(VECTORS)
    return folder / f"{stem}-{number}{suffix}"


def piece_of(folder: Path, facts: dict[str, Any], number: int) -> Path:
    """The file of a piece of the index in ``facts``; 0 is VECTORS. Raises BadArtefact if it is missing."""
    files = [of_generation(folder, VECTORS, facts["generation"]), folder / VECTORS]
    if number:
        files = [piece(folder, number)]
    for file in files:
        if _size(file) is not None:
            return file
    raise damaged(folder, f"{file.name} is missing")


def _size(file: Path) -> int | None:
    """In bytes; None if there is no such file. Raises BadArtefact if it is not a regular one."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):  # to open a FIFO or to read a device may never end
        raise damaged(file.parent, f"{file.name} is not a regular file")
    return found.st_size


def compare_checksum(file: Path, facts: dict[str, Any], name: str) -> None:
    """Read all of ``file``, TABLE or CODES of an index. Raises BadArtefact if it is not what was written."""
    if file_checksum(file) != facts["files"][name]["checksum"]:
        raise damaged(file.parent, f"the checksum of {name} differs")


def of_generation(folder: Path, name: str, generation: str) -> Path:
    """Where an update writes ``name`` before it is renamed to that."""
    stem, suffix = os.path.splitext(name)
    return folder / f"{stem}.{generation}{suffix}"


def tidy(folder: Path) -> None:
    """Complete what an update left unfinished: plain names for the files of the index, and none of another generation.

    Only the index's one writer may do this.
    """
    facts = None
    if (folder / INDEX_FILE).exists():
        try:
            facts = read_facts(folder)
        except BadArtefact:
            return  # damaged, or of a newer program
    for name in NAMES:
        own = None if facts is None else of_generation(folder, name, facts["generation"])
        stem, suffix = os.path.splitext(name)
        for file in folder.glob(f"{stem}.*{suffix}"):
            if file != own:
                _remove(file)
            elif name != ENGINE or _remove(folder / name):
                os.replace(file, folder / name)
        if facts is not None and name not in facts["files"] and not (name == VECTORS and facts["pieces"]):
            _remove(folder / name)  # of an index that was of another kind
    own_pieces = {piece(folder, number) for number in range(1, len(facts["pieces"]) if facts else 0)}
    for file in set(folder.glob(piece(folder, "*").name)) - own_pieces:
        file.unlink()


def _remove(file: Path) -> bool:
    """Remove ``file``, and the collection that it tells of; whether it is gone."""
    stem, suffix = os.path.splitext(ENGINE)
    if file.name.startswith(f"{stem}.") and file.suffix == suffix and file.exists():
        from alexnet_cli.retrieval.milvus import drop

        if not drop(file):
            return False  # the engine is away: the next update tries again
    file.unlink(missing_ok=True)
    return True
