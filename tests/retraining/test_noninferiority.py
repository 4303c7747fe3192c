"""Which differences are within their margins, and how often that is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fakenews.retraining.gate_policy import METRICS, GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome
from fakenews.retraining.noninferiority import Evidence, judge
from fakenews.retraining.paired import Difference

NO_SEEDS = dict.fromkeys(METRICS, 0.0)
POLICY = GatePolicy(margins=dict.fromkeys(METRICS, 0.1), seed_sd=NO_SEEDS, narrowest=1.0)


def evidence(
    gains: np.ndarray,
    *,
    error: float = 0.01,
    place: str = "test",
    rows: int = 1000,
    minority: int = 300,
    seed: int = 0,
) -> list[Evidence]:
    """What was found of four metrics whose gains have a known error."""
    rng = np.random.default_rng(seed)
    draws = gains + error * rng.normal(size=(1000, len(gains)))
    return [
        Evidence(
            place=place,
            metric=metric,
            difference=Difference(
                champion=0.8, challenger=0.8 + gain, gain=float(gain), draws=draws[:, at]
            ),
            rows=rows,
            minority=minority,
            minority_groups=minority,
        )
        for at, (metric, gain) in enumerate(zip(METRICS, gains, strict=True))
    ]


def outcomes(checks: list[Check]) -> list[Outcome]:
    return [check.outcome for check in checks]


def test_a_small_loss_is_within_the_margin_and_a_large_one_is_not() -> None:
    checks = judge(evidence(np.array([0.0, -0.05, 0.2, -0.099])), POLICY)
    assert outcomes(checks) == [Outcome.PASSED] * 3 + [Outcome.FAILED]
    assert [check.key for check in checks] == [f"test.{metric}" for metric in METRICS]
    assert checks[3].passed is False
    assert "worse than the margin of 0.100" in checks[3].message
    bound = -0.05 - float(stats.t.ppf(0.95, 299)) * 0.01
    assert checks[1].numbers["lower"] == pytest.approx(bound, abs=2e-3)


def test_margins_narrow_as_far_as_rows_can_tell_and_not_further() -> None:
    policy = replace(POLICY, narrowest=0.2)
    wide = judge(evidence(np.zeros(4), error=0.01), policy)
    for check in wide:
        numbers = check.numbers
        assert numbers["margin"] == numbers["margin_rows_can_tell"]
        # Of one bound, and of the lowest of four independent gains in a twentieth of cases.
        lowest = float(stats.norm.isf(1 - 0.95**0.25))
        assert numbers["margin"] == pytest.approx((1.65 + lowest) * 0.01, rel=0.05)
    narrow = judge(evidence(np.zeros(4), error=0.001), policy)
    assert {check.numbers["margin"] for check in narrow} == {0.1 * 0.2}


@pytest.mark.parametrize("seed_sd", [0.0, 0.01])
def test_an_equal_challenger_is_refused_no_more_often_than_stated(seed_sd: float) -> None:
    policy = replace(
        POLICY, narrowest=0.01, seed_sd=dict.fromkeys(METRICS, seed_sd), wrong_refusal=0.2
    )
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(200):
        gains = np.hypot(0.01, np.sqrt(2) * seed_sd) * rng.normal(size=4)
        checks = judge(evidence(gains, seed=number), policy)
        refused += any(one.outcome is not Outcome.PASSED for one in checks)
    # Half of the rate is of these checks: 20 of 200, give or take.
    assert 8 <= refused <= 34


def test_one_that_is_worse_by_the_margin_is_accepted_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    accepted = 0
    for number in range(200):
        gains = np.array([0.0, 0.0, 0.0, -0.1]) + 0.01 * rng.normal(size=4)
        checks = judge(evidence(gains, seed=number), POLICY)
        accepted += all(one.outcome is Outcome.PASSED for one in checks)
    assert 2 <= accepted <= 20  # a twentieth is 10


def test_too_few_rows_leave_it_undecided_and_say_how_many_are_needed() -> None:
    few = evidence(np.array([0.0, 0.0, -0.01, 0.0]), error=0.08, rows=200, minority=40)
    checks = judge(few, POLICY)
    assert set(outcomes(checks)) == {Outcome.UNDECIDED}
    needed = checks[2].numbers["rows_needed"]
    assert (
        f"200 rows with 40 of the minority are too few to tell a loss of 0.1, {needed:,}"
        in (checks[2].message)
    )
    # With as many rows the same gain is decided, and accepted.
    scale = np.sqrt(200 / needed)
    many = evidence(
        np.zeros(4), error=0.08 * scale, rows=needed, minority=int(0.2 * needed), seed=1
    )
    assert outcomes(judge(many, POLICY)) == [Outcome.PASSED] * 4
    assert 0.9 < judge(many, POLICY)[2].numbers["margin_rows_can_tell"] / 0.1 < 1.1


def test_too_few_rows_can_still_show_that_it_is_worse_or_better() -> None:
    gains = np.array([-0.5, 0.3, 0.0, 0.0])
    checks = judge(evidence(gains, error=0.08), POLICY)
    assert outcomes(checks)[:2] == [Outcome.FAILED, Outcome.PASSED]


def test_seeds_that_differ_more_than_the_margin_cannot_be_told_by_rows() -> None:
    policy = replace(POLICY, seed_sd=NO_SEEDS | {"macro_f1": 0.2})
    checks = judge(evidence(np.array([0.0, -0.09, 0.0, 0.0])), policy)
    assert checks[1].outcome is Outcome.UNDECIDED
    assert checks[1].numbers["rows_needed"] is None
    assert "raise policy.margins.macro_f1" in checks[1].message


def test_a_small_window_decides_nothing_unless_it_is_certain() -> None:
    test = evidence(np.zeros(4))
    window = evidence(np.array([-0.05, -0.6, 0.0, 0.0]), error=0.08, place="window", seed=1)
    checks = judge([*test, *window], POLICY)
    assert outcomes(checks[:4]) == [Outcome.PASSED] * 4
    assert outcomes(checks[4:]) == [Outcome.SKIPPED, Outcome.FAILED, *[Outcome.SKIPPED] * 2]
    # What is left out costs the test set nothing.
    alone = judge(test, POLICY)
    for one, other in zip(checks, alone, strict=False):
        assert one.numbers["margin_rows_can_tell"] == other.numbers["margin_rows_can_tell"]


def test_a_large_window_counts_as_the_test_set_does() -> None:
    window = evidence(np.array([0.0, -0.3, 0.0, 0.0]), place="window", seed=1)
    checks = judge([*evidence(np.zeros(4)), *window], POLICY)
    assert [check.key for check in checks if check.outcome is Outcome.FAILED] == [
        "window.macro_f1"
    ]


def test_models_that_agree_on_every_row_pass() -> None:
    checks = judge(evidence(np.zeros(4), error=0.0), POLICY)
    assert outcomes(checks) == [Outcome.PASSED] * 4


def test_a_metric_that_rows_do_not_define_is_undecided() -> None:
    found = evidence(np.array([np.nan, 0.0, 0.0, 0.0]))
    checks = judge(found, POLICY)
    assert checks[0].outcome is Outcome.UNDECIDED
    assert outcomes(checks)[1:] == [Outcome.PASSED] * 3
    windowed = judge([replace(one, place="window") for one in found], POLICY)
    assert windowed[0].outcome is Outcome.SKIPPED
    assert windowed[0].passed is None
