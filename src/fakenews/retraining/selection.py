"""Which labelled rows are trained on, which are held out, and which are left out, and why.

All of it is SQL over what is noted of each row, inside a database that goes to disk where
memory ends:

    sketch   of each text: `part` (base, test or feedback), `place` there, `label`, and what
             `duplicates.sketch` says
    line     the same by near-duplicate group (`grp`); equal texts have one `key`
    pool     labelled rows with their `outcome`, which is null for those still to be trained on
    removed  rows of the base that are left out, with a `reason`
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from fakenews.data.cleaning import Cleaning
from fakenews.data.duplicates import group_sketches, sketch
from fakenews.retraining.rows import BATCH, parquet_writer

TRAIN, WINDOW = "train", "window"
"""Outcomes of rows that are used; others are reasons why they are not."""

EMPTY = "no text that can be read"
UNKNOWN = "a class that is none of the base's"
CONFLICT = "the same text has several classes"
OUTVOTED = "other labels of the same text count more"
REPEATED = "the same text and class as another labelled row"
FLOOD = "too many from one user"
NEAR_TEST = "near-duplicate of a frozen test row"
NEAR_WINDOW = "near-duplicate of a row of the window"
IN_BASE = "the same text and class as a row of the base"
OVERRULED = "feedback says another class of the same text"
DOUBTED = "the audit doubts the label"

# So many rows of one user are no flood, however few there are of others.
_ALWAYS = 20
# A window takes at most this part of the labelled rows: there must be something to learn.
_WINDOW_PART = 2


def write_sketches(
    path: Path, part: str, tables: Iterable[pa.Table], *, cleaning: Cleaning, threshold: float
) -> int:
    """Note what grouping needs of rows, in order; returns how many there are.

    Args:
        path: Is written.
        part: They are of.
        tables: With `text` and `label`.
        cleaning: As training cleans texts.
        threshold: Of near-duplicates.
    """
    place = 0
    writer = None
    with ExitStack() as stack:
        for rows in tables:
            texts = cleaning(rows["text"].to_pylist()).texts
            found = sketch(texts, threshold=threshold)
            places = range(place, place + len(texts))
            for name, values in (
                ("label", pa.array(rows["label"].to_pylist(), pa.string())),
                ("empty", pa.array([not text for text in texts], pa.bool_())),
                ("part", pa.array([part] * len(texts), pa.string())),
                ("place", pa.array(places, pa.int64())),
            ):
                found = found.append_column(name, values)
            if writer is None:
                writer = stack.enter_context(parquet_writer(path, found.schema))
            writer.write_table(found)
            place += len(texts)
    return place


def sort_feedback(
    database: duckdb.DuckDBPyConnection, read: Sequence[Path], path: Path, schema: pa.Schema
) -> None:
    """Write labelled rows of several files as one, in an order that is theirs alone.

    A row that is in several files, or in one twice, is there once: by its id, where it has one
    (that of the first file counts, and in one file that of higher rank), else by all it says.

    Args:
        database: With no tables of these names.
        read: The files; the newest knowledge first.
        path: Is written.
        schema: As of `Columns.feedback_schema`.
    """
    names = [name for name in schema.names if name != "_outcome"]
    columns = ", ".join(map(_quoted, names))
    union = " UNION ALL ".join(
        f"SELECT {columns}, {number} AS _file FROM read_parquet('{_escaped(file)}')"  # noqa: S608 quoted
        for number, file in enumerate(read)
    )
    database.execute(
        f"CREATE TEMP VIEW given AS SELECT * FROM ({union})"  # noqa: S608 quoted
    )
    rows = database.sql(
        f"SELECT {columns}, CAST(NULL AS VARCHAR) AS _outcome FROM ("  # noqa: S608 quoted
        f"  SELECT * FROM given WHERE id IS NOT NULL QUALIFY row_number() OVER"
        f"    (PARTITION BY id ORDER BY _file, _rank DESC, time, text, label) = 1"
        f"  UNION ALL BY NAME"
        f"  SELECT * EXCLUDE (_file), 0 AS _file FROM given WHERE id IS NULL"
        f"    QUALIFY row_number() OVER (PARTITION BY {columns} ORDER BY _file) = 1)"
        f" ORDER BY time NULLS FIRST, id NULLS FIRST, {columns}"
    )
    with parquet_writer(path, schema) as writer:
        for batch in rows.to_arrow_reader(BATCH):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def make_tables(
    database: duckdb.DuckDBPyConnection, sketches: Path, feedback: Path, *, threshold: float
) -> None:
    """Make `line`, `pool` and `removed`; group near-duplicates over all parts together.

    Args:
        database: With no tables of these names.
        sketches: Folder of what `write_sketches` wrote.
        feedback: What `sort_feedback` wrote.
        threshold: Of near-duplicates.
    """
    database.read_parquet(str(sketches / "*.parquet")).create_view("sketch")
    if threshold < 1:
        group_sketches(database, threshold=threshold)
    else:
        database.execute("CREATE TABLE duplicate_group (key BIGINT, grp BIGINT)")
    database.execute(
        "CREATE TABLE line AS SELECT part, place, label, key, coalesce(grp, key) AS grp, empty"
        " FROM sketch LEFT JOIN duplicate_group USING (key)"
    )
    database.execute(
        "CREATE TABLE pool AS SELECT line.place, label, key, grp, id, time, said_by, rank,"  # noqa: S608 ours
        " CASE WHEN empty THEN $empty END AS outcome"
        " FROM line JOIN ("
        "   SELECT file_row_number AS place, id, CAST(time AS TIMESTAMP) AS time,"
        "     _user AS said_by, _rank AS rank"
        f"   FROM read_parquet('{_escaped(feedback)}', file_row_number = true)"
        " ) USING (place) WHERE part = 'feedback'",
        {"empty": EMPTY},
    )
    database.execute("CREATE TABLE removed (place BIGINT, reason VARCHAR)")


def choose(
    database: duckdb.DuckDBPyConnection,
    *,
    classes: Sequence[str],
    majority: bool,
    max_share: float | None,
    window_rows: int,
) -> None:
    """Settle which labelled rows count, and which of them are the window.

    Args:
        database: See `make_tables`.
        classes: Of the base.
        majority: Of several classes of one text that of most people counts; otherwise none.
        max_share: Of the labelled rows that one user may have; None: all.
        window_rows: Of the newest that are held out.
    """
    database.execute(
        "UPDATE pool SET outcome = $unknown WHERE outcome IS NULL"
        " AND NOT list_contains($classes, label)",
        {"unknown": UNKNOWN, "classes": list(classes)},
    )
    _settle_conflicts(database, majority=majority)
    if max_share is not None:
        _cap(database, max_share)
    (live,) = database.execute(
        "SELECT count(*) FROM pool WHERE outcome IS NULL"
    ).fetchone() or (0,)
    database.execute(
        "UPDATE pool SET outcome = $window WHERE place IN ("
        "  SELECT place FROM pool WHERE outcome IS NULL"
        "  ORDER BY time DESC NULLS LAST, place DESC LIMIT $rows)",
        {"window": WINDOW, "rows": min(window_rows, live // _WINDOW_PART)},
    )
    held_out = {
        NEAR_TEST: "SELECT grp FROM line WHERE part = 'test'",
        NEAR_WINDOW: f"SELECT grp FROM pool WHERE outcome = '{WINDOW}'",  # noqa: S608 ours
    }
    for reason, groups in held_out.items():
        database.execute(
            f"UPDATE pool SET outcome = $reason WHERE outcome IS NULL AND grp IN ({groups})",  # noqa: S608 ours
            {"reason": reason},
        )
        database.execute(
            "INSERT INTO removed SELECT place, $reason FROM line"  # noqa: S608 ours
            f" WHERE part = 'base' AND grp IN ({groups})"
            " AND place NOT IN (SELECT place FROM removed)",
            {"reason": reason},
        )


def doubt(database: duckdb.DuckDBPyConnection, places: Sequence[int]) -> None:
    """Leave out labelled rows whose labels are doubted, but for those of the window."""
    database.execute(
        "UPDATE pool SET outcome = $reason WHERE outcome IS NULL"
        " AND list_contains($places, place)",
        {"reason": DOUBTED, "places": list(places)},
    )


def settle_with_base(database: duckdb.DuckDBPyConnection, *, majority: bool) -> None:
    """Settle texts that both the base and labelled rows have; all others are trained on.

    Args:
        database: After `choose`.
        majority: Labelled rows are newer, and count; otherwise neither does.
    """
    database.execute(
        "CREATE TEMP TABLE shared AS"
        " SELECT pool.place AS place, pool.label AS label, line.place AS base,"
        "   line.label AS before"
        " FROM pool JOIN line USING (key)"
        " WHERE part = 'base' AND outcome IS NULL"
        "   AND line.place NOT IN (SELECT place FROM removed)"
    )
    database.execute("CREATE TEMP VIEW contrary AS SELECT * FROM shared WHERE label <> before")
    if majority:
        database.execute(
            "INSERT INTO removed SELECT DISTINCT base, $reason FROM contrary",
            {"reason": OVERRULED},
        )
    else:
        database.execute(
            "INSERT INTO removed SELECT DISTINCT base, $reason FROM shared"
            " WHERE place IN (SELECT place FROM contrary)",
            {"reason": CONFLICT},
        )
        database.execute(
            "UPDATE pool SET outcome = $reason WHERE place IN (SELECT place FROM contrary)",
            {"reason": CONFLICT},
        )
    database.execute(
        "UPDATE pool SET outcome = $reason WHERE outcome IS NULL"
        " AND place IN (SELECT place FROM shared WHERE label = before)",
        {"reason": IN_BASE},
    )
    database.execute("DROP VIEW contrary")
    database.execute("DROP TABLE shared")
    database.execute("UPDATE pool SET outcome = $train WHERE outcome IS NULL", {"train": TRAIN})


def outcomes(database: duckdb.DuckDBPyConnection) -> list[str | None]:
    """The outcome of each labelled row, by place."""
    return [
        row[0] for row in database.execute("SELECT outcome FROM pool ORDER BY place").fetchall()
    ]


def labels(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Labelled rows by label, the most first."""
    return dict(
        database.execute(
            "SELECT label, count(*) FROM pool GROUP BY label ORDER BY count(*) DESC, label"
        ).fetchall()
    )


def newest(database: duckdb.DuckDBPyConnection) -> datetime | None:
    """The time of the newest labelled row, in UTC without a zone; None if none has any."""
    row = database.execute("SELECT max(time) FROM pool").fetchone()
    return None if row is None else row[0]


def removed(database: duckdb.DuckDBPyConnection) -> Mapping[int, str]:
    """Places in the base that are left out -> why."""
    return dict(database.execute("SELECT place, reason FROM removed ORDER BY place").fetchall())


# --- rules ------------------------------------------------------------------------------------


def _settle_conflicts(database: duckdb.DuckDBPyConnection, *, majority: bool) -> None:
    # Only those of the highest rank have a vote. One user has one vote a text; who is not known
    # is somebody else each time.
    database.execute(
        "CREATE TEMP TABLE vote AS"
        " WITH counted AS ("
        "   SELECT key, label,"
        "     count(DISTINCT coalesce('u' || said_by, 'p' || place::VARCHAR)) AS votes"
        "   FROM (SELECT * FROM pool WHERE outcome IS NULL"
        "     QUALIFY rank = max(rank) OVER (PARTITION BY key))"
        "   GROUP BY key, label)"
        " SELECT key, arg_max(label, votes) AS winner,"
        "   count(*) > 1 AND ($drop OR count(*) FILTER (votes = most) > 1) AS open"
        " FROM (SELECT *, max(votes) OVER (PARTITION BY key) AS most FROM counted)"
        " GROUP BY key",
        {"drop": not majority},
    )
    database.execute(
        "UPDATE pool SET outcome = CASE WHEN open THEN $conflict ELSE $outvoted END FROM vote"
        " WHERE vote.key = pool.key AND outcome IS NULL AND (open OR label <> winner)",
        {"conflict": CONFLICT, "outvoted": OUTVOTED},
    )
    database.execute(
        "UPDATE pool SET outcome = $repeated WHERE place IN ("
        "  SELECT place FROM pool WHERE outcome IS NULL QUALIFY row_number() OVER"
        "    (PARTITION BY key ORDER BY rank DESC, time DESC NULLS LAST, place DESC) > 1)",
        {"repeated": REPEATED},
    )
    database.execute("DROP TABLE vote")


def _cap(database: duckdb.DuckDBPyConnection, max_share: float) -> None:
    counts = dict(
        database.execute(
            "SELECT said_by, count(*) FROM pool WHERE outcome IS NULL GROUP BY said_by"
        ).fetchall()
    )
    others = counts.pop(None, 0)
    limit = most_of_one(list(counts.values()), others=others, max_share=max_share)
    database.execute(
        "UPDATE pool SET outcome = $reason WHERE place IN ("
        "  SELECT place FROM pool WHERE outcome IS NULL AND said_by IS NOT NULL"
        "  QUALIFY row_number() OVER"
        "    (PARTITION BY said_by ORDER BY time DESC NULLS LAST, place DESC) > $limit)",
        {"reason": FLOOD, "limit": limit},
    )


def most_of_one(counts: Sequence[int], *, others: int, max_share: float) -> int:
    """How many rows of one user count, so that none has more than a share of all that do.

    A few rows always count. Where there is but one user and nobody else, all do: there is
    nobody to be drowned.

    Args:
        counts: Rows of each user.
        others: Rows of whom is not known.
        max_share: Of all rows that count.
    """
    most = max(counts, default=0)
    if len(counts) == 1 and not others:
        return most
    while (allowed := int(max_share * (others + sum(min(n, most) for n in counts)))) < most:
        most = allowed
    return max(most, _ALWAYS)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")
