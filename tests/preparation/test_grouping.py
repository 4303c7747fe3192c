"""The second pass: groups and splits of the whole table."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from fakenews.data.duplicates import duplicate_groups
from fakenews.errors import DataError
from fakenews.preparation.grouping import assign
from fakenews.preparation.work import Work

Ingest = Callable[..., Work]
Write = Callable[..., Path]

ROWS = [
    (f"{place}: " + " ".join(f"word{i % 150}x{k}" for k in range(12)), label)
    for i in range(300)
    for place, label in [("London", "real"), ("A blogger", "fake")][: 1 + (i % 4 == 0)]
]


def _assigned(work: Work) -> pd.DataFrame:
    """With the text of each row, in file order."""
    assign(work, memory="256MB")
    texts = pd.concat(
        pq.read_table(path, columns=["id", "label"]).to_pandas()
        for path in work.sketches.glob("*.parquet")
    )
    return pq.read_table(work.assignment).to_pandas().merge(texts, on="id").sort_values("id")


def test_splits_have_their_shares_of_every_class_and_no_group_on_two_sides(
    ingest: Ingest, write_csv: Write
) -> None:
    found = _assigned(ingest({"train": [write_csv("a.csv", ROWS)]}))
    assert len(found) == len(ROWS)
    assert found.groupby("grp")["split"].nunique().max() == 1
    assert 1 < found.groupby("grp").size().max() < 20
    shares = pd.crosstab(found["label"], found["split"], normalize="index")
    assert (shares["val"] - 0.1).abs().max() < 0.03
    assert (shares["test"] - 0.1).abs().max() < 0.03


def test_groups_are_those_of_a_table_in_memory(ingest: Ingest, write_csv: Write) -> None:
    found = _assigned(ingest({"train": [write_csv("a.csv", ROWS)]}))
    assert found["grp"].tolist() == duplicate_groups([text for text, _ in ROWS]).tolist()


def test_rows_are_assigned_in_the_shuffled_order(ingest: Ingest, write_csv: Write) -> None:
    work = ingest({"train": [write_csv("a.csv", ROWS)]})
    assign(work, memory="256MB")
    places = pq.read_table(work.assignment)["ord"].to_pylist()
    assert places == sorted(places)


def test_order_and_files_change_no_split_and_the_seed_does(
    ingest: Ingest, write_csv: Write
) -> None:
    whole = _assigned(ingest({"train": [write_csv("a.csv", ROWS)]}))
    turned = ROWS[::-1]
    parts = [write_csv("b.csv", turned[:100]), write_csv("c.csv", turned[100:])]
    again = _assigned(ingest({"train": parts})).iloc[::-1]
    assert again["split"].tolist() == whole["split"].tolist()
    other = _assigned(ingest({"train": [write_csv("a.csv", ROWS)]}, seed=1))
    assert other["split"].tolist() != whole["split"].tolist()


def test_folds_cover_every_row_once_as_test(ingest: Ingest, write_csv: Write) -> None:
    path = write_csv("a.csv", ROWS)
    tests = []
    for fold in range(4):
        found = _assigned(ingest({"train": [path]}, folds=4, fold=fold))
        assert (found["split"] == "val").mean() == pytest.approx(0.1, abs=0.03)
        tests.append((found["split"] == "test").tolist())
    assert all(sum(row) == 1 for row in zip(*tests, strict=True))


def test_official_splits_stay_and_what_repeats_them_is_dropped(
    ingest: Ingest, write_csv: Write
) -> None:
    train, test = write_csv("a.csv", ROWS), write_csv("b.csv", ROWS[:40])
    work = ingest({"train": [train], "test": [test]})
    found = _assigned(work)
    given = found["id"] // (1 << 40)
    assert (found["split"][given == 1] == "test").all()
    assert set(found["split"][given == 0]) == {"train", "val"}
    repeated = set(found["grp"][given == 1])
    assert not repeated & set(found["grp"][given == 0])
    facts = assign(work, memory="256MB")
    assert facts["repeated"] == len(ROWS) + 40 - len(found) > 40
    assert facts["counts"]["test"]["real"] + facts["counts"]["test"]["fake"] == 40


def test_facts_are_exact(ingest: Ingest, write_csv: Write) -> None:
    rows = [(f"the {i} words of an only headline {i}", "ab"[i % 2], "x") for i in range(40)]
    rows += [
        ("same text here", "a", "y"),
        ("same text here", "b", "y"),
        ("Same text here", "b", ""),
    ]
    path = write_csv("a.csv", rows, "text,label,channel")
    facts = assign(
        ingest({"train": [path]}, categorical=["channel"], near_duplicates=1.0), memory="256MB"
    )
    assert facts["classes"] == ["a", "b"]
    assert facts["positive"] == "a"
    assert facts["rows"] == 43
    assert facts["categories"]["channel"][0] == "x"
    assert facts["duplicates"] == {
        "rows": 43,
        "exact_duplicates": 1,
        "groups": 41,
        "largest_group": 3,
        "conflicting_groups": 3,
        "conflicting_texts": 2,
    }


def test_a_split_without_a_class_is_told(ingest: Ingest, write_csv: Write) -> None:
    rows = [(f"headline about topic {i}", "a") for i in range(40)] + [
        ("x y", "b"),
        ("z q", "b"),
    ]
    with pytest.raises(DataError, match=r"no row of class 'b'.*larger share"):
        assign(ingest({"train": [write_csv("a.csv", rows)]}), memory="256MB")


def test_one_class_is_told(ingest: Ingest, write_csv: Write) -> None:
    with pytest.raises(DataError, match="only one class, 'a'"):
        assign(ingest({"train": [write_csv("a.csv", [("x y", "a")] * 3)]}), memory="256MB")
