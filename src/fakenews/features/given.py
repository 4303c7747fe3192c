"""What is wrong with rows that a predictor is given."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

EMPTY = "the text is empty"


def text_fault(text: Any) -> str | None:
    """Why a value is no text that can be predicted, or None."""
    if isinstance(text, str):
        return None if text.strip() else EMPTY
    if pd.isna(text) is True:  # of an array, isna is an array
        return "the text is missing"
    return f"the text is of type {type(text).__name__}, not a string"


def numbers(column: "pd.Series[Any]", faults: list[str | None]) -> NDArray[np.float64]:
    """The numbers [N] of a column, NaN for gaps; what is no finite number is a fault.

    Args:
        column: As it was given.
        faults: Of each row; one that has none yet gets that of its number.
    """
    found = pd.to_numeric(column, errors="coerce").to_numpy(
        np.float64, copy=True, na_value=np.nan
    )
    for row in np.flatnonzero(~np.isfinite(found)):
        value = column.iloc[row]
        # As files are read: an empty cell is a gap.
        empty = isinstance(value, str) and value.strip().lower() in ("", "nan")
        if np.isnan(found[row]) and (empty or pd.isna(value)):
            continue
        found[row] = np.nan
        if faults[row] is None:
            faults[row] = f"column {column.name!r}: {value!r} is not a finite number"
    return found
