"""Tables uploaded on the page: predicted, shown in part, and kept for a while to be fetched."""

import asyncio
import contextlib
import csv
import io
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from fakenews.data.formats import kind, open_source
from fakenews.serving.gateway.problems import Problem

_SHOWN = 10
_NAME = 24
_OURS = re.compile(r"[A-Za-z0-9_-]{32}")
_PREFIX = "fakenews-page-"
_LOCK = "alive.lock"


class PredictTable(Protocol):
    """Predicts a table, as a `TableScorer` does."""

    def __call__(
        self, file: BinaryIO, name: str, *, text: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The table with predictions, as CSV, piece by piece."""


class Shelf:
    """Keeps files for a while, under names that cannot be guessed.

    Args:
        seconds: For which a file is kept.
    """

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        _sweep(seconds)
        self._root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = FileLock(self._root / _LOCK)
        self._lock.acquire()
        self.folder = self._root / "tables"
        self.folder.mkdir(mode=0o700)

    def new(self) -> Path:
        """A name for a file that is to be kept."""
        return self.folder / f"{secrets.token_urlsafe(_NAME)}.csv"

    def keep(self, path: Path) -> None:
        """Keep a file from now on, and delete it in the end."""
        asyncio.get_running_loop().call_later(self.seconds, path.unlink, True)

    def find(self, name: str) -> Path | None:
        """The file of a name, if it is kept."""
        if _OURS.fullmatch(name) is None:
            return None
        path = self.folder / f"{name}.csv"
        return path if path.is_file() else None

    def close(self) -> None:
        """Delete all."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._lock.release()


@dataclass(kw_only=True)
class Scored:
    """How far a table is.

    Attributes:
        total: Its rows; None when nobody knows.
        done: Rows that are predicted.
        failed: Those of them that have an error.
        columns: Of the predicted table.
        first: Its first rows.
        name: By which the whole table can be fetched, when it is done.
    """

    total: int | None
    done: int = 0
    failed: int = 0
    columns: list[str] = field(default_factory=list)
    first: list[list[str]] = field(default_factory=list)
    name: str | None = None


async def score(
    predict: PredictTable, shelf: Shelf, upload: Path, *, text: str | None
) -> AsyncGenerator[Scored, None]:
    """Predict an uploaded table, and put the result on the shelf.

    Args:
        predict: As a `TableScorer` does.
        shelf: Takes it.
        upload: The file.
        text: Column of the text; None looks for a usual name.

    Raises:
        Problem: As it raises them, or there is no room for the result.
    """
    state = Scored(total=await asyncio.to_thread(count_rows, upload))
    out = shelf.new()
    done = False
    try:
        with upload.open("rb") as file, out.open("wb") as result:
            async with aclosing(predict(file, upload.name, text=text)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(result.write, piece)
                    await asyncio.to_thread(_note, state, piece)
                    yield state
        done = True
    except OSError as error:
        raise Problem(503, "no_space", f"the table cannot be kept: {error.strerror}") from error
    finally:
        if done:
            shelf.keep(out)
        else:
            out.unlink(missing_ok=True)
    state.name = out.stem
    yield state


def count_rows(path: Path) -> int | None:
    """The rows of a table, for its progress; None if that is not quickly known.

    Args:
        path: Of the table.
    """
    try:
        if kind(path) in (".parquet", ".pq"):
            return int(pq.read_metadata(path).num_rows)
        if path.suffix == ".gz":  # a few bytes may stand for very many rows
            return None
        return sum(1 for _ in open_source(path, expected=[], lenient=True).records())
    except Exception:  # noqa: BLE001 its reader says what is wrong
        return None


def text_column(columns: Sequence[str], named: str | None, usual: Sequence[str]) -> str:
    """The column of the text, as a `TableScorer` finds it.

    Args:
        columns: Of the predicted table.
        named: By whoever sent it.
        usual: Names, by preference.
    """
    if named:
        return named
    return next((name for name in usual if name in columns), columns[0])


def _sweep(seconds: float) -> None:
    # What killed processes have left: files that people sent, which were to be deleted.
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            found = folder.lstat()
            # One that was made just now may not be locked yet.
            if found.st_uid == os.getuid() and found.st_mtime + seconds < time.time():
                with FileLock(folder / _LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)


def _note(state: Scored, piece: bytes) -> None:
    rows = csv.reader(io.StringIO(piece.decode(), newline=""))
    if not state.columns:
        state.columns = next(rows)
    error = state.columns.index("error")
    for row in rows:
        state.done += 1
        state.failed += bool(row[error])
        if len(state.first) < _SHOWN:
            state.first.append(row)
