"""Tables written piece by piece: bounded memory, and a file that is whole or not there."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.errors import DataError

Write = Callable[[pd.DataFrame], None]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
SUFFIXES = (*_DELIMITERS, *_JSON_LINES, *_PARQUET)
"""The suffixes that can be written; they decide the format."""


def check_output(out: Path, *, source: Path, overwrite: bool) -> None:
    """Whether a file can be written, before hours of work are lost on it.

    Raises:
        DataError: With every reason why not.
    """
    faults = []
    if out.suffix.lower() not in SUFFIXES:
        faults.append(f"out={out}: the name must end in one of {', '.join(SUFFIXES)}")
    if out.is_dir():
        faults.append(f"out={out} is a folder: give a file")
    elif out.exists() and source.exists() and out.samefile(source):
        faults.append(f"out={out} is the file that is read: give another")
    elif out.exists() and not overwrite:
        faults.append(f"out={out} exists: give another, or overwrite=true")
    if faults:
        raise DataError(faults)


@contextmanager
def table_writer(out: Path) -> Iterator[Write]:
    """A function that appends rows to a table; the file appears when all went well.

    The first rows decide the columns and their types.

    Args:
        out: Its suffix decides the format; an older file is replaced at the end.

    Raises:
        DataError: The folder cannot be written, or the disk is full.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            draft = Path(folder) / out.name
            with ExitStack() as stack:
                yield _writer(draft, stack)
            draft.replace(out)
    except OSError as error:
        raise DataError(
            f"out={out} cannot be written: {error.strerror or error}; choose a folder that "
            "is writable and has space"
        ) from error


def _writer(path: Path, stack: ExitStack) -> Write:
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        return _parquet_writer(path, stack)
    file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
    if suffix in _JSON_LINES:
        return lambda rows: _write_json_lines(rows, file)
    header = True

    def write(rows: pd.DataFrame) -> None:
        nonlocal header
        rows.to_csv(file, sep=_DELIMITERS[suffix], index=False, header=header)
        header = False

    return write


def _write_json_lines(rows: pd.DataFrame, file: TextIO) -> None:
    rows.to_json(file, orient="records", lines=True, force_ascii=False, double_precision=15)


def _parquet_writer(path: Path, stack: ExitStack) -> Write:
    writer: pq.ParquetWriter | None = None

    def write(rows: pd.DataFrame) -> None:
        nonlocal writer
        if writer is None:
            # Declared, because a column may have no value in the first rows.
            schema = pa.schema([(str(name), _type(rows[name])) for name in rows.columns])
            writer = stack.enter_context(pq.ParquetWriter(path, schema))
        writer.write_table(
            pa.Table.from_pandas(rows, schema=writer.schema, preserve_index=False)
        )

    return write


def _type(column: "pd.Series[Any]") -> pa.DataType:
    if pd.api.types.is_bool_dtype(column):
        return pa.bool_()
    return pa.float64() if pd.api.types.is_float_dtype(column) else pa.string()
