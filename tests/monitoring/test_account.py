"""Accounts: what checks found over time."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakenews.monitoring.account import Account, Cell
from fakenews.monitoring.judge import Judge, Judgement
from fakenews.monitoring.verdict import Check, Kind, State

Make = Callable[..., Account]


@pytest.fixture(scope="module")
def drifting(some_account: Make) -> Account:
    return some_account(0, 0, 0.9, 0.9)


def test_history_ends_with_the_verdict(drifting: Account):
    history = drifting.history()
    for check in drifting.verdict.checks:
        newest = history[check.key][-1]
        assert newest is not None
        assert newest.state is check.state, check.key
        assert (newest.p_value, newest.effect) == (check.p_value, check.effect)
        assert newest.unit == check.unit


def test_history_is_what_each_window_was_judged_to_be(
    drifting: Account, reporting_judge: Judge
):
    history = drifting.history()
    for windows in (1, 2, 3):
        for check in reporting_judge.checks(drifting.judgements[:windows]):
            then = history[check.key][windows - 1]
            if not check.key.startswith("decay.trend"):
                assert then is not None
                assert then.state is check.state, (check.key, windows)
    classifier = history["drift.embedding.classifier"]
    assert [cell and cell.state for cell in classifier] == [
        State.OK,
        State.OK,
        State.WARNING,
        State.ALARM,
    ]


def test_what_was_not_asked_has_no_answer(drifting: Account):
    history = drifting.history()
    # Labels of the first two windows are known.
    assert [cell is None for cell in history["decay.measured.accuracy"]] == [
        *(False, False, True, True)
    ]
    trend = history["decay.trend.estimated.average_precision"]
    assert [cell is None for cell in trend] == [True, True, True, False]


def test_a_window_of_few_rows_was_not_judged(drifting: Account):
    few = Judgement(rows=3, labelled=0)
    found = replace(drifting, judgements=[few, *drifting.judgements[1:]]).history()
    assert found["drift.text.tokens"][0] == Cell(State.UNKNOWN)
    assert found["drift.text.tokens"][1] == drifting.history()["drift.text.tokens"][1]


def test_a_lacking_column_was_not_judged(drifting: Account):
    newest = drifting.judgements[-1]
    lacking = replace(newest, findings={**newest.findings, "drift.text.tokens": None})
    found = replace(drifting, judgements=[*drifting.judgements[:-1], lacking])
    assert found.history()["drift.text.tokens"][-1] == Cell(State.UNKNOWN)


def test_no_window_has_no_history(no_account: Account):
    assert no_account.history() == {}
    assert no_account.counts == dict.fromkeys(State, 0)
    check = Check(key="quality.volume", kind=Kind.QUALITY, state=State.ALARM, message="")
    told = replace(no_account, verdict=replace(no_account.verdict, checks=(check,)))
    assert told.history() == {}


def test_checks_come_in_the_order_of_questions(drifting: Account):
    assert drifting.counts[State.ALARM] == len(drifting.checks(State.ALARM)) > 1
    everything = drifting.checks(*State)
    assert sorted(check.key for check in everything) == sorted(
        check.key for check in drifting.verdict.checks
    )
    assert everything[0].kind is Kind.DECAY
    assert everything[-1].key.startswith("drift.tabular.")
    embedding = [c for c in everything if c.key.startswith(("drift.emb", "drift.text"))]
    assert [c.p_value for c in embedding] == sorted(c.p_value or 0 for c in embedding)


def test_usual_is_what_drops_are_from(drifting: Account, reporting_judge: Judge):
    for comparison in [*reporting_judge.comparisons, *reporting_judge.labelled.comparisons]:
        kind, _, metric = comparison.key.removeprefix("decay.").partition(".")
        if comparison.key.startswith("decay."):
            assert drifting.usual[kind][metric] == pytest.approx(comparison.usual)


def test_parts_that_do_not_fit_are_refused(drifting: Account):
    with pytest.raises(ValueError, match="4 windows, 3 judgements and 4 totals"):
        replace(drifting, judgements=drifting.judgements[1:])
