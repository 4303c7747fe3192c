"""The prediction log: what was answered is written, whatever happens."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fakenews.data.cleaning import Cleaning
from fakenews.features.tabular import HEADLINE_FEATURES, headline_features
from fakenews.serving.gateway import prediction_log
from fakenews.serving.gateway.ids import made_at, new_id
from fakenews.serving.gateway.prediction_log import PredictionLog, Record
from fakenews.serving.gateway.segments import (
    SCHEMA,
    Sealed,
    find,
    left_over,
    open_segment,
    seal,
)

TEXTS = [
    "Minister opens 3 hospitals",
    "  No\tnumbers \n here ",
    "٣ digits",
    "½ and ², none",
    "a",
]


def record(text: str = "a text", milliseconds: int | None = None, **columns: Any) -> Record:
    milliseconds = milliseconds or time.time_ns() // 1_000_000
    return Record(
        id=new_id(milliseconds),
        milliseconds=milliseconds,
        route="champion",
        item={"text": text, **columns},
        answer={
            "label": "fake",
            "probabilities": {"fake": 0.75, "real": 0.25},
            "unsure": False,
            "truncated": True,
            "model": "fakenews",
            "model_version": "v1",
        },
    )


def make(folder: Path, **values: Any) -> PredictionLog:
    options: dict[str, Any] = {
        "text": False,
        "fsync": False,
        "segment_bytes": 10**6,
        "segment_seconds": 60,
        "failed": lambda count: None,
        "tidy": lambda: None,
    }
    log = PredictionLog(folder=folder, **{**options, **values})
    log.start()
    return log


def write(log: PredictionLog, *groups: list[Record]) -> list[bool]:
    async def run() -> list[bool]:
        return await asyncio.gather(*(log.write(records) for records in groups))

    return asyncio.run(run())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / "open").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(folder.glob("date=*/*.parquet"))
        for row in pq.read_table(path, partitioning=None).to_pylist()
    ]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- ids ---------------------------------------------------------------------------------


def test_ids_sort_by_time_and_tell_it() -> None:
    times = [1, 1_700_000_000_000, 1_700_000_000_001, (1 << 48) - 1]
    ids = [new_id(each) for each in times]
    assert ids == sorted(ids)
    assert made_at(ids[1]) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert len({new_id(5) for _ in range(1000)}) == 1000
    assert made_at(ids[3]) is None or made_at(ids[3]).year > 9000  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "x", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "../../etc"])
def test_ids_of_others(text: str) -> None:
    assert made_at(text) is None
    assert made_at(new_id(5).upper()) is None


# --- lines -------------------------------------------------------------------------------


def test_a_line_says_what_was_predicted_and_not_of_what(tmp_path: Path) -> None:
    log = make(tmp_path)
    given = record("Minister  opens 3 hospitals", age=3)
    assert write(log, [given]) == [True]
    (line,) = lines(tmp_path)
    assert line["id"] == given.id
    assert datetime.fromisoformat(line["time"]) == made_at(given.id)
    assert (line["characters"], line["words"], line["has_num"]) == (26, 4, True)
    assert line["columns"] == {"age": 3}
    assert len(line["text_sha256"]) == 64
    assert line["text"] is None
    assert "Minister" not in json.dumps(line)
    log.close()


def test_features_are_those_of_a_training(tmp_path: Path) -> None:
    log = make(tmp_path, text=True)
    write(log, [record(text) for text in TEXTS])
    found = lines(tmp_path)
    log.close()
    expected = headline_features(Cleaning()(TEXTS).texts)
    for name, column in (("words", "word_count"), ("characters", "char_count")):
        column_of = HEADLINE_FEATURES.index(column)
        assert [line[name] for line in found] == expected[:, column_of].tolist(), name
    has_num = HEADLINE_FEATURES.index("has_num")
    assert [line["has_num"] for line in found] == (expected[:, has_num] > 0).tolist()
    assert [line["text"] for line in found] == TEXTS


def test_requests_are_written_together(tmp_path: Path) -> None:
    log = make(tmp_path, fsync=True)
    groups = [[record(f"{n}") for _ in range(n % 3 + 1)] for n in range(300)]
    assert all(write(log, *groups))
    assert len(lines(tmp_path)) == sum(map(len, groups))
    log.close()


# --- Parquet -----------------------------------------------------------------------------


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    given, other = record("old"), record("new")
    log = make(tmp_path)
    write(log, [given])
    (left,) = (tmp_path / "open").glob("*.jsonl")
    old = left.read_text()
    log.close()
    # As they were before: a line without what the model saw, and Parquet without it.
    line = {n: v for n, v in json.loads(old).items() if n in SCHEMA.names[:16]}
    left.write_text(json.dumps(line) + "\n")
    assert seal(left, tmp_path) == Sealed(rows=1, damaged=0)
    (row,) = rows(tmp_path)
    assert [row[name] for name in SCHEMA.names[16:]] == [None] * 6
    (path,) = tmp_path.glob("date=*/*.parquet")
    pq.write_table(pq.read_table(path, partitioning=None).select(SCHEMA.names[:16]), path)
    log = make(tmp_path)
    write(log, [other])
    for each in (given, other):
        found = find(tmp_path, each.id)
        assert found is not None
        assert found.label == "fake"
    log.close()


def test_an_embedding_that_is_none_is_a_damaged_line(tmp_path: Path) -> None:
    log = make(tmp_path)
    write(log, [record()])
    (path,) = (tmp_path / "open").glob("*.jsonl")
    line = json.loads(path.read_text())
    left = tmp_path / "open" / "left.jsonl"
    left.write_text(
        "".join(json.dumps(line | {"embedding": e}) + "\n" for e in (None, "AADA", "é", 3))
    )
    assert seal(left, tmp_path) == Sealed(rows=2, damaged=2)
    log.close()


def test_a_closed_log_is_parquet(tmp_path: Path) -> None:
    log = make(tmp_path)
    days = [1_700_000_000_000 + day * 86_400_000 for day in (0, 0, 1)]
    given = [record(f"text {n}", day, age=n, lang=None) for n, day in enumerate(days)]
    write(log, given)
    log.close()
    assert lines(tmp_path) == []
    assert sorted(path.name for path in tmp_path.glob("date=*")) == [
        "date=2023-11-14",
        "date=2023-11-15",
    ]
    found = rows(tmp_path)
    assert [row["id"] for row in found] == [each.id for each in given]
    assert found[2]["columns"] == [("age", "2"), ("lang", None)]
    assert found[0]["probabilities"] == [("fake", 0.75), ("real", 0.25)]
    assert [row["text"] for row in found] == [None] * 3
    for path in tmp_path.glob("date=*/*"):
        assert pq.read_schema(path).equals(SCHEMA)
        # What people ask is not for everybody of the machine.
        assert path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    "values", [{"segment_bytes": 2000}, {"segment_seconds": 0.01}], ids=["size", "age"]
)
def test_segments_end_by_size_and_age(tmp_path: Path, values: dict[str, Any]) -> None:
    log = make(tmp_path, **values)
    for number in range(12):
        write(log, [record(f"{number}")])
        time.sleep(0.02)
    wait(lambda: len(list(tmp_path.glob("date=*/*.parquet"))) >= 2)
    log.close()
    assert len(rows(tmp_path)) == 12


def test_what_a_killed_process_left_is_taken_up(tmp_path: Path) -> None:
    log = make(tmp_path)
    write(log, [record(f"{n}") for n in range(3)])
    (path,) = (tmp_path / "open").glob("*.jsonl")
    content = path.read_bytes()
    log.close()
    left = tmp_path / "open" / "left.jsonl"
    left.write_bytes(content + b"no json\n[]\n" + content[: len(content) // 2].rstrip(b"\n"))
    lost: list[int] = []
    again = make(tmp_path, failed=lost.append)
    wait(lambda: not left.exists())
    again.close()
    assert len(rows(tmp_path)) == 3 + 3 + 1
    assert sum(lost) == 3


def test_a_segment_that_is_written_is_left_alone(tmp_path: Path) -> None:
    descriptor = open_segment(tmp_path / "open" / "other.jsonl")
    assert left_over(tmp_path) == []
    log = make(tmp_path)
    log.close()
    assert (tmp_path / "open" / "other.jsonl").exists()
    os.close(descriptor)
    assert [path.name for path in left_over(tmp_path)] == ["other.jsonl"]


def test_sealing_again_changes_nothing(tmp_path: Path) -> None:
    log = make(tmp_path)
    write(log, [record()])
    (path,) = (tmp_path / "open").glob("*.jsonl")
    content = path.read_bytes()
    log.close()
    path.write_bytes(content)
    done = seal(path, tmp_path)
    assert (done.rows, done.damaged) == (1, 0)
    assert len(rows(tmp_path)) == 1


def test_a_record_that_does_not_fit_costs_no_other(tmp_path: Path) -> None:
    log = make(tmp_path)
    good, bad = record("good"), record("bad")
    bad.answer["unsure"] = "maybe"
    write(log, [good, bad, record("good too")])
    lost: list[int] = []
    log._failed = lost.append
    log.close()
    assert len(rows(tmp_path)) == 2
    assert lost == [1]


def test_predictions_are_found_by_their_ids(tmp_path: Path) -> None:
    log = make(tmp_path)
    old, new = record("old"), record("new")
    write(log, [old, record("another")])
    log.close()
    log = make(tmp_path)
    write(log, [new])
    for each in (old, new):
        found = find(tmp_path, each.id)
        assert found is not None
        assert (found.model_version, found.label) == ("v1", "fake")
    log.close()
    assert find(tmp_path, new_id()) is None
    assert find(tmp_path, "../open") is None


# --- disks -------------------------------------------------------------------------------


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_full_disk_is_told_and_outlived(small_disk: Path) -> None:
    folder = small_disk / "predictions"
    failures: list[int] = []
    log = make(folder, text=True, failed=failures.append)
    assert write(log, [record("before")]) == [True]
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    given = [[record("x" * 3000)] for _ in range(10)]
    written = [write(log, each)[0] for each in given]
    assert not all(written)
    assert log.fault is not None
    assert "No space left on device" in log.fault
    assert sum(failures) == written.count(False)
    ballast.unlink()
    assert write(log, [record("after")]) == [True]
    assert log.fault is None
    log.close()
    found = [row["text"] for row in rows(folder)]
    assert (found[0], found[-1]) == ("before", "after")
    # What was said to be written is, and nothing was cut in two.
    assert len(found) == 2 + written.count(True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "predictions").write_text("a file")
    log = make(tmp_path / "predictions")
    assert write(log, [record()]) == [False]
    assert log.fault is not None
    (tmp_path / "predictions").unlink()
    assert write(log, [record()]) == [True]
    log.close()


def test_what_cannot_become_parquet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "_RETRY", 0.1)
    tries = 0
    done = threading.Event()

    def full(path: Path, folder: Path) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(28, "No space left on device")
        done.set()
        return seal(path, folder)

    monkeypatch.setattr(prediction_log, "seal", full)
    left = tmp_path / "open" / "left.jsonl"
    left.parent.mkdir()
    left.write_bytes(b"")
    log = make(tmp_path)
    assert done.wait(20)
    log.close()
    assert not left.exists()
