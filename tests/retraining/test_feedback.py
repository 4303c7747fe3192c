"""Labelled rows as they are read: of a deployment, of files of labels, of tables of texts."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.retraining.feedback import Found, Sources, read_feedback
from fakenews.retraining.rows import Columns

START = datetime(2026, 3, 1, tzinfo=UTC)
CLASSES = ["fake", "real"]
EXTRA = Columns(numeric=["age"], categorical=["channel"])

# Not of Found: typing would keep its module, and so the database's, beyond the end.
Look = Callable[..., tuple[pd.DataFrame, Any]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Reads what was labelled; the rows by their ids, and what is wrong."""

    def look(columns: Columns = Columns(), **sources: Any) -> tuple[pd.DataFrame, Found]:  # noqa: B008 frozen
        found = read_feedback(
            Sources(**sources),
            tmp_path / "found.parquet",
            classes=CLASSES,
            columns=columns,
            work=tmp_path,
        )
        table = pq.read_table(tmp_path / "found.parquet")
        assert table.schema == columns.feedback_schema
        return table.to_pandas().set_index("id", drop=False), found

    return look


def test_feedback_of_a_deployment_and_labels_that_outrank_it(
    look: Look, logged: Callable[..., pa.Table], tmp_path: Path
):
    texts = [f"Text {number}" for number in range(12)]
    folder = tmp_path / "deployment"
    (folder / "predictions" / "date=2026-03-01").mkdir(parents=True)
    (folder / "feedback").mkdir()
    pq.write_table(logged(texts), folder / "predictions" / "date=2026-03-01" / "a.parquet")

    def said(number: int, verdict: str, label: str | None = None) -> str:
        given = {"id": f"p{number}", "time": START.isoformat(), "verdict": verdict}
        return json.dumps({**given, "label": label, "predicted": "fake"})

    lines = [
        *(said(number, "correct" if number % 2 else "wrong") for number in range(6)),
        said(3, "wrong"),  # thought better of
        said(6, "unsure"),
        said(7, "wrong", "real"),
        said(8, "wrong", "satire"),
        "{torn",
    ]
    (folder / "feedback" / "2026-03.jsonl").write_text("\n".join(lines) + "\n")
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label,user\np5,real,anna\np9,fake,\nnone,fake,bert\n")
    rows, found = look(log=folder, labels=labels)
    expected = {"p0": "real", "p1": "fake", "p2": "real", "p3": "real", "p4": "real"}
    expected |= {"p5": "real", "p7": "real", "p9": "fake"}
    assert rows["label"].to_dict() == expected
    assert rows["text"].to_dict() == {name: f"Text {name[1:]}" for name in expected}
    assert rows["_rank"].to_dict() == {name: int(name in ("p5", "p9")) for name in expected}
    assert rows["_user"]["p5"] == "anna"
    assert rows["_user"].drop("p5").isna().all()
    assert rows["time"]["p7"] == pd.Timestamp(START + timedelta(hours=7))
    told = " ".join(found.notices)
    assert "satire" in told
    assert "1 damaged line" in told
    assert "1 true labels are of ids that the log does not have" in told
    assert "cannot be judged" not in told  # which is monitoring's concern
    # Without the files people's word counts.
    rows, _ = look(log=folder)
    assert rows["label"]["p5"] == "fake"


def test_a_table_of_texts(look: Look, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text(
        "text,label,time,id,user,age,channel\n"
        '"Rain, today", real ,2026-03-01T05:00:00+02:00,x1,anna,4.5, web \n'
        "Sun,fake,,,,much,\n"
        "Snow,satire,1772323200,x3,,,\n"
    )
    rows, found = look(EXTRA, labels=table)
    assert found.notices == []
    assert rows["text"].tolist() == ["Rain, today", "Sun", "Snow"]
    assert rows["label"].tolist() == ["real", "fake", "satire"]
    assert rows["id"].fillna("").tolist() == ["x1", "", "x3"]
    assert rows["time"].tolist() == [
        pd.Timestamp("2026-03-01T03:00Z"),
        pd.NaT,
        pd.Timestamp(START),
    ]
    assert rows["_user"].fillna("").tolist() == ["anna", "", ""]
    assert rows["age"].fillna(-1).tolist() == [4.5, -1, -1]
    assert rows["channel"].tolist() == ["web", "", ""]
    assert set(rows["_rank"]) == {1}


def test_tables_of_several_files_and_beside_a_log(
    look: Look, logged: Callable[..., pa.Table], tmp_path: Path
):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "Rain", "label": "real"}\n{torn\n')
    (folder / "b.csv").write_text("text,kind\nSun,fake\n")
    (folder / "c.parquet").write_bytes(b"PAR1 damaged PAR1")
    times = pa.array([START], pa.timestamp("ms", "UTC"))
    table = pa.table({"text": ["Snow"], "label": ["fake"], "time": times})
    pq.write_table(table, folder / "d.parquet")
    pq.write_table(logged(["Text"]), tmp_path / "log.parquet")
    rows, found = look(EXTRA, labels=folder, log=tmp_path / "log.parquet")
    assert rows["text"].tolist() == ["Rain", "Snow"]
    assert rows["time"].tolist() == [pd.NaT, pd.Timestamp(START)]
    told = "\n".join(found.notices)
    assert "a.jsonl: 1 damaged lines are left out" in told
    assert "b.csv has no column label: it is left out" in told
    assert "a.jsonl has no age, channel: there it is missing" in told
    assert "c.parquet" in told


def test_extra_columns_of_a_log(look: Look, label: Callable[..., dict[str, Path]]):
    given: list[dict[str, Any]] = [
        {"age": 4, "channel": " print "},
        {"age": "5.5", "other": 1},
        {"age": "much", "channel": None},
        {"age": True, "channel": 7},
    ]
    sources = label(["One", "Two", "Three", "Four"], ["fake"] * 4, columns=given)
    rows, _ = look(EXTRA, **sources)
    assert rows["age"].fillna(-1).tolist() == [4, 5.5, -1, -1]
    assert rows["channel"].tolist() == ["print", "", "", "7"]


def test_texts_that_were_not_logged(look: Look, label: Callable[..., dict[str, Path]]):
    rows, found = look(**label([None] * 3, ["fake"] * 3))
    assert (len(rows), found.rows, found.textless) == (0, 0, 3)
    assert "set serve.gateway.log.text=true" in found.notices[0]
    rows, found = look(**label([None, "Rain"], ["fake", "real"]))
    assert rows["id"].tolist() == ["p1"]
    assert found.textless == 1
    (notice,) = found.notices
    assert notice.startswith("1 labelled predictions have no text in the log, and cannot be")


def test_of_one_version_alone(look: Look, logged: Callable[..., pa.Table], tmp_path: Path):
    table = logged(["Rain", "Sun"]).set_column(2, "model_version", pa.array(["1", "2"]))
    pq.write_table(table, tmp_path / "log.parquet")
    (tmp_path / "labels.csv").write_text("id,label\np0,fake\np1,real\n")
    sources = {"log": tmp_path / "log.parquet", "labels": tmp_path / "labels.csv"}
    assert look(**sources)[0]["id"].tolist() == ["p0", "p1"]
    assert look(**sources, model_version="2")[0]["id"].tolist() == ["p1"]
