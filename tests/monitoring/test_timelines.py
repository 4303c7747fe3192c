"""Plots over time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from fakenews.monitoring.account import Account
from fakenews.monitoring.judge import Judgement
from fakenews.monitoring.timelines import (
    class_rates_over_time,
    error_rate,
    latency,
    performance,
    timelines,
    traffic,
    volume,
)

Make = Callable[..., Account]


def names(figure: Figure) -> set[str]:
    return {text.get_text() for each in figure.legends for text in each.get_texts()}


def points(figure: Figure, label: str) -> tuple[list[float], list[float]]:
    """What is drawn under a label: times, values."""
    (axes,) = figure.axes
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer) and container.get_label() == label:
            return tuple(map(list, container.lines[0].get_data()))
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return tuple(map(list, line.get_data()))


@pytest.fixture(scope="module")
def account(some_account: Make) -> Account:
    return some_account(0, 0, 0.9)


def test_performance_estimated_and_measured(account: Account):
    figure = performance(account, "average_precision")
    assert figure.axes[0].get_title(loc="left") == "Average precision"
    assert names(figure) == {
        *("estimated", "measured"),
        *("reference, estimated", "reference, measured"),
    }
    times, values = points(figure, "estimated")
    assert values == [found.estimated["average_precision"][0] for found in account.judgements]
    middle = account.spans[0].start + timedelta(hours=12)
    assert times[0] == pytest.approx(date2num(middle))
    _, values = points(figure, "measured")
    assert values == [
        found.measured["average_precision"][0] for found in account.judgements[:2]
    ]
    _, usual = points(figure, "reference, measured")
    assert usual == [account.usual["measured"]["average_precision"]] * 2
    assert figure.axes[0].collections, "the band of the estimates"


def test_what_was_not_judged_or_not_defined_is_a_gap(account: Account):
    undefined = {"accuracy": (float("nan"),) * 3}
    judgements = [
        account.judgements[0],
        Judgement(rows=3, labelled=0),
        replace(account.judgements[2], estimated=undefined),
    ]
    figure = performance(replace(account, judgements=judgements), "accuracy")
    assert len(points(figure, "estimated")[0]) == 1
    # Of one window alone there is no band.
    assert len(figure.axes[0].containers) == 2
    without = [replace(found, measured={}) for found in account.judgements]
    figure = performance(replace(account, judgements=without), "accuracy")
    assert names(figure) == {"estimated", "reference, estimated"}


def test_class_rates_over_time(account: Account):
    figure = class_rates_over_time(account)
    assert names(figure) == {"fake", "reference"}
    _, values = points(figure, "fake")
    assert values == [found.decided["fake"] / found.rows for found in account.totals]
    _, usual = points(figure, "reference")
    assert usual[0] == pytest.approx((account.reference.rows.decided == 0).mean())


def test_latency_of_windows_that_have_it(account: Account):
    unknown = replace(account.totals[0], latency_ms=None)
    figure = latency(replace(account, totals=[unknown, *account.totals[1:]]))
    assert names(figure) == {"p50", "p95", "p99"}
    assert points(figure, "p95")[1] == [63.0, 63.0]


def test_volume_is_by_the_hour_whatever_the_parts(account: Account):
    parts = traffic(account)
    assert len(parts) == 72
    bars = volume(parts).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([8] * 72)
    start = account.spans[0].start
    quarters = [(start + timedelta(minutes=15 * at), 2, 0) for at in range(4)]
    found = traffic(replace(account, totals=[replace(account.totals[0], hourly=quarters)] * 3))
    bars = volume(found).axes[0].patches
    assert [bar.get_height() for bar in bars][:4] == pytest.approx([8] * 4)
    assert bars[0].get_width() == pytest.approx(1 / 96)


def test_one_part_is_an_hour(account: Account):
    hour = [(account.spans[0].start, 5, 0)]
    none = replace(account.totals[0], hourly=())
    totals = [replace(none, hourly=hour), none, none]
    (part,) = traffic(replace(account, totals=totals))
    assert (part.rows, part.width) == (5, pytest.approx(1 / 24))
    assert "errors" not in timelines(replace(account, totals=totals))


def test_many_parts_are_joined_to_days(account: Account):
    start = account.spans[0].start.replace(hour=0)
    hours = [(start + timedelta(hours=at), 6, 1) for at in range(24 * 60)]
    many = replace(account.totals[0], hourly=hours)
    none = replace(many, hourly=())
    parts = traffic(replace(account, totals=[many, none, none]))
    assert [(part.rows, part.errors, part.width) for part in parts] == [(144, 24, 1.0)] * 60
    heights = [bar.get_height() for bar in volume(parts).axes[0].patches]
    assert heights == pytest.approx([6] * 60)


def test_errors_are_a_share_of_requests(account: Account):
    parts = traffic(account)
    bars = error_rate(parts).axes[0].patches
    assert [bar.get_height() for bar in bars][:2] == pytest.approx([0, 1 / 9])


def test_times_are_utc(account: Account):
    zone = timezone(timedelta(hours=5, minutes=30))
    spans = [
        replace(span, start=span.start.astimezone(zone), end=span.end.astimezone(zone))
        for span in account.spans
    ]
    moved = performance(replace(account, spans=spans), "accuracy")
    here = performance(account, "accuracy")
    assert points(moved, "estimated") == points(here, "estimated")
    assert moved.axes[0].get_xlim() == here.axes[0].get_xlim()


def test_a_window_without_length_has_an_axis(account: Account):
    span = replace(account.spans[0], end=account.spans[0].start)
    one = replace(
        account, spans=[span], judgements=account.judgements[:1], totals=account.totals[:1]
    )
    low, high = performance(one, "accuracy").axes[0].get_xlim()
    assert np.isclose(high - low, 1 / 24)


@pytest.mark.parametrize("hours", [0.001, 0.045, 1, 2.6, 24, 61, 24 * 9, 24 * 80, 24 * 900])
def test_times_are_readable_whatever_they_span(hours: float, some_account: Make) -> None:
    account = some_account(0, 0, 0.9)
    begin, span = account.spans[0].start, timedelta(hours=hours)
    spans = [
        replace(account.spans[0], start=begin + span * n / 3, end=begin + span * (n + 1) / 3)
        for n in range(3)
    ]
    figure = performance(replace(account, spans=spans), "average_precision")
    figure.draw_without_rendering()  # a warning is an error
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert 3 <= len([label for label in labels if label]) <= 9
