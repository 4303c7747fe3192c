"""What rows must be like, declared once, and a report of those that are not.

The checks are pandera's. It is imported when rows are checked, not before.
"""

import csv
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fakenews.data.expectations import (
    Expectations,
    Passes,
    expectation_faults,
    number_checks,
    one_of,
    string_checks,
)
from fakenews.data.storage_errors import explain
from fakenews.errors import ConfigError, DataError

FAILURES = ("row", "column", "check", "value", "reason")
"""The columns of what `RowSchema.check` finds."""

REPORTED = ("file", "row", "reason", "text", "label")
"""The columns of every report file; extra columns follow."""

_SHORT = 40  # characters of a value that are shown
_BATCH_ROWS = 8192
# What `reason` puts before the words: it differs from row to row.
_VALUE = re.compile(
    r"(?:(?<=: )|(?<=^the text )|(?<=; the text )|(?<=^the label )|(?<=; the label ))"
    r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+.\w]+)(?:\.\.\.)? (?=is |has |does )"""
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a configuration says of validation.

    Attributes:
        quarantine: A file for the rows that break the schema; None if they stop the work.
        columns: What is expected of columns, as for `RowSchema`; None for nothing more than
            what is always checked.
    """

    quarantine: str | None = None
    columns: Expectations | None = None


class RowSchema:
    """What each row of a frame must be like.

    Always: the text and the label are not empty, the label is one of the classes if they
    are given, and numbers are finite. Gaps (NaN in a numeric column, an empty string in a
    categorical one) are allowed. Expectations add to that, by column:

    - ``text``: ``min_chars``, ``max_chars``, ``pattern``
    - ``label``: ``one_of``
    - a numeric column: ``min``, ``max`` (inclusive), ``one_of``, ``allow_missing``
    - a categorical column: those of the text, ``one_of``, ``allow_missing``

    A pattern is a regular expression that must be found in the value; a rule that is None
    is off.

    Args:
        numeric: Extra columns of numbers.
        categorical: Extra columns of strings.
        classes: Allowed labels; None for any.
        expectations: Column -> rules.
        called: Names of the text and the label column in a file -> `text`, `label`; for
            messages.

    Raises:
        ConfigError: With every unknown column, unknown rule and impossible value.
    """

    def __init__(
        self,
        *,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        classes: Sequence[str] | None = None,
        expectations: Expectations | None = None,
        called: Mapping[str, str] | None = None,
    ) -> None:
        kinds = {"text": "text", "label": "label"}
        kinds |= dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")
        rules = expectations or {}
        if faults := list(expectation_faults(rules, kinds, called)):
            raise ConfigError(faults)
        self._kinds, self._classes = kinds, classes
        self._rules = {
            name: {k: v for k, v in (rules.get(name) or {}).items() if v is not None}
            for name in kinds
        }
        self._schema: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without pandera's schema, which is made again where it is needed."""
        return self.__dict__ | {"_schema": None}

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Find what is wrong with the rows of a frame.

        Args:
            frame: Columns `text`, `label` (unless the rows have none), the numeric (float64)
                and categorical (str) columns; others are ignored. Its index is unique.

        Returns:
            A row for each failure, in the order of the frame: `row` (its index there),
            `column`, `check` (in plain words), `value` (shortened) and `reason` (all three).

        Raises:
            DataError: The frame lacks a column, or one is of the wrong type.
        """
        from pandera.errors import SchemaErrors

        if self._schema is None:
            self._schema = self._build()
        try:
            self._schema.validate(frame, lazy=True)
        except SchemaErrors as error:
            return self._failures(error.failure_cases, frame)
        return _no_failures()

    def _build(self) -> Any:
        from pandera.pandas import Check, Column, DataFrameSchema

        columns = {}
        for name, kind in self._kinds.items():
            numeric = kind == "numeric"
            checks = [
                Check(passes if numeric else _filled(passes), error=words, ignore_na=False)
                for words, passes in self._checks(name, kind)
            ]
            columns[name] = Column(
                "float64" if numeric else None,
                checks,
                nullable=True,  # gaps are the business of our checks
                required=name != "label",
            )
        return DataFrameSchema(columns)

    def _checks(self, name: str, kind: str) -> Iterator[tuple[str, Passes]]:
        rules = self._rules[name]
        if kind == "numeric":
            yield from number_checks(rules)
            return
        if kind != "categorical":
            yield "is empty", lambda s: s != ""
        elif rules.get("allow_missing") is False:
            yield "is missing", lambda s: s != ""
        yield from string_checks(rules)
        if kind == "label" and self._classes is not None:
            yield one_of(self._classes, gap="")

    def _failures(self, cases: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
        general = cases[cases["index"].isna()]
        if len(general):
            raise DataError(
                [
                    f"the rows have no column {case.failure_case!r}"
                    if case.check == "column_in_dataframe"
                    else f"column {case.column!r} has the type {case.failure_case}"
                    for case in general.itertuples()
                ]
            )
        places = frame.index.get_indexer(pd.Index(cases["index"]))
        order = np.argsort(places, kind="stable")
        cases = cases.iloc[order]
        values = [_shortened(value) for value in cases["failure_case"]]
        found = pd.DataFrame(
            {
                "row": frame.index[places[order]],
                "column": cases["column"].astype("str").tolist(),
                "check": cases["check"].astype("str").tolist(),
                "value": pd.Series(values, dtype="str"),
            }
        )
        found["reason"] = pd.Series(
            [
                reason(column=column, check=check, value=value)
                for column, check, value in zip(
                    found["column"], found["check"], values, strict=True
                )
            ],
            dtype="str",
        )
        return found


def reason(*, column: str, check: str, value: str) -> str:
    """What is wrong with a row, in words from which `Report` can take the value.

    Args:
        column: `text`, `label`, or the name of another one.
        check: What the value is, does or has, as in ``is above 120``.
        value: As `repr` gives it, or a number; empty if it has nothing to tell.
    """
    subject = f"the {column}" if column in ("text", "label") else f"column {column!r}:"
    return f"{subject} {check}" if value in ("", "''", "nan") else f"{subject} {value} {check}"


class Report:
    """Rows that cannot be used: counted by reason, the first kept, all written to a file.

    To be used in a ``with`` statement. The file (CSV) appears when it ends without an error,
    also if there is no row.

    Args:
        path: The file; None writes none.
        extra: Columns that rows have beside `REPORTED`.
        examples: How many rows are kept for the summary.

    Attributes:
        columns: Those of the file.
        rows: Rows so far.
        counts: Reason, without the value -> rows.
        examples: File, row and reason of the first ones.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(
        self, path: str | Path | None, *, extra: Sequence[str] = (), examples: int = 3
    ) -> None:
        self.columns = (*REPORTED, *extra)
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.examples: list[tuple[str, int, str]] = []
        self._most = examples
        self._path = None if path is None else Path(path)
        self._draft: Path | None = None
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        """Open the draft."""
        if self._path is not None:
            # In the same folder: renaming is whole or not at all.
            draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
            self._draft = draft
            self._write(lambda: self._open(draft))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the file in its place, or remove the draft."""
        if self._draft is None or self._file is None:
            return
        if kind is None:
            self._write(self._finish)
        else:
            self._remove()

    def try_to_write(self) -> None:
        """Notice before long work that the file has no place; one that is there stays.

        Raises:
            DataError: It cannot be written.
        """
        if self._path is not None and self._path.is_dir():
            raise DataError(f"{self._path}: it is a folder, not a file: mend the path")
        self.__enter__()
        self._remove()

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows.

        Args:
            rows: With the columns of the file; a row once, its reasons joined by ``; ``.

        Raises:
            DataError: They cannot be written.
        """
        self.rows += len(rows)
        for why, count in rows["reason"].value_counts(sort=False).items():
            self.counts[_VALUE.sub("", str(why))] += int(count)
        for row in rows.head(max(0, self._most - len(self.examples))).itertuples():
            self.examples.append((str(row.file), int(str(row.row)), str(row.reason)))
        file = self._file
        if file is not None:
            self._write(lambda: rows[[*self.columns]].to_csv(file, header=False, index=False))

    def add_table(self, path: Path) -> None:
        """Add the rows of a Parquet file with the columns of the file, in bounded memory.

        Raises:
            DataError: They cannot be written.
        """
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*self.columns]):
                self.add(batch.to_pandas())

    def summary(self) -> str:
        """One line: how many rows, why, the first of them, and where all are."""
        reasons = [f"{count:,} x {words}" for words, count in self.counts.most_common(5)]
        if len(self.counts) > 5:
            reasons.append(f"{len(self.counts) - 5} more reasons")
        rows = "row breaks" if self.rows == 1 else "rows break"
        first = "; ".join(f"{file}: row {row}, {why}" for file, row, why in self.examples)
        all_of_them = "" if self._path is None else f"; all are in {self._path}"
        return (
            f"{self.rows:,} {rows} the schema ({', '.join(reasons)}), as {first}{all_of_them}"
        )

    def refusal(self) -> DataError:
        """The error of a program that stops at such rows: the summary, and what to do."""
        return DataError(
            f"{self.summary()}; mend them, relax validation.columns, or set them aside with "
            "validation.quarantine=FILE"
        )

    def _open(self, draft: Path) -> None:
        draft.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair has no UTF-8, and no rows may be lost over it.
        self._file = draft.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        csv.writer(self._file, lineterminator="\n").writerow(self.columns)

    def _finish(self) -> None:
        assert self._file is not None  # noqa: S101 as are the next two
        assert self._draft is not None  # noqa: S101
        assert self._path is not None  # noqa: S101
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self._path)

    def _remove(self) -> None:
        # What went wrong is told already, and closing or deleting may say it once more.
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._draft is not None:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)

    def _write(self, action: Callable[[], object]) -> None:
        try:
            action()
        except FileNotFoundError as error:  # as in /proc
            self._remove()
            raise DataError(
                f"{self._path}: its folder cannot be made: choose another place"
            ) from error
        except OSError as error:
            self._remove()
            raise DataError(f"{self._path}: {explain(error, local=True)}") from error


def _filled(passes: Passes) -> Passes:
    return lambda s: passes(s.fillna(""))


def _no_failures() -> pd.DataFrame:
    empty = pd.DataFrame({name: pd.Series(dtype="str") for name in FAILURES})
    return empty.astype({"row": "int64"})


def _shortened(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHORT else f"{value[:_SHORT]!r}..."
    return f"{value:g}" if isinstance(value, int | float) else repr(value)[:_SHORT]
