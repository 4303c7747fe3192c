"""Plots over time: performance, decided classes, volume, errors and latency; times are UTC."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fakenews.evaluation.plots import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    figure_of,
    look,
    plain,
)
from fakenews.evaluation.report import METRIC_NAMES
from fakenews.monitoring.account import Account
from fakenews.monitoring.comparisons import positive_code
from fakenews.monitoring.judge import Interval
from fakenews.monitoring.performance import METRICS
from fakenews.monitoring.verdict import Span

Found = TypeVar("Found")

SIZE = (4.4, 3.3)  # inches

_CURVES = 4
_PARTS = 21 * 24
_HOUR = 1 / 24  # in days, as matplotlib has times


def timelines(account: Account) -> dict[str, Figure]:
    """Every plot over time that an account allows, by the name its file gets."""
    found: dict[str, Figure] = {}
    if any(judgement.estimated for judgement in account.judgements):
        found |= {metric: performance(account, metric) for metric in METRICS}
    if sum(bool(shares_of(totals.decided)) for totals in account.totals) > 1:
        found["class_rates_over_time"] = class_rates_over_time(account)
    if parts := traffic(account):
        found["volume"] = volume(parts)
        if any(part.errors for part in parts):
            found["errors"] = error_rate(parts)
    if any(totals.latency_ms for totals in account.totals):
        found["latency"] = latency(account)
    return found


def performance(account: Account, metric: str) -> Figure:
    """A metric of every window, estimated and measured, with 95% intervals and the reference's.

    Args:
        account: With at least one window that was judged.
        metric: One of `METRICS`.
    """
    figure, axes = figure_of(METRIC_NAMES[metric], size=SIZE)
    for name, colour, marker in (
        ("estimated", BLUE, "o"),
        ("measured", BLACK, "D"),
    ):
        intervals = [
            _interval(getattr(judgement, name).get(metric)) for judgement in account.judgements
        ]
        times, values = _known(account.spans, intervals)
        if not times:
            continue
        middle, low, high = np.array(values).T
        band = name == "estimated" and len(times) > 1
        if band:
            axes.fill_between(times, low, high, color=SKY, alpha=0.3, lw=0)
        axes.errorbar(
            times,
            middle,
            yerr=None if band else np.maximum([middle - low, high - middle], 0),
            color=colour,
            marker=marker,
            ms=4,
            lw=1.4,
            elinewidth=1.2,
            capsize=2,
            label=name,
        )
        usual = account.usual[name][metric]
        axes.axhline(usual, color=colour, lw=1.2, ls=":", label=f"reference, {name}")
    _over(axes, account.spans)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low - 0.02, 0), min(high + 0.02, 1.02))
    name_all(figure)
    return figure


def _interval(found: Interval | None) -> Interval | None:
    return found if found is not None and np.isfinite(found).all() else None


def class_rates_over_time(account: Account) -> Figure:
    """How often each class is decided: of two the positive, of more those that changed most."""
    classes, code = account.reference.classes, positive_code(account.reference)
    before = usual_shares(account)
    shares = [shares_of(totals.decided) or None for totals in account.totals]
    times, found = _known(account.spans, shares)
    changes = {
        name: max(abs(known.get(name, 0.0) - before[name]) for known in found)
        for name in (classes if code is None else [classes[code]])
    }
    figure, axes = figure_of("Decided classes over time", size=SIZE)
    for place, name in enumerate(sorted(changes, key=lambda name: -changes[name])[:_CURVES]):
        colour, style = look(place)
        values = [known.get(name, 0.0) for known in found]
        label = plain(name, limit=20)
        axes.plot(times, values, color=colour, ls=style, marker="o", ms=4, label=label)
        dotted = "reference" if place == 0 else None
        axes.axhline(before[name], color=colour, lw=1.2, ls=":", label=dotted)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("Share of predictions")
    axes.set_ylim(bottom=0)
    _over(axes, account.spans)
    name_all(figure)
    return figure


class Part(NamedTuple):
    """A part of a window: when it began, in days; how long it was, in days; what it held."""

    start: float
    width: float
    rows: int
    errors: int


def traffic(account: Account) -> list[Part]:
    """The parts of all windows, joined to days where they are too many to be drawn."""
    parts = [
        Part(start, width, rows, errors)
        for totals in account.totals
        for (start, width), (_, rows, errors) in zip(
            _lengths([time for time, *_ in totals.hourly]), totals.hourly, strict=True
        )
    ]
    if len(parts) <= _PARTS:
        return sorted(parts)
    days: dict[int, Part] = {}
    for part in parts:
        day = math.floor(part.start)
        known = days.get(day, Part(day, max(1.0, part.width), 0, 0))
        days[day] = known._replace(
            rows=known.rows + part.rows, errors=known.errors + part.errors
        )
    return sorted(days.values())


def _lengths(times: Sequence[datetime]) -> list[tuple[float, float]]:
    """Starts of the parts of one window, which are as long as each other, and that length."""
    starts = [_number(time) for time in times]
    gaps = [after - before for before, after in pairwise(starts)]
    width = min(gaps, default=_HOUR)
    return [(start, width) for start in starts]


def volume(parts: Sequence[Part]) -> Figure:
    """How many predictions there were.

    Args:
        parts: At least one.
    """
    figure, axes = figure_of("Predictions an hour", size=SIZE)
    _bars(axes, parts, [part.rows * _HOUR / part.width for part in parts], colour=BLUE)
    axes.yaxis.set_major_formatter("{x:,.4g}")
    return figure


def error_rate(parts: Sequence[Part]) -> Figure:
    """The share of requests that were refused or failed.

    Args:
        parts: At least one.
    """
    figure, axes = figure_of("Refused or failed", size=SIZE)
    shares = [part.errors / max(part.rows + part.errors, 1) for part in parts]
    _bars(axes, parts, shares, colour=ORANGE)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("Share of requests")
    return figure


def _bars(axes: Axes, parts: Sequence[Part], heights: Sequence[float], *, colour: str) -> None:
    starts, widths = [part.start for part in parts], [part.width for part in parts]
    axes.bar(starts, heights, widths, align="edge", color=colour, alpha=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    _time(axes, starts[0], max(part.start + part.width for part in parts))


def latency(account: Account) -> Figure:
    """How long answers took in every window: at most so long half, 95% and 99% of them."""
    figure, axes = figure_of("Latency", size=SIZE)
    for name, colour, style in (("p99", GREY, ":"), ("p95", SKY, "--"), ("p50", BLUE, "-")):
        values = [(totals.latency_ms or {}).get(name) for totals in account.totals]
        times, known = _known(account.spans, values)
        axes.plot(times, known, color=colour, ls=style, marker="o", ms=4, label=name)
    axes.set_ylabel("Milliseconds")
    axes.set_ylim(bottom=0)
    _over(axes, account.spans)
    name_all(figure)
    return figure


def shares_of(counts: Mapping[str, int]) -> dict[str, float]:
    """Counts as shares of their sum; empty where that is 0."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def usual_shares(account: Account) -> dict[str, float]:
    """The share of each class among the reference's decisions."""
    classes, decided = account.reference.classes, account.reference.rows.decided
    counts = np.bincount(decided, minlength=len(classes)).tolist()
    return shares_of(dict(zip(classes, counts, strict=True)))


def _known(
    spans: Sequence[Span], windows: Sequence[Found | None]
) -> tuple[list[float], list[Found]]:
    """The middles of the windows of which something is known, and what."""
    known = [
        (_number(span.start + (span.end - span.start) / 2), found)
        for span, found in zip(spans, windows, strict=True)
        if found is not None
    ]
    return [time for time, _ in known], [found for _, found in known]


def _number(time: datetime) -> float:
    """A time as matplotlib has it: in days."""
    return float(dates.date2num(time.astimezone(UTC)))  # type: ignore[no-untyped-call]


def _over(axes: Axes, spans: Sequence[Span]) -> None:
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    _time(axes, _number(min(starts)), _number(max(ends)))


def name_all(figure: Figure) -> None:
    """A legend below the plot, where it hides nothing."""
    entries = len(figure.axes[0].get_legend_handles_labels()[0])
    figure.legend(
        loc="outside lower center", ncols=3 if entries == 3 else 2, frameon=False, fontsize=9
    )


def _time(axes: Axes, start: float, end: float) -> None:
    if end <= start:
        start, end = start - _HOUR / 2, start + _HOUR / 2
    axes.set_xlim(start, end)
    # Fewer than 7 and matplotlib has no interval for some spans, as of 61 hours.
    locator = dates.AutoDateLocator(minticks=3, maxticks=7, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        dates.ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    )
