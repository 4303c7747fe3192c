"""A prediction log as monitoring reads it: windows, samples of them, and what is wrong.

files -> `entry` -> judged, true classes joined: `prediction` -> windows -> samples

Every row of the windows is counted in a database, which goes to disk where memory ends; what
is wide, as embeddings are, is read of sampled rows alone.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from fakenews.bounds import PositiveCount
from fakenews.errors import ConfigError, DataError
from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring import windows
from fakenews.monitoring.entries import (
    FAULTS,
    FILE,
    SCORED,
    create,
    insert,
    judge,
    open_database,
    told,
)
from fakenews.monitoring.files import LogFile, LogFiles
from fakenews.monitoring.labels import read_truth
from fakenews.monitoring.sampling import read_labelled, read_rows
from fakenews.monitoring.verdict import Span
from fakenews.monitoring.windows import LoggedRows, WindowData

_NAMED = 5  # of many, those that a notice names
_NOTICES = 20  # of files

# What is computed of a text where a log has that.
_OF_TEXTS = ("text_sha256", "tokens", "tabular", "embedding", "words")
# What drift is judged by, beside what every log has.
_WANTED = ("id", *_OF_TEXTS, "latency_ms", "error")
# When an id of the gateway was made, in milliseconds since 1970; 0 of others.
_MADE = "coalesce(TRY_CAST('0x' || substr(id, 1, 8) || substr(id, 10, 4) AS BIGINT), 0)"


@contextmanager
def open_log(
    path: str | Path,
    *,
    classes: Sequence[str],
    model_version: str | None = None,
    labels: str | Path | None = None,
    calibration: Calibration | None = None,
    now: datetime | None = None,
    storage_options: Mapping[str, Any] | None = None,
    memory: str = "1GB",
    work: str | Path | None = None,
) -> "Iterator[Log]":
    """Open a prediction log; what is read of it is gone when it is closed.

    Args:
        path: A deployment's folder or a table, a folder or a pattern of tables; or its URL.
            Tables need the column `time` and one of `prediction`, `label` and `probabilities`,
            which may also be columns `probability_CLASS`.
        classes: Of the model, in the order that probabilities are wanted in.
        model_version: Whose predictions are wanted; None for those of all.
        labels: A table of true classes, with `id` and `label`, or many, as `path`.
        calibration: Decides where a table has probabilities alone; None takes the most
            probable class.
        now: What counts as the future comes after it; with a zone, None takes the clock.
        storage_options: Of URLs, see `Storage`.
        memory: Most that the database takes before it goes to disk.
        work: Folder for the database; None takes that of temporary files.

    Yields:
        The log.

    Raises:
        ConfigError: A URL or `memory` cannot be used.
        DataError: A folder cannot be listed.
        MonitoringError: There is no such path, or the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="fakenews-log-", dir=work) as folder:
        files = LogFiles(path, options=storage_options, work=Path(folder))
        late = None
        if labels is not None:
            late = LogFiles(labels, options=storage_options, work=Path(folder))
        with open_database(Path(folder), memory) as database:
            yield Log(
                files=files,
                labels=late,
                database=database,
                classes=classes,
                calibration=calibration,
                model_version=model_version,
                now=now or datetime.now(UTC),
            )


class Log:
    """The predictions of a log; `open_log` opens one.

    Args:
        files: That it is read from.
        labels: Tables of true classes, if there are any.
        database: Empty.
        classes: Of the model.
        calibration: As `open_log` takes it.
        model_version: Whose predictions are wanted; None for those of all.
        now: With a zone.
    """

    def __init__(
        self,
        *,
        files: LogFiles,
        labels: LogFiles | None,
        database: duckdb.DuckDBPyConnection,
        classes: Sequence[str],
        calibration: Calibration | None,
        model_version: str | None,
        now: datetime,
    ) -> None:
        self._files = files
        self._database = database
        self._classes = list(classes)
        self._calibration = calibration
        self._version = model_version
        self._now = _plain(now)
        # By number, as rows of the database have it.
        self._read: list[LogFile] = []
        self._columns: set[str] = set()
        self._wrong: list[str] = []
        self._unread: list[str] = []
        self._judged = False
        with told(files.shown):
            create(database)
            self._wrong += read_truth(
                database, feedback=files.feedback(), labels=labels, classes=self._classes
            )
            self._load([file for file in files.list() if file.open])
        # A segment that became Parquet meanwhile is found now.
        self._left = [file for file in files.list() if not file.open]

    def windows(
        self,
        *,
        every: str | None = None,
        rows: PositiveCount | None = None,
        latest: PositiveCount = 1,
    ) -> list[Span]:
        """The newest windows of the log, the newest last; at least one, if only of nothing.

        Args:
            every: Length of each, as in `1d`, back from now; or
            rows: predictions of each, back from the newest.
            latest: How many; there are fewer where the log begins later.

        Raises:
            ConfigError: Not one of `every` and `rows` is given, or `every` is no length.
            MonitoringError: The disk is full.
        """
        if (every is None) == (rows is None):
            raise ConfigError("windows: give one of every and rows")
        with told(self._files.shown):
            if every is not None:
                width = windows.length(every)
                self._load_since(self._now - width * latest)
                return windows.by_time(
                    self._database, every=width, latest=latest, now=self._now
                )
            assert rows is not None  # noqa: S101 else every is
            self._load_rows(rows * latest)
            return windows.by_count(self._database, rows=rows, latest=latest, now=self._now)

    def read(
        self, span: Span, *, most: PositiveCount, seed: int = 0, unique: bool = True
    ) -> WindowData:
        """What is in a window.

        Args:
            span: The window.
            most: Rows of the sample at most, and of those with a true class.
            seed: Which rows are in the sample follows from it and from their ids (of
                different texts, from the texts), and from nothing else.
            unique: Of rows with the same text the sample has one.

        Raises:
            MonitoringError: The disk is full.
        """
        start, end = _plain(span.start), _plain(span.end)
        with told(self._files.shown):
            self._load_since(start)
            found = windows.totals(self._database, start=start, end=end, classes=self._classes)
            notices = self._notices(start, end)
            sample, wrong = self._rows(start, end, most=most, seed=seed, unique=unique)
            labelled, _ = self._rows(
                start, end, most=most, seed=seed, unique=False, labelled=True
            )
        return WindowData(
            span=windows.count(self._database, start, end),
            sample=sample,
            labelled=labelled,
            totals=found,
            notices=(*notices, *wrong),
        )

    def labelled(self, *, rows: PositiveCount) -> Iterator[tuple[pd.DataFrame, list[str]]]:
        """All predictions of any time whose true class is known, so many together.

        Yields:
            See `read_labelled`.

        Raises:
            MonitoringError: The disk is full.
        """
        with told(self._files.shown):
            self._load(self._left)
            yield from read_labelled(self._database, self._files, self._read, rows=rows)

    def _rows(self, start: datetime, end: datetime, **how: Any) -> tuple[LoggedRows, list[str]]:
        return read_rows(
            self._database,
            self._files,
            self._read,
            start=start,
            end=end,
            classes=len(self._classes),
            **how,
        )

    # --- reading files ----------------------------------------------------------------------

    def _load_since(self, start: datetime) -> None:
        """Read the files that may have rows from then on."""
        day = start.date()
        self._load([f for f in self._left if f.day is None or f.day >= day])

    def _load_rows(self, count: int) -> None:
        """Read files, by their dates back from the newest, until there are so many rows."""
        dates = sorted({file.day for file in self._left if file.day is not None})
        self._load([file for file in self._left if file.day is None])
        while dates and self._answers() < count:
            newest = dates.pop()
            self._load([file for file in self._left if file.day == newest])

    def _answers(self) -> int:
        (row,) = self._database.execute(
            "SELECT count(*) FROM prediction WHERE fault IS NULL"
        ).fetchall()
        return int(row[0])

    def _load(self, files: Sequence[LogFile]) -> None:
        new = [file for file in files if file not in self._read]
        for file in new:
            self._insert(file)
        if new or not self._judged:
            judge(
                self._database,
                classes=self._classes,
                calibration=self._calibration,
                version=self._version,
                now=self._now,
            )
            self._judged = True

    def _insert(self, file: LogFile) -> None:
        name = self._files.name(file)
        number = len(self._read)
        try:
            with self._files.parquet(file) as (reader, damaged):
                columns = set(reader.schema_arrow.names)
                if columns and (lacking := _lacking(columns)):
                    self._unread.append(f"{name} has {lacking}")
                    self._wrong.append(f"{self._unread[-1]}: it is left out")
                else:
                    insert(self._database, reader, file=number, classes=self._classes)
                    self._columns |= columns
            if damaged:
                self._wrong.append(f"{name}: {_lines(damaged)} left out as damaged")
        except DataError as error:
            # Lines that have become Parquet are read there.
            if not file.open or file in self._files.list():
                self._unread.append(str(error))
                self._wrong.append(f"{error}; it is left out")
        for earlier, other in enumerate(self._read):
            if other.open and other.segment == file.segment:
                self._database.execute(
                    "DELETE FROM entry WHERE place // ? = ?", [FILE, earlier]
                )
        self._read.append(file)

    # --- what is wrong ----------------------------------------------------------------------

    @property
    def useless(self) -> str | None:
        """Why no table of several can be used; None if one can, and of a deployment."""
        if self._files.is_deployment or self._columns or not self._unread:
            return None
        others = len(self._unread) - 1
        return self._unread[0] + (f", and {others:,} more files are like it" if others else "")

    @property
    def notices(self) -> list[str]:
        """What is wrong with what was read so far, wherever it belongs, as sentences."""
        found = self.faults
        there = {*self._columns, *(n for n, as_ in SCORED.items() if as_ in self._columns)}
        if "text" in there:
            there.update(_OF_TEXTS)
        if self._columns and (absent := [name for name in _WANTED if name not in there]):
            found.append(
                f"the log has no {', '.join(absent)}: what needs that cannot be judged"
            )
        return found

    @property
    def faults(self) -> list[str]:
        """The `notices` but for columns that are not there."""
        found = self._wrong[:_NOTICES]
        if len(self._wrong) > _NOTICES:
            found.append(f"{len(self._wrong) - _NOTICES:,} more files have such faults")
        with told(self._files.shown):
            lost = self._count("fault IN ('time', 'early', 'late')", "fault")
            found += [f"{_rows_of(n)} left out: {FAULTS[fault]}" for fault, n in lost]
            unknown = self._unknown_labels()
        if unknown:
            found.append(f"{unknown:,} true labels are of ids that the log does not have")
        return found

    def _notices(self, start: datetime, end: datetime) -> list[str]:
        inside = f"time >= '{start}' AND time < '{end}'"
        faults = dict(self._count(inside, "fault"))
        found = []
        if not faults.get(None):
            found.append(f"there are no predictions from {_shown(start)} to {_shown(end)}")
        found += [
            f"{_rows_of(faults[fault])} left out: {reason}"
            for fault, reason in FAULTS.items()
            if fault in faults
        ]
        if "twice" in faults:
            found.append(f"{_rows_of(faults['twice'])} left out: the id of another row")
        if "version" in faults:
            versions = self._count(f"fault = 'version' AND {inside}", "model_version")
            named = ", ".join(f"{name or 'none'} ({n:,})" for name, n in versions[:_NAMED])
            found.append(
                f"{_rows_of(faults['version'])} left out: not of the model version "
                f"{self._version}, but of {named}"
            )
        return found

    def _count(self, where: str, column: str) -> list[tuple[Any, int]]:
        return self._database.execute(
            f"SELECT {column}, count(*) FROM prediction WHERE {where}"  # noqa: S608 ours
            f" GROUP BY {column} ORDER BY count(*) DESC, {column}"
        ).fetchall()

    def _unknown_labels(self) -> int:
        """Of ids that are not in the log, those whose rows would have been read."""
        since = 0
        if any(file not in self._read for file in self._left):
            first = min((f.day for f in self._read if f.day is not None), default=date.max)
            since = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
        (row,) = self._database.execute(
            f"SELECT count(*) FROM truth ANTI JOIN entry USING (id) WHERE {_MADE} >= ?",  # noqa: S608 ours
            [since * 1000],
        ).fetchall()
        return int(row[0])


def _lacking(columns: set[str]) -> str | None:
    if "time" not in columns:
        return "no column time"
    given = {"label", "probabilities", SCORED["label"]} & columns
    if given or any(name.startswith("probability_") for name in columns):
        return None
    return "no column prediction or label, and no probabilities"


def _lines(count: int) -> str:
    return f"{count:,} line{'s' * (count != 1)}"


def _rows_of(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _shown(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S}"


def _plain(when: datetime) -> datetime:
    """In UTC without a zone, as the database has times."""
    return when.astimezone(UTC).replace(tzinfo=None)
