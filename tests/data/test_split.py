"""Splits: stratified, by group, seeded."""

import numpy as np
import pandas as pd
import pytest

from fakenews.data.split import assign_folds, assign_splits, official_splits
from fakenews.errors import DataError


def _rows(n: int = 2000, rate: float = 0.05, seed: int = 0) -> tuple[pd.Series, np.ndarray]:
    """Labels of a rare and a common class, in groups of 1 to about 20 rows."""
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n - n // 4), rng.geometric(0.02, n // 4) % 60 + n])
    rare_group = rng.random(groups.max() + 1) < rate
    labels = pd.Series(np.where(rare_group[groups], "real", "fake"), dtype="str")
    return labels, groups


def sides(split: pd.Series, groups: np.ndarray) -> set[int]:
    """In how many splits groups are found."""
    return set(split.groupby(groups).nunique())


def test_shares_hold_for_every_class_and_no_group_is_torn() -> None:
    labels, groups = _rows()
    split = assign_splits(labels, groups, val_size=0.1, test_size=0.2, seed=3)
    shares = pd.crosstab(labels, split, normalize="index")
    for name, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        np.testing.assert_allclose(shares[name], share, atol=0.03)
    assert sides(split, groups) == {1}


def test_single_rows_are_split_exactly() -> None:
    labels = pd.Series(["a"] * 900 + ["b"] * 90 + ["c"] * 10, index=range(5000, 6000))
    split = assign_splits(labels, np.arange(1000))
    assert list(split.index) == list(labels.index)
    expected = {"a": [90, 720 + 90 - 90, 90], "b": [9, 72, 9], "c": [1, 8, 1]}
    counts = pd.crosstab(labels, split)[["test", "train", "val"]]
    assert {c: row.tolist() for c, row in counts.iterrows()} == expected


def test_a_seed_fixes_the_split_whatever_the_order() -> None:
    labels, groups = _rows(600)
    split = assign_splits(labels, groups, seed=5)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = assign_splits(labels.iloc[order], groups[order], seed=5)
    # Rows alike in label and group may swap, so groups are what is compared.
    by_group = pd.Series(split.to_numpy()).groupby(groups).first()
    pd.testing.assert_series_equal(
        pd.Series(shuffled.to_numpy()).groupby(groups[order]).first(), by_group
    )
    assert not split.equals(assign_splits(labels, groups, seed=6))


def test_folds_partition_the_rows_and_do_not_depend_on_the_fold() -> None:
    labels, groups = _rows(1200)
    splits = [assign_splits(labels, groups, folds=4, fold=k, val_size=0.1) for k in range(4)]
    tests = np.stack([split == "test" for split in splits])
    np.testing.assert_array_equal(tests.sum(axis=0), 1)
    for split in splits:
        assert sides(split, groups) == {1}
        assert abs((split == "test").mean() - 0.25) < 0.03
        assert abs((split == "val").mean() - 0.1) < 0.03
        assert set(split[labels == "real"]) == {"train", "val", "test"}
    parts = assign_folds(labels, groups, folds=4)
    assert set(parts.tolist()) == {0, 1, 2, 3}


def test_the_rarest_possible_class_is_in_every_split() -> None:
    labels = pd.Series(["a"] * 50 + ["b"] * 3)
    assert set(assign_splits(labels, np.arange(53))[50:]) == {"train", "val", "test"}
    pairs = pd.Series(["a"] * 50 + ["b"] * 6)
    groups = np.r_[np.arange(50), [50, 50, 51, 51, 52, 52]]
    assert set(assign_splits(pairs, groups)[50:]) == {"train", "val", "test"}


def test_a_huge_group_goes_to_train() -> None:
    labels = pd.Series(["a", "b"] * 200)
    groups = np.r_[np.zeros(200, int), np.arange(1, 201)]
    split = assign_splits(labels, groups)
    assert set(split[:200]) == {"train"}
    counts = split.value_counts()
    assert counts["val"] == counts["test"] == 40


def test_mixed_groups_are_not_torn() -> None:
    labels = pd.Series(["a", "b"] * 30)
    groups = np.repeat(np.arange(30), 2)
    split = assign_splits(labels, groups)
    assert sides(split, groups) == {1}
    assert pd.crosstab(labels, split).to_numpy().min() >= 3


def test_too_few_rows_of_a_class() -> None:
    labels = pd.Series(["a"] * 50 + ["b"] * 4)
    with pytest.raises(DataError, match=r"class 'b' has 2 .*train, val, test"):
        assign_splits(labels, np.r_[np.arange(50), [50, 50, 51, 51]])
    split = assign_splits(labels, np.r_[np.arange(50), [50, 50, 51, 51]], test_size=0)
    assert set(split[50:]) == {"train", "val"}
    # Two classes tied together in two groups of three: no way to serve all splits.
    tied = pd.Series(["a", "b", "a", "b", "a", "b"])
    with pytest.raises(DataError, match="class"):
        assign_splits(tied, [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": -0.1, "test_size": 1.5}, r"val_size=-0.1.*test_size=1.5"),
        ({"val_size": 0.5, "test_size": 0.5}, "nothing to train on"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 3, "fold": 3}, "fold=3"),
        ({"folds": 2, "val_size": 0.5}, "nothing to train on"),
    ],
)
def test_sizes_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_splits(pd.Series(["a", "b"] * 20), np.arange(40), **options)


def test_official_splits_drop_leaks_from_train_only() -> None:
    given = pd.Series(["train"] * 40 + ["val"] * 4 + ["test"] * 4)
    labels = ["a", "b"] * 24
    groups = np.arange(48)
    groups[0] = groups[40]  # a training row repeats a validation row
    groups[1] = groups[2] = groups[45]  # two repeat a test row
    groups[41] = groups[47]  # val and test share a text: both stay
    split = official_splits(given, labels, groups)
    assert split[[0, 1, 2]].tolist() == ["dropped"] * 3
    assert (split[3:] == given[3:]).all()


def test_official_splits_draw_what_is_not_given() -> None:
    given = ["train"] * 100 + ["test"] * 20
    split = official_splits(given, ["a", "b"] * 60, np.arange(120), val_size=0.2)
    assert split.value_counts().to_dict() == {"train": 80, "val": 20, "test": 20}


def test_official_splits_lack_a_class() -> None:
    given = ["train"] * 20 + ["test"] * 4
    with pytest.raises(DataError, match="test rows have none of class 'b'"):
        official_splits(given, ["a", "b"] * 10 + ["a"] * 4, np.arange(24))
    with pytest.raises(DataError, match="every training row repeats"):
        official_splits(["train", "train", "test"], ["a", "b", "a"], [0, 0, 0])
