"""Whether predictions arrive as they should: how many, how soon, with how many errors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

import pandas as pd

from fakenews.bounds import Count, Positive, PositiveCount, Share
from fakenews.data.validation import RowSchema
from fakenews.monitoring.verdict import Check, Kind, State
from fakenews.monitoring.windows import WindowData

_P95 = 0.95
_SHOWN = 3  # kinds of errors that are named


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is no more as it should be; None: not looked at.

    Args:
        errors: Share of items that were refused or failed.
        items: That a window must have for that.
        latency_ms: 95th percentile of the time to an answer.
        volume_ratio: By which predictions an hour may differ from the median of the windows
            before, up or down.
        truncated: Share of texts longer than the model reads.
        invalid: Share of texts that break the schema of preparation, where texts are logged.
        windows: Before the newest that must be there to compare its volume.
    """

    errors: Share | None = 0.05
    items: PositiveCount = 50
    latency_ms: Positive | None = 1000
    volume_ratio: Positive | None = 4
    truncated: Share | None = 0.1
    invalid: Share | None = 0.01
    windows: Count = 3


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """What quality is judged by, of one window.

    Attributes:
        rows: Predictions.
        hours: That the window lasted.
        errors: Items that were refused or failed, by kind; None if the log has none.
        latency_ms: 95th percentile; None if the log has no latencies.
        truncated: Share of texts longer than the model reads; None if the log does not say.
    """

    rows: int
    hours: float
    errors: Mapping[str, int] | None
    latency_ms: float | None
    truncated: float | None

    @classmethod
    def of(cls, window: WindowData) -> "Arrivals":
        """Those of a window."""
        totals = window.totals
        return cls(
            rows=totals.rows,
            hours=(window.span.end - window.span.start) / timedelta(hours=1),
            errors=totals.errors,
            latency_ms=totals.latency_ms.get(_P95),
            truncated=totals.truncated,
        )


def quality_checks(
    arrivals: Sequence[Arrivals], *, limits: Limits, invalid: Check | None = None
) -> Iterator[Check]:
    """Questions and answers about the newest window.

    Args:
        arrivals: Of windows in their order; at least one.
        limits: What is too much.
        invalid: As `schema_check` returns it.
    """
    newest = arrivals[-1]
    if limits.errors is not None and newest.errors is not None:
        yield _errors(newest, newest.errors, limits.errors, least=limits.items)
    if limits.latency_ms is not None and newest.latency_ms is not None:
        yield _limited(
            "latency",
            newest.latency_ms,
            limits.latency_ms,
            f"95% of the answers came within {newest.latency_ms:,.0f} ms",
            f"{limits.latency_ms:,.0f} ms",
        )
    if limits.truncated is not None and newest.truncated is not None:
        yield _limited(
            "truncated",
            newest.truncated,
            limits.truncated,
            f"{newest.truncated:.1%} of the texts are longer than the model reads",
            f"{limits.truncated:.1%}",
        )
    if limits.volume_ratio is not None and len(arrivals) > limits.windows:
        yield _volume(arrivals, limits.volume_ratio)
    if invalid is not None:
        yield invalid


def schema_check(frame: pd.DataFrame, schema: RowSchema, *, limit: float) -> Check:
    """Whether texts are as preparation would take them.

    Args:
        frame: Rows with the column `text`, and the extra columns of the schema.
        schema: Of preparation, without a label.
        limit: Share of rows that may break it.
    """
    failures = schema.check(frame)
    share = failures["row"].nunique() / max(len(frame), 1)
    reasons = failures.groupby(["column", "check"]).size().sort_values(ascending=False)
    named = "; ".join(
        f"{column} {check}: {count:,}" for (column, check), count in _few(reasons)
    )
    return _limited(
        "schema",
        share,
        limit,
        f"{share:.1%} of the rows break the schema" + (f" ({named})" if named else ""),
        f"{limit:.1%}",
    )


def _few(counts: "pd.Series[int]") -> list[tuple[Any, int]]:
    return list(counts.head(_SHOWN).items())


def _errors(newest: Arrivals, errors: Mapping[str, int], limit: float, *, least: int) -> Check:
    failed = sum(errors.values())
    items = newest.rows + failed
    if items < least:
        return Check(
            key="quality.errors",
            kind=Kind.QUALITY,
            state=State.UNKNOWN,
            message=f"{failed:,} of {items:,} items were refused or failed: "
            f"limits.items={least} are needed to judge it",
            value=float(items),
            threshold=float(least),
        )
    share = failed / items
    most = sorted(errors.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    named = ", ".join(f"{kind}: {count:,}" for kind, count in most)
    return _limited(
        "errors",
        share,
        limit,
        f"{share:.1%} of the items were refused or failed" + (f" ({named})" if named else ""),
        f"{limit:.1%}",
    )


def _limited(name: str, value: float, limit: float, message: str, shown: str) -> Check:
    return Check(
        key=f"quality.{name}",
        kind=Kind.QUALITY,
        state=State.ALARM if value > limit else State.OK,
        message=f"{message}; the limit is {shown}",
        value=value,
        threshold=limit,
    )


def _volume(arrivals: Sequence[Arrivals], ratio: float) -> Check:
    now, *before = [found.rows / max(found.hours, 1e-9) for found in reversed(arrivals)]
    usual = median(before)
    times = now / usual if usual else float(now > 0) or 1.0
    state = State.OK if 1 / ratio <= times <= ratio else State.ALARM
    return Check(
        key="quality.volume",
        kind=Kind.QUALITY,
        state=state,
        message=(
            f"{now:,.1f} predictions an hour, the median of {len(before)} windows before is "
            f"{usual:,.1f}; the limit is {ratio:g} times more or less"
        ),
        value=times,
        threshold=ratio,
        effect=times,
        unit="times the usual",
    )
