"""Files -> the frame that every later stage works on.

Reads CSV, TSV, JSON Lines and Parquet files into one validated `Table`. Cells are
strings until a column is declared numeric, so that ``NA`` or ``null`` as a text stays a
text. All faults of all files are raised together.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from fakenews.data.checks import (
    WEIGHT,
    column_clashes,
    expand_paths,
    hint,
    listed,
    missing_columns,
    number,
    shown,
    some,
    weight_of,
)
from fakenews.data.cleaning import Cleaning
from fakenews.data.formats import Record, Source, open_source
from fakenews.errors import DataError


@dataclass(frozen=True)
class SourceFile:
    """A file that was read. ``rows`` counts data rows, those dropped included."""

    path: str
    sha256: str
    bytes: int
    rows: int
    encoding: str


@dataclass(frozen=True)
class Table:
    """What `read_table` read.

    Attributes:
        frame: A row per usable text: ``raw`` (as decoded), ``text`` (cleaned), ``label``
            (absent when no label column was asked for), the numeric (float64, NaN for an
            empty cell) and categorical (str) columns, ``sample_weight`` (float64; absent when
            no weight column was asked for), ``file``, ``row`` (1-based data row).
        files: The files, in the order read.
        dropped: Rows left out, with columns ``file``, ``row``, ``reason``.
        repaired: Kept texts in which a wrong decoding was undone.
        clipped: Kept texts cut to the longest length allowed.
    """

    frame: pd.DataFrame
    files: list[SourceFile]
    dropped: pd.DataFrame
    repaired: int
    clipped: int


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file in order, good and bad, in two frames with one index.

    Attributes:
        frame: As `Table.frame`, without ``label`` and with ``error``: what is wrong with
            the row, or None. A bad row has an empty text or NaN where it is bad.
        original: All columns of the file, as strings, untouched.
    """

    frame: pd.DataFrame
    original: pd.DataFrame


def read_table(
    paths: str | Path | Sequence[str | Path],
    *,
    text: str,
    label: str | None,
    label_names: Mapping[Any, str] | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    weight: str | None = None,
    normalise: bool = False,
    max_chars: int = 5000,
) -> Table:
    """Read and check all files.

    Encodings are UTF-8 (with or without byte-order mark), then Windows-1252; UTF-16 with
    a byte-order mark. Rows without text or label are dropped and listed.

    Args:
        paths: Files, folders or globs, one or several; globs and folders in sorted order.
        text: Name of the text column.
        label: Name of the label column, or None to read unlabelled data.
        label_names: Class name for each value of the label column; None keeps the values.
        numeric: Extra columns of numbers.
        categorical: Extra columns of strings.
        weight: Column of the rows' weights; None reads none.
        normalise: Remove cues of format from the text too (`cleaning.remove_cues`).
        max_chars: Longest text kept, in characters; longer ones are cut.

    Raises:
        DataError: With every fault found: a file missing, damaged, empty or in an unknown
            encoding, a column missing, a row malformed, a value not a finite number, a
            label without a name, a weight below 0.
    """
    wanted = [text, *([label] if label else []), *numeric, *categorical]
    wanted += [weight] if weight else []
    faults = column_clashes(text, label, numeric, categorical, weight)
    files, missing = expand_paths(paths)
    faults += missing
    names = None if label_names is None else {str(k): str(v) for k, v in label_names.items()}
    parts: dict[str, list[str]] = {c: [] for c in ("file", *wanted)}
    rows: list[int] = []
    read: list[SourceFile] = []
    for path in files:
        found = _read_file(path, wanted, numeric, faults)
        if found is None:
            continue
        described, numbers, columns = found
        if label and names is not None:
            faults += _unnamed(path, numbers, columns[label], label, names)
        if weight:
            faults += _unweighted(path, numbers, columns[weight], weight)
        read.append(described)
        rows += numbers
        parts["file"] += [str(path)] * len(numbers)
        for column in wanted:
            parts[column] += columns[column]
    if faults:
        raise DataError(faults)

    cleaned = Cleaning(normalise=normalise, max_chars=max_chars)(parts[text])
    frame = pd.DataFrame({"raw": parts[text], "text": cleaned.texts}, dtype="str")
    reason = pd.Series("", index=frame.index, dtype="str").mask(
        frame["text"] == "", "empty text"
    )
    if label:
        values = [v.strip() for v in parts[label]]
        labels = [names.get(v, "") for v in values] if names is not None else values
        frame["label"] = pd.Series(labels, dtype="str")
        reason = reason.mask((frame["label"] == "") & (reason == ""), "missing label")
    frame = frame.assign(**_extra(parts, numeric, categorical, weight))
    frame["file"] = pd.Series(parts["file"], dtype="str")
    frame["row"] = pd.Series(rows, dtype="int64")

    keep = reason == ""
    if not keep.any():
        raise DataError(f"{listed(files)}: no row has a text{' and a label' if label else ''}")
    dropped = frame.loc[~keep, ["file", "row"]].assign(reason=reason[~keep])
    return Table(
        frame=frame[keep].reset_index(drop=True),
        files=read,
        dropped=dropped.reset_index(drop=True),
        repaired=int((pd.Series(cleaned.repaired) & keep).sum()),
        clipped=int((pd.Series(cleaned.clipped) & keep).sum()),
    )


def read_chunks(
    path: str | Path,
    *,
    text: str,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    normalise: bool = False,
    max_chars: int = 5000,
    chunk_rows: int = 10_000,
) -> Iterator[Chunk]:
    """Read one file in order and in bounded memory, without stopping at bad rows.

    Args:
        path: The file.
        text: Name of the text column.
        numeric: Extra columns of numbers.
        categorical: Extra columns of strings.
        normalise: As for `read_table`.
        max_chars: As for `read_table`.
        chunk_rows: Rows in a chunk; the last may have fewer.

    Yields:
        `Chunk`s that together hold every data row once.

    Raises:
        DataError: The file as a whole cannot be read, or a column is missing.
    """
    path = Path(path)
    wanted = [text, *numeric, *categorical]
    faults = column_clashes(text, None, numeric, categorical)
    source = open_source(path, expected=wanted, lenient=True)
    faults += missing_columns(path, source.columns, wanted)
    if faults:
        raise DataError(faults)

    make = partial(
        _chunk,
        source=source,
        path=path,
        text=text,
        numeric=numeric,
        categorical=categorical,
        cleaning=Cleaning(normalise=normalise, max_chars=max_chars),
    )
    batch: list[Record] = []
    empty = True
    for record in source.records():
        empty = False
        batch.append(record)
        if len(batch) == chunk_rows:
            yield make(batch)
            batch = []
    if batch:
        yield make(batch)
    if empty:
        raise DataError(f"{path}: the file has a header but no rows")


def weight_faults(totals: Mapping[str, float], column: str) -> list[str]:
    """What is wrong with the weights of the training rows.

    Args:
        totals: Class -> sum of the weights of its rows.
        column: That has them.
    """
    faults = [
        f"column {column!r}: all training rows of class {name!r} have a weight of 0, so it "
        "cannot be learnt"
        for name, total in totals.items()
        if total <= 0
    ]
    if not math.isfinite(sum(totals.values())):
        faults.append(f"column {column!r}: the weights are too large to be added up")
    return faults


def classes(frame: pd.DataFrame, positive: str | None = None) -> tuple[list[str], str]:
    """The classes of a frame with a column ``label``: see `classes_of`."""
    counts = frame["label"].value_counts()
    return classes_of({str(name): int(n) for name, n in counts.items()}, positive)


def classes_of(counts: Mapping[str, int], positive: str | None = None) -> tuple[list[str], str]:
    """The classes of a table, sorted, and the positive one among them.

    Args:
        counts: Rows of each label.
        positive: The class to find; None takes the rarest (of several, the first by name).

    Raises:
        DataError: Fewer than two classes, a class with fewer than two rows, or a positive
            class that is not among them.
    """
    names = sorted(map(str, counts))
    faults = []
    if len(names) < 2:
        faults.append(
            f"only one class, {names[0]!r}, in {sum(counts.values())} rows; two are needed"
            if names
            else "no rows, so no classes"
        )
    single = [name for name in names if counts[name] < 2]
    if single:
        faults.append(
            f"{len(single)} class{'es' * (len(single) > 1)} with a single row, two are needed: "
            f"{some(single)}; is this the label column?"
        )
    if positive is not None and positive not in names:
        faults.append(f"no class {positive!r}{hint(positive, names, 'classes')}")
    if faults:
        raise DataError(faults)
    return names, positive or min(names, key=lambda name: (counts[name], name))


# --- files and columns ---------------------------------------------------------------


def _read_file(
    path: Path, wanted: Sequence[str], numeric: Sequence[str], faults: list[str]
) -> tuple[SourceFile, list[int], dict[str, list[str]]] | None:
    """Read the wanted columns; add what is wrong to ``faults``."""
    try:
        source = open_source(path, expected=wanted)
    except DataError as error:
        faults += error.faults
        return None
    missing = missing_columns(path, source.columns, wanted)
    present = [name for name in wanted if name in source.columns]
    places = [source.columns.index(name) for name in present]
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    rows: list[int] = []
    malformed = []
    for record in tqdm(
        source.records(), f"read {path.name}", unit=" rows", delay=2, leave=False
    ):
        if record.error:
            malformed.append(f"row {record.row}, {record.error}")
        rows.append(record.row)
        for name, place in zip(present, places, strict=True):
            columns[name].append(record.cells[place])
    faults += missing + shown(path, malformed)
    if not rows:
        faults.append(f"{path}: the file has a header but no rows")
    for name in numeric:
        values = zip(rows, columns[name], strict=False)
        bad = [
            f"row {r}, column {name!r}: {v!r} is not a finite number"
            for r, v in values
            if number(v) is None
        ]
        faults += shown(path, bad)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return SourceFile(str(path), digest, size, len(rows), source.encoding), rows, columns


def _unnamed(
    path: Path, rows: list[int], values: list[str], label: str, names: Mapping[str, str]
) -> list[str]:
    bad = [
        f"row {row}, column {label!r}: value {value.strip()!r} has no name; "
        f"label_names has {some(list(names))}"
        for row, value in zip(rows, values, strict=False)
        if value.strip() and value.strip() not in names
    ]
    return shown(path, bad)


def _unweighted(path: Path, rows: list[int], values: list[str], weight: str) -> list[str]:
    bad = [
        f"row {row}, column {weight!r}: {value!r} is no finite number of at least 0"
        for row, value in zip(rows, values, strict=False)
        if weight_of(value) is None
    ]
    return shown(path, bad)


# --- cells ---------------------------------------------------------------------------


def _extra(
    parts: Mapping[str, list[str]],
    numeric: Sequence[str],
    categorical: Sequence[str],
    weight: str | None,
) -> dict[str, "pd.Series[Any]"]:
    """The columns beside text and label, from their cells."""
    columns: dict[str, pd.Series[Any]] = {
        name: pd.Series([number(v) for v in parts[name]], dtype="float64") for name in numeric
    }
    columns |= {
        name: pd.Series([v.strip() for v in parts[name]], dtype="str") for name in categorical
    }
    if weight:
        columns[WEIGHT] = pd.Series([weight_of(v) for v in parts[weight]], dtype="float64")
    return columns


def _chunk(
    records: list[Record],
    *,
    source: Source,
    path: Path,
    text: str,
    numeric: Sequence[str],
    categorical: Sequence[str],
    cleaning: Cleaning,
) -> Chunk:
    original = pd.DataFrame([r.cells for r in records], columns=source.columns, dtype="str")
    errors = [[r.error] if r.error else [] for r in records]
    raw = original[text].tolist()
    texts = cleaning(raw).texts
    frame = pd.DataFrame({"raw": raw, "text": texts}, dtype="str")
    for found, cleaned in zip(errors, texts, strict=True):
        if not cleaned and not found:
            found.append("the text is empty")
    for column in numeric:
        values = [number(v) for v in original[column]]
        frame[column] = pd.Series(values, dtype="float64")
        for found, value, cell in zip(errors, values, original[column], strict=True):
            if value is None:
                found.append(f"column {column!r}: {cell!r} is not a finite number")
    for column in categorical:
        frame[column] = original[column].str.strip()
    frame["file"] = pd.Series([str(path)] * len(records), dtype="str")
    frame["row"] = pd.Series([r.row for r in records], dtype="int64")
    frame["error"] = pd.Series(["; ".join(e) or None for e in errors], dtype=object)
    return Chunk(frame, original)
