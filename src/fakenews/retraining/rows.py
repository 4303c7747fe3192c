"""Rows of a retraining dataset: their columns, and files of them, written in batches."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fakenews.data.checks import number
from fakenews.errors import RetrainingError
from fakenews.retraining.manifest import describe

BATCH = 8192
"""Rows that are held together."""

SOURCES = ("base", "feedback")
OWN = ("text", "label", "weight", "source", "id", "time")
"""Columns that every row has, beside the extra ones."""

_TIME = pa.timestamp("us", tz="UTC")
_GROUP_ROWS = 16_384
_FILE_ROWS = 64 * _GROUP_ROWS
# What a labelled row has beside these, in `feedback.parquet` alone.
_TOLD = {"_user": pa.string(), "_rank": pa.int64(), "_outcome": pa.string()}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The extra columns of a dataset.

    Attributes:
        numeric: Of numbers, which may be missing.
        categorical: Of strings, empty where there is none.

    Raises:
        RetrainingError: One has the name of a column that every row has.
    """

    numeric: Sequence[str] = ()
    categorical: Sequence[str] = ()

    def __post_init__(self) -> None:
        taken = [name for name in self.names if name in (*OWN, *_TOLD)]
        if taken:
            raise RetrainingError(
                f"the extra column {', '.join(taken)} has the name of a column of retraining "
                "datasets: rename it in the base, and train anew"
            )

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.numeric, *self.categorical]

    @property
    def schema(self) -> pa.Schema:
        """Of `train/`, `test/` and `window/`."""
        return pa.schema(
            [
                ("text", pa.string()),
                ("label", pa.string()),
                *((name, pa.float64()) for name in self.numeric),
                *((name, pa.string()) for name in self.categorical),
                ("weight", pa.float64()),
                ("source", pa.string()),
                ("id", pa.string()),
                ("time", _TIME),
            ]
        )

    @property
    def feedback_schema(self) -> pa.Schema:
        """Of labelled rows: with who says so (`_user`), by which kind of source (`_rank`, the
        higher outranks the lower), and what became of it (`_outcome`).
        """
        names = [name for name in self.schema.names if name not in ("weight", "source")]
        return pa.schema([*(self.schema.field(n) for n in names), *_TOLD.items()])

    def of(self, values: dict[str, Any]) -> dict[str, Any]:
        """The extra columns of a row, from values of any kind."""
        found: dict[str, Any] = {name: _number(values.get(name)) for name in self.numeric}
        return found | {name: _category(values.get(name)) for name in self.categorical}


def base_table(columns: Columns, table: pa.Table) -> pa.Table:
    """Rows of the base, from their texts, labels and extra columns, with the rest filled in."""
    rows = table.num_rows
    given = {
        "weight": pa.repeat(pa.scalar(1.0), rows),
        "source": pa.repeat(pa.scalar("base"), rows),
        "id": pa.nulls(rows, pa.string()),
        "time": pa.nulls(rows, _TIME),
    } | {name: table[name] for name in table.column_names}
    for name in columns.categorical:
        given[name] = pc.fill_null(given[name].cast(pa.string()), "")
    return pa.table(
        [given[name] for name in columns.schema.names], names=columns.schema.names
    ).cast(columns.schema)


@dataclass
class PartWriter:
    """Writes the files of one part, and counts.

    To be used in a `with` statement; a part without rows has no folder.

    Args:
        folder: Of the dataset.
        part: Name of the part.
        schema: Of its rows.

    Attributes:
        files: What the manifest says of each file.
        rows: Source -> class -> rows.
    """

    folder: Path
    part: str
    schema: pa.Schema
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    _writer: pq.ParquetWriter | None = None
    _open: ExitStack = field(default_factory=ExitStack)
    _here: int = 0
    _waiting: list[pa.Table] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Nothing is written yet."""
        return self

    def write(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            OSError: The disk is full.
        """
        counted = table.group_by(["source", "label"]).aggregate([([], "count_all")])
        for found in counted.to_pylist():
            classes = self.rows.setdefault(found["source"], {})
            label = found["label"]
            classes[label] = classes.get(label, 0) + found["count_all"]
        self._waiting.append(table)
        # Groups of one size, however the rows come: a file's bytes follow from its rows.
        while sum(found.num_rows for found in self._waiting) >= _GROUP_ROWS:
            whole = pa.concat_tables(self._waiting)
            self._write_group(whole.slice(0, _GROUP_ROWS))
            self._waiting = [whole.slice(_GROUP_ROWS)]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the last file."""
        if kind is None:
            if rest := [found for found in self._waiting if found.num_rows]:
                self._write_group(pa.concat_tables(rest))
            self._finish()
        self._open.__exit__(kind, error, traceback)

    @property
    def _path(self) -> str:
        return f"{self.part}/{len(self.files):05d}.parquet"

    def _write_group(self, rows: pa.Table) -> None:
        if self._writer is None:
            (self.folder / self.part).mkdir(parents=True, exist_ok=True)
            writer = parquet_writer(self.folder / self._path, self.schema)
            self._writer = self._open.enter_context(writer)
        self._writer.write_table(rows.combine_chunks())
        self._here += rows.num_rows
        if self._here >= _FILE_ROWS:
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            self._open.close()
            path = self._path
            self.files[path] = describe(self.folder / path, rows=self._here)
            self._writer, self._here = None, 0


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes a file, which is closed also when the disk is full."""
    with (
        path.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        yield writer


def read_batches(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of Parquet files, in order, a few at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                yield pa.Table.from_batches([batch])


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        found = number(value)
        return None if found is None or found != found else found  # noqa: PLR0124 NaN
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(str(value))
    return None


def _category(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
