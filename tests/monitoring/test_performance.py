"""Metrics without labels, and with them."""

import numpy as np
import pytest

from fakenews.evaluation.metrics import classification_metrics
from fakenews.monitoring.performance import (
    METRICS,
    Performance,
    cusum,
    estimated,
    intervals,
    measured,
)
from fakenews.monitoring.rows import Rows

RNG = np.random.default_rng(3)


def some(count: int, classes: int, *, sharp: float = 2.0) -> Rows:
    """Rows whose labels follow their probabilities."""
    logits = RNG.normal(size=(count, classes)) * sharp
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (RNG.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return Rows(
        columns={},
        embeddings=None,
        probabilities=probabilities,
        decided=probabilities.argmax(axis=1),
        labels=labels.clip(max=classes - 1),
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_measured_as_in_an_evaluation(classes: int):
    rows = some(300, classes)
    names = [f"c{n}" for n in range(classes)]
    expected = classification_metrics(
        rows.probabilities, rows.labels, classes=names, positive="c1"
    )
    found = measured(rows, positive=1 if classes == 2 else None).metrics(np.ones((1, 300)))
    for name in METRICS:
        assert found[name][0] == pytest.approx(expected[name]), name


def test_ties_share_one_precision():
    probabilities = np.array([[0.2, 0.8], [0.2, 0.8], [0.6, 0.4]])
    truth = np.eye(2)[[1, 0, 1]]
    found = Performance(probabilities, truth, np.array([1, 1, 0]), positive=1)
    # Both rows of 0.8 are called at once: precision 1/2, then 2/3.
    assert found.metrics(np.ones((1, 3)))["average_precision"][0] == pytest.approx(
        0.5 * 1 / 2 + 0.5 * 2 / 3
    )


def test_weights_are_repeated_rows():
    rows = some(40, 2)
    weights = RNG.integers(0, 4, size=(1, 40))
    repeated = rows.take(np.repeat(np.arange(40), weights[0]))
    found = measured(rows, positive=1).metrics(weights.astype(float))
    expected = measured(repeated, positive=1).metrics(np.ones((1, len(repeated))))
    for name in METRICS:
        assert found[name][0] == pytest.approx(expected[name][0])


@pytest.mark.parametrize("classes", [2, 3])
def test_estimates_are_what_is_measured_of_calibrated_rows(classes: int):
    rows = some(20_000, classes)
    positive = 1 if classes == 2 else None
    one = np.ones((1, len(rows)))
    without, known = (
        performance(rows, positive=positive).metrics(one)
        for performance in (estimated, measured)
    )
    for name in METRICS:
        assert without[name][0] == pytest.approx(known[name][0], abs=0.012), name


def test_intervals_hold_what_is_measured():
    held = dict.fromkeys(METRICS, 0)
    for trial in range(40):
        rows = some(200, 2)
        known = measured(rows, positive=1).metrics(np.ones((1, 200)))
        found = intervals(rows, positive=1, known=False, resamples=100, seed=trial)
        for name, (value, lower, upper) in found.items():
            assert lower <= value <= upper
            held[name] += lower <= known[name][0] <= upper
    assert min(held.values()) >= 35


def test_intervals_narrow_with_rows():
    rows = some(8000, 2)
    wide = intervals(rows.take(np.arange(500)), positive=1, known=True)["accuracy"]
    narrow = intervals(rows, positive=1, known=True, most=1000)["accuracy"]
    assert (wide[2] - wide[1]) / (narrow[2] - narrow[1]) == pytest.approx(4, rel=0.4)


def test_one_class_has_no_average_precision():
    rows = some(10, 2)
    found = Performance(rows.probabilities, np.eye(2)[[0] * 10], rows.decided, positive=1)
    assert np.isnan(found.metrics(np.ones((1, 10)))["average_precision"][0])


def test_small_drops_do_not_add_up_and_lasting_ones_do():
    assert cusum([0.4, 0.5, -2.0, 0.3]).tolist() == [0, 0, 0, 0]
    assert cusum([1.5, 1.5, -3.0, 2.5]).tolist() == [1, 2, 0, 2]
    assert cusum(np.zeros((3, 5))).shape == (3, 5)
