import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from fakenews.errors import BundleError, DataError
from fakenews.evaluation.calibration import (
    TEMPERATURE_BOUNDS,
    Calibration,
    choose_threshold,
    decide,
    fit_temperature,
    softmax,
)


def drawn(rows, classes, *, temperature, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(rows, classes))
    chances = softmax(logits / temperature).cumsum(axis=1)
    return logits, (rng.uniform(size=(rows, 1)) > chances).sum(axis=1)


def test_softmax_of_huge_logits():
    assert softmax([[1e4, 0.0], [0.0, 0.0]]).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(classes, temperature):
    logits, labels = drawn(20_000, classes, temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 1000))
@settings(max_examples=60)
def test_temperature_is_within_bounds_whatever_the_rows(rows, classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=10.0 ** rng.integers(-3, 4), size=(rows, classes))
    labels = rng.integers(classes, size=rows)
    assert TEMPERATURE_BOUNDS[0] <= fit_temperature(logits, labels) <= TEMPERATURE_BOUNDS[1]


def test_temperature_fits_better_than_none():
    logits, labels = drawn(300, 3, temperature=2.5)
    scaled = softmax(logits / fit_temperature(logits, labels))
    assert log_loss(labels, scaled) < log_loss(labels, softmax(logits))


def test_separated_rows_do_not_make_certain_probabilities():
    logits = np.array([[2.0, -2.0]] * 10 + [[-2.0, 2.0]] * 10)
    labels = np.repeat([0, 1], 10)
    scaled = softmax(logits / fit_temperature(logits, labels))
    # As sure as 20 right answers out of 20 allow: 21 of 22.
    assert scaled.max() == pytest.approx(21 / 22, abs=1e-4)


def test_ends_of_the_range_are_reached():
    tiny = np.array([[1e-4, 0.0], [0.0, 1e-4]] * 50)
    assert fit_temperature(tiny, [0, 1] * 50) == pytest.approx(TEMPERATURE_BOUNDS[0])
    assert fit_temperature(tiny * 1e8, [1, 0] * 50) == pytest.approx(TEMPERATURE_BOUNDS[1])


def test_logits_that_tell_nothing_are_left_alone():
    assert fit_temperature(np.zeros((4, 2)), [0, 1, 1, 1]) == 1.0


def test_temperature_of_bad_rows():
    with pytest.raises(DataError, match="validation split is empty"):
        fit_temperature(np.empty((0, 2)), [])
    with pytest.raises(DataError, match=r"1 of 2 rows have a logit.*row 2"):
        fit_temperature([[0.0, 1.0], [np.inf, 0.0]], [0, 1])


def test_threshold_lies_midway_in_the_gap():
    assert choose_threshold([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1]) == pytest.approx(0.4)
    assert choose_threshold([0.01, 0.02, 0.05, 0.06], [0, 0, 1, 1]) == pytest.approx(0.035)


@pytest.mark.parametrize("truth", [[], [0, 0], [1, 1]])
def test_threshold_of_one_class_is_a_half(truth):
    assert choose_threshold(np.linspace(0, 1, len(truth)), truth) == 0.5


def test_threshold_tie_goes_to_the_cut_nearest_a_half():
    # Cuts at 0.25 and at 0.65 give the same matrix up to the classes' names.
    scores, truth = [0.1, 0.4, 0.4, 0.9], [0, 1, 0, 1]
    assert choose_threshold(scores, truth) == pytest.approx(0.65)
    assert choose_threshold([0.4, 0.4, 0.6, 0.6], [0, 1, 0, 1]) == 0.5


def test_threshold_between_neighbouring_floats_still_separates():
    low = 0.3
    high = np.nextafter(low, 1)
    threshold = choose_threshold([low, low, high, high], [0, 0, 1, 1])
    assert low < threshold <= high


def test_threshold_at_the_ends():
    assert choose_threshold([1.0, 0.0], [1, 0]) == 0.5
    assert 0 <= choose_threshold([1.0, 1.0, 0.0], [0, 1, 1]) <= 1


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_threshold_of_bad_scores(wrong):
    with pytest.raises(DataError, match=r"1 of 2 rows have a probability outside 0\.\.1"):
        choose_threshold([0.5, wrong], [0, 1])


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=30)
def test_no_threshold_is_better(pairs):
    scores = np.array([score / 20 for score, _ in pairs])
    truth = np.array([is_positive for _, is_positive in pairs])
    if truth.all() or not truth.any():
        return

    def macro_f1(threshold):
        return f1_score(truth, scores >= threshold, average="macro", labels=[False, True])

    best = max(macro_f1(threshold) for threshold in np.arange(0, 1.001, 1 / 40))
    assert macro_f1(choose_threshold(scores, truth)) == pytest.approx(best)


def test_decide_with_and_without_threshold():
    p = np.array([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    assert decide(p, positive_index=1, threshold=None).tolist() == [0, 0, 1]
    assert decide(p, positive_index=1, threshold=0.4).tolist() == [1, 0, 1]
    assert decide(p, positive_index=0, threshold=0.65).tolist() == [1, 0, 1]


def test_fit_of_two_classes_chooses_both_and_of_more_the_temperature():
    logits, labels = drawn(500, 2, temperature=2)
    found = Calibration.fit(logits, labels, classes=["a", "b"], positive="a")
    scores = found.apply(logits)
    assert found.threshold == choose_threshold(scores[:, 0], labels == 0)
    assert scores == pytest.approx(softmax(logits / found.temperature))

    logits, labels = drawn(500, 3, temperature=2)
    found = Calibration.fit(logits, labels, classes=["a", "b", "c"], positive="a")
    assert found.threshold is None
    assert found.decide(found.apply(logits), ["a", "b", "c"]).tolist() == list(logits.argmax(1))


def test_decisions_survive_the_file():
    logits, labels = drawn(200, 2, temperature=2)
    written = Calibration.fit(logits, labels, classes=["a", "b"], positive="b")
    read = Calibration.from_json(json.loads(json.dumps(written.to_json(), allow_nan=False)))
    assert read == written
    decided = read.decide(read.apply(logits), ["a", "b"])
    assert decided.dtype == np.int64
    assert np.array_equal(decided, read.apply(logits)[:, 1] >= written.threshold)


def test_calibration_that_does_not_fit_the_classes():
    p = np.full((1, 3), 1 / 3)
    with pytest.raises(BundleError) as caught:
        Calibration(positive="x", threshold=0.5).decide(p, ["a", "b", "c"])
    assert "calibration.json: positive is 'x', which is none of 'a', 'b', 'c'" in str(
        caught.value
    )
    assert "threshold must be null with 3 classes, got 0.5" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"temperature": "1"}, "temperature must be a number above 0, got '1'"),
        ({"temperature": True}, "temperature must be a number above 0, got True"),
        ({"temperature": None}, "temperature must be a number above 0, got None"),
        ({"temperature": float("nan")}, "temperature must be a number above 0, got nan"),
        ({"threshold": 1.5}, "threshold must be null or within 0..1, got 1.5"),
        ({"threshold": [0.5]}, r"threshold must be null or within 0..1, got \[0.5\]"),
        ({"positive": ""}, "positive must be a class name, got ''"),
        ({"positive": 1}, "positive must be a class name, got 1"),
        ({"scale": 2}, "scale is no known field"),
    ],
)
def test_bad_field_is_named(change, message):
    content = Calibration(positive="real", threshold=0.5).to_json() | change
    with pytest.raises(BundleError, match=f"^calibration.json: {message}$"):
        Calibration.from_json(content)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_content_that_is_no_object(content):
    with pytest.raises(BundleError, match=r"^calibration.json: expected an object"):
        Calibration.from_json(content)


def test_missing_fields_are_reported_together():
    with pytest.raises(BundleError) as caught:
        Calibration.from_json({})
    for name in ("temperature", "threshold", "positive"):
        assert f"{name} is missing" in str(caught.value)
