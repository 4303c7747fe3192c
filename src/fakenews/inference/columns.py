"""The columns that predictions add to a table, whoever made them. No model is needed here."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from fakenews.errors import DataError


class Scored(Protocol):
    """What was predicted of one row, as a `Prediction` has it."""

    @property
    def label(self) -> str | None:
        """The class decided for; None with an `error`."""

    @property
    def probabilities(self) -> Mapping[str, float]:
        """By class; empty with an `error`."""

    @property
    def truncated(self) -> bool:
        """Whether the text was too long to be read whole."""

    @property
    def error(self) -> str | None:
        """Why there is no prediction, or None."""


def added_names(classes: Sequence[str], prefix: str = "") -> list[str]:
    """Names of the columns that are added.

    Args:
        classes: Of the model.
        prefix: Of the names.
    """
    names = ["prediction", *(f"probability_{name}" for name in classes), "truncated", "error"]
    return [f"{prefix}{name}" for name in names]


def check_names(
    table: object, taken: Sequence[str], added: Sequence[str], *, advice: str
) -> None:
    """Refuse a table that has a column of a name that is added.

    Args:
        table: Names it.
        taken: Its columns.
        added: Those that are added.
        advice: What to do.

    Raises:
        DataError: There is such a column.
    """
    both = [name for name in added if name in set(taken)]
    if both:
        raise DataError(
            f"{table} already has the column{'s' * (len(both) > 1)} {', '.join(both)}: {advice}"
        )


def added_columns(
    predictions: Sequence[Scored], classes: Sequence[str], prefix: str = ""
) -> pd.DataFrame:
    """The columns that are added, a row for each prediction."""
    columns = [
        pd.Series([p.label for p in predictions], dtype="str"),
        *(
            pd.Series([p.probabilities.get(name, np.nan) for p in predictions], dtype="float64")
            for name in classes
        ),
        pd.Series([p.truncated for p in predictions], dtype="bool"),
        pd.Series([p.error for p in predictions], dtype="str"),
    ]
    return pd.DataFrame(dict(zip(added_names(classes, prefix), columns, strict=True)))
