"""Differences of two models in the same resamples."""

import numpy as np
import pytest

from fakenews.evaluation.metrics import Sample, classification_metrics
from fakenews.retraining.paired import Pair, differences, resampled

CLASSES = ["major", "minor"]


def sample(minor: np.ndarray, labels: np.ndarray, threshold: float | None = 0.5) -> Sample:
    return Sample.of(
        np.stack([1 - minor, minor], axis=1),
        labels,
        classes=CLASSES,
        positive="minor",
        threshold=threshold,
    )


def drawn(rows: int = 300, *, groups: np.ndarray | None = None, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(np.int64)
    one, two = (1 / (1 + np.exp(1 - 2 * labels - rng.normal(size=rows))) for _ in range(2))
    return Pair(
        labels=labels,
        groups=np.arange(rows) if groups is None else groups,
        champion=sample(one, labels),
        challenger=sample(two, labels),
        minority=1,
    )


def test_the_figures_are_those_of_an_evaluation() -> None:
    pair = drawn()
    found = differences(
        pair, pair.metrics(pair.champion), pair.metrics(pair.challenger), resamples=10, seed=0
    )
    for side, model in (("champion", pair.champion), ("challenger", pair.challenger)):
        figures = classification_metrics(
            model.probabilities, pair.labels, classes=CLASSES, positive="minor", threshold=0.5
        )
        for name, metric in (
            ("average_precision", "average_precision"),
            ("macro_f1", "macro_f1"),
            ("minority_recall", "recall/minor"),
            ("brier", "brier"),
        ):
            assert getattr(found[name], side) == pytest.approx(figures[metric])
    # Of the Brier score, less is a gain.
    assert found["brier"].gain == pytest.approx(
        found["brier"].champion - found["brier"].challenger
    )
    assert found["macro_f1"].gain == pytest.approx(
        found["macro_f1"].challenger - found["macro_f1"].champion
    )


def test_the_error_of_a_mean_is_that_of_theory() -> None:
    pair = drawn(2000)
    found = differences(
        pair, pair.metrics(pair.champion), pair.metrics(pair.challenger), resamples=2000, seed=1
    )["brier"]
    squared = [
        (model.probabilities[:, 1] - pair.labels) ** 2
        for model in (pair.champion, pair.challenger)
    ]
    theory = (squared[1] - squared[0]).std() / np.sqrt(2000)
    assert found.error == pytest.approx(theory, rel=0.08)


def test_a_model_is_no_better_than_itself_in_any_resample() -> None:
    pair = drawn()
    same = pair.metrics(pair.champion)
    found = differences(pair, same, same, resamples=50, seed=0)
    for one in found.values():
        assert one.gain == 0
        assert np.abs(one.draws).max() < 1e-12


def test_near_duplicates_are_drawn_together() -> None:
    groups = np.repeat(np.arange(100), 3)
    pair = drawn(300, groups=groups)
    (weights,) = resampled(pair, resamples=40, seed=0)
    assert weights.shape == (40, 300)
    assert (weights.reshape(40, 100, 3) == weights.reshape(40, 100, 3)[:, :, :1]).all()
    assert (weights.sum(axis=1) == 300).all()


def test_copies_are_no_evidence() -> None:
    one = drawn(200)
    copied = Pair(
        labels=np.tile(one.labels, 4),
        groups=np.tile(one.groups, 4),
        champion=sample(np.tile(one.champion.probabilities[:, 1], 4), np.tile(one.labels, 4)),
        challenger=sample(
            np.tile(one.challenger.probabilities[:, 1], 4), np.tile(one.labels, 4)
        ),
        minority=1,
    )
    errors = [
        differences(
            pair,
            pair.metrics(pair.champion),
            pair.metrics(pair.challenger),
            resamples=1000,
            seed=0,
        )["macro_f1"].error
        for pair in (one, copied)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)
    assert copied.minority_groups == one.minority_groups


def test_a_class_of_few_is_in_every_resample() -> None:
    labels = np.r_[np.ones(5, dtype=np.int64), np.zeros(95, dtype=np.int64)]
    model = sample(np.linspace(0.9, 0.1, 100), labels)
    pair = Pair(
        labels=labels, groups=np.arange(100), champion=model, challenger=model, minority=1
    )
    weights = np.concatenate(list(resampled(pair, resamples=200, seed=0)))
    assert (weights[:, labels == 1].sum(axis=1) == 5).all()
    many = drawn(300)
    weights = np.concatenate(list(resampled(many, resamples=200, seed=0)))
    assert weights[:, many.labels == 1].sum(axis=1).std() > 1


def test_rows_made_with_the_same_seed_are_drawn_like_others() -> None:
    pair = drawn(300, seed=0)
    (weights,) = resampled(pair, resamples=50, seed=0)
    assert weights[:, pair.labels == 1].sum(axis=1).min() > 40


def test_the_seed_decides_the_draws() -> None:
    pair = drawn(50)
    one, two, other = (
        np.concatenate(list(resampled(pair, resamples=5, seed=seed))) for seed in (3, 3, 4)
    )
    assert (one == two).all()
    assert (one != other).any()
