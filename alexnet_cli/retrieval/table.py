"""Which picture each row of an index is, and which pictures were refused: a table in SQLite."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from alexnet_cli.errors import first_line
from alexnet_cli.files import check_opens
from alexnet_cli.retrieval.layout import TABLE, damaged

Row = tuple[int, str, str | None, str]  # row, path within the source, label, stamp
IMAGES = "CREATE TABLE images (row INTEGER PRIMARY KEY, path TEXT, label TEXT, stamp TEXT, vector INTEGER)"
REFUSED = "CREATE TABLE refused (path TEXT, reason TEXT, stamp TEXT)"
STEPS = 100_000  # of SQLite's machine, after which it asks whether to go on
LEAST_STEPS, STEPS_A_BYTE = 10_000_000, 4  # how many a question may take; a row has some 100 bytes, and takes some 30
ASKED = 500  # rows in one question to SQLite, or one reading of an answer
LONGEST_PATH, LONGEST_LABEL = 2**16, 2**12  # letters; a name in a zip is shorter than that, and a folder has 255


class Table:
    """An open table. Any number of threads may ask it at once."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self.connection, self.file = connection, file
        # Threads share the one connection: another one would open what has the file's name by then, perhaps the next
        # generation's table.
        self._lock = threading.Lock()
        self._steps, self._most_steps = 0, LEAST_STEPS + STEPS_A_BYTE * file.stat().st_size
        connection.set_progress_handler(self._is_endless, STEPS)

    @classmethod
    def open(cls, file: Path) -> "Table":
        """Raises BadArtefact if ``file`` is no database, and OSError if it cannot be opened."""
        uri = f"{file.resolve().as_uri()}?mode=ro&immutable=1"  # nobody changes the file, so it needs no locks
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            connection.execute("PRAGMA trusted_schema = OFF")
            schema = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
            if schema != [(IMAGES,), (REFUSED,)]:  # a view, or a column that is computed, could compute without end
                connection.close()
                raise damaged(file.parent, f"{TABLE} has other tables than an index")
            return cls(connection, file)
        except sqlite3.Error as error:
            check_opens(file)
            raise damaged(file.parent, f"{TABLE} cannot be opened ({first_line(error)})") from None

    def __len__(self) -> int:
        with self._asking():  # the rows are numbered from 0: to count them would read the whole table
            return int(self.connection.execute("SELECT COALESCE(MAX(row) + 1, 0) FROM images").fetchone()[0])

    def picture(self, row: int) -> tuple[str, str | None]:
        """Path within the source and label of the picture in ``row``. Raises BadArtefact if the table has none."""
        with self._asking():
            found = self.connection.execute("SELECT path, label FROM images WHERE row = ?", (row,)).fetchone()
        path, label = found or (None, None)
        self._check(row, path, label)
        return str(path), label

    def label_counts(self) -> dict[str | None, int]:
        """How many pictures have each label; the whole table is read."""
        counts = dict(self._each("SELECT label, COUNT(*) FROM images GROUP BY label ORDER BY label"))
        for label in counts:
            self._check(0, "", label)
        return counts

    def pictures(self, label: str | None, after: int, count: int) -> list[tuple[int, str, str | None]]:
        """Row, path and label of the first ``count`` pictures of a ``label`` whose rows are greater than ``after``."""
        with self._asking():
            found = self.connection.execute(
                "SELECT row, path, label FROM images WHERE row > ? AND label IS ? ORDER BY row LIMIT ?",
                (after, label, count),
            ).fetchall()
        for row, path, own in found:
            self._check(row, path, own)
        return found

    def _check(self, row: int, path: object, label: object) -> None:
        is_path = isinstance(path, str) and "\0" not in path and len(path) < LONGEST_PATH
        if not is_path or not isinstance(label, str | None) or len(label or "") > LONGEST_LABEL:
            raise damaged(self.file.parent, f"{TABLE} has no picture in row {row}")

    def check_vectors(self, rows: list[int], vectors: np.ndarray) -> None:
        """Raises BadArtefact unless ``vectors`` (n, D) float32 are those that were written for ``rows`` (n,)."""
        wanted: dict[int, object] = {}
        for start in range(0, len(rows), ASKED):
            some = rows[start : start + ASKED]
            with self._asking():
                wanted |= self.connection.execute(
                    f"SELECT row, vector FROM images WHERE row IN ({','.join('?' * len(some))})", some
                )
        for row, checksum in zip(rows, row_checksums(vectors), strict=True):
            if wanted.get(row) != checksum:
                raise damaged(self.file.parent, f"the vector of row {row} is not the one that was written")

    def rows(self) -> Iterator[Row]:
        """Every picture of the index, in the order of their rows."""
        return self._each("SELECT row, path, label, stamp FROM images ORDER BY row")

    def checksums(self) -> Iterator[int]:
        """Those of the vectors of all rows, in their order."""
        return (checksum for (checksum,) in self._each("SELECT vector FROM images ORDER BY row"))

    def refused(self) -> Iterator[tuple[str, str, str]]:
        """Path, reason and stamp of every picture of the source that could not be embedded."""
        return self._each("SELECT path, reason, stamp FROM refused")

    def _each(self, question: str) -> Iterator[Any]:
        """The lines that answer ``question``, read ASKED at a time: other threads may ask between two readings."""
        with self._asking():
            cursor = self.connection.execute(question)
        while lines := self._next(cursor):
            yield from lines

    def _next(self, cursor: sqlite3.Cursor) -> list[Any]:
        with self._asking():
            return cursor.fetchmany(ASKED)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """One question, or one reading of an answer."""
        with _reading(self.file), self._lock:
            self._steps = 0
            yield

    def _is_endless(self) -> bool:
        """Whether the question has taken more steps than a table of this size can: its pages lead in circles."""
        self._steps += STEPS
        return self._steps > self._most_steps

    def close(self) -> None:
        """Close the file. No thread may be reading it."""
        self.connection.close()


class TableWriter:
    """Writes a table. Raises OSError if the disk is full or fails."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with _writing(file):
            self.connection = sqlite3.connect(file)
            self.connection.execute("PRAGMA journal_mode = OFF")  # an incomplete table is thrown away
            self.connection.execute("PRAGMA synchronous = OFF")  # it is synced once, when it is complete
            self.connection.execute(IMAGES)
            self.connection.execute(REFUSED)

    def add(self, rows: Iterable[Row], checksums: Iterable[int]) -> None:
        """Append pictures of the index, with the `row_checksums` of their vectors."""
        lines = ((*row, checksum) for row, checksum in zip(rows, checksums, strict=True))
        with _writing(self.file):
            self.connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?)", lines)

    def refuse(self, path: str, reason: str, stamp: str) -> None:
        """Append a picture that could not be embedded."""
        with _writing(self.file):
            self.connection.execute("INSERT INTO refused VALUES (?, ?, ?)", (path, reason, stamp))

    def finish(self) -> None:
        """Complete the file."""
        with _writing(self.file):
            self.connection.commit()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def row_checksums(vectors: np.ndarray) -> list[int]:
    """XXH3 of each of ``vectors`` (n, D) float32, as a signed number of 64 bits, which SQLite holds."""
    rows = np.ascontiguousarray(vectors, np.float32)
    digests = np.array([xxhash.xxh3_64_intdigest(row.data) for row in rows], np.uint64)
    return [int(digest) for digest in digests.view(np.int64)]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Errors of SQLite become BadArtefact, or OSError where the system failed."""
    try:
        yield
    except sqlite3.ProgrammingError:  # by this program
        raise
    except sqlite3.Error as error:
        if _primary_code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
            raise OSError(errno.EIO, first_line(error), str(file)) from None
        raise damaged(file.parent, f"{TABLE} cannot be read ({first_line(error)})") from None


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Errors of SQLite become OSError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _primary_code(error) == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from None
        raise OSError(errno.EIO, first_line(error), str(file)) from None


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in its upper bits
