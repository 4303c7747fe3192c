"""Features kept on disk by the hash of what they were computed from.

A cache may cost time, never correctness: what is read back is verified, and whatever
goes wrong with the disk is logged once and leaves the caller to compute.
"""

import logging
import os
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)
# SQLite's own default bound on the values of one statement was 999 for years.
_KEYS_PER_QUERY = 500


class CountCache:
    """Rows of counts by key, in one SQLite file that several processes may share.

    Every row carries a checksum of its key and counts, so a damaged row is a missing
    row. A connection lives for one call: the object can be used from any thread, and be
    pickled. After the first fault (locked, full or unwritable disk, damaged file) it
    logs one warning and stays empty.

    Args:
        path: The database file; it and its folder are created when needed.
        width: Counts in a row.
        timeout: Seconds to wait for another process that is writing.
    """

    def __init__(self, *, path: Path, width: int, timeout: float = 10.0) -> None:
        self.path = path
        self.width = width
        self.timeout = timeout
        self._broken = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.int16]]:
        """The rows, [width] each, of those keys that are cached."""
        found: dict[bytes, NDArray[np.int16]] = {}
        if self._broken:
            return found
        try:
            with closing(self._connect()) as connection:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    part = keys[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, value FROM counts WHERE key IN ({marks})"  # noqa: S608 - question marks only
                    for key, value in connection.execute(query, part):
                        row = self._unpack(key, value)
                        if row is not None:
                            found[key] = row
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return found

    def put(self, keys: Sequence[bytes], rows: NDArray[np.int16]) -> None:
        """Store rows [len(keys), width] in one transaction."""
        if self._broken:
            return
        values = [(key, self._pack(key, row)) for key, row in zip(keys, rows, strict=True)]
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?)", values)
                connection.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _pack(self, key: bytes, row: NDArray[np.int16]) -> bytes:
        counts = row.astype("<i2").tobytes()
        return counts + _checksum(key, counts)

    def _unpack(self, key: object, value: object) -> NDArray[np.int16] | None:
        if not isinstance(key, bytes) or not isinstance(value, bytes):
            return None
        counts, checksum = value[:-4], value[-4:]
        if len(counts) != 2 * self.width or checksum != _checksum(key, counts):
            return None
        return np.frombuffer(counts, dtype="<i2").astype(np.int16)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None)
        try:
            # The switch to WAL needs the file for itself, and does not wait for it: whoever
            # is too late finds it done, or works without.
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS counts"
                " (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        _log.warning(
            "%s: cache not used (%s), features are computed anew; free the disk, or delete"
            " the file if it is damaged",
            self.path,
            error,
        )


def _checksum(key: bytes, counts: bytes) -> bytes:
    return zlib.crc32(counts, zlib.crc32(key)).to_bytes(4, "little")


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]] | None:
    """Arrays of that name from an `.npz` file.

    Returns:
        All of them, or None when there is no file or it is damaged (logged).
    """
    try:
        # The zip format holds a checksum of every array. Opened here, because numpy
        # leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _log.warning("%s: damaged cache file (%s); it is made anew", path, error)
        return None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an `.npz` file that appears whole or not at all; a failure is logged only."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        Path(temporary).replace(path)
    except OSError as error:
        _log.warning("%s: cache not written (%s)", path, error)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
