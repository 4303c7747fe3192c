"""Windows in a row: what warns, what alarms, and what cannot be judged."""

from collections.abc import Callable
from typing import Any

import pytest

from fakenews.errors import ConfigError
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.judge import Judge
from fakenews.monitoring.rows import Reference
from fakenews.monitoring.verdict import Check, State

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def judge(reference: Reference) -> Judge:
    policy = Policy(
        floors={"drift": 0.02, "decay": 0.02},
        min_rows=50,
        min_labels=50,
        references=30,
        windows=100,
    )
    return Judge(reference, policy=policy)


def by_key(checks: list[Check]) -> dict[str, Check]:
    return {check.key: check for check in checks}


def test_clean_windows_are_ok(judge: Judge, some_rows: Make):
    checks = judge.checks([judge.judge(some_rows(200, seed=seed)) for seed in (11, 12, 13)])
    assert {check.state for check in checks} == {State.OK}
    assert {check.kind for check in checks} == {"drift", "decay"}
    assert "decay.measured.accuracy" in by_key(checks)


def test_one_window_warns_and_two_alarm(judge: Judge, some_rows: Make):
    clean = judge.judge(some_rows(300, seed=11))
    moved = judge.judge(some_rows(300, seed=12, shift=0.8))
    first = by_key(judge.checks([clean, clean, moved]))["drift.embedding.classifier"]
    assert first.state is State.WARNING
    assert "1 of the last 3 windows differ" in first.message
    second = by_key(judge.checks([clean, moved, moved]))["drift.embedding.classifier"]
    assert second.state is State.ALARM
    assert second.value > second.threshold
    assert second.p_value < 0.001
    after = by_key(judge.checks([moved, clean, clean]))["drift.embedding.classifier"]
    assert after.state is State.OK


def test_an_alarm_lasts_while_windows_of_it_are_looked_at(judge: Judge, some_rows: Make):
    clean = judge.judge(some_rows(300, seed=11))
    moved = judge.judge(some_rows(300, seed=12, shift=0.8))
    found = by_key(judge.checks([moved, moved, clean]))["drift.embedding.classifier"]
    assert found.state is State.ALARM


def test_wrong_answers_are_a_decay(judge: Judge, some_rows: Make):
    wrong = [judge.judge(some_rows(300, seed=seed, flipped=0.5)) for seed in (1, 2)]
    checks = by_key(judge.checks(wrong))
    assert checks["decay.measured.average_precision"].state is State.ALARM
    assert checks["decay.estimated.average_precision"].state is State.OK
    value, lower, upper = wrong[0].measured["accuracy"]
    assert lower < value < upper < 0.7


@pytest.mark.slow
def test_small_drops_that_last_are_a_trend(judge: Judge, some_rows: Make):
    """Each window is a little worse than the reference: by the class rate."""
    windows = [judge.judge(some_rows(150, seed=seed, rate=0.12)) for seed in range(20, 40)]
    trend = by_key(judge.checks(windows))["decay.trend.estimated.average_precision"]
    assert trend.state is State.ALARM
    clean = [judge.judge(some_rows(150, seed=seed)) for seed in range(40, 60)]
    trend = by_key(judge.checks(clean))["decay.trend.estimated.average_precision"]
    assert trend.state is State.OK


def test_one_window_is_no_trend_however_bad(judge: Judge, some_rows: Make):
    windows = [judge.judge(some_rows(300, seed=seed, rate=0.02)) for seed in (20, 21)]
    key = "decay.trend.estimated.average_precision"
    assert by_key(judge.checks(windows[:1]))[key].state is State.WARNING
    assert by_key(judge.checks(windows))[key].state is State.ALARM


def test_few_rows_are_not_judged(judge: Judge, some_rows: Make):
    good = judge.judge(some_rows(200, seed=1))
    (found,) = judge.checks([good, judge.judge(some_rows(1, seed=2))])
    assert found.state is State.UNKNOWN
    assert "policy.min_rows=50" in found.message
    # And a window before is passed over.
    checks = judge.checks([judge.judge(some_rows(0, seed=2)), good])
    assert {check.state for check in checks} == {State.OK}


def test_few_labels_measure_nothing(judge: Judge, some_rows: Make):
    rows = some_rows(200, seed=1)
    found = judge.judge(rows, labelled=rows.take(slice(0, 10)))
    assert found.labelled == 10
    assert not any(key.startswith("decay.measured") for key in by_key(judge.checks([found])))


def test_skipped_comparisons_are_left_out(reference: Reference):
    policy = Policy(skip=("drift.embedding.*", "drift.text*"))
    judge = Judge(reference, policy=policy)
    keys = {comparison.key for comparison in judge.comparisons}
    assert "drift.tabular.words" in keys
    assert not any("embedding" in key or "text" in key for key in keys)
    assert judge.notices == ()


def test_what_is_skipped_and_is_none_of_the_comparisons_is_told(reference: Reference):
    judge = Judge(reference, policy=Policy(skip=("drift.txet.*", "drift.embedding.*")))
    assert judge.notices == ("policy.skip: no comparison is called drift.txet.*",)


def test_more_windows_cannot_be_needed_than_there_are():
    with pytest.raises(ConfigError, match=r"policy\.needed=4 is more than policy\.of=3"):
        Policy(needed=4)
