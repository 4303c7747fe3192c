"""The rows of one file, as strings, whatever its format.

CSV, TSV and JSON Lines (each also gzipped), and Parquet are streamed, so that memory
stays bounded. A row that cannot be read is handed on with its error: the caller decides
whether that is the end (`sources.read_table`) or a note (`sources.read_chunks`).
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.errors import DataError

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""The suffixes that can be read; all but Parquet's also with ``.gz`` behind them."""

_BLOCK = 1 << 20
_BATCH_ROWS = 8192
_SURROGATE = re.compile("[\ud800-\udfff]")
# The csv module's own limit (128 KiB) rejects long articles. There must be one: it
# bounds the memory that a quote which is never closed can take.
csv.field_size_limit(16 << 20)
_CSV_ERRORS = {
    "unexpected end of data": "a quote that is opened here is never closed",
    "expected after": "text follows a closing quote; a quote inside a cell is doubled",
    "field larger": "a cell is longer than 16 MiB; is a quote not closed?",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One data row: its 1-based number, a cell for each column, or what is wrong."""

    row: int
    cells: list[str]
    error: str | None = None


@dataclass(frozen=True)
class Source:
    """An opened file: what it holds, and a function that reads it from the start."""

    columns: list[str]
    encoding: str
    records: Callable[[], Iterator[Record]]


def kind(path: Path) -> str | None:
    """The suffix that decides how a file is read, without ``.gz``; None if it cannot be."""
    suffixes = [s.lower() for s in path.suffixes]
    gzipped = suffixes[-1:] == [".gz"]
    suffix = (suffixes[-2:-1] if gzipped else suffixes[-1:]) or [""]
    if suffix[0] not in SUFFIXES or (gzipped and suffix[0] in SUFFIXES[-2:]):
        return None
    return suffix[0]


def open_source(path: Path, *, expected: Sequence[str], lenient: bool = False) -> Source:
    """Look into a file and say how its rows are read.

    Args:
        path: The file.
        expected: Columns that the caller wants; they choose a CSV file's delimiter.
        lenient: Hand on text in no known encoding as rows with an error, instead of
            raising.

    Raises:
        DataError: The file is missing, empty, of unknown type, binary, damaged, or in no
            known encoding.
    """
    suffix = kind(path)
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file")
        if suffix is None:
            raise DataError(
                f"{path}: cannot tell the format; the name must end in one of "
                f"{', '.join(SUFFIXES[:-2])} (also with .gz), {', '.join(SUFFIXES[-2:])}"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if suffix in SUFFIXES[-2:]:
            return _parquet(path)
        encoding = _encoding(path, suffix, lenient=lenient)
        if suffix in (".csv", ".tsv", ".tab"):
            return _csv(path, suffix, encoding, expected)
        return _jsonl(path, encoding)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is truncated or damaged ({error})") from error
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: the Parquet file is truncated or damaged ({reason})"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({reason})") from error


# --- text and its encoding -----------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast("BinaryIO", gzip.open(path))
    return path.open("rb")


def _text(path: Path, encoding: str, newline: str) -> io.TextIOWrapper:
    # Bytes that are not UTF-8 arrive here only when the caller is lenient.
    return io.TextIOWrapper(_open(path), encoding, "surrogateescape", newline=newline)


def _encoding(path: Path, suffix: str, *, lenient: bool) -> str:
    with _open(path) as file:
        start = file.read(4)
    if start.startswith(codecs.BOM_UTF8):
        candidates = ["utf-8-sig"]
    elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        candidates = ["utf-16"]
    else:
        candidates = ["utf-8", "windows-1252"]
        offset = _first(path, lambda block: block.find(b"\0"))
        if offset is not None:
            row = _row_at(path, offset, suffix)
            raise DataError(
                f"{path}: row {row}, byte {offset}: a NUL byte; is it a binary file?"
            )
    for candidate in candidates:
        offset = _undecodable(path, candidate)
        if offset is None:
            return candidate
    if lenient and candidates[0].startswith("utf-8"):
        return candidates[0]
    with _open(path) as file:
        file.seek(offset or 0)
        byte = file.read(1).hex()
    row, tried = _row_at(path, offset or 0, suffix), " or ".join(c.upper() for c in candidates)
    raise DataError(
        f"{path}: row {row}, byte {offset}: 0x{byte} is not {tried}; save the file as UTF-8"
    )


def _blocks(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        while block := file.read(_BLOCK):
            yield block


def _first(path: Path, find: Callable[[bytes], int]) -> int | None:
    before = 0
    for block in _blocks(path):
        if (at := find(block)) >= 0:
            return before + at
        before += len(block)
    return None


def _undecodable(path: Path, encoding: str) -> int | None:
    """The offset of the first byte that is not of this encoding; None if all are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    before = 0
    for block in (*_blocks(path), b""):
        # The decoder holds back an incomplete character: the error counts from there.
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            return before - held + error.start
        before += len(block)
    return None


def _row_at(path: Path, offset: int, suffix: str) -> int:
    """The data row that a byte lies in; 0 is the header."""
    with _open(path) as file:
        head = file.read(offset + 1).decode("latin-1")
    if suffix.startswith((".js", ".nd")):
        return sum(1 for line in head.split("\n")[:-1] if line.strip()) + 1
    return sum(1 for cells in csv.reader(io.StringIO(head, newline="")) if cells) - 1


def _flag_undecoded(record: Record) -> Record:
    for cell in record.cells:
        if found := _SURROGATE.search(cell):
            byte = ord(found[0]) - 0xDC00
            error = f"byte 0x{byte:02x} is not valid UTF-8 or Windows-1252"
            cells = [_SURROGATE.sub("\ufffd", c) for c in record.cells]
            return Record(record.row, cells, record.error or error)
    return record


# --- formats -------------------------------------------------------------------------


def _csv(path: Path, suffix: str, encoding: str, expected: Sequence[str]) -> Source:
    with _text(path, encoding, "") as text:
        lines = list(islice(text, 64))
    delimiters = ",;\t|" if suffix == ".csv" else "\t"
    headers = {d: _header(lines, d, path) for d in delimiters}
    # The comma, unless another delimiter finds more of the columns that are wanted.
    delimiter = max(delimiters, key=lambda d: len(set(headers[d]) & set(expected)))
    columns = headers[delimiter]
    repeated = sorted({c for c in columns if columns.count(c) > 1 and c in expected})
    if repeated:
        raise DataError(f"{path}: the header names column {repeated[0]!r} more than once")

    def records() -> Iterator[Record]:
        for record in _csv_rows(path, encoding, delimiter, len(columns)):
            yield _flag_undecoded(record)

    return Source(_unique(columns), encoding, records)


def _header(lines: list[str], delimiter: str, path: Path) -> list[str]:
    try:
        for cells in csv.reader(lines, delimiter=delimiter):
            if cells:
                return cells
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read ({error})") from error
    raise DataError(f"{path}: the file has no header")


def _unique(columns: list[str]) -> list[str]:
    """Name repeated columns ``a``, ``a.1``, ``a.2`` ..., so that a frame can have them."""
    names: list[str] = []
    for name in columns:
        free = (f"{name}.{n}" if n else name for n in count())
        names.append(next(candidate for candidate in free if candidate not in names))
    return names


def _csv_rows(path: Path, encoding: str, delimiter: str, width: int) -> Iterator[Record]:
    with _text(path, encoding, "") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        row = -1  # the header is row 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row += 1
                reason = next(
                    (v for k, v in _CSV_ERRORS.items() if k in str(error)), str(error)
                )
                yield Record(row, [""] * width, f"line {line}: {reason}")
                continue
            if not cells:  # a blank line is no row
                continue
            row += 1
            if row == 0:
                continue
            if len(cells) == width:
                yield Record(row, cells)
            else:
                found = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
                fault = f"line {line}: {found} where the header has {width}"
                yield Record(row, (cells + [""] * width)[:width], fault)


def _jsonl(path: Path, encoding: str) -> Source:
    columns: dict[str, None] = {}
    for _, found, _ in _json_rows(path, encoding):
        columns.update(dict.fromkeys(found))

    def records() -> Iterator[Record]:
        for row, found, error in _json_rows(path, encoding):
            cells = [_json_cell(found.get(name)) for name in columns]
            yield _flag_undecoded(Record(row, cells, error))

    return Source(list(columns), encoding, records)


def _json_rows(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    with _text(path, encoding, "\n") as text:
        for row, line in enumerate((line for line in text if line.strip()), start=1):
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                yield row, {}, f"not valid JSON ({error.msg}, character {error.colno})"
                continue
            except (ValueError, RecursionError) as error:
                yield row, {}, f"not valid JSON ({error})"
                continue
            if isinstance(found, dict):
                yield row, found, None
            else:
                yield row, {}, "a line must be one JSON object, {...}"


def _json_cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # JSON can spell half of a surrogate pair, which no encoding can write again. Those
    # of bytes not decoded (U+DC80..U+DCFF) stay for `_flag_undecoded`.
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)


def _parquet(path: Path) -> Source:
    with pq.ParquetFile(path) as file:
        columns = list(file.schema_arrow.names)
        # Read once: a damaged page shows only when it is decoded.
        for _ in file.iter_batches(_BATCH_ROWS):
            pass

    def records() -> Iterator[Record]:
        row = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for cells in zip(*map(_parquet_cells, batch.columns), strict=True):
                    row += 1
                    yield Record(row, list(cells))

    return Source(columns, "parquet", records)


def _parquet_cells(column: pa.Array) -> list[str]:
    try:
        values = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        values = [None if v is None else str(v) for v in column.to_pylist()]
    return ["" if value is None else value for value in values]
