"""True classes of predictions, which come late: by feedback, and by files of labels.

`truth` has one row an id: its `label`, the `source` (`FEEDBACK` or `LABELS`), and who says so,
as `said_by`, where a column `user` tells. A file of labels outranks feedback; of several of one
id the latest counts, by `time` where there is one, else by its place.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa

from fakenews.errors import DataError, MonitoringError
from fakenews.monitoring.entries import SCORED
from fakenews.monitoring.files import LogFiles

_BATCH = 65_536
_COLUMNS = ("id", "label", "time", "verdict", "predicted", "user")

FEEDBACK, LABELS = 0, 1
"""Where a label is from; the higher outranks the lower."""

# What a person says of a prediction. Wrong alone names the class only where there are two,
# and who is unsure, or has become so, names none.
_SAID = """
CASE
  WHEN verdict = 'unsure' THEN NULL
  WHEN label <> '' THEN label
  WHEN verdict = 'correct' THEN predicted
  WHEN verdict = 'wrong' AND len($classes) = 2 AND list_contains($classes, predicted)
    THEN $classes[3 - list_position($classes, predicted)]
END"""


class _Source(NamedTuple):
    rank: int
    needed: tuple[str, ...]  # id first
    label: str  # an expression


_FEEDBACK = _Source(FEEDBACK, ("id", "verdict", "predicted"), _SAID)
_LABELS = _Source(LABELS, ("id", "label"), "nullif(label, '')")


def read_truth(
    database: duckdb.DuckDBPyConnection,
    *,
    feedback: LogFiles | None,
    labels: LogFiles | None,
    classes: Sequence[str],
) -> list[str]:
    """Make `truth` (`id`, `label`, `source`, `said_by`).

    Args:
        database: Gets it.
        feedback: Of a deployment, if there is any.
        labels: Tables with `id` and `label`, if there are any.
        classes: Of the model; other labels are left out.

    Returns:
        What is wrong, as sentences.

    Raises:
        DataError: A folder cannot be listed.
        MonitoringError: No table of labels can be read.
    """
    database.execute(
        "CREATE TABLE said (source INTEGER, said_at TIMESTAMP, place BIGINT,"
        " id VARCHAR, label VARCHAR, said_by VARCHAR)"
    )
    database.execute("CREATE SEQUENCE place")
    notices = []
    if feedback is not None:
        notices += _read(database, feedback, _FEEDBACK, classes)
    if labels is not None:
        wrong = _read(database, labels, _LABELS, classes)
        if not _count(database, LABELS):
            if wrong:
                raise MonitoringError(
                    f"labels: {wrong[0]}; a table of true labels has the columns id (or "
                    "prediction_id) and label"
                )
            wrong = [f"{labels.where}: there are no true labels"]
        notices += [*wrong, *_contradictions(database)]
    database.execute(
        "CREATE TABLE truth AS SELECT id, label, source, said_by FROM said"
        " QUALIFY row_number() OVER"
        "   (PARTITION BY id ORDER BY source DESC, said_at DESC NULLS LAST, place DESC) = 1"
    )
    foreign = database.execute(
        "SELECT label, count(*) FROM truth WHERE NOT list_contains($classes, label)"
        " GROUP BY label ORDER BY count(*) DESC, label",
        {"classes": list(classes)},
    ).fetchall()
    if foreign:
        names = ", ".join(str(name)[:60] for name, _ in foreign[:5])
        notices.append(
            f"{sum(count for _, count in foreign):,} true labels are left out, which are none "
            f"of the model's classes: {names}"
        )
    database.execute(
        "DELETE FROM truth WHERE label IS NULL OR NOT list_contains($classes, label)",
        {"classes": list(classes)},
    )
    return notices


def _contradictions(database: duckdb.DuckDBPyConnection) -> list[str]:
    """Predictions with several labels at one time: what is later mends what was before."""
    found = database.execute(
        "SELECT count(*) OVER (), id FROM said WHERE source = ? AND label IS NOT NULL"
        " GROUP BY id, said_at HAVING count(DISTINCT label) > 1 ORDER BY id LIMIT 3",
        [LABELS],
    ).fetchall()
    if not found:
        return []
    count = found[0][0]
    ids = ", ".join(str(key)[:60] for _, key in found)
    predictions = f"{count:,} prediction{'s' * (count != 1)}"
    return [f"labels contradict each other for {predictions}, and the last one counts: {ids}"]


def _read(
    database: duckdb.DuckDBPyConnection,
    files: LogFiles,
    source: _Source,
    classes: Sequence[str],
) -> list[str]:
    notices = []
    for file in sorted(files.list(), key=lambda file: file.path):
        try:
            with files.parquet(file) as (reader, damaged):
                # Of a table that was scored, `id` is a column of whoever had that done.
                names = reader.schema_arrow.names
                key = SCORED["id"] if source is _LABELS and SCORED["id"] in names else "id"
                missing = [name for name in (key, *source.needed[1:]) if name not in names]
                if missing:
                    notices.append(
                        f"{files.name(file)} has no column {' and none '.join(missing)}: it is "
                        "left out"
                    )
                    continue
                wanted = [name for name in (key, *_COLUMNS[1:]) if name in names]
                batches = reader.iter_batches(_BATCH, columns=wanted)
                _insert(database, (_keyed(batch, key) for batch in batches), source, classes)
                if damaged:
                    notices.append(
                        f"{files.name(file)}: {damaged:,} damaged lines are left out"
                    )
        except DataError as error:
            notices.append(f"{error}; it is left out")
    return notices


def _insert(
    database: duckdb.DuckDBPyConnection,
    batches: Iterable[pa.RecordBatch],
    source: _Source,
    classes: Sequence[str],
) -> None:
    for batch in batches:
        columns = ", ".join(
            f"CAST({_cell(name) if name in batch.schema.names else 'NULL'} AS VARCHAR)"
            f" AS {_cell(name)}"
            for name in _COLUMNS
        )
        database.register("batch", pa.Table.from_batches([batch]))
        database.execute(
            f"INSERT INTO said SELECT $source,"  # noqa: S608 expressions of ours
            f" CAST(TRY_CAST(time AS TIMESTAMPTZ) AS TIMESTAMP), nextval('place'), id,"
            f" {source.label}, nullif({_cell('user')}, '')"
            f" FROM (SELECT {columns} FROM batch) WHERE id <> '' AND $classes IS NOT NULL",
            {"source": source.rank, "classes": list(classes)},
        )
        database.unregister("batch")


def _keyed(batch: pa.RecordBatch, key: str) -> pa.RecordBatch:
    return batch.rename_columns(["id" if name == key else name for name in batch.schema.names])


def _count(database: duckdb.DuckDBPyConnection, source: int) -> int:
    (row,) = database.execute("SELECT count(*) FROM said WHERE source = ?", [source]).fetchall()
    return int(row[0])


def _cell(name: str) -> str:
    return f'"{name}"'  # `user` is a word of SQL
