"""Windows of a prediction log: which there are, and what is in one.

Shapes: N rows, C classes, F tabular features, H embedding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fakenews.errors import ConfigError
from fakenews.monitoring.verdict import Span

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=400)
_BINS = 200
# Widths of what a trend is counted in, of which the narrowest is taken that gives few enough.
_WIDTHS = [timedelta(minutes=m) for m in (1, 5, 15, 60, 360, 1440, 10080)]
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedRows:
    """Predictions, in the order of their time.

    Attributes:
        frame: A row each: `id`, `time` (UTC), `model_version`, `label`, `true_label`,
            `unsure`, `truncated`, `characters`, `words`, `has_num`, `tokens`,
            `unknown_tokens`, `text`, `columns` (a dictionary); missing where the log has none.
        probabilities: float64 [N, C] in the order of the classes; NaN where there are none.
        tabular: float32 [N, F], NaN where there is none; None if there is none at all.
        embeddings: float32 [N, H], likewise.
    """

    frame: pd.DataFrame
    probabilities: NDArray[np.float64]
    tabular: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A part of a window, for its trend.

    Attributes:
        start: With a zone.
        rows: Predictions in it.
        errors: Items that were refused or failed.
        latency_ms: 95th percentile; None where it was not measured.
        classes: Predictions by label.
    """

    start: datetime
    rows: int
    errors: int
    latency_ms: float | None
    classes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Exact counts over all rows of a window.

    Attributes:
        rows: Predictions.
        unique_texts: Different texts among them; None if they cannot be told apart.
        labelled: Predictions whose true class is known.
        errors: Items that were refused or failed, by kind.
        latency_ms: Quantiles 0.5, 0.95 and 0.99; empty where it was not measured.
        rows_per_hour: Of the window's whole length.
        truncated: Share of predictions whose text was not read whole; None if not logged.
        unsure: Share of predictions within the unsure band; None if not logged.
        classes: Predictions by label, of every class of the model.
        versions: Predictions by model version.
        width: Of a bin of the trend.
        trend: Bins of the whole window, in order.
    """

    rows: int
    unique_texts: int | None
    labelled: int
    errors: Mapping[str, int]
    latency_ms: Mapping[float, float]
    rows_per_hour: float
    truncated: float | None
    unsure: float | None
    classes: Mapping[str, int]
    versions: Mapping[str, int]
    width: timedelta
    trend: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowData:
    """What is in a window.

    Attributes:
        span: The window.
        sample: Of its predictions.
        labelled: Of those whose true class is known, without texts and what is wide.
        totals: Of all.
        notices: What is wrong with it, as sentences.
    """

    span: Span
    sample: LoggedRows
    labelled: LoggedRows
    totals: Counts
    notices: tuple[str, ...] = ()


def length(every: str) -> timedelta:
    """How long windows are, as in `6h`: a number of minutes, hours, days or weeks.

    Raises:
        ConfigError: It is no such number.
    """
    found = re.fullmatch(r"(\d{1,5})([mhdw])", every)
    given = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < given <= _LONGEST:
        raise ConfigError(
            f"every={every}: write a number with m, h, d or w, as in 6h or 1d, of at most "
            f"{_LONGEST.days} days"
        )
    return given


def by_time(
    database: duckdb.DuckDBPyConnection, *, every: timedelta, latest: int, now: datetime
) -> list[Span]:
    """The windows that end now; none from before the first row, but for the newest.

    Args:
        database: With `prediction`.
        every: Length of each.
        latest: At most so many.
        now: In UTC, without a zone.
    """
    found = [
        count(database, now - every * n, now - every * (n - 1)) for n in range(1, latest + 1)
    ]
    while len(found) > 1 and not found[-1].rows:
        found.pop()
    return found[::-1]


def by_count(
    database: duckdb.DuckDBPyConnection, *, rows: int, latest: int, now: datetime
) -> list[Span]:
    """The windows of so many predictions each, back from the newest.

    A window is never split between rows of one moment, so it may have some more; the newest
    has fewer where there are not enough, and further ones are whole.

    Args:
        database: With `prediction`.
        rows: Predictions of each.
        latest: At most so many.
        now: In UTC, without a zone: where a window of nothing is.
    """
    newest = _one(database, "SELECT max(time) FROM prediction WHERE fault IS NULL")
    if newest is None:
        return [count(database, now, now)]
    end = newest + timedelta(microseconds=1)
    found: list[Span] = []
    while len(found) < latest:
        start = _one(
            database,
            "SELECT time FROM prediction WHERE fault IS NULL AND time < ?"
            " ORDER BY time DESC LIMIT 1 OFFSET ?",
            [end, rows - 1],
        )
        if start is None and not found:
            start = _one(database, "SELECT min(time) FROM prediction WHERE fault IS NULL")
        if start is None:
            break
        found.append(count(database, start, end))
        end = start
    return found[::-1]


def count(database: duckdb.DuckDBPyConnection, start: datetime, end: datetime) -> Span:
    """A window and how many predictions are in it.

    Args:
        database: With `prediction`.
        start: In UTC, without a zone.
        end: Likewise, after its last moment.
    """
    (row,) = database.execute(
        "SELECT count(*), count(true_label) FROM prediction"
        " WHERE fault IS NULL AND time >= ? AND time < ?",
        [start, end],
    ).fetchall()
    return Span(
        start=start.replace(tzinfo=UTC),
        end=end.replace(tzinfo=UTC),
        rows=row[0],
        labelled=row[1],
    )


def totals(
    database: duckdb.DuckDBPyConnection, *, start: datetime, end: datetime, classes: list[str]
) -> Counts:
    """Count all rows of a window.

    Args:
        database: With `prediction`.
        start: In UTC, without a zone.
        end: Likewise, after its last moment.
        classes: Of the model.
    """
    database.execute(
        "CREATE OR REPLACE TEMP VIEW inside AS SELECT * FROM prediction"  # noqa: S608 times
        f" WHERE (fault IS NULL OR fault = 'error') AND time >= '{start}' AND time < '{end}'"
    )
    (row,) = database.execute(
        "SELECT count(*), count(DISTINCT digest), count(true_label),"
        " avg(CAST(truncated AS INTEGER)), avg(CAST(unsure AS INTEGER)), count(digest)"
        " FROM inside WHERE fault IS NULL"
    ).fetchall()
    quantiles = _one(
        database,
        "SELECT quantile_cont(latency_ms, $quantiles) FROM inside"
        " WHERE fault IS NULL AND latency_ms >= 0",
        {"quantiles": list(_QUANTILES)},
    )
    hours = (end - start) / timedelta(hours=1)
    width = next((w for w in _WIDTHS if (end - start) / w <= _BINS), _WIDTHS[-1])
    by_label = _counts(database, "label", "fault IS NULL")
    return Counts(
        rows=row[0],
        unique_texts=row[1] if row[5] == row[0] else None,
        labelled=row[2],
        errors=_counts(database, "error", "fault = 'error'"),
        latency_ms=dict(zip(_QUANTILES, quantiles or (), strict=False)),
        rows_per_hour=row[0] / hours if hours else 0.0,
        truncated=row[3],
        unsure=row[4],
        classes={name: by_label.get(name, 0) for name in classes},
        versions=_counts(database, "coalesce(model_version, '')", "fault IS NULL"),
        width=width,
        trend=_trend(database, start, end, width, classes),
    )


def _trend(
    database: duckdb.DuckDBPyConnection,
    start: datetime,
    end: datetime,
    width: timedelta,
    classes: list[str],
) -> tuple[Bin, ...]:
    seconds = width / timedelta(seconds=1)
    # Not count_if, which of nulls alone gives null.
    of_class = "count(*) FILTER (fault IS NULL AND label = ?)"
    counted = ", ".join([of_class] * len(classes))
    found = {
        int(row[0]): row[1:]
        for row in database.execute(
            f"SELECT floor((epoch_us(time) - epoch_us(TIMESTAMP '{start}')) / {seconds * 1e6})"  # noqa: S608 numbers and times
            " AS bin, count(*) FILTER (fault IS NULL), count(*) FILTER (fault = 'error'),"
            " quantile_cont(latency_ms, 0.95) FILTER (fault IS NULL AND latency_ms >= 0),"
            f" {counted} FROM inside GROUP BY bin",
            classes,
        ).fetchall()
    }
    nothing = (0, 0, None, *[0] * len(classes))
    bins = max(-(-(end - start) // width), 1)
    return tuple(
        Bin(
            start=(start + n * width).replace(tzinfo=UTC),
            rows=row[0],
            errors=row[1],
            latency_ms=row[2],
            classes=dict(zip(classes, row[3:], strict=True)),
        )
        for n, row in ((n, found.get(n, nothing)) for n in range(bins))
    )


def _counts(database: duckdb.DuckDBPyConnection, name: str, where: str) -> dict[str, int]:
    query = f"SELECT {name} AS name, count(*) FROM inside WHERE {where} GROUP BY ALL"  # noqa: S608 ours
    return dict(sorted(database.execute(query).fetchall(), key=lambda row: (-row[1], row[0])))


def _one(
    database: duckdb.DuckDBPyConnection,
    query: str,
    values: list[Any] | dict[str, Any] | None = None,
) -> Any:
    row = database.execute(query, values or []).fetchone()
    return None if row is None else row[0]
