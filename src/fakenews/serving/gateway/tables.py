"""Uploaded tables: read, predicted and written piece by piece, as `scripts/predict.py` does.

A row that cannot be answered says why in `error`, and the others are answered.
"""

import asyncio
import gzip
import re
import shutil
import tempfile
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakenews.data.formats import kind, open_source
from fakenews.data.sources import Chunk, read_chunks
from fakenews.errors import DataError
from fakenews.inference.columns import added_columns, added_names, check_names
from fakenews.serving.gateway.edge import too_large
from fakenews.serving.gateway.problems import Problem, overloaded
from fakenews.serving.gateway.requests import Answer

PredictRows = Callable[[Sequence[Any]], Awaitable[list[Answer]]]

ID = "prediction_id"
"""Column of the ids, beside those of `scripts/predict.py`: feedback needs them."""

_ADVICE = "rename it"
_TRIES = 5  # of a piece, when too much else waits
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What was predicted of a row."""

    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    truncated: bool = False
    error: str | None = None
    id: str | None = None


class TableScorer:
    """Predicts uploaded tables.

    Args:
        predict: Answers some items.
        text: Names of the column of the text, by preference.
        columns: Columns beside it that are sent too.
        chunk_rows: Rows predicted at a time.
        concurrent: Tables at once.
        most_bytes: Of a table, unpacked.
    """

    def __init__(
        self,
        *,
        predict: PredictRows,
        text: Sequence[str],
        columns: Sequence[str],
        chunk_rows: int,
        concurrent: int,
        most_bytes: int,
    ) -> None:
        self._predict = predict
        self._text = list(text)
        self._columns = list(columns)
        self._chunk_rows = chunk_rows
        self._free = concurrent
        self._most_bytes = most_bytes

    async def score(
        self, file: BinaryIO, name: str, *, text: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The table with the columns that predictions add, as CSV, piece by piece.

        What is wrong with the table as a whole is raised before the first piece.

        Args:
            file: The upload.
            name: Of the file; its suffix decides the format.
            text: Column of the text; None looks for a usual name.

        Raises:
            Problem: The table cannot be read, is too large, or nothing is answered.
        """
        if self._free <= 0:
            raise overloaded(5)
        self._free -= 1
        try:
            with tempfile.TemporaryDirectory(prefix="fakenews-table-") as folder:
                try:
                    async for piece in self._score(file, name, text, Path(folder)):
                        yield piece
                except DataError as error:
                    # Where it lies here is nobody's business.
                    message = str(error).replace(f"{folder}/", "")
                    raise Problem(422, "bad_table", message[:1000]) from None
        finally:
            self._free += 1

    async def _score(
        self, file: BinaryIO, name: str, text: str | None, folder: Path
    ) -> AsyncIterator[bytes]:
        path = await asyncio.to_thread(_unpack, file, name, folder, self._most_bytes)
        chunks = await asyncio.to_thread(self._open, path, text)
        column, rows = chunks
        classes: list[str] | None = None
        held: list[tuple[Chunk, list[_Row]]] = []
        wrote = False
        while (chunk := await asyncio.to_thread(next, rows, None)) is not None:
            found = await self._answers(chunk, column, first=not held and not wrote)
            held.append((chunk, found))
            if classes is None:
                classes = next((list(r.probabilities) for r in found if r.label), None)
            if classes is not None:
                yield await asyncio.to_thread(_write, path, held, classes, header=not wrote)
                held, wrote = [], True
        if held:  # no row could be answered, so nothing says which classes there are
            yield await asyncio.to_thread(_write, path, held, [], header=True)

    def _open(self, path: Path, text: str | None) -> tuple[str, Iterator[Chunk]]:
        source = open_source(path, expected=[text] if text else self._text, lenient=True)
        if text is None:
            usual = [name for name in self._text if name in source.columns]
            if not usual and len(source.columns) == 1:
                usual = source.columns
            if not usual:
                raise DataError(
                    f"{path}: which column is the text? Name one of "
                    f"{', '.join(source.columns)[:300]} with the field text"
                )
            text = usual[0]
        return text, read_chunks(
            path,
            text=text,
            categorical=[name for name in self._columns if name != text],
            chunk_rows=self._chunk_rows,
        )

    async def _answers(self, chunk: Chunk, text: str, *, first: bool) -> list[_Row]:
        """Of the rows that were read well; the others keep the reader's error."""
        errors = chunk.frame["error"].tolist()
        cells = chunk.original[[text, *self._columns]].itertuples(index=False, name=None)
        names = ["text", *self._columns]
        items = [
            dict(zip(names, row, strict=True))
            for row, error in zip(cells, errors, strict=True)
            if error is None
        ]
        try:
            answers = iter(await self._patiently(items))
        except Problem as problem:
            if first:
                raise
            answers = iter([problem.body] * len(items))
        return [_row(next(answers)) if error is None else _Row(error=error) for error in errors]

    async def _patiently(self, items: Sequence[Any]) -> list[Answer]:
        for _ in range(_TRIES - 1):
            try:
                return await self._predict(items)
            except Problem as problem:
                if problem.code != "overloaded":
                    raise
                await asyncio.sleep(problem.retry_after or 1)
        return await self._predict(items)


def _row(answer: Answer) -> _Row:
    if "error" in answer:
        return _Row(error=str(answer["error"].get("message")))
    return _Row(
        label=answer["label"],
        probabilities=answer["probabilities"],
        truncated=bool(answer.get("truncated")),
        id=answer["id"],
    )


def _unpack(file: BinaryIO, name: str, folder: Path, most: int) -> Path:
    """The upload as a file of a sound name, no larger than allowed.

    Raises:
        DataError: It cannot be unpacked, or there is no such format.
        Problem: It is too large, or there is no room for it.
    """
    # Only the end of a name that anyone may choose.
    safe = re.sub(r"[^\w.-]", "_", Path(name.replace("\\", "/")).name)[-100:].lstrip(".")
    path = folder / (safe or "table")
    try:
        file.seek(0)
        if path.suffix.lower() == ".gz" and kind(path) is not None:
            path = path.with_suffix("")
            with gzip.open(file) as unpacked, path.open("wb") as out:
                _copy(unpacked, out, most)
        else:
            with path.open("wb") as out:
                shutil.copyfileobj(file, out, _BLOCK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{safe}: the gzip file is truncated or damaged") from error
    except OSError as error:
        raise Problem(
            503, "no_space", f"the table cannot be kept: {error.strerror}", retry_after=60
        ) from error
    if kind(path) in (".parquet", ".pq"):
        _check_cells(path, most)
    return path


def _copy(source: Any, out: BinaryIO, most: int) -> None:
    while block := source.read(_BLOCK):
        most -= len(block)
        if most < 0:
            raise too_large(most)
        out.write(block)


def _check_cells(path: Path, most: int) -> None:
    """Refuse a Parquet file of a few bytes that stand for more cells than a table may have."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return  # its reader says it better
    if metadata.num_rows * max(metadata.num_columns, 1) > most:
        raise too_large(most)


def _write(
    path: Path, held: list[tuple[Chunk, list[_Row]]], classes: list[str], *, header: bool
) -> bytes:
    parts: list[str] = []
    for chunk, rows in held:
        if header and not parts:
            added = [*added_names(classes), ID]
            check_names(path, list(chunk.original.columns), added, advice=_ADVICE)
        frame = pd.concat([chunk.original, added_columns(rows, classes)], axis=1)
        frame[ID] = pd.Series([row.id for row in rows], dtype="str")
        parts.append(frame.to_csv(index=False, header=header and not parts))
    return "".join(parts).encode()
