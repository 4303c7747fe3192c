"""How predictions arrive."""

from dataclasses import replace

import pandas as pd
import pytest

from fakenews.data.validation import RowSchema
from fakenews.monitoring.quality import Arrivals, Limits, quality_checks, schema_check
from fakenews.monitoring.verdict import Check, State

GOOD = Arrivals(rows=240, hours=24, errors={"empty": 2}, latency_ms=80, truncated=0.01)


def checks(*arrivals: Arrivals, limits: Limits | None = None) -> dict[str, Check]:
    found = quality_checks(arrivals, limits=limits or Limits())
    return {check.key.removeprefix("quality."): check for check in found}


def test_all_is_well():
    found = checks(GOOD, GOOD, GOOD, GOOD)
    assert found.keys() == {"errors", "latency", "truncated", "volume"}
    assert {check.state for check in found.values()} == {State.OK}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("errors", {"errors": {"empty": 30, "timeout": 40}}, "timeout: 40, empty: 30"),
        ("latency", {"latency_ms": 2500.0}, "within 2,500 ms; the limit is 1,000 ms"),
        ("truncated", {"truncated": 0.3}, "30.0% of the texts"),
        ("volume", {"rows": 55}, "2.3 predictions an hour, the median of 3 windows"),
        ("volume", {"rows": 9000}, "4 times more or less"),
    ],
)
def test_limits(name: str, changed: dict, message: str):
    found = checks(GOOD, GOOD, GOOD, replace(GOOD, **changed))
    assert found[name].state is State.ALARM
    assert message in found[name].message
    assert {check.state for key, check in found.items() if key != name} == {State.OK}


@pytest.mark.parametrize("errors", [{}, {"empty": 1}])
def test_of_few_items_errors_tell_nothing(errors: dict[str, int]):
    few = replace(GOOD, rows=1, errors=errors)
    found = checks(few)["errors"]
    assert found.state is State.UNKNOWN
    assert "limits.items=50 are needed" in found.message
    assert checks(few, limits=Limits(items=1))["errors"].state is not State.UNKNOWN
    # Many that failed are many items.
    assert checks(replace(few, errors={"timeout": 60}))["errors"].state is State.ALARM


def test_what_is_not_known_or_not_limited_is_left_out():
    bare = Arrivals(rows=1, hours=1, errors=None, latency_ms=None, truncated=None)
    assert not checks(bare)
    none = Limits(errors=None, latency_ms=None, volume_ratio=None, truncated=None)
    assert not checks(GOOD, GOOD, GOOD, GOOD, limits=none)


def test_volume_needs_windows_before():
    assert "volume" not in checks(GOOD, GOOD, GOOD)
    silent = replace(GOOD, rows=0)
    assert checks(silent, silent, silent, silent)["volume"].state is State.OK
    assert checks(silent, silent, silent, GOOD)["volume"].state is State.OK
    assert checks(GOOD, GOOD, GOOD, silent)["volume"].state is State.ALARM


def test_texts_are_checked_by_the_schema_of_preparation():
    schema = RowSchema(expectations={"text": {"min_chars": 5}})
    frame = pd.DataFrame({"text": ["long enough", "no", "long as well", "also long"]})
    found = schema_check(frame, schema, limit=0.1)
    assert found.state is State.ALARM
    assert found.value == 0.25
    assert "25.0% of the rows break the schema (text " in found.message
    assert schema_check(frame, schema, limit=0.3).state is State.OK
