"""True classes: what feedback means, and which of several counts."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fakenews.errors import MonitoringError
from fakenews.monitoring.log import open_log
from fakenews.monitoring.windows import WindowData
from fakenews.serving.gateway.feedback import Feedback, RecentIds
from fakenews.serving.gateway.ids import new_id

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Write = Callable[..., Path]
CLASSES = ["fake", "real"]


@pytest.fixture
def rows(row: MakeRow, write: Write) -> list[Row]:
    """Ten predictions of a deployment, the first five fake."""
    made = [row(n, minutes=60 - n) for n in range(10)]
    write(made, "predictions/date=2026-11-20/a.parquet")
    return made


@pytest.fixture
def look(tmp_path: Path, now: datetime) -> Callable[..., tuple[WindowData, list[str]]]:
    def look(**options: Any) -> tuple[WindowData, list[str]]:
        with open_log(tmp_path, **{"classes": CLASSES, "now": now, **options}) as log:
            (span,) = log.windows(every="1d")
            return log.read(span, most=options.pop("most", 100)), log.notices

    return look


Look = Callable[..., tuple[WindowData, list[str]]]


def truth(found: WindowData) -> dict[str, str]:
    frame = found.labelled.frame
    return dict(zip(frame["id"], frame["true_label"], strict=True))


def say(folder: Path, month: str, *lines: Any) -> None:
    path = folder / "feedback" / f"{month}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        for line in lines:
            file.write(line if isinstance(line, str) else json.dumps(line) + "\n")


def said(row: Row, verdict: str, label: str | None = None, time: str = "2026-11-20") -> Row:
    return {
        "id": row["id"],
        "time": f"{time}T10:00:00.000+00:00",
        "verdict": verdict,
        "label": label,
        "predicted": row["label"],
        "model_version": "v1",
    }


def test_what_people_say_as_the_gateway_stores_it(
    look: Look, rows: list[Row], tmp_path: Path
) -> None:
    recent = RecentIds(100)
    for each in rows:
        recent.add(each["id"], "v1", each["label"], CLASSES)
    feedback = Feedback(
        folder=tmp_path / "feedback", predictions=tmp_path / "predictions", recent=recent
    )
    feedback.store(rows[0]["id"], "correct", None)
    feedback.store(rows[1]["id"], "wrong", None)
    feedback.store(rows[2]["id"], "wrong", "real")
    feedback.store(rows[3]["id"], "unsure", None)
    feedback.store(rows[9]["id"], "wrong", None)
    feedback.store(rows[8]["id"], "wrong", None)
    feedback.store(rows[8]["id"], "correct", None)  # the last word counts
    feedback.store(rows[7]["id"], "correct", None)
    feedback.store(rows[7]["id"], "unsure", None)
    found, notices = look()
    assert notices == []
    ids = [each["id"] for each in rows]
    assert [rows[n]["label"] for n in (0, 1, 2, 8, 9)] == [
        "fake",
        "fake",
        "fake",
        "real",
        "fake",
    ]
    assert truth(found) == {
        ids[0]: "fake",
        ids[1]: "real",
        ids[2]: "real",
        ids[8]: "real",
        ids[9]: "real",
    }
    assert found.span.labelled == found.totals.labelled == len(found.labelled) == 5
    frame = found.sample.frame.set_index("id")["true_label"]
    assert frame.dropna().to_dict() == truth(found)
    np.testing.assert_allclose(found.labelled.probabilities[0], [0.9, 0.1])
    assert found.labelled.embeddings is None


def test_of_more_classes_wrong_says_too_little(
    look: Look, rows: list[Row], tmp_path: Path
) -> None:
    say(tmp_path, "2026-11", said(rows[0], "wrong"), said(rows[1], "wrong", "satire"))
    say(tmp_path, "2026-11", said(rows[2], "correct"))
    three = [*CLASSES, "satire"]
    with open_log(tmp_path, classes=three) as log:
        notices = log.notices
    assert notices == []
    say(tmp_path, "2026-11", said(rows[3], "wrong", "nonsense"))
    _, notices = look()
    assert notices == [
        "2 true labels are left out, which are none of the model's classes: nonsense, satire"
    ]


def test_labels_that_come_late(look: Look, rows: list[Row], tmp_path: Path) -> None:
    say(tmp_path, "2026-11", said(rows[0], "correct"), said(rows[1], "correct"))
    ids = [each["id"] for each in rows]
    labels = pd.DataFrame(
        {"id": [ids[1], ids[2], ids[2], ids[3], ""], "label": ["real", "real", "fake", "", "x"]}
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    found, notices = look(labels=tmp_path / "labels.csv")
    assert notices == [
        f"labels contradict each other for 1 prediction, and the last one counts: {ids[2]}"
    ]
    # A file outranks what people said; its last line on an id counts.
    assert truth(found) == {ids[0]: "fake", ids[1]: "real", ids[2]: "fake"}
    late = labels.iloc[[1, 2]].assign(time=["2026-11-20T10:00:00Z", "2026-11-19T10:00:00Z"])
    late.to_parquet(tmp_path / "labels.parquet")
    found, notices = look(labels=tmp_path / "labels.parquet")
    assert truth(found)[ids[2]] == "real"  # the later one
    assert notices == []  # which mends the earlier one


def test_labels_of_ids_that_are_unknown(
    rows: list[Row], row: MakeRow, write: Write, tmp_path: Path, now: datetime
) -> None:
    write([row(3, minutes=9000)], "predictions/date=2026-11-14/a.parquet")
    old = new_id(int((now - timedelta(days=6)).timestamp() * 1000))
    new = new_id(int((now - timedelta(hours=1)).timestamp() * 1000))
    content = {"id": [rows[0]["id"], old, new], "label": "fake"}
    pd.DataFrame(content).to_csv(tmp_path / "labels.csv", index=False)
    options: Any = {"classes": CLASSES, "now": now, "labels": tmp_path / "labels.csv"}
    with open_log(tmp_path, **options) as log:
        log.windows(every="1d")
        # Of the days that were read: the older one may be in files that nobody wanted.
        assert log.notices == ["1 true labels are of ids that the log does not have"]
        log.windows(every="1w", latest=2)
        assert log.notices == ["2 true labels are of ids that the log does not have"]


def test_feedback_and_labels_that_are_damaged(
    look: Look, rows: list[Row], tmp_path: Path
) -> None:
    say(
        tmp_path, "2026-10", said(rows[0], "correct"), '{"id": "x', "\n", said(rows[1], "wrong")
    )
    (tmp_path / "feedback" / "2026-11.jsonl").write_bytes(b"\x00\x00")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.csv").write_text("name,label\nx,fake\n")
    (tmp_path / "labels" / "b.parquet").write_text("no Parquet")
    (tmp_path / "labels" / "c.csv").write_text(f"id,label\n{rows[2]['id']},fake\n")
    found, notices = look(labels=tmp_path / "labels")
    assert len(truth(found)) == 3
    assert len(notices) == 4
    assert any("2026-10.jsonl: 1 damaged line" in each for each in notices)
    assert any("2026-11.jsonl" in each for each in notices)
    assert f"{tmp_path}/labels/a.csv has no column id: it is left out" in notices
    assert any("b.parquet: it cannot be read" in each for each in notices)


def test_a_scored_table_has_the_ids_of_predictions(
    rows: list[Row], look: Look, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"id,prediction_id,label\nmine,{rows[2]['id']},fake\n")
    found, notices = look(labels=path)
    assert (truth(found), notices) == ({rows[2]["id"]: "fake"}, [])


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("content", "wrong"),
    [("name,label\nx,fake\n", "has no column id"), ("id,truth\nx,fake\n", "no column label")],
)
def test_labels_of_which_none_can_be_read_are_an_error(
    look: Look, tmp_path: Path, content: str, wrong: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(MonitoringError, match=f"labels: .*{wrong}.* the columns id"):
        look(labels=path)


@pytest.mark.usefixtures("rows")
def test_a_table_without_labels_is_told(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n")
    _, notices = look(labels=path)
    assert notices == [f"{path}: there are no true labels"]


def test_labelled_rows_are_bounded(rows: list[Row], tmp_path: Path, now: datetime) -> None:
    say(tmp_path, "2026-11", *(said(each, "correct") for each in rows))
    with open_log(tmp_path, classes=CLASSES, now=now) as log:
        (span,) = log.windows(rows=100)
        assert span.labelled == 10
        found = log.read(span, most=4)
        assert len(found.labelled) == 4
        assert found.totals.labelled == 10
