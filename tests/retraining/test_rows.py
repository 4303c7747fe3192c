"""Rows and files of them."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.retraining import rows as module
from fakenews.retraining.parts import Weights
from fakenews.retraining.rows import Columns, PartWriter, base_table

COLUMNS = Columns(numeric=["age"], categorical=["channel"])


def table(rows: int) -> pa.Table:
    given = {
        "text": [f"text {row}" for row in range(rows)],
        "label": ["fake" if row % 3 else "real" for row in range(rows)],
        "age": pa.array([None if row % 5 else row / 2 for row in range(rows)], pa.float64()),
        "channel": pa.array([None if row % 2 else "web" for row in range(rows)], pa.string()),
    }
    return base_table(COLUMNS, pa.table(given))


def test_rows_of_a_base_are_filled_in():
    found = table(3).to_pylist()
    assert found[1] == {
        "text": "text 1",
        "label": "fake",
        "age": None,
        "channel": "",
        "weight": 1.0,
        "source": "base",
        "id": None,
        "time": None,
    }
    weighted = table(3).select(["text", "label", "age", "channel"])
    weighted = weighted.append_column("weight", pa.array([1, 0.5, 2]))
    assert base_table(COLUMNS, weighted)["weight"].to_pylist() == [1, 0.5, 2]


@given(cuts=st.lists(st.integers(0, 120), max_size=5))
def test_bytes_follow_from_rows_however_they_come(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
):
    whole = table(120)
    folders = []
    edges = [0, *sorted(cuts), 120]
    with pytest.MonkeyPatch.context() as patch:
        # As of many more rows.
        patch.setattr(module, "_GROUP_ROWS", 16)
        patch.setattr(module, "_FILE_ROWS", 48)
        for starts in ([0, 120], edges):
            folder = tmp_path_factory.mktemp("part")
            with PartWriter(folder, "train", COLUMNS.schema) as writer:
                for start, stop in pairwise(starts):
                    writer.write(whole.slice(start, stop - start))
            folders.append((folder, writer))
    (one, first), (_, second) = folders
    assert first.files == second.files
    assert [told["rows"] for told in first.files.values()] == [48, 48, 24]
    assert first.rows == second.rows == {"base": {"real": 40, "fake": 80}}
    files = sorted((one / "train").iterdir())
    assert pa.concat_tables(map(pa.parquet.read_table, files)).equals(whole)


def test_a_part_without_rows_has_no_folder(tmp_path: Path):
    with PartWriter(tmp_path, "window", COLUMNS.schema) as writer:
        writer.write(table(0))
    assert writer.files == writer.rows == {}
    assert not list(tmp_path.iterdir())


def test_a_row_without_a_time_counts_as_the_newest():
    times = pa.chunked_array([pa.array([None], pa.timestamp("us", "UTC"))])
    for newest in (None, pa.scalar(0, pa.timestamp("us")).as_py()):
        weights = Weights(weight=2.0, half_life_days=1, newest=newest)
        assert weights.of(times).tolist() == [2]
