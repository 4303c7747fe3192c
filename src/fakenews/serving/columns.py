"""The columns that a model reads beside the text, as a request gives them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fakenews.serving.protocol import Fault, quote


def read_columns(
    values: Mapping[str, Any], *, numeric: Sequence[str], categorical: Sequence[str]
) -> dict[str, Any] | Fault:
    """An item's columns as files have them: numbers, NaN for gaps, and stripped strings.

    Args:
        values: What stood beside the text.
        numeric: Columns of numbers; a string that is one counts, an empty one is a gap.
        categorical: Columns of categories; numbers count as they are written.

    Returns:
        The columns, or what is wrong with the first that is missing or no such value.
    """
    found: dict[str, Any] = {}
    for name in (*numeric, *categorical):
        if name not in values:
            return Fault("missing_column", f"the model needs the column {name!r} too")
        value = values[name]
        if name in numeric:
            number = _number(value)
            if number is None:
                what = "is not a finite number"
                return Fault("bad_column", f"column {name!r}: {quote(value)} {what}")
            found[name] = number
        elif isinstance(value, dict | list):
            return Fault("bad_column", f"column {name!r}: {quote(value)} is no category")
        else:
            found[name] = None if value is None else str(value).strip()
    return found


def gaps(*, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, Any]:
    """The columns of an item of which nothing is known but its text."""
    return {**dict.fromkeys(numeric, math.nan), **dict.fromkeys(categorical)}


def _number(value: Any) -> float | None:
    """The number, NaN for a gap; None for what is neither."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, str):
        value = value.strip().lower()
        if value in ("", "nan"):
            return math.nan
        # Python reads more than files do: other digits, and underscores between them.
        if not value.isascii() or "_" in value:
            return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
