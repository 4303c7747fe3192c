"""Some rows of a window, with what is wide read of them alone.

Shapes: N rows, C classes, W numbers of a wide column.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from fakenews.errors import DataError
from fakenews.monitoring.entries import FILE
from fakenews.monitoring.files import LogFile, LogFiles
from fakenews.monitoring.windows import LoggedRows

_WIDE = ("tabular", "embedding", "text", "columns")
_COLUMNS = """id, time, model_version, label, true_label, unsure, truncated, characters, words,
has_num, tokens, unknown_tokens"""
_BATCH = 8192
# What is drawn does not depend on the order of rows or files.
_DRAW = "md5_number_lower({seed} || ' ' || {key})"
_ID = "coalesce(id, CAST(place AS VARCHAR))"


def read_rows(
    database: duckdb.DuckDBPyConnection,
    files: LogFiles,
    by_number: Sequence[LogFile],
    *,
    start: datetime,
    end: datetime,
    classes: int,
    most: int,
    seed: int,
    unique: bool,
    labelled: bool = False,
) -> tuple[LoggedRows, list[str]]:
    """Draw rows of a window.

    Args:
        database: With `prediction`.
        files: Of the log.
        by_number: The files by their numbers in the database.
        start: In UTC, without a zone.
        end: Likewise, after its last moment.
        classes: Number C of classes.
        most: Rows at most.
        seed: Of the draw.
        unique: One row of each text.
        labelled: Only rows whose true class is known, and nothing wide of them.

    Returns:
        The rows, and what is wrong, as sentences.
    """
    table = _draw(database, start, end, most, seed, unique=unique, labelled=labelled)
    frame = table.drop(["p", "place"]).to_pandas()
    frame["time"] = frame["time"].dt.tz_localize("UTC")
    probabilities = np.full((len(frame), classes), np.nan)
    for row, values in enumerate(table["p"].to_pylist()):
        if values is not None:
            probabilities[row] = values
    if labelled:
        return LoggedRows(frame=frame, probabilities=probabilities), []
    wide, notices = _read_wide(files, by_number, table)
    for name in ("text", "columns"):
        frame[name] = pd.Series(wide[name], dtype=object, index=frame.index)
    arrays = {}
    for name, shown in (("tabular", "tabular features"), ("embedding", "embedding")):
        array, without = _stack(wide[name])
        arrays[name] = array
        if array is not None and without:
            notices.append(
                f"{without:,} of {len(frame):,} sampled rows have no {shown}, or another "
                "number of them"
            )
    rows = LoggedRows(
        frame=frame,
        probabilities=probabilities,
        tabular=arrays["tabular"],
        embeddings=arrays["embedding"],
    )
    return rows, notices


def _draw(
    database: duckdb.DuckDBPyConnection,
    start: datetime,
    end: datetime,
    most: int,
    seed: int,
    *,
    unique: bool,
    labelled: bool,
) -> pa.Table:
    inside = f"fault IS NULL AND time >= '{start}' AND time < '{end}'"
    if labelled:
        inside += " AND true_label IS NOT NULL"
    own = _DRAW.format(seed=int(seed), key=_ID)
    if unique:
        # Each text has one chance, however often it was asked about.
        chosen = (
            f"SELECT coalesce(digest, {_ID}) AS key, arg_min(place, {own}) AS place"  # noqa: S608 numbers and times
            f" FROM prediction WHERE {inside} GROUP BY key"
            f" ORDER BY {_DRAW.format(seed=int(seed), key='key')}, key LIMIT {int(most)}"
        )
    else:
        chosen = (
            f"SELECT place FROM prediction WHERE {inside}"  # noqa: S608 as above
            f" ORDER BY {own}, place LIMIT {int(most)}"
        )
    return database.sql(
        f"SELECT {_COLUMNS}, p, place FROM prediction"  # noqa: S608 as above
        f" SEMI JOIN ({chosen}) AS chosen USING (place) ORDER BY time, id, place"
    ).to_arrow_table()


def read_labelled(
    database: duckdb.DuckDBPyConnection,
    files: LogFiles,
    by_number: Sequence[LogFile],
    *,
    rows: int,
) -> Iterator[tuple[pd.DataFrame, list[str]]]:
    """All predictions whose true class is known, of any time.

    Args:
        database: With `prediction` and `truth`.
        files: Of the log.
        by_number: The files by their numbers in the database.
        rows: That are given together.

    Yields:
        Rows with `id`, `time`, `label`, `true_label`, `source` and `said_by` (as `truth` has
        them), `text` and `columns`; and what is wrong, as sentences.
    """
    # Of people's labels there are few; only their texts are many bytes.
    table = database.sql(
        "SELECT id, time, prediction.label, true_label, source, said_by, place FROM prediction"
        " JOIN truth USING (id) WHERE fault IS NULL AND true_label IS NOT NULL ORDER BY place"
    ).to_arrow_table()
    for start in range(0, len(table), rows):
        part = table.slice(start, rows)
        wide, notices = _read_wide(files, by_number, part, names=("text", "columns"))
        frame = part.drop(["place"]).to_pandas()
        for name, values in wide.items():
            frame[name] = pd.Series(values, dtype=object, index=frame.index)
        yield frame, notices


def _read_wide(
    files: LogFiles,
    by_number: Sequence[LogFile],
    table: pa.Table,
    *,
    names: Sequence[str] = _WIDE,
) -> tuple[dict[str, list[Any]], list[str]]:
    """The wide columns of rows, in their order."""
    found: dict[str, list[Any]] = {name: [None] * len(table) for name in names}
    notices = []
    numbers, rows = np.divmod(table["place"].to_numpy(), FILE)
    for number in np.unique(numbers):
        places = np.flatnonzero(numbers == number)
        file = by_number[number]
        try:
            _read_file(files, file, places[np.argsort(rows[places])], rows, found)
        except DataError as error:
            notices.append(f"{error}; what is wide in it is missing")
    return found, notices


def _read_file(
    files: LogFiles,
    file: LogFile,
    places: NDArray[np.int64],
    rows: NDArray[np.int64],
    found: dict[str, list[Any]],
) -> None:
    """Fill in the wide columns of one file, for rows at `places`, which ascend in the file."""
    wanted = rows[places]
    with files.parquet(file) as (reader, _):
        names = [name for name in found if name in reader.schema_arrow.names]
        if not names:
            return
        first = 0
        for group in range(reader.num_row_groups):
            size = reader.metadata.row_group(group).num_rows
            if np.searchsorted(wanted, first) < np.searchsorted(wanted, first + size):
                at = first
                for batch in reader.iter_batches(_BATCH, [group], names, use_threads=False):
                    here = slice(*np.searchsorted(wanted, [at, at + len(batch)]))
                    part = batch.take(pa.array(wanted[here] - at))
                    for name in names:
                        for place, value in zip(
                            places[here], part.column(name).to_pylist(), strict=True
                        ):
                            found[name][place] = _READ[name](value)
                    at += len(batch)
            first += size


def _tabular(value: Any) -> NDArray[np.float32] | None:
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, list):
        return None
    try:
        return np.array([np.nan if v is None else v for v in value], dtype=np.float32)
    except (TypeError, ValueError):
        return None


def _embedding(value: Any) -> NDArray[np.float32] | None:
    """Of half floats, in base64 in lines, or of a list of numbers."""
    if isinstance(value, str) and not value.startswith("["):
        try:
            value = base64.b64decode(value, validate=True)
        except ValueError:
            return None
    if isinstance(value, bytes):
        return np.frombuffer(value, "<f2").astype(np.float32) if len(value) % 2 == 0 else None
    return _tabular(value)


def _columns(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, list):  # as a map is
        value = dict(value)
    return value if isinstance(value, dict) else None


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None


_READ = {
    "tabular": _tabular,
    "embedding": _embedding,
    "text": lambda value: value or None,
    "columns": _columns,
}


def _stack(
    values: Sequence[NDArray[np.float32] | None],
) -> tuple[NDArray[np.float32] | None, int]:
    """The array [N, W] of what has the usual width, NaN elsewhere; and how many have not."""
    widths = Counter(value.size for value in values if value is not None and value.ndim == 1)
    widths.pop(0, None)
    if not widths:
        return None, len(values)
    ((width, count),) = widths.most_common(1)
    stacked = np.full((len(values), width), np.nan, dtype=np.float32)
    for row, value in enumerate(values):
        if value is not None and value.shape == (width,):
            stacked[row] = value
    return stacked, len(values) - count
