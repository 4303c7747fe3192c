"""The first pass: files to digested chunks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.errors import DataError
from fakenews.preparation import ingest as module
from fakenews.preparation.ingest import check_columns, is_read, read_chunks, shuffled_place
from fakenews.preparation.work import Work

ROWS = [(f"headline number {i} of the day", "real" if i % 3 else "fake") for i in range(50)]


def _rows(work: Work) -> pd.DataFrame:
    parts = []
    for path in sorted(work.rows.glob("*.arrow")):
        with pa.ipc.open_file(path) as reader:
            parts.append(reader.read_pandas())
    return pd.concat(parts, ignore_index=True)


def _summary(work: Work) -> dict[str, object]:
    found: dict[str, object] = json.loads((work.chunks / "00000-0000000.json").read_text())
    return found


def test_places_are_unique_uniform_and_follow_the_seed() -> None:
    ids = np.arange(20_000, dtype=np.int64)
    places = shuffled_place(ids, seed=0)
    assert len(np.unique(places)) == len(ids)
    assert (places >= 0).all()
    counts = np.bincount((places >> 59).astype(int), minlength=16)
    assert np.abs(counts - 1250).max() < 5 * np.sqrt(1250)
    assert abs(np.corrcoef(ids, places)[0, 1]) < 0.03
    assert not (places == shuffled_place(ids, seed=1)).any()
    np.testing.assert_array_equal(places[100:200], shuffled_place(ids[100:200], seed=0))


def test_rows_are_clean_and_in_shuffled_order(
    ingest: Callable[..., Work], write_csv: Callable[..., Path]
) -> None:
    rows = [*ROWS, ("  It\tdoesnâ€™t  ", " real "), ("", "fake"), ("no label", "  ")]
    work = ingest({"train": [write_csv("a.csv", rows)]})
    frame = _rows(work)
    assert len(frame) == 51
    assert (np.diff(frame["ord"]) > 0).all()
    assert frame["id"].tolist() != sorted(frame["id"])
    mended = frame[frame["raw"].notna()]
    assert mended["text"].tolist() == ["It doesn\u2019t"]
    assert mended["raw"].tolist() == ["  It\tdoesnâ€™t  "]
    assert mended["label"].tolist() == ["real"]
    assert _summary(work) == {
        "rows": 53,
        "kept": 51,
        "breaches": 0,
        "dropped": {"empty text": 1, "missing label": 1},
        "examples": {"empty text": 52, "missing label": 53},
        "repaired": 1,
        "clipped": 0,
    }


def test_what_breaks_the_schema_is_set_aside_with_its_place_and_reason(
    ingest: Callable[..., Work], write_csv: Callable[..., Path]
) -> None:
    rows = [*ROWS[:5], ("odd", "maybe")]
    path = write_csv("a.csv", [(*row, i) for i, row in enumerate(rows)], "text,label,age")
    with path.open("a", encoding="utf-8") as file:
        file.write('"ragged row",real\n"no number",real,old\n')
    work = ingest(
        {"train": [path]}, numeric=["age"], label_names={"real": "real", "fake": "fake"}
    )
    (found,) = work.breaches.glob("*")
    breaches = pq.read_table(found).to_pandas()
    assert breaches["row"].tolist() == [6, 7, 8]
    assert "'maybe' has no name" in breaches["reason"][0]
    assert "2 cells where the header has 3" in breaches["reason"][1]
    assert "'old' is not a finite number" in breaches["reason"][2]
    assert breaches["text"].tolist() == ["odd", "ragged row", "no number"]
    assert breaches["age"].tolist() == ["5", "", "old"]
    assert len(_rows(work)) == 5
    assert _summary(work)["breaches"] == 3


def test_cutting_into_chunks_changes_no_row(
    ingest: Callable[..., Work],
    write_csv: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_csv("a.csv", ROWS)
    whole = _rows(ingest({"train": [path]}))
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    parts = ingest({"train": [path]})
    assert len(list(parts.rows.glob("*.arrow"))) == 8
    pd.testing.assert_frame_equal(
        _rows(parts).sort_values("ord", ignore_index=True), whole, check_like=True
    )


def test_chunks_that_are_done_are_not_read_again(
    ingest: Callable[..., Work],
    write_csv: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    work = ingest({"train": [write_csv("a.csv", ROWS)]})
    source = module.InputFile(
        role="train", path=str(work.path.parent / "a.csv"), bytes=1, mtime_ns=1, sha256=""
    )
    assert is_read(work, 0)
    (work.chunks / "00000-0000001.json").unlink()
    assert not is_read(work, 0)
    assert [chunk.number for chunk in read_chunks((work, 0, source))] == [1]


def test_files_say_what_is_wrong_before_any_row_is_read(
    write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_csv("a.csv", ROWS)
    assert check_columns(path, ["text", "label"]) == []
    (fault,) = check_columns(path, ["text", "lable"])
    assert "no column 'lable', did you mean 'label'" in fault
    (fault,) = check_columns(tmp_path / "none.csv", ["text"])
    assert "no such file" in fault


def test_a_file_without_rows(ingest: Callable[..., Work], write_csv: Callable[..., Path]):
    with pytest.raises(DataError, match="a header but no rows"):
        ingest({"train": [write_csv("a.csv", [])]})
