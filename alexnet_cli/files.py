"""Files that are whole or not there: written under a temporary name, with checksums, by one process at a time."""

import errno
import itertools
import json
import os
import re
import secrets
import shutil
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from alexnet_cli.errors import AlexNetError, BadArtefact, first_line

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-z_]+\.part(\.\w+)?")  # .NAME.PROCESS-TOKEN.part.SUFFIX
LOCK_FILE = ".alexnet.lock"
ATTEMPTS = 1000  # at taking a lock while others take and release it
DTYPES = {  # NumPy's names of types -> those of safetensors
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
    "float32": "F32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "uint8": "U8",
}


STEM = 200  # bytes of a file's name that stay in its temporary one: a name may have 255 in all


def temporary_path(path: Path) -> Path:
    """A name in the folder of ``path`` that no other process or thread takes, and that `sweep` removes.

    It keeps the suffix of ``path``, because some libraries choose the file format by it.
    """
    return path.with_name(f".{_kept(path)}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success sync it and rename it to ``path``.

    Without ``replace``, it raises FileExistsError if there is something at ``path`` by then. The file is there, empty,
    and locked until it has its name, which keeps it from `sweep`. If the block raises, it is removed and ``path`` is
    left as it was.
    """
    temporary = temporary_path(path)
    try:
        with _hold(temporary):
            yield temporary
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path) if replace else _rename_new(temporary, path)
        sync_folder(path.parent)
    except OSError as error:  # a failed write does not know the name of its file
        if error.filename is None or str(temporary) in (error.filename, error.filename2):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # a file system that has become read-only; the next run sweeps it
            temporary.unlink(missing_ok=True)


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename without replacing. Raises FileExistsError."""
    try:
        os.link(temporary, path)  # which, unlike a rename, fails if there is something
    except FileExistsError:
        raise
    except OSError:  # of a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, which is removed afterwards. A lock in it keeps it from `sweep`."""
    folder = temporary_path(path)
    try:
        with _hold(folder / LOCK_FILE):
            yield folder
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` outlast a power failure."""
    with suppress(PermissionError):  # a system that does not open folders has no need of it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _kept(path: Path) -> str:
    """What stays of a file's name in its temporary one."""
    return os.fsdecode(os.fsencode(path.stem)[:STEM])


def is_temporary(path: Path) -> bool:
    """Whether ``path`` is called like one of our temporary files."""
    return TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path, of: Path | None = None) -> None:
    """Remove the temporary files that killed runs left in ``folder``, or only those ``of`` one file.

    Locked ones stay: they are being written. Some of an artefact's files are not locked by themselves, so only its one
    writer may sweep its whole folder. What cannot be removed stays.
    """
    for path in filter(is_temporary, folder.iterdir() if folder.is_dir() else ()):
        if of is None or (path.name.startswith(f".{_kept(of)}.") and path.name.endswith(f".part{of.suffix}")):
            with suppress(OSError):  # another has removed it, owns it, or holds its lock
                _remove(path)


def _remove(path: Path) -> None:
    """Raises BlockingIOError if a process holds its lock."""
    import fcntl

    if path.is_symlink():
        path.unlink()
        return
    # To lock a file on some network file systems, it must be open for writing. To open a FIFO would wait for a reader.
    if path.is_dir():
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)
    else:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(lock)


@contextmanager
def _hold(path: Path) -> Iterator[None]:
    """Make the file ``path``, with its folder, and hold its lock, which ends with its process."""
    import fcntl

    for attempt in range(ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another has just swept the folder
            if attempt == ATTEMPTS - 1:
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(path, lock):  # else another has swept it before it was locked
                yield
                return
        finally:
            os.close(lock)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that is open is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@contextmanager
def one_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of the artefact in ``folder``, a ``what`` ("dataset", "model", "index"), and sweep the folder.

    The lock ends with its process, however that ends. Raises AlexNetError if another process holds it. A folder that
    is empty afterwards is removed.
    """
    path = folder / LOCK_FILE
    lock = _locked(path, what)
    try:
        sweep(folder)
        yield
    finally:
        path.unlink(missing_ok=True)  # while the lock is held, so that no other process can hold it
        os.close(lock)
        with suppress(OSError):
            folder.rmdir()  # if it is empty


def _locked(path: Path, what: str) -> int:
    """The descriptor of the lock file at ``path``, locked. Raises AlexNetError if another process holds it."""
    import fcntl

    folder = path.parent
    for attempt in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Of a link, what it leads to would be locked, and removed with it; to open a FIFO would wait for a reader.
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except (FileNotFoundError, FileExistsError):  # perhaps a process that ended has just removed the folder
            if attempt == ATTEMPTS - 1 or (os.path.lexists(folder) and not folder.is_dir()):
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, lock):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise AlexNetError(
                f"another process is writing the {what} {folder}: wait for it to end, or choose another name"
            ) from None
        os.close(lock)  # of a file that its holder removed in between: nobody else would see this lock
    raise AlexNetError(f"the {what} {folder} could not be locked in {ATTEMPTS} attempts: try again")


# Checksums: they find damage by disks, not by people, who could change them as well.


def checksum(content: bytes | memoryview) -> str:
    """XXH3 of ``content``, 128 bits in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(content)


def file_checksum(path: Path, start: int = 0) -> str:
    """The checksum of the file at ``path``, from byte ``start`` on. Raises OSError as `open_regular` does."""
    digest = xxhash.xxh3_128()
    with open(open_regular(path), "rb") as file:
        file.seek(start)
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


# JSON


def write_json(path: Path, content: object) -> None:
    """Write ``content`` atomically as indented JSON.

    The bytes of a file's name that are not UTF-8 become escapes such as \\udcff, which `read_json` undoes.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read the JSON object in ``path``, a file of a ``what`` ("dataset", "index").

    Raises BadArtefact if the file is missing or not a JSON object, and OSError if it cannot be read.
    """
    try:
        with open(open_regular(path), encoding="utf-8") as file:
            content = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtefact(f"{path.parent} is not {with_article(what)}: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise BadArtefact(f"{path} is damaged ({first_line(error)}): make the {what} again") from None
    if not isinstance(content, dict):
        raise BadArtefact(f"{path} is damaged (not a JSON object): make the {what} again")
    return content


def real_path(path: Path) -> Path:
    """The absolute path without links; unlike `Path.resolve` of Python 3.11, of links in a circle as well."""
    return Path(os.path.realpath(path))


def open_regular(path: Path) -> int:
    """A descriptor to read ``path`` with. Raises OSError for a folder, a FIFO or a device, which could block."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def check_opens(path: Path) -> None:
    """Raises OSError if the system does not open ``path``: a library that reads it would call the file damaged."""
    os.close(open_regular(path))


def is_utf8(name: str) -> bool:
    """Whether the name of a file, as Python gives it, is UTF-8 on disk."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def free_name(path: Path) -> str:
    """The first of name-2, name-3 ... that is free beside ``path``."""
    return next(name for i in itertools.count(2) if not (path.parent / (name := f"{path.name}-{i}")).exists())


def with_article(noun: str) -> str:
    """ "a model", "an index"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


# Tensors, in the format of safetensors: the size of a JSON header, the header, and the arrays one after the other. The
# library would write a temporary file of its own, readable by its owner alone.


def write_tensors(path: Path, tensors: Mapping[str, "np.ndarray"], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` and ``metadata`` atomically as a safetensors file, with a checksum of both."""
    import numpy as np

    ordered = dict(sorted(tensors.items(), key=lambda pair: (-pair[1].dtype.itemsize, pair[0])))  # keeps them aligned
    arrays = {name: np.asarray(array, order="C") for name, array in ordered.items()}
    header: dict[str, Any] = {"__metadata__": {**metadata, "checksum": _tensors_checksum(arrays, metadata)}}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)


def read_tensors(path: Path, *, what: str, remedy: str = "") -> tuple[dict[str, str], dict[str, "np.ndarray"]]:
    """Metadata and tensors of a safetensors file of a ``what`` ("model", "checkpoint"); loading it runs no code.

    Raises BadArtefact, which says what to do (``remedy``; by default to make it again), if it is missing or damaged,
    and OSError if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    remedy = remedy or f"make the {what} again"
    try:
        check_opens(path)
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtefact(f"no {what} at {path.parent}: it has no {path.name}") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise BadArtefact(f"{path} is damaged or no {what} ({first_line(error)}): {remedy}") from None
    if metadata.pop("checksum", None) != _tensors_checksum(tensors, metadata):
        raise BadArtefact(f"{path} is damaged (its checksum differs): {remedy}")
    return metadata, tensors


def _tensors_checksum(tensors: Mapping[str, "np.ndarray"], metadata: Mapping[str, str]) -> str:
    import numpy as np

    digest = xxhash.xxh3_128(json.dumps(sorted(metadata.items())).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
