"""Thumbnails of indexed pictures, kept on disk within a bound.

They lie in the user's cache folder, not in the index's: an index may be on a disk that is only read, and is compared
with its checksums. One SQLite file holds them: what is written is whole or not there, whoever is killed when.
"""

import contextlib
import hashlib
import io
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from alexnet_cli.files import checksum

SIDE = 256  # pixels: tiles are half as wide, on screens with two pixels to one
QUALITY = 82  # of JPEG: about 12 kB
BOUND = 200_000_000  # bytes of all thumbnails: some 16,000; the file and its log take a third more at most
FREED = 0.8  # of the bound is kept when it is reached
FILE = "thumbnails-3.sqlite"  # the number is that of its format
BUSY_SECONDS = 0.1  # to wait for another server that writes: a thumbnail is made faster


Result = TypeVar("Result")


def cache_folder() -> Path:
    """The folder for what can be made again: XDG_CACHE_HOME/alexnet, or ~/.cache/alexnet."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path("~/.cache").expanduser()) / "alexnet"


def encode(pixels: np.ndarray) -> bytes:
    """A picture (S, S, 3) uint8 as a JPEG of at most SIDE pixels."""
    image = Image.fromarray(pixels)
    if image.width > SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def key_of(*parts: object) -> str:
    """The key of a thumbnail, by all that decides what it shows."""
    return hashlib.sha256(repr((SIDE, QUALITY, *parts)).encode()).hexdigest()[:32]


class Cache:
    """JPEGs by key. What fails, such as a full disk, only costs the time to make a thumbnail again.

    Its methods may be called from several threads, and several servers may use one file.
    """

    def __init__(self, folder: Path | None, bound: int = BOUND) -> None:
        """``folder``: None keeps nothing."""
        self.bound, self._lock, self._size = bound, threading.Lock(), 0
        self._connection: sqlite3.Connection | None = None
        if folder is not None:
            self.file = folder / FILE
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)  # other users of this machine may not see the pictures
                self._using(self._connect)

    def get(self, key: str) -> bytes | None:
        """The JPEG that was put under ``key``."""
        return self._using(lambda: self._get(key))

    def put(self, key: str, jpeg: bytes) -> None:
        """Keep ``jpeg``; over the bound, those that were put first go."""
        self._using(lambda: self._put(key, jpeg))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _using(self, work: Callable[[], Result]) -> Result | None:
        """What ``work`` does with the file; None if that fails. A damaged file is made anew."""
        with self._lock:
            try:
                return work()
            except sqlite3.DatabaseError as error:
                # Of the system, or another server writes: the file may be good.
                if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                    return None
                with contextlib.suppress(sqlite3.Error, OSError):
                    if self._connection is not None:
                        self._connection.close()
                    self._connection = None
                    for suffix in ("", "-journal"):
                        Path(f"{self.file}{suffix}").unlink(missing_ok=True)
                    self._connect()
                return None

    def _connect(self) -> None:
        self._connection = _open(self.file)
        self._size = _size(self._connection)

    def _get(self, key: str) -> bytes | None:
        if self._connection is None:
            return None
        found = self._connection.execute("SELECT jpeg, checksum FROM thumbnails WHERE key = ?", (key,)).fetchone()
        is_good = found is not None and isinstance(found[0], bytes) and checksum(found[0]) == found[1]
        return found[0] if is_good else None

    def _put(self, key: str, jpeg: bytes) -> None:
        if self._connection is None:
            return
        with self._connection:  # one transaction
            row = (key, time.time_ns(), checksum(jpeg), jpeg)
            self._connection.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?)", row)
            self._size += len(jpeg)
            if self._size > self.bound:
                self._size = _trim(self._connection, FREED * self.bound)


def _size(connection: sqlite3.Connection) -> int:
    """Bytes of all thumbnails: not counted at every `put`, since that reads the whole table."""
    return int(connection.execute("SELECT COALESCE(SUM(LENGTH(jpeg)), 0) FROM thumbnails").fetchone()[0])


def _trim(connection: sqlite3.Connection, most: float) -> int:
    """Remove those that were put first until at most ``most`` bytes are left; returns how many are."""
    size = _size(connection)
    for key, length in connection.execute("SELECT key, LENGTH(jpeg) FROM thumbnails ORDER BY put").fetchall():
        if size <= most:
            break
        connection.execute("DELETE FROM thumbnails WHERE key = ?", (key,))
        size -= length
    return size


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        # Not WAL, whose index is mapped: if another program cut that file short, the system would end this process.
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = OFF")  # what can be made again need not outlive a power cut
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS thumbnails (key TEXT PRIMARY KEY, put INTEGER, checksum TEXT, jpeg BLOB)"
        )
    except BaseException:
        connection.close()
        raise
    return connection
