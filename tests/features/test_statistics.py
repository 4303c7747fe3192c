"""Statistics of columns, whole and merged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenews.features.statistics import Statistics

VALUES = np.random.default_rng(0).normal([0, 1e6, 1e-3], [1, 10, 1e-6], (400, 3))


def test_of_rows_is_what_numpy_says_without_gaps() -> None:
    values = VALUES.copy()
    values[::7, 1] = np.nan
    found = Statistics.of(values)
    assert found.count.tolist() == [400, 400 - 58, 400]
    np.testing.assert_allclose(found.mean, np.nanmean(values, axis=0))
    np.testing.assert_allclose(found.scale, np.nanstd(values, axis=0), rtol=1e-6)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 400), max_size=5))
def test_pieces_of_any_size_merge_to_the_whole(cuts: list[int]) -> None:
    pieces = [Statistics.of(piece) for piece in np.split(VALUES, sorted(cuts))]
    merged, whole = Statistics.merge(pieces), Statistics.of(VALUES)
    assert merged.count.tolist() == whole.count.tolist()
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(merged.scale, whole.scale, rtol=1e-6)


def test_a_constant_column_has_no_scale_and_a_huge_one_no_overflow() -> None:
    constant = np.full((10, 1), 0.1)
    huge = np.array([[1e300], [-1e300]] * 5)
    found = Statistics.merge([Statistics.of(np.hstack([constant, huge]))] * 3)
    assert found.scale[0] == 0
    assert found.mean[0] == pytest.approx(0.1)
    assert found.scale[1] == pytest.approx(1e300)


def test_a_column_of_gaps_alone_is_nothing() -> None:
    gaps = Statistics.of(np.full((3, 1), np.nan))
    assert (gaps.count[0], gaps.mean[0], gaps.scale[0]) == (0, 0, 0)
    assert Statistics.merge([gaps, gaps]).count[0] == 0
