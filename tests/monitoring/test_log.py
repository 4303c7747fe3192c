"""A log as monitoring reads it: exact counts, samples that stay the same, and no silence."""

import base64
import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.errors import ConfigError, MonitoringError
from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.log import Log, open_log
from fakenews.monitoring.verdict import Span
from fakenews.monitoring.windows import WindowData
from fakenews.serving.gateway.ids import new_id

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Write = Callable[..., Path]
CLASSES = ["fake", "real"]
WHOLE = {
    "id",
    "time",
    "model_version",
    "label",
    "true_label",
    "unsure",
    "truncated",
    "characters",
    "words",
    "has_num",
    "tokens",
    "unknown_tokens",
    "text",
    "columns",
}


@pytest.fixture
def look(now: datetime) -> Callable[..., tuple[WindowData, list[str]]]:
    """The last day of a log, and what is wrong with all of it."""

    def look(
        path: Path | str,
        *,
        most: int = 1000,
        unique: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> tuple[WindowData, list[str]]:
        given: dict[str, Any] = {"classes": CLASSES, "now": now, **options}
        with open_log(path, **given) as log:
            (span,) = log.windows(every="1d")
            found = log.read(span, most=most, seed=seed, unique=unique)
            return found, log.notices

    return look


Look = Callable[..., tuple[WindowData, list[str]]]


# --- what is in a window ------------------------------------------------------------------


def test_a_window_has_what_was_logged(look: Look, row: MakeRow, write: Write) -> None:
    rows = [row(n, minutes=100 - n) for n in range(6)]
    found, notices = look(write(rows))
    assert notices == []
    assert found.notices == ()
    sample = found.sample
    assert set(sample.frame.columns) == WHOLE
    assert len(sample) == found.span.rows == found.totals.rows == 6
    for name in ("id", "label", "words", "characters", "tokens", "unknown_tokens", "has_num"):
        assert sample.frame[name].tolist() == [each[name] for each in rows], name
    assert sample.frame["time"].dt.to_pydatetime().tolist() == [r["time"] for r in rows]
    assert sample.frame["columns"].tolist() == [{}] * 6
    assert sample.frame["text"].isna().all()
    assert sample.frame["true_label"].isna().all()
    expected = [[value for _, value in each["probabilities"]] for each in rows]
    np.testing.assert_array_equal(sample.probabilities, expected)
    assert sample.tabular is not None
    assert sample.tabular.dtype == np.float32
    assert sample.tabular.tolist() == [each["tabular"] for each in rows]
    assert sample.embeddings is not None
    assert sample.embeddings.dtype == np.float32
    assert sample.embeddings[:, 0].tolist() == list(range(6))
    assert len(found.labelled) == 0


def test_totals_are_exact(
    look: Look, row: MakeRow, refused: MakeRow, write: Write, now: datetime
) -> None:
    rows = [row(n % 50, minutes=n) for n in range(1, 201)]
    rows[7]["model_version"] = "v2"
    rows += [refused(minutes=3), refused("internal", minutes=700), refused(minutes=4)]
    found, _ = look(write(rows), most=10)
    totals = found.totals
    frame = pd.DataFrame([r for r in rows if r["error"] is None])
    assert (totals.rows, totals.unique_texts, totals.labelled) == (200, 50, 0)
    assert totals.errors == {"empty_text": 2, "internal": 1}
    assert totals.classes == frame["label"].value_counts().to_dict()
    assert totals.versions == {"v1": 199, "v2": 1}
    assert totals.truncated == frame["truncated"].mean()
    assert totals.unsure == frame["unsure"].mean()
    for quantile, value in totals.latency_ms.items():
        assert value == pytest.approx(frame["latency_ms"].quantile(quantile))
    assert list(totals.latency_ms) == [0.5, 0.95, 0.99]
    assert totals.rows_per_hour == pytest.approx(200 / 24)
    assert len(found.sample) == 10
    assert totals.width == timedelta(minutes=15)
    assert len(totals.trend) == 96
    assert totals.trend[0].start == now - timedelta(days=1)
    assert totals.trend[-1].start == now - timedelta(minutes=15)
    assert sum(each.rows for each in totals.trend) == 200
    errors = [each.errors for each in totals.trend]
    assert [n for n in errors if n != 0] == [1, 2]
    assert totals.trend[-1].rows == 15
    assert totals.trend[-1].latency_ms is not None
    assert sum(totals.trend[-1].classes.values()) == 15
    assert (totals.trend[0].rows, totals.trend[0].latency_ms) == (0, None)


def test_a_sample_follows_from_its_seed(look: Look, row: MakeRow, write: Write) -> None:
    rows = [row(n, minutes=n + 1) for n in range(300)]
    whole = write(rows)
    for part in range(3):
        write(rows[part::3][::-1], f"parts/{9 - part}.parquet")
    parts = whole.parent / "parts"
    first, again, other, apart = (
        look(path, most=40, seed=seed)[0].sample.frame["id"].tolist()
        for path, seed in [(whole, 1), (whole, 1), (whole, 2), (parts, 1)]
    )
    assert len(first) == 40
    assert first == again
    # Neither files nor their order matter.
    assert first == apart
    assert set(first) != set(other)
    more = look(whole, most=80, seed=1)[0].sample.frame["id"].tolist()
    assert set(first) < set(more)


def test_each_text_is_sampled_once_however_often_it_was_asked_about(
    look: Look, row: MakeRow, write: Write
) -> None:
    rows = [row(n % 10 if n < 500 else 10 + n, minutes=1 + n) for n in range(510)]
    path = write(rows)
    found, _ = look(path, most=12)
    words = found.sample.frame["words"]
    assert len(words) == len(set(words)) == 12
    assert (found.totals.rows, found.totals.unique_texts) == (510, 20)
    often = [
        sum(word < 12 for word in look(path, most=8, seed=seed)[0].sample.frame["words"])
        for seed in range(20)
    ]
    # Ten texts of twenty were asked about fifty times each: half of the sample, not all.
    assert 60 < sum(often) < 100
    every, _ = look(path, unique=False)
    assert len(every.sample) == 510


def test_shadows_are_no_answers_and_versions_are_told_apart(
    look: Look, row: MakeRow, refused: MakeRow, write: Write
) -> None:
    rows = [row(n, model_version="v1") for n in range(4)]
    rows += [row(9, model_version="v2", route="canary"), refused(model_version=None)]
    rows += [refused("internal", model_version="v2")]
    rows += [row(3, route="shadow", model_version="v3", shadow_of=rows[3]["id"])]
    path = write(rows)
    every, _ = look(path)
    assert every.totals.versions == {"v1": 4, "v2": 1}
    assert every.notices == ()
    one, _ = look(path, model_version="v2")
    assert one.totals.versions == {"v2": 1}
    # What was refused before a version was asked counts for each.
    assert one.totals.errors == {"empty_text": 1, "internal": 1}
    assert one.notices == ("4 rows left out: not of the model version v2, but of v1 (4)",)
    none, _ = look(path, model_version="v9")
    assert none.totals.rows == 0
    assert none.notices == (
        "there are no predictions from 2026-11-19 12:00:00 to 2026-11-20 12:00:00",
        "6 rows left out: not of the model version v9, but of v1 (4), v2 (2)",
    )


# --- windows ------------------------------------------------------------------------------


def test_windows_by_time_end_now(row: MakeRow, write: Write, now: datetime) -> None:
    hours = [0.5, 0.9, 1.5, 3.5]
    path = write([row(n, minutes=hour * 60) for n, hour in enumerate(hours)])
    with open_log(path, classes=CLASSES, now=now) as log:
        found = log.windows(every="1h", latest=6)
        assert [span.rows for span in found] == [1, 0, 1, 2]
        assert [span.end for span in found] == [now - timedelta(hours=n) for n in (3, 2, 1, 0)]
        assert all(span.end - span.start == timedelta(hours=1) for span in found)
        assert log.windows(every="1d") == log.windows(every="24h")
        assert [span.rows for span in log.windows(every="10m")] == [0]
        # Each row is in one window.
        for every in ("7m", "90m", "1w"):
            assert sum(s.rows for s in log.windows(every=every, latest=99)) == 4


def test_windows_by_count_end_with_the_newest(
    row: MakeRow, write: Write, now: datetime
) -> None:
    path = write([row(n, minutes=10 + n) for n in range(10)])
    with open_log(path, classes=CLASSES, now=now) as log:
        found = log.windows(rows=4, latest=5)
        assert [span.rows for span in found] == [4, 4]
        assert found[-1].end == now - timedelta(minutes=10) + timedelta(microseconds=1)
        assert found[0].end == found[1].start == now - timedelta(minutes=13)
        words = [log.read(span, most=9).sample.frame["words"].tolist() for span in found]
        assert words == [[9, 8, 7, 6], [5, 4, 3, 2]]
        assert [span.rows for span in log.windows(rows=100, latest=3)] == [10]


def test_rows_of_one_moment_stay_together(row: MakeRow, write: Write, now: datetime) -> None:
    path = write([row(n, minutes=10 * (1 + n // 5)) for n in range(15)])
    with open_log(path, classes=CLASSES, now=now) as log:
        assert [span.rows for span in log.windows(rows=3, latest=9)] == [5, 5, 5]


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({}, "give one of every and rows"),
        ({"every": "1d", "rows": 3}, "give one of every and rows"),
        ({"every": "day"}, "every=day: write a number with m, h, d or w, as in 6h or 1d"),
        ({"every": "0h"}, "every=0h: write"),
        ({"every": "-1d"}, "every=-1d: write"),
        ({"every": "90000w"}, "of at most 400 days"),
    ],
)
def test_windows_that_there_are_not(
    row: MakeRow, write: Write, how: dict[str, Any], fault: str
) -> None:
    with (
        open_log(write([row()]), classes=CLASSES) as log,
        pytest.raises(ConfigError, match=fault),
    ):
        log.windows(**how)


def test_only_files_of_the_dates_that_are_wanted_are_read(
    row: MakeRow, write: Write, tmp_path: Path, now: datetime
) -> None:
    for day in range(6):
        name = f"predictions/date={(now - timedelta(days=day)).date()}/{day}.parquet"
        write([row(n, minutes=1440 * day + 1 + n) for n in range(10)], name)
    # Whoever reads an old one has read too much.
    (tmp_path / "predictions/date=2026-11-15/5.parquet").write_bytes(b"broken")
    for folder in (tmp_path, tmp_path / "predictions"):
        with open_log(folder, classes=CLASSES, now=now) as log:
            assert [span.rows for span in log.windows(every="1d", latest=2)] == [10, 10]
            assert [s.rows for s in log.windows(rows=15, latest=2)] == [15, 15]
            assert log.notices == []
            assert [s.rows for s in log.windows(rows=15, latest=9)] == [15, 15, 15]
            assert len(log.notices) == 1


# --- every kind of table ------------------------------------------------------------------


def as_plain(row: Row) -> Row:
    return {
        **row,
        "time": row["time"].isoformat(),
        "probabilities": dict(row["probabilities"]),
        "columns": dict(row["columns"]),
        "embedding": row["embedding"] and base64.b64encode(row["embedding"]).decode(),
    }


def test_lines_that_are_not_parquet_yet_are_read_too(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    sealed = [row(n, minutes=60 - n) for n in range(3)]
    opened = [row(n, minutes=30 - n, columns=[("age", 3)]) for n in range(3, 6)]
    write(sealed, "deployment/predictions/date=2026-11-20/a.parquet")
    lines = [json.dumps(as_plain(each)) + "\n" for each in opened]
    path = tmp_path / "deployment/predictions/open/b.jsonl"
    path.parent.mkdir()
    path.write_text("".join(lines) + lines[0][:100])  # a line that is being written
    (path.parent / "c.jsonl").touch()
    (tmp_path / "deployment/predictions/.seal-x").mkdir()
    (tmp_path / "deployment/predictions/.seal-x/2026-11-20.parquet").write_text("a draft")
    found, notices = look(tmp_path / "deployment")
    assert notices == []
    assert found.notices == ()
    sample = found.sample
    assert sample.frame["words"].tolist() == [2, 3, 4, 5, 6, 7]
    assert sample.frame["columns"].tolist() == [{}] * 3 + [{"age": 3}] * 3
    assert sample.embeddings is not None
    assert sample.tabular is not None
    assert sample.embeddings.tolist() == [[n, -1, 0.5] for n in range(6)]
    assert sample.tabular.tolist() == [[n, 0.5] for n in range(6)]
    np.testing.assert_allclose(sample.probabilities[5], [0.4, 0.6])


def test_a_segment_that_was_sealed_and_not_yet_removed_counts_once(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    rows = [row(n, minutes=9 - n) for n in range(3)]
    write(rows, "predictions/date=2026-11-20/a.parquet")
    path = tmp_path / "predictions/open/a.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(as_plain(each)) + "\n" for each in rows[:2]))
    found, notices = look(tmp_path)
    assert (found.totals.rows, found.notices, notices) == (3, (), [])


def test_a_segment_that_becomes_parquet_while_it_is_read(
    row: MakeRow, write: Write, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(n, minutes=9 - n) for n in range(3)]
    path = tmp_path / "predictions/open/a.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    read = Log._load

    def sealed_first(self: Log, files: Any) -> None:
        if path.exists():
            write(rows, "predictions/date=2026-11-20/a.parquet")
            path.unlink()
        read(self, files)

    monkeypatch.setattr(Log, "_load", sealed_first)
    with open_log(tmp_path, classes=CLASSES, now=now) as log:
        assert log.windows(every="1d")[0].rows == 3
        assert log.notices == []


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "csv.gz"])
def test_tables_of_other_programs(look: Look, row: MakeRow, tmp_path: Path, kind: str) -> None:
    rows = [as_plain(row(n, minutes=9 - n, text=f"text {n}")) for n in range(3)]
    path = tmp_path / f"log.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    else:
        cells = [
            {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in each.items()}
            for each in rows
        ]
        pd.DataFrame(cells).to_csv(
            path, index=False, sep="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL
        )
    found, notices = look(path)
    assert notices == []
    sample = found.sample
    assert sample.frame["text"].tolist() == ["text 0", "text 1", "text 2"]
    assert sample.frame["has_num"].tolist() == [True, False, True]
    assert sample.frame["tokens"].tolist() == [4, 5, 6]
    assert sample.embeddings is not None
    assert sample.embeddings[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(sample.probabilities[:, 0], [0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    "table",
    [
        {"time": ["2026-11-20T11:00:00+01:00"], "label": ["fake"]},
        {"time": ["2026-11-20 10:00:00"], "probability_fake": [0.7], "probability_real": [0.3]},
        {"time": [1795168800], "label": ["fake"]},
        {"time": [1795168800123.0], "label": ["fake"]},
        {"time": ["1795168800"], "probabilities": ['{"real": 0.3, "fake": 0.7}']},
        {
            "time": [datetime(2026, 11, 20, 10)],  # noqa: DTZ001 as many are
            "probabilities": [{"fake": 0.7, "real": 0.3}],
        },
        {
            "time": [datetime(2026, 11, 20, 10, tzinfo=UTC)],
            "label": pa.array(["fake"]).dictionary_encode(),
        },
    ],
)
def test_what_is_needed_is_a_time_and_a_label_or_probabilities(
    look: Look, tmp_path: Path, table: dict[str, Any]
) -> None:
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    found, notices = look(tmp_path / "log.parquet")
    assert found.totals.rows == len(found.sample) == 1
    assert found.sample.frame["label"].tolist() == ["fake"]
    assert found.sample.frame["time"][0].strftime("%F %H:%M") == "2026-11-20 10:00"
    if "label" in table:
        assert np.isnan(found.sample.probabilities).all()
    else:
        np.testing.assert_allclose(found.sample.probabilities, [[0.7, 0.3]])
    assert (found.sample.tabular, found.sample.embeddings) == (None, None)
    assert (found.totals.unique_texts, found.totals.unsure, found.totals.latency_ms) == (
        None,
        None,
        {},
    )
    # It is said what cannot be judged without.
    (notice,) = notices
    assert notice == (
        "the log has no id, text_sha256, tokens, tabular, embedding, words, latency_ms, error: "
        "what needs that cannot be judged"
    )


def test_texts_without_digests_are_told_apart(look: Look, tmp_path: Path) -> None:
    table = {
        "time": ["2026-11-20 10:00:00"] * 4,
        "label": ["fake"] * 4,
        "text": ["a", "b", "a", "b"],
    }
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    found, _ = look(tmp_path / "log.parquet")
    assert found.totals.unique_texts == 2
    assert sorted(found.sample.frame["text"]) == ["a", "b"]


def test_files_of_earlier_versions_beside_new_ones(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    seen = ("tokens", "unknown_tokens", "tabular", "embedding", "latency_ms", "error")
    write([row(n, minutes=9 - n) for n in range(2)], "logs/old.parquet", without=seen)
    write([row(n, minutes=9 - n) for n in range(2, 5)], "logs/new.parquet")
    found, notices = look(tmp_path / "logs")
    assert notices == []
    assert found.totals.rows == 5
    assert found.sample.embeddings is not None
    assert np.isnan(found.sample.embeddings[:, 0]).tolist() == [True] * 2 + [False] * 3
    assert found.sample.frame["tokens"].isna().sum() == 2
    assert found.notices == (
        "2 of 5 sampled rows have no tabular features, or another number of them",
        "2 of 5 sampled rows have no embedding, or another number of them",
    )


def test_embeddings_of_another_model_are_not_mixed_in(
    look: Look, row: MakeRow, write: Write
) -> None:
    rows = [row(n) for n in range(4)]
    rows[2]["embedding"] = b"\x00" * 10
    rows[3]["embedding"] = b"odd"
    found, _ = look(write(rows))
    assert found.sample.embeddings is not None
    assert found.sample.embeddings.shape == (4, 3)
    assert "2 of 4 sampled rows have no embedding" in found.notices[0]


# --- what is wrong with rows --------------------------------------------------------------


def test_no_rows(look: Look, row: MakeRow, write: Write, tmp_path: Path) -> None:
    nothing = ("there are no predictions from 2026-11-19 12:00:00 to 2026-11-20 12:00:00",)
    (tmp_path / "deployment").mkdir()
    for path in (tmp_path / "deployment", write([]), write([row(minutes=3000)])):
        found, _ = look(path)
        assert found.notices == nothing
        assert (found.span.rows, len(found.sample), len(found.labelled)) == (0, 0, 0)
        assert found.sample.probabilities.shape == (0, 2)
        assert found.totals.latency_ms == {}
        assert found.totals.classes == {"fake": 0, "real": 0}
        assert found.totals.rows_per_hour == 0
    with open_log(tmp_path / "deployment", classes=CLASSES) as log:
        (span,) = log.windows(rows=10)
        assert span.rows == 0
        assert log.read(span, most=5).totals.rows == 0


def test_one_row(look: Look, row: MakeRow, write: Write) -> None:
    found, notices = look(write([row(4)]))
    assert (found.totals.rows, notices, found.notices) == (1, [], ())
    assert found.sample.probabilities.shape == (1, 2)
    assert found.totals.latency_ms == {0.5: 4, 0.95: 4, 0.99: 4}


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"label": ["fake"]}, "no column time"),
        ({"time": ["2026-11-20"]}, "no column prediction or label, and no probabilities"),
        ({"a": [1]}, "no column time"),
    ],
)
def test_missing_columns(
    look: Look, row: MakeRow, write: Write, columns: Row, missing: str
) -> None:
    other = write([row()], "logs/good.parquet").with_name("other.parquet")
    pq.write_table(pa.table(columns), other)
    found, notices = look(other.parent)
    assert found.totals.rows == 1
    assert notices == [f"{other} has {missing}: it is left out"]


SCORED = {
    "time": ["2026-11-20T10:00:00Z"] * 3,
    "id": ["mine"] * 3,
    "label": ["real", "real", "real"],
    "probability_fake": [0.2, 0.4, 0.9],
    "probability_real": [0.8, 0.6, 0.1],
}


def test_of_a_scored_table_the_decision_counts_and_not_the_users_label(
    look: Look, tmp_path: Path
) -> None:
    scored = SCORED | {
        "prediction": ["fake", "fake", "real"],
        "prediction_id": ["a", "b", "c"],
        "text": ["x", "y", "z"],
    }
    pd.DataFrame(scored).to_csv(tmp_path / "scored.csv", index=False)
    found, notices = look(tmp_path / "scored.csv")
    assert found.sample.frame["label"].tolist() == ["fake", "fake", "real"]
    assert found.sample.frame["id"].tolist() == ["a", "b", "c"]
    assert found.totals.classes == {"fake": 2, "real": 1}
    # What depends on texts is made of them.
    assert notices == ["the log has no latency_ms, error: what needs that cannot be judged"]


@pytest.mark.parametrize(
    ("threshold", "decided"),
    [(None, ["real", "real", "fake"]), (0.3, ["real", "fake", "fake"])],
)
def test_where_there_are_probabilities_alone_the_bundles_threshold_decides(
    look: Look, tmp_path: Path, threshold: float | None, decided: list[str]
) -> None:
    frame = pd.DataFrame(SCORED).drop(columns=["label", "id"])
    frame.to_csv(tmp_path / "scored.csv", index=False)
    calibration = Calibration(threshold=threshold, positive="fake")
    found, _ = look(tmp_path / "scored.csv", calibration=calibration)
    assert found.sample.frame["label"].tolist() == decided
    assert found.totals.classes["fake"] == decided.count("fake")


@pytest.mark.parametrize("good", [False, True])
def test_tables_of_which_none_can_be_used_are_useless(
    row: MakeRow, write: Write, now: datetime, tmp_path: Path, good: bool
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("time,text\n2026-11-20,x\n")
    if good:
        write([row()], "logs/c.parquet")
    with open_log(folder, classes=CLASSES, now=now) as log:
        log.windows(every="1d")
        useless = log.useless
    expected = (
        "no column prediction or label, and no probabilities, and 1 more files are like it"
    )
    assert useless == (None if good else f"{folder}/a.csv has {expected}")


def test_ids_that_are_there_twice(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    rows = [row(n, minutes=9 - n) for n in range(3)]
    write([*rows, rows[0]], "logs/a.parquet")
    write([rows[1]], "logs/b.parquet")
    found, _ = look(tmp_path / "logs")
    assert found.totals.rows == 3
    assert found.notices == ("2 rows left out: the id of another row",)


def test_times_that_cannot_be(look: Look, row: MakeRow, write: Write, now: datetime) -> None:
    rows = [row(n) for n in range(3)]
    rows += [row(9, minutes=-4), row(9, minutes=-6), row(9, minutes=-1e6), row(9, time=None)]
    rows += [row(9, time=datetime(1999, 12, 31, tzinfo=UTC)), row(9, time=datetime(1970, 1, 1))]  # noqa: DTZ001
    path = write(rows)
    found, notices = look(path)
    assert found.totals.rows == 3
    assert sorted(notices) == [
        "1 row left out: no time that can be read",
        "2 rows left out: a time before 2000",
        "2 rows left out: a time more than 5 minutes in the future",
    ]
    with open_log(path, classes=CLASSES, now=now) as log:  # clocks may differ that much
        assert log.windows(rows=99)[0].rows == 4


def test_times_that_are_no_times(look: Look, tmp_path: Path) -> None:
    times = ["yesterday", "", "nan", "inf", "-infinity", "1e300", "2026-11-20", "٣"]
    pd.DataFrame({"time": times, "label": "fake"}).to_csv(tmp_path / "log.csv", index=False)
    found, notices = look(tmp_path / "log.csv")
    assert found.totals.rows == 1
    told = " ".join(notices)
    assert sum(int(n) for n in re.findall(r"(\d+) rows? left out", told)) == 7


def test_probabilities_that_are_none(look: Look, row: MakeRow, write: Write) -> None:
    wrong = [
        [("fake", 0.5), ("real", 0.6)],
        [("fake", float("nan")), ("real", 0.5)],
        [("fake", 0.5)],
        [("fake", -0.5), ("real", 1.5)],
        [("fake", float("inf")), ("real", 0.5)],
        [("fake", None), ("real", 1.0)],
    ]
    rows = [row(n) for n in range(2)] + [row(9, probabilities=each) for each in wrong]
    rows.append(row(3, probabilities=[("real", 0.333), ("fake", 0.666)]))
    found, _ = look(write(rows))
    assert found.totals.rows == 3
    assert np.isfinite(found.sample.probabilities).all()
    assert found.notices == (
        "6 rows left out: probabilities that are no numbers, or do not add up to 1",
    )


def test_classes_that_the_model_does_not_have(look: Look, row: MakeRow, write: Write) -> None:
    rows = [row(n) for n in range(2)]
    rows.append(row(8, label="satire"))
    rows.append(row(8, probabilities=[("fake", 0.4), ("real", 0.4), ("satire", 0.2)]))
    rows.append(row(8, label=None, probabilities=[]))
    found, _ = look(write(rows))
    assert found.totals.rows == 2
    assert found.notices == (
        "1 row left out: neither a label nor probabilities",
        "2 rows left out: a class that is none of the model's",
    )


def test_damaged_files_and_lines_are_named(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    write([row(n) for n in range(3)], "logs/good.parquet")
    half = write([row(n) for n in range(100)], "logs/half.parquet").read_bytes()
    (folder / "half.parquet").write_bytes(half[: len(half) // 2])
    (folder / "empty.parquet").touch()
    line = json.dumps(as_plain(row(7)))
    (folder / "lines.jsonl").write_text(f"{line[:50]}\n[]\n\n{line}\nnonsense\n")
    (folder / "binary.jsonl").write_bytes(b"\x00" * 100)
    (folder / "none.jsonl").write_text("nothing\n")
    (folder / "bad.csv.gz").write_bytes(b"\x1f\x8b no gzip")
    (folder / "notes.txt").write_text("no table")
    found, notices = look(folder)
    assert found.totals.rows == 4
    told = {str(re.search(r"\w+\.(parquet|jsonl|csv)", each)[0]): each for each in notices}  # type: ignore[index]
    assert told.keys() == {
        "half.parquet",
        "empty.parquet",
        "lines.jsonl",
        "binary.jsonl",
        "none.jsonl",
        "bad.csv",
    }
    assert told["lines.jsonl"] == f"{folder}/lines.jsonl: 3 lines left out as damaged"
    assert told["none.jsonl"] == f"{folder}/none.jsonl: 1 line left out as damaged"
    for name in ("half.parquet", "empty.parquet", "binary.jsonl", "bad.csv"):
        assert told[name].endswith("; it is left out")
    assert all("\n" not in each for each in notices)


def test_a_file_damaged_where_it_is_wide(
    look: Look, row: MakeRow, write: Write, tmp_path: Path
) -> None:
    path = write([row(n) for n in range(500)], "logs/a.parquet")
    write([row(600)], "logs/b.parquet")
    group = pq.read_metadata(path).row_group(0)
    column = next(
        group.column(n)
        for n in range(group.num_columns)
        if group.column(n).path_in_schema == "embedding"
    )
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * (
        column.total_compressed_size
    )
    path.write_bytes(content)
    found, notices = look(tmp_path / "logs")
    assert notices == []
    assert found.totals.rows == 501
    assert len(found.sample) == 501
    assert found.notices[0].startswith(f"{path}: it cannot be read")
    assert found.notices[0].endswith("; what is wide in it is missing")
    assert found.sample.embeddings is not None
    assert np.isfinite(found.sample.embeddings).all(axis=1).sum() == 1


def test_many_damaged_files_are_counted(look: Look, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.parquet").write_bytes(b"x")
    _, notices = look(tmp_path)
    assert len(notices) == 21
    assert notices[-1] == "30 more files have such faults"


# --- what cannot be opened ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("nothing", "no such file or folder: mend the path"),
        ("nothing.parquet", "no such file or folder: mend the path"),
        ("*.parquet", "no such file: mend the path"),
        ("no/*/x.csv", "no such file or folder: mend the path"),
        ("notes.txt", "cannot tell the format"),
    ],
)
def test_paths_that_there_are_not(tmp_path: Path, path: str, fault: str) -> None:
    (tmp_path / "notes.txt").touch()
    with (
        pytest.raises(MonitoringError, match=fault) as caught,
        open_log(tmp_path / path, classes=CLASSES),
    ):
        pass
    assert path in str(caught.value)


def test_memory_that_is_none(row: MakeRow, write: Write) -> None:
    with (
        pytest.raises(ConfigError, match="memory=much: "),
        open_log(write([row()]), classes=CLASSES, memory="much"),
    ):
        pass


@pytest.mark.parametrize("small_disk", ["2m"], indirect=True)
def test_a_full_disk(small_disk: Path, write: Write, row: MakeRow, now: datetime) -> None:
    rows = [row(n, minutes=1 + n / 100, id=new_id()) for n in range(60_000)]
    path = write(rows)
    with (
        pytest.raises(MonitoringError, match="needs more room"),
        open_log(path, classes=CLASSES, now=now, memory="8MB", work=small_disk) as log,
    ):
        log.read(log.windows(every="400d")[0], most=10)


def test_a_span_of_ones_own(row: MakeRow, write: Write, now: datetime) -> None:
    path = write([row(n, minutes=60 * n) for n in range(48)])
    span = Span(
        start=now - timedelta(hours=40), end=now - timedelta(hours=30), rows=0, labelled=0
    )
    with open_log(path, classes=CLASSES, now=now) as log:
        found = log.read(span, most=100)
    assert found.span.rows == found.totals.rows == 10
