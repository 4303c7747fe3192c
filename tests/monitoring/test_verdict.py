"""Verdicts, as programs read them."""

import json
from datetime import UTC, datetime

import pytest

from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict, worst

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def verdict(*states: State) -> Verdict:
    return Verdict(
        model="fakenews",
        model_version="1a2b",
        checked_at=NOW,
        window=Span(start=NOW, end=NOW, rows=2, labelled=0),
        checks=tuple(
            Check(key=f"drift.{n}", kind=Kind.DRIFT, state=state, message="It is so.", value=n)
            for n, state in enumerate(states)
        ),
    )


def test_worst_state_counts():
    assert verdict(State.OK, State.WARNING, State.OK).state is State.WARNING
    assert verdict(State.ALARM, State.UNKNOWN).state is State.ALARM
    assert worst([State.WARNING, State.UNKNOWN]) is State.UNKNOWN


def test_nothing_checked_is_no_good_news():
    assert verdict().state is State.UNKNOWN


def test_json_is_plain_and_strict():
    content = verdict(State.OK).to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["state"] == "ok"
    assert content["window"]["start"] == "2026-11-26T12:00:00+00:00"
    assert content["checks"][0]["kind"] == "drift"


def test_json_has_no_nan():
    check = Check(key="a", kind=Kind.DECAY, state=State.OK, message="", value=float("nan"))
    found = Verdict(model="m", model_version="1", checked_at=NOW, window=None, checks=(check,))
    with pytest.raises(ValueError, match="JSON compliant"):
        found.to_json()
