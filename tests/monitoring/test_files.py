"""Where logs are: patterns, folders, and buckets of a real server."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError, MonitoringError
from fakenews.monitoring.files import LogFiles
from fakenews.monitoring.log import open_log

MakeRow = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
CLASSES = ["fake", "real"]
S3 = tuple[str, dict[str, Any]]


def rows_of(path: str | Path, now: datetime, **options: Any) -> int:
    with open_log(path, classes=CLASSES, now=now, **options) as log:
        (span,) = log.windows(every="1d")
        found = log.read(span, most=100)
        assert len(found.sample) == span.rows
        assert (found.sample.embeddings is not None) == bool(span.rows)
        assert log.notices == []
        return span.rows


def test_patterns_and_folders(
    row: MakeRow, write: Write, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(
        ("a.parquet", "b.pq", "x/c.parquet", "x/y/d.parquet", ".hidden/e.parquet", "_f.parquet")
    ):
        write([row(number)], f"logs/{name}")
    write([row(9)], "[odd]/a.parquet")
    for path, count in (
        ("logs", 4),
        ("logs/", 4),
        ("logs/a.parquet", 1),
        ("logs/*.parquet", 1),
        ("logs/*", 2),
        ("logs/*/*.parquet", 1),
        ("logs/**/*.parquet", 3),
        ("l*s/[ab].*", 2),
        ("[odd]", 1),
        ("[odd]/a.parquet", 1),
    ):
        assert rows_of(tmp_path / path, now) == count, path
        assert rows_of(f"file://{tmp_path}/{path}", now) == count, path
    monkeypatch.chdir(tmp_path / "logs")
    for path, count in ((".", 4), ("a.parquet", 1), ("*.pq", 1), ("x", 2), ("../logs/x", 2)):
        assert rows_of(path, now) == count, path


def test_of_a_deployment_only_the_log_is_read(
    row: MakeRow, write: Write, tmp_path: Path, now: datetime
) -> None:
    write([row(1)], "deployment/predictions/date=2026-11-20/a.parquet")
    write([row(2)], "deployment/predictions/date=2026-11-20/.draft.parquet")
    write([row(2)], "deployment/predictions/date=2026-11-20/deeper/a.parquet")
    write([row(3)], "deployment/predictions/other.parquet")
    write([row(4)], "deployment/model_store/reference.parquet")
    assert rows_of(tmp_path / "deployment", now) == 1
    assert rows_of(tmp_path / "deployment" / "predictions", now) == 1
    files = LogFiles(tmp_path / "deployment", options=None, work=tmp_path)
    assert files.feedback() is None
    (tmp_path / "deployment" / "feedback").mkdir()
    (tmp_path / "deployment" / "feedback" / "2026-11.jsonl").touch()
    for path in (
        "deployment",
        "deployment/predictions",
        "deployment/predictions/",
        "deployment/predictions/date=2026-11-20",
        "deployment/predictions/date=2026-11-*/*.parquet",
        "deployment/predictions/date=2026-11-20/a.parquet",
    ):
        feedback = LogFiles(tmp_path / path, options=None, work=tmp_path).feedback()
        assert feedback is not None
        assert [file.path for file in feedback.list()] == ["2026-11.jsonl"]


def test_a_deployment_in_a_bucket(
    s3_url: S3,
    row: MakeRow,
    write: Write,
    tmp_path: Path,
    now: datetime,
) -> None:
    url, options = s3_url
    rows = [row(n) for n in range(4)]
    store = Storage(url, options=options)
    store.publish(write(rows[:2]), "deployment/predictions/date=2026-11-20/a.parquet")
    plain = rows[2] | {"time": rows[2]["time"].isoformat(), "embedding": "ADwAvAA4"}
    plain |= {"probabilities": dict(rows[2]["probabilities"]), "columns": {}}
    line = json.dumps(plain).encode() + b"\n"
    store.write_bytes("deployment/predictions/open/b.jsonl", line + line[:50])
    said = {"id": rows[0]["id"], "verdict": "wrong", "predicted": "fake", "label": None}
    store.write_bytes("deployment/feedback/2026-11.jsonl", json.dumps(said).encode() + b"\n")
    store.publish(write(rows[3:]), "logs/x/c.parquet")
    store.write_bytes("labels.csv", f"id,label\n{rows[1]['id']},real\n".encode())
    work = tmp_path / "work"
    work.mkdir()
    given: dict[str, Any] = {"storage_options": options, "work": work}
    with open_log(
        f"{url}/deployment", classes=CLASSES, now=now, labels=f"{url}/labels.csv", **given
    ) as log:
        (span,) = log.windows(every="1d")
        found = log.read(span, most=10)
        assert log.notices == []
    assert (span.rows, span.labelled) == (3, 2)
    assert found.labelled.frame["true_label"].tolist() == ["real", "real"]
    assert found.sample.embeddings is not None
    assert sorted(found.sample.embeddings[:, 0].tolist()) == [0, 1, 1]
    # Nothing stays here.
    assert list(work.iterdir()) == []
    for path in ("logs", "logs/x/c.parquet", "logs/*/*.parquet"):
        assert rows_of(f"{url}/{path}", now, **given) == 1
    with open_log(f"{url}/nothing", classes=CLASSES, **given) as log:
        assert log.windows(every="1d")[0].rows == 0
    with (
        pytest.raises(MonitoringError, match=r"nothing\.parquet: no such file"),
        open_log(f"{url}/nothing.parquet", classes=CLASSES, **given),
    ):
        pass


def test_a_bucket_that_there_is_not(s3_url: S3) -> None:
    _, options = s3_url
    with (
        pytest.raises(DataError, match="no-such-bucket"),
        open_log("s3://no-such-bucket/x", classes=CLASSES, storage_options=options),
    ):
        pass


def test_credentials_in_a_url_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="holds credentials") as caught,
        open_log("s3://key:hidden@bucket/x", classes=CLASSES),
    ):
        pass
    assert "hidden" not in str(caught.value)
