"""First pass: files to chunks of clean, checked rows, each sorted into shuffled order.

A chunk is digested alone, by any process. A row's number follows from its file and its
place there, and its place in the global order from that number and the seed, so neither
the number of processes nor their speed changes a byte.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fakenews.data.checks import WEIGHT, missing_columns, number, weight_of
from fakenews.data.cleaning import Cleaning
from fakenews.data.duplicates import sketch, stable_hash
from fakenews.data.formats import open_source
from fakenews.data.manifest import write_json
from fakenews.data.validation import REPORTED, RowSchema
from fakenews.errors import DataError
from fakenews.preparation.recipe import InputFile, Recipe
from fakenews.preparation.work import Work, drafted, read_json, told

CHUNK_ROWS = 16_384
"""Rows read and digested together: what bounds the memory of this pass."""

_ROWS_PER_FILE = 1 << 40


@dataclass(frozen=True, kw_only=True)
class RawChunk:
    """Consecutive rows of one file, as read.

    Attributes:
        work: Where to leave the result.
        file: Number of the file among the inputs.
        number: Of the chunk in its file, from 0.
        source: The file.
        rows: Data row of each record, from 1.
        cells: The cells of each wanted column.
        errors: Place in the chunk -> why the record cannot be read.
        bytes: About how much of the file it is.
    """

    work: Work
    file: int
    number: int
    source: InputFile
    rows: list[int]
    cells: dict[str, list[str]]
    errors: dict[int, str]
    bytes: int

    @property
    def name(self) -> str:
        """Of the chunk's files, sorting in the order of the input."""
        return f"{self.file:05d}-{self.number:07d}"


def check_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """Faults of a file that show before its rows are read."""
    try:
        opened = open_source(path, expected=columns, lenient=True)
    except DataError as error:
        return error.faults
    return missing_columns(path, opened.columns, columns)


def is_read(work: Work, file: int) -> bool:
    """Whether every chunk of a file is done, those included that were under way."""
    mark = work.chunks / f"file-{file:05d}.json"
    # The mark is written when the last chunk is handed on, which may then fail.
    return mark.exists() and len(list(work.chunks.glob(f"{file:05d}-*.json"))) == int(
        read_json(mark)["chunks"]
    )


def read_chunks(part: tuple[Work, int, InputFile]) -> Iterator[RawChunk]:
    """The chunks of one file that are not done yet; notes how many there are.

    Args:
        part: The work folder, the number of the file, and the file.
    """
    work, file, source = part
    columns = work.recipe().columns(source.role)
    opened = open_source(Path(source.path), expected=columns, lenient=True)
    places = {name: opened.columns.index(name) for name in columns}
    records = opened.records()
    total = chunks = 0
    while some := list(islice(records, CHUNK_ROWS)):
        chunk = RawChunk(
            work=work,
            file=file,
            number=chunks,
            source=source,
            rows=[record.row for record in some],
            cells={
                name: [record.cells[place] for record in some] for name, place in places.items()
            },
            errors={n: record.error for n, record in enumerate(some) if record.error},
            bytes=sum(len(cell) + 1 for record in some for cell in record.cells),
        )
        total, chunks = total + len(some), chunks + 1
        if not (work.chunks / f"{chunk.name}.json").exists():
            yield chunk
    if not total:
        raise DataError(f"{source.path}: the file has a header but no rows")
    summary = {"rows": total, "encoding": opened.encoding, "chunks": chunks}
    write_json(work.chunks / f"file-{file:05d}.json", summary)


def digest(chunk: RawChunk) -> int:
    """Clean, check and sketch the rows of a chunk, and leave them in the work folder.

    Returns:
        The chunk's bytes, for a progress bar.

    Raises:
        DataError: The work folder cannot be written.
    """
    recipe, work = chunk.work.recipe(), chunk.work
    cleaning = Cleaning(normalise=recipe.normalise, max_chars=recipe.max_chars)
    cleaned = cleaning(chunk.cells[recipe.text])
    frame, faults = _frame(chunk, recipe, cleaned.texts)
    legible = frame[~frame.index.isin(faults["row"])]
    dropped = _dropped(legible)
    usable = legible[dropped == ""]
    schema = RowSchema(
        numeric=recipe.numeric,
        categorical=recipe.categorical,
        expectations=recipe.expectations,
    )
    breaches = pd.concat([faults, schema.check(usable)], ignore_index=True)
    kept = usable[~usable.index.isin(breaches["row"])]
    counts = {
        "rows": len(frame),
        "kept": len(kept),
        "breaches": int(breaches["row"].nunique()),
        "dropped": dict(Counter(dropped[dropped != ""].tolist())),
        # The first row of each reason, to be told.
        "examples": {
            why: chunk.rows[place]
            for why in dropped.unique().tolist()
            if why
            for place in [int(legible.index[dropped == why][0])]
        },
        "repaired": int(np.asarray(cleaned.repaired)[kept.index].sum()),
        "clipped": int(np.asarray(cleaned.clipped)[kept.index].sum()),
    }
    with told(work.path):
        _write_breaches(work.breaches / f"{chunk.name}.parquet", chunk, frame, breaches, recipe)
        _write_rows(work.rows / f"{chunk.name}.arrow", kept)
        _write_sketches(work.sketches / f"{chunk.name}.parquet", kept, chunk, recipe)
        # Last: it says that the chunk is done.
        write_json(work.chunks / f"{chunk.name}.json", counts)
    return chunk.bytes


def _frame(
    chunk: RawChunk, recipe: Recipe, texts: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a chunk, and what in them is no value: `row` of the frame, `reason`."""
    cells, names = chunk.cells, recipe.label_names
    ids = np.int64(chunk.file) * _ROWS_PER_FILE + np.asarray(chunk.rows, dtype=np.int64)
    frame = pd.DataFrame({"id": ids, "ord": shuffled_place(ids, seed=recipe.seed)})
    frame["text"] = pd.Series(texts, dtype="str")
    frame["raw"] = pd.Series(cells[recipe.text], dtype="str")
    labels = [value.strip() for value in cells[recipe.label]]
    named = labels if names is None else [names.get(value, value) for value in labels]
    frame["label"] = pd.Series(named, dtype="str")
    faults = list(chunk.errors.items())
    if names is not None:
        faults += [
            (place, f"column {recipe.label!r}: {value!r} has no name in label_names")
            for place, value in enumerate(labels)
            if value and value not in names
        ]
    for name in recipe.numeric:
        values = [number(cell) for cell in cells[name]]
        frame[name] = pd.Series(values, dtype="float64")
        faults += [
            (place, f"column {name!r}: {cells[name][place][:80]!r} is not a finite number")
            for place, value in enumerate(values)
            if value is None
        ]
    for name in recipe.categorical:
        frame[name] = pd.Series([cell.strip() for cell in cells[name]], dtype="str")
    if recipe.weight is not None:
        # Rows of official splits, which are not trained on, have none.
        given = cells.get(recipe.weight, [""] * len(frame))
        weights = [weight_of(cell) for cell in given]
        frame[WEIGHT] = pd.Series(weights, dtype="float64")
        faults += [
            (
                place,
                f"column {recipe.weight!r}: {cell[:80]!r} is no finite number of at least 0",
            )
            for place, (cell, value) in enumerate(zip(given, weights, strict=True))
            if value is None
        ]
    found = pd.DataFrame(faults, columns=["row", "reason"]).drop_duplicates("row")
    return frame, found.astype({"row": "int64", "reason": "str"})


def _dropped(legible: pd.DataFrame) -> "pd.Series[str]":
    """Why a row is left out without being a fault, or an empty string; [N]."""
    dropped = pd.Series("", index=legible.index, dtype="str")
    dropped = dropped.mask(legible["label"] == "", "missing label")
    return dropped.mask(legible["text"] == "", "empty text")


def reported(recipe: Recipe) -> dict[str, str]:
    """The extra columns as they are named in a report of rows."""
    return {
        name: f"{name}.1" if name in REPORTED else name
        for name in (*recipe.numeric, *recipe.categorical)
    }


def shuffled_place(ids: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """Place of each row in the global order: 63 bits, uniform, another for each seed.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom
    number generators"), a bijection, so no two rows differ in the last bit alone by chance.
    """
    # Python's integers do not overflow; numpy's may, and here they should.
    start = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % (1 << 64))
    z = _mixed(ids.astype(np.uint64) + _mixed(np.array([start]))[0])
    return (z >> np.uint64(1)).astype(np.int64)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _write_breaches(
    path: Path, chunk: RawChunk, frame: pd.DataFrame, breaches: pd.DataFrame, recipe: Recipe
) -> None:
    if breaches.empty:
        return
    found = breaches.sort_values("row", kind="stable").groupby("row")["reason"].agg("; ".join)
    rows = frame.loc[found.index]
    table = pa.table(
        {
            "file": [chunk.source.path] * len(rows),
            "row": [chunk.rows[place] for place in found.index],
            "reason": found.tolist(),
            "text": rows["raw"].tolist(),
            "label": rows["label"].tolist(),
            **{
                shown: [chunk.cells[name][place] for place in found.index]
                for name, shown in reported(recipe).items()
            },
        }
    )
    with drafted(path) as draft:
        pq.write_table(table, draft)


def _write_rows(path: Path, kept: pd.DataFrame) -> None:
    """In shuffled order and without compression: a range of it is mapped into memory."""
    # Most texts are clean already: these are kept once.
    kept = kept.assign(raw=kept["raw"].mask(kept["raw"] == kept["text"]))
    table = pa.Table.from_pandas(kept.sort_values(["ord", "id"]), preserve_index=False)
    with drafted(path) as draft, pa.ipc.new_file(draft, table.schema) as writer:
        writer.write_table(table, max_chunksize=CHUNK_ROWS)


def _write_sketches(path: Path, kept: pd.DataFrame, chunk: RawChunk, recipe: Recipe) -> None:
    table = sketch(kept["text"].tolist(), threshold=recipe.near_duplicates)
    for name in ("id", "ord", "label"):
        table = table.append_column(name, pa.array(kept[name]))
    for name in recipe.categorical:
        table = table.append_column(f"column {name}", pa.array(kept[name]))
    if recipe.weight is not None:
        table = table.append_column(WEIGHT, pa.array(kept[WEIGHT]))
    for name in ("raw", "text"):
        table = table.append_column(
            f"{name}_hash", pa.array([stable_hash(text) for text in kept[name]], pa.int64())
        )
    table = table.append_column("role", pa.array([chunk.source.role] * len(kept), pa.string()))
    with drafted(path) as draft:
        pq.write_table(table, draft)
