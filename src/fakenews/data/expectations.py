"""Expectations of columns, as a configuration declares them: faults in them, and checks.

A check is the words of its failure and a function that says which values pass.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fakenews.data.checks import near, some

Expectations = Mapping[str, Mapping[str, Any]]
"""Column -> rule -> value, as in ``{"age": {"min": 0, "max": 120}}``."""

Passes = Callable[["pd.Series[Any]"], Any]
"""Which values pass, [N] bool."""

_STRING_RULES = ("min_chars", "max_chars", "pattern")
_RULES = {
    "text": _STRING_RULES,
    "label": ("one_of",),
    "numeric": ("min", "max", "one_of", "allow_missing"),
    "categorical": (*_STRING_RULES, "one_of", "allow_missing"),
}


def expectation_faults(
    rules: Mapping[str, Any], kinds: Mapping[str, str], called: Mapping[str, str] | None = None
) -> Iterator[str]:
    """What is wrong with expectations.

    Args:
        rules: The expectations.
        kinds: Column -> `text`, `label`, `numeric` or `categorical`.
        called: Name in the file -> name in `kinds`, where they differ.

    Yields:
        A message for each column that is not read, unknown rule and impossible value.
    """
    for column, wanted in rules.items():
        place = f"validation.columns.{column}"
        if column not in kinds and column in (called or {}):
            name = (called or {})[column]
            yield f"{place}: the column of the {name} is called {name} here: write {name}"
        elif column not in kinds:
            yield (
                f"{place}: {column} is not read{near(str(column), list(kinds)) or ':'} add it "
                "to data.numeric or data.categorical"
            )
        elif wanted is not None and not isinstance(wanted, Mapping):
            yield f"{place}={wanted!r}: write rules, as in {{min: 0, max: 120}}"
        else:
            yield from _rule_faults(place, wanted or {}, _RULES[kinds[column]])


def _rule_faults(place: str, wanted: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    faults = [
        f"{place}.{rule} is no rule for this column{near(str(rule), known) or ';'} "
        f"rules: {', '.join(known)}"
        for rule in wanted
        if rule not in known
    ]
    for rule, value in wanted.items():
        if rule in known and value is not None and (fault := _value_fault(rule, value)):
            faults.append(f"{place}.{rule}={value!r}: {fault}")
    yield from faults
    for low, high in (("min", "max"), ("min_chars", "max_chars")):
        least, most = wanted.get(low), wanted.get(high)
        if not faults and least is not None and most is not None and least > most:
            yield f"{place}: {low}={least} is above {high}={most}"


def _value_fault(rule: str, value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if rule in ("min", "max"):
        return None if number and math.isfinite(value) else "it must be a finite number"
    if rule in ("min_chars", "max_chars"):
        whole = number and isinstance(value, int) and value >= 1
        return None if whole else "it must be a whole number above 0"
    if rule == "allow_missing":
        return None if isinstance(value, bool) else "it must be true or false"
    if rule == "one_of":
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        return None if listed else "it must be a list of values"
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        return f"it must be a regular expression ({error})"
    return None


def number_checks(rules: Mapping[str, Any]) -> Iterator[tuple[str, Passes]]:
    """Checks of a numeric column, in which NaN is a gap."""
    yield "is not finite", lambda s: ~np.isinf(s)
    if rules.get("allow_missing") is False:
        yield "is missing", lambda s: s.notna()
    if (least := rules.get("min")) is not None:
        yield f"is below {least}", lambda s: ~(s < least)
    if (most := rules.get("max")) is not None:
        yield f"is above {most}", lambda s: ~(s > most)
    if (allowed := rules.get("one_of")) is not None:
        yield one_of(allowed, gap=math.nan)


def string_checks(rules: Mapping[str, Any]) -> Iterator[tuple[str, Passes]]:
    """Checks of a column of strings, in which an empty one is a gap."""
    if (least := rules.get("min_chars")) is not None:
        yield (
            f"has fewer than {least} characters",
            lambda s: (s.str.len() >= least) | (s == ""),
        )
    if (most := rules.get("max_chars")) is not None:
        yield f"has more than {most} characters", lambda s: s.str.len() <= most
    if (pattern := rules.get("pattern")) is not None:
        compiled = re.compile(pattern)
        yield (
            f"does not match {pattern!r}",
            # Python's expressions, not Arrow's, which lack some.
            lambda s: pd.Series([not v or bool(compiled.search(v)) for v in s], index=s.index),
        )
    if (allowed := rules.get("one_of")) is not None:
        yield one_of([str(value) for value in allowed], gap="")


def one_of(allowed: Sequence[Any], *, gap: Any) -> tuple[str, Passes]:
    """The check that a value is one of these, or a gap."""
    accepted = [*allowed, gap]
    return f"is not one of {some(allowed)}", lambda s: s.isin(accepted)
