"""Distances between samples: as others compute them, and of weightings as of samples."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import pairwise_kernels

from fakenews.monitoring.statistics import (
    Binned,
    Discriminant,
    Kernel,
    Ordered,
    chi_squared,
    resamples,
    shares,
    stability_index,
)

RNG = np.random.default_rng(0)


def weights(window: int, reference: int) -> np.ndarray:
    return np.repeat([1 / window, -1 / reference], [window, reference])[None]


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_distance_is_that_of_kolmogorov_and_smirnov(decimals: int):
    a, b = RNG.normal(0.3, size=70).round(decimals), RNG.normal(size=110).round(decimals)
    found = Ordered(np.concatenate([a, b])).distance(weights(70, 110))
    assert found[0] == pytest.approx(stats.ks_2samp(a, b).statistic)


def test_resampled_distance_is_that_of_the_drawn_rows():
    values = RNG.normal(size=50).round(1)
    for window, reference in resamples(50, rows=30, references=2, windows=3, seed=1):
        found = Ordered(values).distance(window - reference)
        drawn = np.repeat(values, np.rint(reference[0] * 50).astype(int))
        for row, distance in zip(window, found, strict=True):
            sample = np.repeat(values, np.rint(row * 30).astype(int))
            assert len(sample) == 30
            assert distance == pytest.approx(stats.ks_2samp(sample, drawn).statistic, abs=1e-6)


def test_chi_squared_is_that_of_the_table():
    a, b = np.array([10, 0, 25, 0]), np.array([30, 5, 21, 0])
    found = chi_squared(a / 35, b / 56, rows=35, reference_rows=56)
    table = np.stack([a, b])[:, :3]
    assert float(found) == pytest.approx(stats.chi2_contingency(table, correction=False)[0])


def test_stability_index_is_none_without_a_change_and_grows_with_it():
    reference = RNG.normal(size=2000)
    bins = Binned(reference)

    def index(values: np.ndarray) -> float:
        return stability_index(
            shares(bins.codes(values), len(bins)),
            shares(bins.codes(reference), len(bins)),
            rows=len(values),
            reference_rows=2000,
        )

    same = [index(RNG.normal(size=100)) for _ in range(50)]
    assert np.mean(same) < 0.04
    assert index(RNG.normal(0.5, size=100)) > 0.1
    assert 0.2 < index(RNG.normal(0.5, size=100_000)) < 0.3


def test_bins_of_numbers_that_repeat():
    reference = np.array([0.0] * 80 + [1.0] * 20)
    bins = Binned(reference)
    codes = bins.codes(reference)
    assert set(shares(codes, len(bins))) - {0.0} == {0.8, 0.2}
    assert bins.codes(np.array([5.0]))[0] == len(bins) - 1


def test_discrepancy_is_that_of_the_kernel_matrix():
    reference = RNG.normal(size=(60, 5)).astype(np.float32)
    window = RNG.normal(0.5, size=(40, 5)).astype(np.float32)
    kernel = Kernel(reference)
    points = np.concatenate([window, reference])
    gram = pairwise_kernels(points, metric="rbf", gamma=1 / kernel.width)
    expected = (weights(40, 60) @ gram @ weights(40, 60).T).item()
    value, distance = kernel.measured(window)
    assert value == pytest.approx(expected, rel=1e-4)
    assert distance > 0.3


def test_resampled_discrepancy_is_that_of_the_drawn_rows():
    reference = RNG.normal(size=(40, 3)).astype(np.float32)
    kernel = Kernel(reference)
    equal = np.full((1, 40), 1 / 40, dtype=np.float32)
    ((window, _),) = resamples(40, rows=20, references=1, windows=2, seed=0)
    found = kernel.resampled(window - equal)
    for row, value in zip(window, found, strict=True):
        drawn = np.repeat(reference, np.rint(row * 20).astype(int), axis=0)
        assert kernel.measured(drawn)[0] == pytest.approx(value, abs=1e-5)


def test_classifier_tells_what_differs_and_nothing_else():
    reference = RNG.normal(size=(800, 20)).astype(np.float32)
    discriminant = Discriminant(reference)
    same = [
        discriminant.measured(RNG.normal(size=(200, 20)).astype(np.float32)) for _ in range(20)
    ]
    assert abs(np.mean([value for value, _ in same])) < 0.05
    moved = RNG.normal(size=(200, 20)).astype(np.float32)
    moved[:, 3] += 1
    value, effect = discriminant.measured(moved)
    assert value > 3 * max(found for found, _ in same)
    assert 0.15 < effect < 0.35
    assert discriminant.unlike(moved)[moved[:, 3] > 2].mean() > 0


def test_classifier_ignores_dimensions_without_variance():
    reference = RNG.normal(size=(100, 4)).astype(np.float32)
    reference[:, 1] = 2
    window = reference[:50].copy()
    value, _ = Discriminant(reference).measured(window)
    assert np.isfinite(value)


def test_resamples_are_shares_and_repeat():
    first = list(resamples(30, rows=12, references=3, windows=5, seed=4))
    again = list(resamples(30, rows=12, references=3, windows=5, seed=4))
    for (window, reference), (other, _) in zip(first, again, strict=True):
        assert window.shape == (5, 30)
        assert reference.shape == (1, 30)
        np.testing.assert_allclose(window.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(window, other)
    assert not np.array_equal(first[0][0], first[1][0])
