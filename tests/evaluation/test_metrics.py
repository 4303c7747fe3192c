import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from fakenews.errors import DataError
from fakenews.evaluation.calibration import softmax
from fakenews.evaluation.metrics import (
    bootstrap_intervals,
    classification_metrics,
    expected_calibration_error,
    reliability,
)

BINARY = ["fake", "real"]


def predictions(rows, classes, *, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    labels = rng.choice(
        classes, size=rows, p=np.arange(1, classes + 1) / sum(range(classes + 1))
    )
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1
    if decimals is not None:  # equal scores
        logits = np.round(logits, decimals)
    return softmax(logits), labels


def binary(scores):
    scores = np.asarray(scores, dtype=float)
    return np.stack([1 - scores, scores], axis=1)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_two_classes_agree_with_scikit_learn(threshold, decimals):
    p, y = predictions(500, 2, decimals=decimals)
    found = classification_metrics(p, y, classes=BINARY, positive="real", threshold=threshold)
    decided = p.argmax(axis=1) if threshold is None else (p[:, 1] >= threshold).astype(int)
    expected = {
        "average_precision": sklearn_metrics.average_precision_score(y, p[:, 1]),
        "auroc": sklearn_metrics.roc_auc_score(y, p[:, 1]),
        "macro_f1": sklearn_metrics.f1_score(y, decided, average="macro"),
        "weighted_f1": sklearn_metrics.f1_score(y, decided, average="weighted"),
        "accuracy": sklearn_metrics.accuracy_score(y, decided),
        "log_loss": sklearn_metrics.log_loss(y, p),
        "brier": sklearn_metrics.brier_score_loss(y, p[:, 1]),
    }
    per_class = sklearn_metrics.precision_recall_fscore_support(y, decided)
    for kind, values in zip(("precision", "recall", "f1", "support"), per_class, strict=True):
        expected |= {f"{kind}/{name}": values[i] for i, name in enumerate(BINARY)}
    assert found.keys() == expected.keys() | {"ece"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_positive_may_be_the_first_class():
    p, y = predictions(300, 2)
    found = classification_metrics(p, y, classes=BINARY, positive="fake", threshold=0.8)
    decided = np.where(p[:, 0] >= 0.8, 0, 1)
    assert found["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(y == 0, p[:, 0])
    )
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(y == 0, p[:, 0]))
    assert found["recall/fake"] == pytest.approx(
        sklearn_metrics.recall_score(y, decided, pos_label=0)
    )


def test_more_classes_agree_with_scikit_learn():
    p, y = predictions(600, 4)
    classes = ["a", "b", "c", "d"]
    found = classification_metrics(p, y, classes=classes, positive="b")
    decided = p.argmax(axis=1)
    expected = {
        "average_precision": sklearn_metrics.average_precision_score(
            np.eye(4)[y], p, average="macro"
        ),
        "auroc": sklearn_metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "macro_f1": sklearn_metrics.f1_score(y, decided, average="macro"),
        "weighted_f1": sklearn_metrics.f1_score(y, decided, average="weighted"),
        "log_loss": sklearn_metrics.log_loss(y, p),
        "brier": sklearn_metrics.brier_score_loss(y, p),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_absent_class_of_several_takes_no_part_in_means():
    p, y = predictions(200, 3)
    y = np.where(y == 0, 1, y)
    found = classification_metrics(p, y, classes=["a", "b", "c"], positive="a")
    of_b_and_c = [sklearn_metrics.average_precision_score(y == c, p[:, c]) for c in (1, 2)]
    assert found["average_precision"] == pytest.approx(np.mean(of_b_and_c))
    assert math.isnan(found["recall/a"])
    assert found["support/a"] == 0
    assert found["f1/a"] == 0  # it was decided, wrongly


def test_by_hand():
    # Sorted: 0.9 positive, 0.8 negative, 0.6 positive, 0.1 negative.
    p = binary([0.9, 0.8, 0.6, 0.1])
    found = classification_metrics(
        p, np.array([1, 0, 1, 0]), classes=BINARY, positive="real", threshold=0.8
    )
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["auroc"] == pytest.approx(3 / 4)
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert found["precision/real"] == pytest.approx(1 / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.16 + 0.01) / 4)
    # Each row is a bin: |0.9 - 1|, |0.8 - 0|, |0.6 - 1|, |0.9 - 1|; the equal 0.9s share one.
    assert found["ece"] == pytest.approx((0.2 + 0.8 + 0.4) / 4)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_not_a_crash(label):
    p = binary([0.2, 0.7, 0.4])
    y = np.full(3, label)
    found = classification_metrics(p, y, classes=BINARY, positive="real")
    intervals = bootstrap_intervals(p, y, classes=BINARY, positive="real", resamples=20)
    for name in ("average_precision", "auroc", "macro_f1"):
        assert math.isnan(found[name])
        assert all(map(math.isnan, intervals[name]))
    assert found["accuracy"] == pytest.approx([2 / 3, 1 / 3][label])
    assert intervals["accuracy"][0] <= found["accuracy"] <= intervals["accuracy"][1]


def test_one_row():
    found = classification_metrics(binary([0.7]), [1], classes=BINARY, positive="real")
    assert found["accuracy"] == 1
    assert found["ece"] == pytest.approx(0.3)
    assert math.isnan(found["precision/fake"])
    assert math.isnan(found["auroc"])


def test_bad_values_are_reported_together():
    p = binary([0.2, np.nan, 0.4, 0.5])
    p[2] = [3.0, -2.5]
    with pytest.raises(DataError) as caught:
        classification_metrics(p, [0, 1, 0, 2], classes=BINARY, positive="real")
    assert len(caught.value.faults) == 3
    assert "1 of 4 rows have a probability that is not finite" in caught.value.faults[0]
    assert "first at row 2" in caught.value.faults[0]
    assert "first at row 3" in caught.value.faults[1]
    assert "first at row 4" in caught.value.faults[2]


def test_no_rows():
    with pytest.raises(DataError, match="no rows to evaluate"):
        classification_metrics(np.empty((0, 2)), [], classes=BINARY, positive="real")


@pytest.mark.parametrize(
    ("predicted", "classes", "positive", "threshold", "message"),
    [
        ((binary([0.5]), [0, 1]), BINARY, "real", None, r"must be \[N, 2\]"),
        ((np.full((2, 3), 1 / 3), [0, 1]), BINARY, "real", None, r"must be \[N, 2\]"),
        ((np.ones((2, 1)), [0, 0]), ["real"], "real", None, "two or more classes"),
        ((binary([0.5]), [0]), BINARY, "reel", None, "'reel' is none of"),
        ((np.full((2, 3), 1 / 3), [0, 1]), ["a", "b", "c"], "a", 0.5, "threshold needs 2"),
    ],
)
def test_contradicting_arguments(predicted, classes, positive, threshold, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(
            *predicted, classes=classes, positive=positive, threshold=threshold
        )


scores_and_labels = st.integers(2, 40).flatmap(
    lambda rows: st.tuples(
        hnp.arrays(float, rows, elements=st.integers(0, 1000).map(lambda i: i / 1000)),
        hnp.arrays(int, rows, elements=st.integers(0, 1)),
    )
)


@given(scores_and_labels)
@settings(max_examples=50)
def test_ranking_survives_monotone_transforms(case):
    scores, y = case
    plain = classification_metrics(binary(scores), y, classes=BINARY, positive="real")
    bent = classification_metrics(binary(scores**2 / 2), y, classes=BINARY, positive="real")
    for name in ("average_precision", "auroc"):
        assert bent[name] == pytest.approx(plain[name], nan_ok=True)


@given(scores_and_labels, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_rows_does_not_matter(case, random):
    scores, y = case
    order = random.sample(range(len(y)), len(y))
    plain = classification_metrics(
        binary(scores), y, classes=BINARY, positive="real", threshold=0.4
    )
    shuffled = classification_metrics(
        binary(scores[order]), y[order], classes=BINARY, positive="real", threshold=0.4
    )
    assert shuffled == pytest.approx(plain, nan_ok=True)


@given(scores_and_labels)
@settings(max_examples=50)
def test_metrics_stay_in_range(case):
    scores, y = case
    found = classification_metrics(binary(scores), y, classes=BINARY, positive="real")
    for name, value in found.items():
        if name != "log_loss" and not name.startswith("support/"):
            assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12


def test_reliability_bins_are_of_equal_mass():
    p, y = predictions(1500, 2)
    binned = reliability(p, y)
    assert binned.rows.tolist() == [100] * 15
    assert (np.diff(binned.confidence) > 0).all()
    assert (binned.accuracy * binned.rows).sum() == pytest.approx((p.argmax(1) == y).sum())


def test_calibrated_scores_have_a_small_error_and_overconfident_ones_a_large():
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=20_000)
    y = (rng.uniform(size=20_000) < scores).astype(np.int64)
    assert expected_calibration_error(binary(scores), y) < 0.01
    sharp = 1 / (1 + ((1 - scores) / scores) ** 4)
    assert expected_calibration_error(binary(sharp), y) > 0.1


def test_equal_scores_share_a_bin():
    p = binary(np.full(100, 0.7))
    y = np.repeat([1, 0], [60, 40])
    assert reliability(p, y).rows.tolist() == [100]
    assert expected_calibration_error(p, y) == pytest.approx(0.1)


def test_a_bootstrap_resample_is_what_scikit_learn_computes_on_the_drawn_rows():
    p, y = predictions(60, 2, decimals=1)
    intervals = bootstrap_intervals(p, y, classes=BINARY, positive="real", resamples=1, seed=3)
    drawn = np.random.default_rng(3).integers(60, size=60)
    expected = sklearn_metrics.average_precision_score(y[drawn], p[drawn, 1])
    assert intervals["average_precision"] == pytest.approx((expected, expected))
    f1 = sklearn_metrics.f1_score(y[drawn], p[drawn].argmax(1), average="macro")
    assert intervals["macro_f1"] == pytest.approx((f1, f1))


def test_intervals_surround_the_estimate_and_repeat_with_the_seed():
    p, y = predictions(400, 3)
    options = {"classes": ["a", "b", "c"], "positive": "a"}
    estimate = classification_metrics(p, y, **options)
    intervals = bootstrap_intervals(p, y, **options, resamples=200, seed=1)
    assert intervals == bootstrap_intervals(p, y, **options, resamples=200, seed=1)
    assert intervals != bootstrap_intervals(p, y, **options, resamples=200, seed=2)
    assert "ece" not in intervals
    assert "support/a" not in intervals
    for name, (low, high) in intervals.items():
        assert low < estimate[name] < high


def test_intervals_of_accuracy_cover_the_truth_at_their_level():
    # Accuracy is a binomial share: of 200 samples about 95% of intervals must hold 0.8.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        y = rng.integers(0, 2, 250)
        right = rng.uniform(size=250) < 0.8
        p = binary(np.where(right == (y == 1), 0.9, 0.1))
        intervals = bootstrap_intervals(
            p, y, classes=BINARY, positive="real", resamples=200, seed=seed
        )
        low, high = intervals["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_large_sample_is_resampled_in_pieces():
    p, y = predictions(300_000, 2)
    intervals = bootstrap_intervals(p, y, classes=BINARY, positive="real", resamples=7)
    estimate = classification_metrics(p, y, classes=BINARY, positive="real")
    low, high = intervals["auroc"]
    assert low == pytest.approx(estimate["auroc"], abs=0.005)
    assert low < high < low + 0.01


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_bootstrap_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="resamples >= 1 and 0 < level < 1"):
        bootstrap_intervals(binary([0.5]), [1], classes=BINARY, positive="real", **wrong)
