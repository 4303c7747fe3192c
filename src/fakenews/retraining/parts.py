"""A version's files, written in batches: memory does not depend on how many rows there are."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fakenews.retraining.base import Base
from fakenews.retraining.manifest import describe
from fakenews.retraining.rows import Columns, PartWriter, parquet_writer, read_batches
from fakenews.retraining.selection import TRAIN, WINDOW

FEEDBACK = "feedback.parquet"
LEFT_OUT = "left_out.parquet"
ISSUES = "label_issues.csv"

_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much labelled rows count.

    Attributes:
        weight: Of the newest.
        half_life_days: After so long, half of that; None: all count the same.
        newest: Time of the newest, in UTC without a zone; None where none has a time.
    """

    weight: float
    half_life_days: float | None
    newest: datetime | None

    def of(self, times: pa.ChunkedArray) -> NDArray[np.float64]:
        """The weights of rows of these times; of one without a time as of the newest."""
        weights = np.full(len(times), self.weight, dtype=np.float64)
        if self.half_life_days is None or self.newest is None:
            return weights
        end = self.newest.replace(tzinfo=UTC)
        for row, when in enumerate(times.to_pylist()):
            if when is not None:
                days = (end - when).total_seconds() / _DAY
                weights[row] *= 0.5 ** (days / self.half_life_days)
        return weights


@dataclass
class Written:
    """What was written.

    Attributes:
        files: Path -> `sha256`, `bytes`, `rows`.
        rows: Part -> source -> class -> rows.
        left_out: Reason -> source -> rows.
    """

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)


def write_parts(
    draft: Path,
    base: Base,
    feedback: Path,
    *,
    outcomes: Sequence[str],
    removed: Mapping[int, str],
    weights: Weights,
) -> Written:
    """Write all files but the manifest.

    Args:
        draft: Folder of the version.
        base: To start from.
        feedback: All labelled rows, sorted.
        outcomes: Of these, in order.
        removed: Places in the base that are left out -> why.
        weights: Of labelled rows.

    Raises:
        OSError: The disk is full.
    """
    schema = base.columns.schema
    written = Written()
    told = np.array(outcomes, dtype=object)
    with PartWriter(draft, TRAIN, schema) as train, PartWriter(draft, WINDOW, schema) as window:
        for kept in _of_base(draft, base, removed):
            train.write(kept)
        for table, part in _of_feedback(draft, base.columns, feedback, told, weights):
            train.write(table.filter(pa.array(part == TRAIN)))
            window.write(table.filter(pa.array(part == WINDOW)))
    for writer in (train, window):
        if writer.rows:
            written.rows[writer.part] = writer.rows
            written.files |= writer.files
    _write_test(draft, base, written)
    for name in (FEEDBACK, LEFT_OUT, ISSUES):
        if (draft / name).is_file():
            rows = 0 if name == ISSUES else pq.read_metadata(draft / name).num_rows
            written.files[name] = describe(draft / name, rows=rows)
    unused = [outcome for outcome in outcomes if outcome not in (TRAIN, WINDOW)]
    for source, reasons in (("base", removed.values()), ("feedback", unused)):
        for reason in reasons:
            counted = written.left_out.setdefault(reason, {})
            counted[source] = counted.get(source, 0) + 1
    return written


def _of_base(draft: Path, base: Base, removed: Mapping[int, str]) -> Iterator[pa.Table]:
    """The rows of the base that stay; those that do not are written apart."""
    if not removed:
        yield from base.batches("base")
        return
    told = [("_place", pa.int64()), ("_reason", pa.string())]
    schema = pa.schema([*told, *base.columns.schema])
    out = np.fromiter(removed, dtype=np.int64, count=len(removed))
    start = 0
    with parquet_writer(draft / LEFT_OUT, schema) as writer:
        for table in base.batches("base"):
            places = np.arange(start, start + table.num_rows)
            start += table.num_rows
            left = np.isin(places, out)
            yield table.filter(pa.array(~left))
            if left.any():
                reasons = [removed[place] for place in places[left].tolist()]
                apart = table.filter(pa.array(left))
                columns = [pa.array(places[left]), pa.array(reasons, pa.string())]
                writer.write_table(
                    pa.table([*columns, *apart.columns], names=schema.names).cast(schema)
                )


def _of_feedback(
    draft: Path, columns: Columns, feedback: Path, told: NDArray[np.object_], weights: Weights
) -> Iterator[tuple[pa.Table, NDArray[np.object_]]]:
    """Labelled rows as rows of a part, with their outcomes; all are written down with these."""
    schema, noted = columns.schema, columns.feedback_schema
    place = noted.get_field_index("_outcome")
    start = 0
    with parquet_writer(draft / FEEDBACK, noted) as writer:
        for table in read_batches([feedback], noted.names):
            part = told[start : start + table.num_rows]
            start += table.num_rows
            outcome = pa.array(part.tolist(), pa.string())
            writer.write_table(table.set_column(place, noted.field(place), outcome))
            given = {name: table[name] for name in table.column_names}
            given["weight"] = pa.array(weights.of(table["time"]))
            given["source"] = pa.repeat(pa.scalar("feedback"), table.num_rows)
            rows = pa.table([given[name] for name in schema.names], names=schema.names)
            yield rows.cast(schema), part


def _write_test(draft: Path, base: Base, written: Written) -> None:
    """The frozen test set: made once, and copied from then on."""
    if base.parent is None or base.folder is None:
        with PartWriter(draft, "test", base.columns.schema) as writer:
            for table in base.batches("test"):
                writer.write(table)
        written.files |= writer.files
        written.rows["test"] = writer.rows
        return
    (draft / "test").mkdir()
    for path, told in base.parent.files.items():
        if path.startswith("test/"):
            shutil.copyfile(base.folder / path, draft / path)
            written.files[path] = told
    written.rows["test"] = base.parent.rows["test"]
