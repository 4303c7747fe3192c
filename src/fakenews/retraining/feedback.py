"""Labelled rows: predictions of the log whose true class is known, and tables of labels.

A table of labels is of one of two kinds, told by its columns: `id` and `label` name predictions
of the log, `text` and `label` bring their texts with them. Both may have `time` and `user`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.errors import DataError, RetrainingError
from fakenews.monitoring.entries import as_time
from fakenews.monitoring.files import LogFiles
from fakenews.monitoring.labels import LABELS
from fakenews.monitoring.log import open_log
from fakenews.retraining.rows import BATCH, Columns

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where labelled rows are read from.

    Args:
        log: A prediction log, as `open_log` takes it; None: there is none.
        labels: A table of labels, or many; None: there is none.
        model_version: Whose predictions count; None: those of all.
        storage_options: Of URLs.
        memory: Most that the database takes before it goes to disk.
    """

    log: str | Path | None = None
    labels: str | Path | None = None
    model_version: str | None = None
    storage_options: Mapping[str, Any] | None = None
    memory: str = "1GB"


@dataclass
class Found:
    """What was read.

    Attributes:
        rows: Labelled rows with a text.
        textless: Labelled predictions whose texts were not logged.
        notices: What is wrong, as sentences.
    """

    rows: int = 0
    textless: int = 0
    notices: list[str] = field(default_factory=list)


def read_feedback(
    sources: Sources, path: Path, *, classes: Sequence[str], columns: Columns, work: Path
) -> Found:
    """Write all labelled rows to a file, in any order, as of `Columns.feedback_schema`.

    Args:
        sources: To read.
        path: Is written.
        classes: Of the base.
        columns: Of the base; of rows that lack them they are missing.
        work: Folder for what is made on the way.

    Raises:
        RetrainingError: A table of labels cannot be used.
        MonitoringError: There is no such log or table, or the disk is full.
    """
    found = Found()
    schema = columns.feedback_schema
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:

        def write(rows: list[dict[str, Any]]) -> None:
            found.rows += len(rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))

        by_id = None
        if sources.labels is not None:
            tables = LogFiles(sources.labels, options=sources.storage_options, work=work)
            if _has_texts(tables):
                for batch in _of_tables(tables, columns, found.notices, sources.memory):
                    write(batch)
            elif sources.log is None:
                raise RetrainingError(
                    f"{tables.where} has no column text, and there is no log that its ids "
                    "are of: give the log, or labels with texts"
                )
            else:
                by_id = sources.labels
        if sources.log is not None:
            read = replace(sources, labels=by_id)
            for batch in _of_log(read, found, classes=classes, columns=columns, work=work):
                write(batch)
    if found.textless:
        found.notices.append(
            f"{found.textless:,} labelled predictions have no text in the log, and cannot be "
            "learnt from: set serve.gateway.log.text=true, and those that come from then on can"
        )
    return found


# --- the log ----------------------------------------------------------------------------------


def _of_log(
    sources: Sources,
    found: Found,
    *,
    classes: Sequence[str],
    columns: Columns,
    work: Path,
) -> Iterator[list[dict[str, Any]]]:
    assert sources.log is not None  # noqa: S101 the caller looks
    with open_log(
        sources.log,
        classes=classes,
        model_version=sources.model_version,
        labels=sources.labels,
        storage_options=sources.storage_options,
        memory=sources.memory,
        work=work,
    ) as opened:
        for frame, notices in opened.labelled(rows=BATCH):
            found.notices += notices
            known = frame["text"].notna()
            found.textless += int((~known).sum())
            yield [_row(columns, row) for row in frame[known].to_dict("records")]
        found.notices += opened.faults


def _row(columns: Columns, row: dict[Any, Any]) -> dict[str, Any]:
    said_by = row["said_by"]
    return {
        "text": row["text"],
        "label": row["true_label"],
        **columns.of(row["columns"] or {}),
        "id": row["id"],
        "time": row["time"].tz_localize("UTC"),
        "_user": said_by if isinstance(said_by, str) else None,
        "_rank": int(row["source"]),
    }


# --- tables of labels -------------------------------------------------------------------------


def _has_texts(tables: LogFiles) -> bool:
    """Whether the first file that can be read has texts."""
    fault: DataError | None = None
    for file in tables.list():
        try:
            with tables.parquet(file) as (reader, _):
                return "text" in reader.schema_arrow.names
        except DataError as error:
            fault = fault or error
    raise RetrainingError(
        f"{tables.where}: there is no table that can be read: {fault or 'mend the path'}"
    ) from fault


def _of_tables(
    tables: LogFiles, columns: Columns, notices: list[str], memory: str
) -> Iterator[list[dict[str, Any]]]:
    for file in sorted(tables.list(), key=lambda file: file.path):
        name = tables.name(file)
        try:
            with tables.parquet(file) as (reader, damaged):
                there = reader.schema_arrow.names
                missing = [wanted for wanted in ("text", "label") if wanted not in there]
                if missing:
                    notices.append(
                        f"{name} has no column {' and none '.join(missing)}: it is left out"
                    )
                    continue
                if absent := [wanted for wanted in columns.names if wanted not in there]:
                    notices.append(f"{name} has no {', '.join(absent)}: there it is missing")
                if damaged:
                    notices.append(f"{name}: {damaged:,} damaged lines are left out")
                with _times(memory) as times:
                    for batch in reader.iter_batches(BATCH):
                        yield list(_table_rows(batch, columns, times))
        except DataError as error:
            notices.append(f"{error}; it is left out")


@contextmanager
def _times(memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"memory_limit": memory}) as database:
        database.execute("SET TimeZone = 'UTC'")
        yield database


def _table_rows(
    batch: pa.RecordBatch, columns: Columns, database: duckdb.DuckDBPyConnection
) -> Iterator[dict[str, Any]]:
    times: list[Any] = [None] * len(batch)
    if "time" in batch.schema.names:
        column = batch.select(["time"])
        database.register("batch", pa.Table.from_batches([column]))
        kind = column.schema.field("time").type
        times = [
            row[0]
            for row in database.execute(f"SELECT {as_time(kind)} FROM batch").fetchall()  # noqa: S608 ours
        ]
        database.unregister("batch")
    for row, when in zip(batch.to_pylist(), times, strict=True):
        yield {
            "text": _said(row["text"]),
            "label": _said(row["label"]),
            **columns.of(row),
            "id": _said(row.get("id")) or None,
            "time": None if when is None else pd.Timestamp(when, tz="UTC"),
            "_user": _said(row.get("user")) or None,
            "_rank": LABELS,
        }


def _said(value: Any) -> str:
    return "" if value is None else str(value).strip()


def unknown_classes(counts: Mapping[str, int], classes: Sequence[str]) -> str | None:
    """A sentence about labels that are no classes; None if there are none.

    Args:
        counts: Label -> rows.
        classes: Of the base.
    """
    unknown = {name: rows for name, rows in counts.items() if name not in classes}
    if not unknown:
        return None
    named = ", ".join(repr(name[:60]) for name in list(unknown)[:_NAMED])
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return (
        f"{sum(unknown.values()):,} rows are left out, whose label is none of the classes "
        f"{', '.join(classes)}: {named}{more}"
    )
