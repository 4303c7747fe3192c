"""Second pass: which split and group each row belongs to, over the whole table.

All of it is SQL over what the first pass noted of each row; DuckDB goes to disk where
memory ends. Splits are drawn by duplicate group, stratified by class, from the groups'
hashes: the order and the cutting of the input do not matter.
"""

from typing import TYPE_CHECKING, Any

from fakenews.data.checks import WEIGHT
from fakenews.data.duplicates import group_sketches
from fakenews.data.manifest import write_json
from fakenews.data.sources import classes_of, weight_faults
from fakenews.errors import DataError
from fakenews.preparation.recipe import Recipe
from fakenews.preparation.work import Work, drafted, told

if TYPE_CHECKING:
    import duckdb

REPEATED = "training row repeats a validation or test row"
"""Why an official training row is left out."""

# Of a categorical column, those that a training may choose from by `max_categories`.
_MOST_CATEGORIES = 1_000

# Rows of the assignment that are read at once when a bucket looks for its own.
_ROW_GROUP = 65_536


def assign(work: Work, *, memory: str) -> dict[str, Any]:
    """Group the rows, draw the splits, and count.

    Args:
        work: Has the chunks; gets `assignment.parquet` (`ord`, `id`, `split`, `grp`, sorted)
            and the facts.
        memory: Most that DuckDB takes before it goes to disk, as in `1GB`.

    Returns:
        The facts: `classes`, `positive`, `counts`, `rows`, `repeated`, `categories`, and the
        `duplicates` of the audit.

    Raises:
        DataError: The table has no two usable classes, a split lacks one, or the disk is full.
    """
    import duckdb

    recipe = work.recipe()
    with told(work.path), _database(work, memory) as database:
        try:
            database.read_parquet(str(work.sketches / "*.parquet")).create_view("sketch")
            return _assign(database, work, recipe)
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise DataError(
                f"{work.database}: grouping needs more room ({str(error).splitlines()[0]}): "
                "free the disk or raise prepare.memory, and run again to go on"
            ) from error


def _database(work: Work, memory: str) -> "duckdb.DuckDBPyConnection":
    import duckdb

    work.database.mkdir(parents=True, exist_ok=True)
    return duckdb.connect(
        config={
            "memory_limit": memory,
            "temp_directory": str(work.database),
            "preserve_insertion_order": "false",
        }
    )


def _assign(
    database: "duckdb.DuckDBPyConnection", work: Work, recipe: Recipe
) -> dict[str, Any]:
    labels = dict(_rows(database, "SELECT label, count(*) FROM sketch GROUP BY label"))
    classes, positive = classes_of(labels, recipe.positive)
    if recipe.near_duplicates < 1:
        group_sketches(database, threshold=recipe.near_duplicates)
    else:
        database.execute("CREATE TABLE duplicate_group (key BIGINT, grp BIGINT)")
    database.execute(
        "CREATE TABLE line AS SELECT id, ord, label, role, raw_hash, text_hash,"
        " coalesce(grp, key) AS grp FROM sketch LEFT JOIN duplicate_group USING (key)"
    )
    _draw(database, recipe)
    with drafted(work.assignment) as draft:
        found = database.sql(
            "SELECT ord, id, split, grp FROM line JOIN drawn USING (grp, role)"
            " WHERE split <> 'dropped' ORDER BY ord, id"
        )
        found.write_parquet(str(draft), row_group_size=_ROW_GROUP)
    counts = _counts(database, classes)
    facts = {
        "classes": classes,
        "positive": positive,
        "counts": counts,
        "rows": sum(sum(rows.values()) for rows in counts.values()),
        "repeated": _one(
            database,
            "SELECT count(*) FROM line JOIN drawn USING (grp, role) WHERE split = 'dropped'",
        ),
        "categories": {name: _categories(database, name) for name in recipe.categorical},
        "duplicates": _duplicates(database),
    }
    faults = _missing(counts, classes, recipe)
    if recipe.weight is not None and not faults:
        totals = _rows(
            database,
            f"SELECT label, sum({WEIGHT}) FROM sketch JOIN line USING (id, label, role)"  # noqa: S608 ours
            " JOIN drawn USING (grp, role) WHERE split = 'train' GROUP BY label ORDER BY label",
        )
        faults = weight_faults(dict(totals), recipe.weight)
    if faults:
        raise DataError(faults)
    write_json(work.facts, facts)
    return facts


def _draw(database: "duckdb.DuckDBPyConnection", recipe: Recipe) -> None:
    """Make `drawn`: the split of the rows of each group and role."""
    roles = {row[0] for row in _rows(database, "SELECT DISTINCT role FROM line")}
    val = 0.0 if "val" in roles else recipe.val_size
    test = 0.0 if "test" in roles else recipe.test_size
    shift = 0.0
    if recipe.folds is not None and "test" not in roles:
        test, shift = 1 / recipe.folds, recipe.fold / recipe.folds
    # A group goes with its rarest class: what is scarce must be shared out most evenly.
    database.execute(
        "CREATE TABLE bunch AS"
        " WITH total AS (SELECT label, count(*) AS n FROM line GROUP BY label)"
        " SELECT grp, count(*) AS n, arg_min(label, (total.n, label)) AS stratum,"
        "   bool_or(role <> 'train') AS official"
        " FROM line JOIN total USING (label) GROUP BY grp"
    )
    # Where each group's middle row stands among all of its stratum, in [0, 1).
    database.execute(
        "CREATE TABLE placed AS SELECT grp, (place - ? + 1) % 1 AS place FROM ("
        "  SELECT grp, (sum(n) OVER (PARTITION BY stratum ORDER BY draw, grp"
        "    ROWS UNBOUNDED PRECEDING) - n / 2) / sum(n) OVER (PARTITION BY stratum) AS place"
        "  FROM (SELECT *, md5(?::VARCHAR || grp::VARCHAR) AS draw FROM bunch"
        "    WHERE NOT official))",
        [shift, f"{recipe.seed} "],
    )
    database.execute(
        "CREATE TABLE drawn AS"
        " SELECT DISTINCT grp, role, role AS split FROM line WHERE role <> 'train'"
        " UNION ALL SELECT grp, 'train', 'dropped' FROM bunch WHERE official"
        " UNION ALL SELECT grp, 'train',"
        "   CASE WHEN place < ? THEN 'test' WHEN place < ? THEN 'val' ELSE 'train' END"
        " FROM placed",
        [test, test + val],
    )


def _counts(
    database: "duckdb.DuckDBPyConnection", classes: list[str]
) -> dict[str, dict[str, int]]:
    found = {
        (split, label): n
        for split, label, n in _rows(
            database,
            "SELECT split, label, count(*) FROM line JOIN drawn USING (grp, role)"
            " WHERE split <> 'dropped' GROUP BY split, label",
        )
    }
    return {
        split: {label: found.get((split, label), 0) for label in classes}
        for split in ("train", "val", "test")
        if any((split, label) in found for label in classes)
    }


def _missing(
    counts: dict[str, dict[str, int]], classes: list[str], recipe: Recipe
) -> list[str]:
    needed = {"train"} | set(counts)
    needed |= {"val"} if recipe.val_size else set()
    needed |= {"test"} if recipe.test_size or recipe.folds else set()
    return [
        f"the {split} split has no row of class {label!r}: add rows, give it a larger share, "
        "or raise data.near_duplicates if one group holds most rows"
        for split in ("train", "val", "test")
        for label in classes
        if split in needed and not counts.get(split, {}).get(label)
    ]


def _categories(database: "duckdb.DuckDBPyConnection", name: str) -> list[str]:
    """The most frequent values of a column among the training rows."""
    column = '"column ' + name.replace('"', '""') + '"'
    return [
        row[0]
        for row in _rows(
            database,
            f"SELECT {column} AS value FROM sketch JOIN line USING (id)"  # noqa: S608 quoted
            " JOIN drawn ON line.grp = drawn.grp AND line.role = drawn.role"
            " WHERE split = 'train' AND value <> '' GROUP BY value"
            f" ORDER BY count(*) DESC, value LIMIT {_MOST_CATEGORIES}",
        )
    ]


def _duplicates(database: "duckdb.DuckDBPyConnection") -> dict[str, int]:
    """What the audit says of repeats, over all rows."""
    names = (
        "rows",
        "exact_duplicates",
        "groups",
        "largest_group",
        "conflicting_groups",
        "conflicting_texts",
    )
    (row,) = _rows(
        database,
        "WITH grouped AS (SELECT count(*) AS n, count(DISTINCT label) AS labels"
        "   FROM line GROUP BY grp),"
        " texts AS (SELECT count(*) AS n, count(DISTINCT label) AS labels"
        "   FROM line GROUP BY text_hash),"
        " raws AS (SELECT 1 FROM line GROUP BY raw_hash)"
        " SELECT (SELECT count(*) FROM line),"
        "   (SELECT count(*) FROM line) - (SELECT count(*) FROM raws),"
        "   (SELECT count(*) FROM grouped), (SELECT max(n) FROM grouped),"
        "   (SELECT coalesce(sum(n), 0) FROM grouped WHERE labels > 1),"
        "   (SELECT coalesce(sum(n), 0) FROM texts WHERE labels > 1)",
    )
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def _rows(database: "duckdb.DuckDBPyConnection", query: str) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def _one(database: "duckdb.DuckDBPyConnection", query: str) -> Any:
    return _rows(database, query)[0][0]
