"""The rows of a log in a database: of any table, in the types of the prediction log.

    entry        a row of a file each, by its place, without what is wide
    prediction   the same with a `fault`, which is null for what is a prediction of a window

Times are of UTC, without a zone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.errors import ConfigError, MonitoringError
from fakenews.evaluation.calibration import Calibration

FILE = 1 << 36
"""By so much the places of rows of one file are from those of the next."""

_BATCH = 65_536

# Columns of `entry` that are those of a file, in the types they have here.
_PLAIN = {
    "id": "VARCHAR",
    "model_version": "VARCHAR",
    "label": "VARCHAR",
    "unsure": "BOOLEAN",
    "truncated": "BOOLEAN",
    "characters": "INTEGER",
    "words": "INTEGER",
    "has_num": "BOOLEAN",
    "tokens": "INTEGER",
    "unknown_tokens": "INTEGER",
    "latency_ms": "DOUBLE",
    "error": "VARCHAR",
}
# In tables that were scored (scripts/predict.py, /predict/csv): beside these, `label` and `id`
# are columns of whoever had them scored.
SCORED = {"label": "prediction", "id": "prediction_id"}
_PROBABILITY = "probability_"
_OTHERS = ("time", "probabilities", "shadow_of", "route", "text_sha256", "text")
_EARLIEST = datetime(2000, 1, 1)  # noqa: DTZ001 all times of the database are of UTC
_SKEW = timedelta(minutes=5)
_TOLERANCE = 0.01  # of a sum of probabilities that were rounded
_MAP = "MAP(VARCHAR, DOUBLE)"

FAULTS = {
    "time": "no time that can be read",
    "early": "a time before 2000",
    "late": "a time more than 5 minutes in the future",
    "empty": "neither a label nor probabilities",
    "class": "a class that is none of the model's",
    "sum": "probabilities that are no numbers, or do not add up to 1",
}
"""What is wrong with a row that is left out. The other faults of `prediction` are no mistakes:
`shadow`, `version`, `error` and `twice`."""


@contextmanager
def open_database(folder: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for a log, which is gone when it is closed.

    Args:
        folder: For what memory has no room for.
        memory: Most that it takes.

    Raises:
        ConfigError: `memory` is no size.
    """
    try:
        database = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": memory,
                "temp_directory": str(folder),
                "preserve_insertion_order": "false",
            },
        )
    except duckdb.Error as error:
        raise ConfigError(f"memory={memory}: {str(error).splitlines()[0]}") from error
    with database:
        yield database


@contextmanager
def told(shown: str) -> Iterator[None]:
    """Tell of a lack of room.

    Args:
        shown: What is read.

    Raises:
        MonitoringError: The disk or the memory was full.
    """
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise MonitoringError(
            f"{shown}: reading it needs more room ({str(error).splitlines()[0]}): free the "
            "disk, or give more memory"
        ) from error


def create(database: duckdb.DuckDBPyConnection) -> None:
    """Make `entry`, without rows."""
    plain = ", ".join(f"{name} {kind}" for name, kind in _PLAIN.items())
    database.execute("SET TimeZone = 'UTC'")
    database.execute(
        f"CREATE TABLE entry (place BIGINT, {plain}, time TIMESTAMP,"
        " shadow BOOLEAN, digest VARCHAR, foreign_class BOOLEAN, p DOUBLE[])"
    )


def insert(
    database: duckdb.DuckDBPyConnection,
    reader: pq.ParquetFile,
    *,
    file: int,
    classes: Sequence[str],
) -> int:
    """Add the rows of a file, all or none.

    Args:
        database: With `entry`.
        reader: Of the file.
        file: Its number.
        classes: In the order of the probabilities.

    Returns:
        How many.

    Raises:
        pa.ArrowException: The file is damaged.
        OSError: Likewise.
    """
    schema = reader.schema_arrow
    columns = [
        name
        for name in schema.names
        if (name in _PLAIN and SCORED.get(name) not in schema.names)
        or name in SCORED.values()
        or (name in _OTHERS and not (name == "text" and "text_sha256" in schema.names))
        or (name.startswith(_PROBABILITY) and "probabilities" not in schema.names)
    ]
    query = _select(schema, columns)
    first = row = file * FILE
    database.execute("BEGIN")
    try:
        for batch in reader.iter_batches(_BATCH, columns=columns, use_threads=False):
            numbers = pa.array(range(row, row + len(batch)), pa.int64())
            table = pa.Table.from_batches([batch]).append_column("row number", numbers)
            database.register("batch", table)
            database.execute(
                f"INSERT INTO entry BY NAME {query}",
                {"classes": list(classes)},
            )
            row += len(batch)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    finally:
        database.unregister("batch")
    database.execute("COMMIT")
    return row - first


def judge(
    database: duckdb.DuckDBPyConnection,
    *,
    classes: Sequence[str],
    calibration: Calibration | None,
    version: str | None,
    now: datetime,
) -> None:
    """Make `prediction` from `entry` and `truth` (`id`, `label`).

    Args:
        database: With these tables.
        classes: Of the model.
        calibration: Decides where a row has probabilities alone; None takes the most
            probable class.
        version: Of which rows are wanted; None for all.
        now: In UTC, without a zone.
    """
    # Of rows with one id the first counts. Few have a second, so few are compared.
    database.execute(
        "CREATE OR REPLACE TEMP TABLE twice AS SELECT id, min(place) AS first"
        " FROM entry WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1"
    )
    database.execute(
        """
        CREATE OR REPLACE TABLE prediction AS
        SELECT entry.* EXCLUDE (label, foreign_class, shadow),
          CASE
            WHEN entry.label IS NOT NULL THEN entry.label
            WHEN p IS NULL THEN NULL
            WHEN $threshold IS NULL THEN $classes[list_position(p, list_max(p))]
            WHEN p[$positive] >= $threshold THEN $classes[$positive]
            ELSE $classes[3 - $positive]  -- there are two
          END AS label,
          truth.label AS true_label,
          CASE
            WHEN shadow THEN 'shadow'
            WHEN time IS NULL THEN 'time'
            WHEN time < $earliest THEN 'early'
            WHEN time > $latest THEN 'late'
            WHEN first <> place THEN 'twice'
            -- What was refused before a version was asked is of each of them.
            WHEN $version IS NOT NULL AND model_version IS DISTINCT FROM $version
              AND NOT (error IS NOT NULL AND model_version IS NULL) THEN 'version'
            WHEN error IS NOT NULL THEN 'error'
            WHEN entry.label IS NULL AND p IS NULL THEN 'empty'
            WHEN foreign_class OR NOT list_contains($classes, entry.label) THEN 'class'
            -- NaN is larger than all numbers.
            WHEN p IS NOT NULL AND NOT (
              list_count(p) = len($classes) AND list_min(p) >= 0
              AND abs(list_sum(p) - 1) <= $tolerance) THEN 'sum'
          END AS fault
        FROM entry LEFT JOIN twice USING (id) LEFT JOIN truth USING (id)
        """,
        {
            "classes": list(classes),
            "threshold": None if calibration is None else calibration.threshold,
            "positive": 1 if calibration is None else classes.index(calibration.positive) + 1,
            "version": version,
            "tolerance": _TOLERANCE,
            "earliest": _EARLIEST,
            "latest": now + _SKEW,
        },
    )


def _select(schema: pa.Schema, columns: Sequence[str]) -> str:
    """A query of `batch` that gives the columns of `entry`."""
    there = {name: schema.field(name).type for name in columns}
    scored = {name: origin for name, origin in SCORED.items() if origin in there}
    origins = {name: scored.get(name, name) for name in _PLAIN}
    found = {
        name: f"TRY_CAST({_cell(origin, there[origin])} AS {_PLAIN[name]})"
        for name, origin in origins.items()
        if origin in there
    }
    found["place"] = '"row number"'
    if "time" in there:
        found["time"] = as_time(there["time"])
    marks = []
    if "shadow_of" in there:
        marks.append(f"{_cell('shadow_of', there['shadow_of'])} IS NOT NULL")
    if "route" in there:
        marks.append(f"coalesce({_cell('route', there['route'])} = 'shadow', false)")
    found["shadow"] = " OR ".join(marks) or "false"
    if "text_sha256" in there:
        found["digest"] = _cell("text_sha256", there["text_sha256"])
    elif "text" in there:
        found["digest"] = f"sha256({_cell('text', there['text'])})"
    given = _probabilities(there)
    found["p"] = (
        f"CASE WHEN cardinality({given}) > 0 THEN"
        f" list_transform($classes, lambda name: {given}[name]) END"
    )
    named = f"list_filter(map_keys({given}), lambda name: {given}[name] IS NOT NULL)"
    found["foreign_class"] = f"coalesce(NOT list_has_all($classes, {named}), false)"
    values = ", ".join(f"{value} AS {name}" for name, value in found.items())
    return f"SELECT {values} FROM batch"  # noqa: S608 names are quoted


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cell(name: str, kind: pa.DataType) -> str:
    """A value, as a string unless it is a number or a boolean; null for an empty string."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return _quoted(name)
    return f"nullif(CAST({_quoted(name)} AS VARCHAR), '')"


def as_time(kind: pa.DataType) -> str:
    """A query of a column `time` of some type, which gives times of UTC.

    A number is seconds or milliseconds since 1970, a text ISO 8601 or a number.
    """
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "CAST(time AS TIMESTAMP)"
    number = "TRY_CAST(time AS DOUBLE)"
    since = (
        f"CASE WHEN abs({number}) < 1e11 THEN make_timestamp(CAST({number} * 1e6 AS BIGINT))"
        f" WHEN abs({number}) < 1e14 THEN make_timestamp(CAST({number} * 1e3 AS BIGINT)) END"
    )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return since
    iso = "CAST(TRY_CAST(CAST(time AS VARCHAR) AS TIMESTAMPTZ) AS TIMESTAMP)"
    return f"coalesce({iso}, {since})"


def _probabilities(there: dict[str, pa.DataType]) -> str:
    """As a map from classes."""
    if "probabilities" in there:
        kind = there["probabilities"]
        if pa.types.is_map(kind):
            return f"CAST(probabilities AS {_MAP})"
        if pa.types.is_struct(kind):
            return f"TRY_CAST(to_json(probabilities) AS {_MAP})"
        return f"TRY_CAST(TRY_CAST({_cell('probabilities', kind)} AS JSON) AS {_MAP})"
    columns = [name for name in there if name.startswith(_PROBABILITY)]
    if not columns:
        return f"CAST(NULL AS {_MAP})"
    keys = ", ".join(
        "'" + name.removeprefix(_PROBABILITY).replace("'", "''") + "'" for name in columns
    )
    values = ", ".join(f"TRY_CAST({_cell(name, there[name])} AS DOUBLE)" for name in columns)
    return f"MAP([{keys}], [{values}])"
