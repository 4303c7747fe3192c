"""Files of the prediction log: lines while they are written, Parquet by date afterwards.

    predictions/open/SEGMENT.jsonl            lines of a gateway that runs, or was killed
    predictions/date=YYYY-MM-DD/SEGMENT.parquet

A segment is locked by the gateway that writes it, so that another does not take it for one
that was left over.
"""

import base64
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.serving.gateway.ids import made_at

OPEN = "open"

MODE = 0o640
"""Of files in which is what people have asked or said: not for everybody of the machine."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.timestamp("ms", "UTC")),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("route", pa.string()),
        ("shadow_of", pa.string()),
        ("label", pa.string()),
        ("probabilities", pa.map_(pa.string(), pa.float64())),
        ("unsure", pa.bool_()),
        ("truncated", pa.bool_()),
        ("characters", pa.int32()),
        ("words", pa.int32()),
        ("has_num", pa.bool_()),
        ("columns", pa.map_(pa.string(), pa.string())),
        ("text_sha256", pa.string()),
        ("text", pa.string()),
        ("tokens", pa.int32()),
        ("unknown_tokens", pa.int32()),
        ("tabular", pa.list_(pa.float32())),
        ("embedding", pa.binary()),
        ("latency_ms", pa.float32()),
        ("error", pa.string()),
    ]
)
"""Of a date's files. `time` is when the id was made; `shadow_of` the id of the prediction
that a person got for a text; `characters`, `words` and `has_num` are of the cleaned text, of
which `text_sha256` is the digest; `text` is null unless `log.text` is on. From `tokens` on,
what files of earlier versions do not have: what the model saw (null unless `log.features` and
`log.embeddings` are on, and the model reads such), `tabular` standardised, `embedding` little-
endian float16, both as in the bundle's reference; `latency_ms` from the item's arrival to its
answer; `error` why there is no `label`, null for a prediction."""

_ROWS = 512  # converted at a time
_BREATH = 0.002  # seconds between, in which requests are answered


class Found(NamedTuple):
    """What the log knows of a prediction."""

    model_version: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A segment that became Parquet: its rows, and the lines that were no records."""

    rows: int
    damaged: int


def open_segment(path: Path) -> int:
    """Make a segment and lock it; returns its descriptor.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, MODE)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part first.

    Raises:
        OSError: The disk is full.
    """
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def left_over(folder: Path) -> list[Path]:
    """The segments that no process writes."""
    return [path for path in sorted((folder / OPEN).glob("*.jsonl")) if not _locked(path)]


def _locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True  # another gateway has just sealed it
    except BlockingIOError:
        return True
    return False


def seal(path: Path, folder: Path) -> Sealed:
    """Make Parquet of a segment that is written no more, and remove it.

    What was done before is done again: a segment that was killed in between has one file
    for each date all the same.

    Args:
        path: The segment.
        folder: Of the log.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    dates: dict[str, list[pa.Table]] = {}
    rows = damaged = 0
    for records, bad in _read(path):
        for date, of_date in _by_date(records).items():
            table, refused = _table(of_date)
            rows += len(table)
            damaged += refused
            dates.setdefault(date, []).append(table)
        damaged += bad
        time.sleep(_BREATH)
    with tempfile.TemporaryDirectory(prefix=".seal-", dir=folder) as work:
        for date, tables in dates.items():
            draft = Path(work) / f"{date}.parquet"
            pq.write_table(pa.concat_tables(tables), draft, compression="zstd")
            target = folder / f"date={date}" / f"{path.stem}.parquet"
            target.parent.mkdir(exist_ok=True)
            draft.chmod(MODE)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(target)
    path.unlink()
    return Sealed(rows=rows, damaged=damaged)


def _read(path: Path) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Records of a segment, some at a time, and how many lines were none."""
    records: list[dict[str, Any]] = []
    damaged = 0
    with path.open("rb") as file:
        for line in file:
            try:
                # A line without an end is one that was not answered.
                records.append(_typed(orjson.loads(line if line.endswith(b"\n") else b"")))
            except (AttributeError, TypeError, KeyError, ValueError):
                damaged += 1
            if len(records) == _ROWS:
                yield records, damaged
                records, damaged = [], 0
    yield records, damaged


def _typed(record: Any) -> dict[str, Any]:
    typed = {name: record.get(name) for name in SCHEMA.names}
    typed["time"] = datetime.fromisoformat(record["time"])
    typed["probabilities"] = list(record["probabilities"].items())
    typed["columns"] = [
        (name, None if value is None else str(value))
        for name, value in record["columns"].items()
    ]
    if typed["embedding"] is not None:
        typed["embedding"] = base64.b64decode(record["embedding"], validate=True)
    return typed


def _table(records: list[dict[str, Any]]) -> tuple[pa.Table, int]:
    """The records that fit the schema, and how many do not."""
    try:
        return pa.Table.from_pylist(records, SCHEMA), 0
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(records) == 1:
            return SCHEMA.empty_table(), 1
    half = len(records) // 2
    (left, bad_left), (right, bad_right) = _table(records[:half]), _table(records[half:])
    return pa.concat_tables([left, right]), bad_left + bad_right


def _by_date(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["time"].date().isoformat(), []).append(record)
    return found


def find(folder: Path, identifier: str) -> Found | None:
    """Look a prediction up by its id; its time, which the id holds, says where.

    Args:
        folder: Of the log.
        identifier: Of a prediction.
    """
    when = made_at(identifier)
    if when is None:
        return None
    for path in (folder / f"date={when.date().isoformat()}").glob("*.parquet"):
        table = pq.read_table(
            path,
            columns=["id", "model_version", "label"],
            filters=[("id", "=", identifier)],
            partitioning=None,
        )
        if table.num_rows:
            return _found(table.to_pylist()[0])
    start = re.compile(rb'\{"id":"%b"' % identifier.encode())
    for path in sorted((folder / OPEN).glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if start.match(line) and line.endswith(b"\n"):
                    return _found(orjson.loads(line))
    return None


def _found(record: dict[str, Any]) -> Found | None:
    # What was refused is no prediction.
    label = record["label"]
    return None if label is None else Found(record["model_version"], label)
