"""Slices, format and the floor of a recall: refused on evidence alone."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from fakenews.evaluation.metrics import Floats, Sample
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome
from fakenews.retraining.paired import Difference, Pair, differences
from fakenews.retraining.tripwires import (
    LEAN,
    Masks,
    floor_check,
    judged_slices,
    lean_check,
    lean_figure,
    slice_check,
    slice_figures,
)

POLICY = GatePolicy(resamples=500)
ROWS = 1200
LABELS = (np.random.default_rng(0).random(ROWS) < 0.3).astype(np.int64)
SCORES = 2.5 * LABELS - 1.5 + np.random.default_rng(1).normal(size=ROWS)


def sample(odds: Floats) -> Sample:
    minor = expit(odds)
    return Sample.of(
        np.stack([1 - minor, minor], axis=1),
        LABELS,
        classes=["major", "minor"],
        positive="minor",
        threshold=0.5,
    )


def pair(challenger: Floats) -> Pair:
    return Pair(
        labels=LABELS,
        groups=np.arange(ROWS),
        champion=sample(SCORES),
        challenger=sample(challenger),
        minority=1,
    )


def sliced(challenger: Floats, masks: Masks) -> Check:
    rows = pair(challenger)
    slices = judged_slices(rows, masks, POLICY)
    found = differences(
        rows,
        slice_figures(rows.champion, slices["judged"]),
        slice_figures(rows.challenger, slices["judged"]),
        resamples=POLICY.resamples,
        seed=0,
    )
    return slice_check("test", found, rows, slices, POLICY)


PLACE = np.arange(ROWS)
MASKS = {"first": PLACE < 400, "rest": PLACE >= 400, "tiny": PLACE < 30}


def test_a_slice_that_broke_refuses_though_the_whole_is_good() -> None:
    broken = np.where(MASKS["first"], -SCORES, 3 * SCORES)
    check = sliced(broken, MASKS)
    assert check.outcome is Outcome.FAILED
    assert "macro-F1 of 1 of 2 slices of the test set" in check.message
    assert "'first'" in check.message
    assert [line["slice"] for line in check.numbers["slices"] if line["worse"]] == ["first"]


def test_a_little_noise_refuses_nothing_and_small_slices_are_named() -> None:
    check = sliced(SCORES + 0.2 * np.random.default_rng(2).normal(size=ROWS), MASKS)
    assert check.outcome is Outcome.PASSED
    assert check.numbers["too_small"] == ["tiny"]
    assert check.numbers["level"] == pytest.approx(POLICY.tripwire / 2)


def test_slices_of_one_class_are_not_judged() -> None:
    check = sliced(SCORES, {"one class": LABELS == 0})
    assert check.outcome is Outcome.SKIPPED
    assert check.numbers["too_small"] == ["one class"]


def recall(champion: float, challenger: float) -> Difference:
    return Difference(
        champion=champion,
        challenger=challenger,
        gain=challenger - champion,
        draws=np.zeros(2),
    )


@pytest.mark.parametrize(
    ("champion", "challenger", "outcome"),
    [
        (0.8, 0.1, Outcome.FAILED),
        (0.8, 0.28, Outcome.PASSED),  # below, and not surely
        (0.8, 0.5, Outcome.PASSED),
        (0.2, 0.1, Outcome.PASSED),  # the champion is no better than the floor
        (0.8, 0.0, Outcome.FAILED),
        (0.8, 1.0, Outcome.PASSED),
    ],
)
def test_the_floor_of_the_minoritys_recall(
    champion: float, challenger: float, outcome: Outcome
) -> None:
    check = floor_check(recall(champion, challenger), pair(SCORES), POLICY)
    assert check.outcome is outcome
    assert challenger <= check.numbers["upper"] <= 1


def leaning(challenger: Floats, format_scores: Floats) -> tuple[Check, Difference]:
    rows = pair(challenger)
    found = differences(
        rows,
        lean_figure(rows.champion, format_scores),
        lean_figure(rows.challenger, format_scores),
        resamples=500,
        seed=0,
    )[LEAN]
    return lean_check(found, rows, POLICY), found


def test_leaning_on_format_is_correlation_within_a_class() -> None:
    form = LABELS + np.random.default_rng(3).normal(size=ROWS)
    check, found = leaning(SCORES + form, form)
    assert check.outcome is Outcome.FAILED
    assert "more than 0.1 above" in check.message
    # What both owe to the label is no leaning.
    assert abs(found.champion) < 0.1 < spearmanr(SCORES, form).statistic
    within = [
        spearmanr((SCORES + form)[code == LABELS], form[code == LABELS]).statistic
        for code in (0, 1)
    ]
    assert found.challenger == pytest.approx(np.mean(within))


def test_no_more_format_than_the_champion_passes() -> None:
    form = SCORES + np.random.default_rng(3).normal(size=ROWS)
    check, found = leaning(SCORES + 0.1 * form, form)
    assert check.outcome is Outcome.PASSED
    assert found.champion > 0.4


def test_format_that_tells_nothing_is_skipped() -> None:
    check, _ = leaning(SCORES, np.full(ROWS, 0.3))
    assert check.outcome is Outcome.SKIPPED
    assert lean_check(None, pair(SCORES), POLICY).outcome is Outcome.SKIPPED
