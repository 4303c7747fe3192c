"""The files of a prediction log, wherever they are, each read as Parquet.

A deployment's folder, or its `predictions/`:

    predictions/date=YYYY-MM-DD/SEGMENT.parquet
    predictions/open/SEGMENT.jsonl                lines that are not Parquet yet
    feedback/YYYY-MM.jsonl

or any table, pattern or folder of tables (Parquet, CSV, TSV, JSON Lines), on this machine or
behind fsspec.
"""

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.data.formats import SUFFIXES, kind, open_source
from fakenews.data.storage import Storage
from fakenews.errors import DataError, MonitoringError
from fakenews.serving.gateway.segments import OPEN

_PREDICTIONS = "predictions"
_FEEDBACK = "feedback"
_PARQUET = SUFFIXES[-2:]
_MAGIC = re.compile(r"[*?\[]")
_DEPLOYMENT = re.compile(rf"((?:.*/)?){_PREDICTIONS}(?:/.*)?")
_DATE = re.compile(r"(?:^|/)date=(\d{4}-\d{2}-\d{2})/")
_ROWS = 8192  # of lines that become Parquet together
_BUFFER = 1 << 20


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A file of the log.

    Attributes:
        path: Relative to the folder.
        day: Of its rows, by the name of its folder; None for what may have any.
        open: Whether a gateway may be writing it.
    """

    path: str
    day: date | None = None
    open: bool = False

    @property
    def segment(self) -> str:
        """The name that lines and the Parquet made of them share."""
        return self.path.rpartition("/")[2].rpartition(".")[0]


class LogFiles:
    """Tables under one path.

    Args:
        path: Of a deployment, a folder, a file, or a pattern; or its URL.
        options: Storage options of a URL.
        work: Folder for what is made of lines; shared by all.

    Attributes:
        shown: The path, without credentials, for messages.
        is_deployment: Whether it is that of a gateway.

    Raises:
        ConfigError: See `Storage`.
        MonitoringError: There is no such path.
    """

    def __init__(
        self, path: str | Path, *, options: Mapping[str, Any] | None, work: Path
    ) -> None:
        given = os.fspath(path).removeprefix("file://")
        self._options = options
        self._work = work
        self._pattern: str | None = None
        folder = given.rstrip("/") or given
        if _is_file(given):
            folder, _, name = given.rpartition("/")
            folder = folder or ("/" if given.startswith("/") else ".")
            self._pattern = _escape(name)
        elif _MAGIC.search(given) and not Path(given).expanduser().exists():
            folder, self._pattern = _split(given)
        self._storage = Storage(folder, options=options)
        if self._storage.is_local and not self._local("").is_dir():
            raise MonitoringError(f"{given}: no such file or folder: mend the path")
        self.is_deployment = self._pattern is None and (
            folder.rpartition("/")[2] == _PREDICTIONS or bool(self._storage.list(_PREDICTIONS))
        )
        if self.is_deployment and folder.rpartition("/")[2] != _PREDICTIONS:
            self._storage = self._storage.below(_PREDICTIONS)
        self.shown = self._storage.url
        if self._pattern is not None and not self.list():
            raise MonitoringError(f"{given}: no such file: mend the path")

    def list(self) -> list[LogFile]:
        """The files as they are now, in order; those of open lines first.

        Raises:
            DataError: The folder cannot be listed.
        """
        found = [self._known(path) for path in self._storage.list()]
        return sorted(
            (file for file in found if file is not None), key=lambda file: not file.open
        )

    def feedback(self) -> "LogFiles | None":
        """What people said of predictions; None where there is nothing.

        Raises:
            DataError: The folder cannot be listed.
        """
        # Also where single files of a deployment are named.
        found = _DEPLOYMENT.fullmatch(self._storage.url)
        if found is None:
            return None
        base = found[1] + _FEEDBACK
        if not Storage(base, options=self._options).list():
            return None
        return LogFiles(base, options=self._options, work=self._work)

    @property
    def where(self) -> str:
        """The only file, or else the folder; for messages."""
        files = self.list()
        return self.name(files[0]) if len(files) == 1 else self.shown

    def name(self, file: LogFile) -> str:
        """A file, for messages."""
        return f"{self.shown}/{file.path}"

    @contextmanager
    def parquet(self, file: LogFile) -> Iterator[tuple[pq.ParquetFile, int]]:
        """Open a file as Parquet; lines become columns of strings, empty where there is null.

        Yields:
            It, and how many of its lines were left out as damaged.

        Raises:
            DataError: It is missing or cannot be read; also while it is open.
        """
        try:
            with self._open(file) as (source, damaged):
                reader = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
                with reader:
                    yield reader, damaged
        except FileNotFoundError:
            raise DataError(f"{self.name(file)}: it is gone") from None
        except (pa.ArrowException, OSError) as error:
            reason = next(iter(str(error).splitlines()), repr(error))[:200]
            raise DataError(f"{self.name(file)}: it cannot be read ({reason})") from error

    def _known(self, path: str) -> LogFile | None:
        parts = path.split("/")
        if any(part.startswith((".", "_")) for part in parts) or kind(Path(path)) is None:
            return None
        dated = _date(path)
        if self.is_deployment:
            lines = parts[0] == OPEN and len(parts) == 2 and path.endswith(".jsonl")
            sealed = dated is not None and len(parts) == 2 and path.endswith(".parquet")
            if not (lines or sealed):
                return None
            return LogFile(path=path, day=dated, open=lines)
        if self._pattern is not None and not _matches(parts, self._pattern.split("/")):
            return None
        return LogFile(path=path, day=dated)

    @contextmanager
    def _open(self, file: LogFile) -> Iterator[tuple[str | BinaryIO, int]]:
        if kind(Path(file.path)) not in _PARQUET:
            draft = self._work / "lines.parquet"
            with self._here(file) as path:
                damaged = _to_parquet(path, draft, torn=file.open)
            try:
                yield str(draft), damaged
            finally:
                draft.unlink()
        elif self._storage.is_local:
            yield str(self._local(file.path)), 0
        else:
            with self._storage.open(file.path) as content:
                yield content, 0

    @contextmanager
    def _here(self, file: LogFile) -> Iterator[Path]:
        """The file on this machine."""
        if self._storage.is_local:
            yield self._local(file.path)
            return
        copy = self._work / f"copy-{file.path.rpartition('/')[2]}"
        try:
            with self._storage.open(file.path) as content, copy.open("wb") as target:
                shutil.copyfileobj(content, target, _BUFFER)
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def _local(self, path: str) -> Path:
        return Path(self._storage.url).expanduser() / path


def _date(path: str) -> date | None:
    found = _DATE.search(path)
    try:
        return None if found is None else date.fromisoformat(found[1])
    except ValueError:  # as of month 13
        return None


def _is_file(given: str) -> bool:
    if "://" in given:
        return kind(Path(given)) is not None and _MAGIC.search(given) is None
    path = Path(given).expanduser()
    if path.is_file() and kind(path) is None:
        raise MonitoringError(
            f"{given}: cannot tell the format; the name must end in one of "
            f"{', '.join(SUFFIXES)}"
        )
    return path.is_file()


def _split(given: str) -> tuple[str, str]:
    """A pattern's folder, and what is matched below it."""
    parts = given.split("/")
    first = next(n for n, part in enumerate(parts) if _MAGIC.search(part))
    folder = "/".join(parts[:first])
    return folder or ("/" if given.startswith("/") else "."), "/".join(parts[first:])


def _escape(name: str) -> str:
    return _MAGIC.sub(lambda found: f"[{found[0]}]", name)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if "**" in pattern:
        return fnmatch.fnmatchcase("/".join(parts), "/".join(pattern).replace("**/", "*"))
    return len(parts) == len(pattern) and all(map(fnmatch.fnmatchcase, parts, pattern))


def _to_parquet(path: Path, draft: Path, *, torn: bool) -> int:
    """Write a file's rows as strings; returns how many lines were damaged.

    Args:
        path: Of lines.
        draft: Is written.
        torn: The last line may be cut short, and is none of the damaged then.
    """
    if torn and not path.stat().st_size:
        pq.write_table(pa.table({}), draft)
        return 0
    source = open_source(path, expected=("id", "time", "label"), lenient=True)
    schema = pa.schema([(name, pa.string()) for name in source.columns])
    damaged = 0
    last = False
    records = source.records()
    with pq.ParquetWriter(draft, schema, compression="lz4") as writer:
        while some := list(islice(records, _ROWS)):
            good = [record.cells for record in some if record.error is None]
            damaged += len(some) - len(good)
            last = some[-1].error is not None
            columns = zip(*good, strict=True) if good else [()] * len(schema)
            arrays = [pa.array(column, pa.string()) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return damaged - (torn and last)
