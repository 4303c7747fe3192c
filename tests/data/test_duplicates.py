"""Duplicate groups."""

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenews.data.duplicates import duplicate_groups, group_sketches, sketch

_TEXTS = [
    "The mayor of the city said that the bridge would be closed until Monday",
    "THE MAYOR of the city said that the bridge would be closed until monday!!",
    "The mayor of the city said that the bridge would be closed until Friday",
    "A study finds that coffee is good for the heart",
    "👍",
    "!!!",
    "👍",
    "Coffee: A study finds that coffee is good for the heart",
]


def test_groups_exact_and_near_duplicates() -> None:
    groups = duplicate_groups(_TEXTS)
    assert groups.dtype == np.int64
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[7]
    assert groups[4] == groups[6] != groups[5]
    assert len(set(groups.tolist())) == 4


def test_threshold_one_finds_exact_duplicates_only() -> None:
    groups = duplicate_groups(_TEXTS, threshold=1)
    assert groups[0] == groups[1] != groups[2]
    assert len(set(groups.tolist())) == 6


def test_similarity_is_checked_not_estimated() -> None:
    words = [f"w{i}" for i in range(10)]
    just_under = " ".join([*words[:8], "other"])  # 8 of 11 words shared
    just_over = " ".join(words[:8])  # 8 of 10
    assert len(set(duplicate_groups([" ".join(words), just_under]).tolist())) == 2
    assert len(set(duplicate_groups([" ".join(words), just_over]).tolist())) == 1


def test_chains_join_what_is_further_apart() -> None:
    words = [f"w{i}" for i in range(20)]
    chain = [" ".join(words[i : i + 10]) for i in range(11)]
    assert len(set(duplicate_groups(chain).tolist())) == 1


def test_a_template_of_many_rows_is_one_group() -> None:
    texts = [f"Weather for tomorrow in the whole of the county number {i}" for i in range(500)]
    assert len(set(duplicate_groups(texts).tolist())) == 1


def test_parts_sketched_apart_and_grouped_on_disk_give_the_same(tmp_path: Path) -> None:
    texts = [
        f"{word} {i % 40} and the rest of a headline" for i, word in enumerate(_TEXTS * 30)
    ]
    parts = [sketch(texts[start : start + 50], threshold=0.8) for start in range(0, 240, 50)]
    with duckdb.connect(str(tmp_path / "groups.duckdb")) as database:
        database.execute("SET memory_limit = '64MB'")
        database.register("sketch", pa.concat_tables(reversed(parts)))
        group_sketches(database, threshold=0.8)
        group_of = dict(database.execute("SELECT key, grp FROM duplicate_group").fetchall())
    keys = [key for part in parts for key in part["key"].to_pylist()]
    assert [group_of.get(key, key) for key in keys] == duplicate_groups(texts).tolist()
    assert 1 < len(set(group_of.values())) < len(set(keys))


def test_numbers_do_not_follow_the_order_of_rows() -> None:
    order = np.random.default_rng(0).permutation(len(_TEXTS))
    shuffled = duplicate_groups([_TEXTS[i] for i in order])
    np.testing.assert_array_equal(shuffled, duplicate_groups(_TEXTS)[order])


def test_same_in_every_process() -> None:
    code = (
        "from fakenews.data.duplicates import duplicate_groups\n"
        f"print(duplicate_groups({_TEXTS!r}).tolist())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{duplicate_groups(_TEXTS).tolist()}\n"}


@settings(max_examples=30)
@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_texts_are_grouped_with_their_copies(texts: list[str]) -> None:
    groups = duplicate_groups(texts + texts)
    assert len(groups) == 2 * len(texts)
    np.testing.assert_array_equal(groups[: len(texts)], groups[len(texts) :])


def test_bad_threshold() -> None:
    with pytest.raises(ValueError, match="threshold"):
        duplicate_groups(["a"], threshold=0)
    assert duplicate_groups([]).shape == (0,)
