"""A bundle scores a file, or a few texts given with the command."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from fakenews.bounds import PositiveCount
from fakenews.bundle import read_bundle
from fakenews.data.formats import open_source
from fakenews.data.sources import Chunk, read_chunks
from fakenews.errors import ConfigError, DataError
from fakenews.inference.columns import added_columns, added_names, check_names
from fakenews.inference.settings import data_setting
from fakenews.inference.writers import check_output, table_writer
from fakenews.predictor import Prediction, Predictor
from fakenews.terminal import show

log = logging.getLogger(__name__)

# Enough rows to sort into batches of like length, few enough for a bar that moves.
_CHUNK_ROWS = 1024


def predict(
    *,
    bundle: str,
    path: str | None = None,
    out: str | None = None,
    texts: Sequence[str] | None = None,
    text: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: PositiveCount = 64,
) -> None:
    """Score a file into another, or print the predictions of some texts.

    Args:
        bundle: Folder of a bundle, or of a run.
        path: The file to score.
        out: The file to write.
        texts: Texts to score in place of a file.
        text: Column of the text; None takes that of the training.
        prefix: Of the names of the columns that are added.
        overwrite: Replace `out` if it exists.
        device: As torch names it.
        batch_size: Most texts of a batch.

    Raises:
        ConfigError: The options contradict each other.
        DataError: The file cannot be read, `out` not written, or no row scored.
        BundleError: The bundle is damaged.
    """
    if (path is None) == (texts is None):
        raise ConfigError('give either path=FILE out=FILE, or texts=\'["A text","Another"]\'')
    if path is not None and out is None:
        raise ConfigError("out is not set: give out=FILE for the predictions")
    if path is not None and out is not None:
        check_output(Path(out), source=Path(path), overwrite=overwrite)
    content = read_bundle(bundle)
    predictor = Predictor.from_content(content, device=device, batch_size=batch_size)
    if path is None or out is None:
        found = predictor.predict(texts or [])
        show(_table(texts or [], found, predictor.classes))
        if found and all(row.label is None for row in found):
            raise DataError(f"no text could be scored, the first because {found[0].error}")
        return
    summary = score_file(
        predictor,
        Path(path),
        Path(out),
        text=data_setting(content, "text", text),
        prefix=prefix,
        progress=True,
    )
    if summary.errors == summary.rows:
        raise DataError(
            f"none of the {summary.rows:,} rows could be scored, the first is "
            f"{summary.first_error}: {out} says why for each"
        )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `score_file` did.

    Attributes:
        rows: Rows read and written.
        errors: How many of them have an error.
        first_error: Where the first one is, and what; None without any.
        seconds: Time it took.
    """

    rows: int
    errors: int
    first_error: str | None
    seconds: float

    def __str__(self) -> str:
        """One line."""
        speed = self.rows / max(self.seconds, 1e-9)
        first = f", the first in {self.first_error}" if self.first_error else ""
        return (
            f"{self.rows:,} rows in {self.seconds:,.1f} s ({speed:,.0f} rows/s), "
            f"{self.errors:,} with an error{first}"
        )


def score_file(
    predictor: Predictor,
    path: Path,
    out: Path,
    *,
    text: str,
    prefix: str = "",
    chunk_rows: int = _CHUNK_ROWS,
    progress: bool = False,
) -> Summary:
    """Score a file row by row into another, in bounded memory.

    Every row is written, in order, with all its columns as they were read, and with
    `prediction`, a `probability_CLASS` for each class, `truncated`, and `error`: why there
    is no prediction, or nothing.

    Args:
        predictor: Scores.
        path: CSV, TSV, JSON Lines or Parquet.
        out: Of any of these formats; replaced if it exists.
        text: Column of the text.
        prefix: Of the names of the columns that are added.
        chunk_rows: Rows held in memory at a time.
        progress: Show a progress bar.

    Raises:
        DataError: The file as a whole cannot be read, a column is missing or has the name
            of one that is added, or `out` cannot be written.
    """
    start = time.perf_counter()
    rows = errors = 0
    first_error: str | None = None
    chunks = read_chunks(
        path,
        text=text,
        numeric=predictor.numeric,
        categorical=predictor.categorical,
        normalise=predictor.cleaning.normalise,
        max_chars=predictor.cleaning.max_chars,
        chunk_rows=chunk_rows,
    )
    first = next(chunks)
    check_names(
        path,
        list(first.original.columns),
        added_names(predictor.classes, prefix),
        advice="choose other names for those that are added, as in prefix=new_",
    )
    # Reading a file is a hundred times as fast as predicting it.
    total = sum(1 for _ in open_source(path, expected=[text], lenient=True).records())
    with (
        table_writer(out) as write,
        tqdm(total=total, desc="predict", unit="row", disable=not progress) as bar,
    ):
        for chunk in chain([first], chunks):
            predictions = _score(predictor, chunk)
            added = added_columns(predictions, predictor.classes, prefix)
            write(pd.concat([chunk.original, added], axis=1))
            for row, found in zip(chunk.frame["row"], predictions, strict=True):
                if found.error is not None:
                    errors += 1
                    first_error = first_error or f"row {row}: {found.error}"
            rows += len(predictions)
            bar.update(len(predictions))
    summary = Summary(
        rows=rows,
        errors=errors,
        first_error=first_error,
        seconds=time.perf_counter() - start,
    )
    log.info("%s: %s", out, summary)
    return summary


def _score(predictor: Predictor, chunk: Chunk) -> list[Prediction]:
    """Predictions of a chunk; a row that was not read well keeps the reader's error."""
    # The raw text, because the predictor cleans texts itself, once.
    table = chunk.frame.assign(text=chunk.frame["raw"])
    unread = chunk.frame["error"].notna().to_numpy()
    predictions = iter(predictor.predict(table[~unread]))
    return [
        next(predictions)
        if error is None
        else Prediction(label=None, probabilities={}, error=error)
        for error in chunk.frame["error"]
    ]


def _table(
    texts: Sequence[str], predictions: Sequence[Prediction], classes: Sequence[str]
) -> Table:
    table = Table("Text", "Prediction", *classes)
    for text, found in zip(texts, predictions, strict=True):
        shown = [f"{found.probabilities[name]:.3f}" if found.label else "" for name in classes]
        # Texts, for what people write may look like markup.
        table.add_row(Text(str(text)), Text(found.label or f"error: {found.error}"), *shown)
    return table
