"""Columns of a request: what is a number, a category, a gap or a mistake."""

import math
from typing import Any

import pandas as pd
import pytest

from fakenews.predictor import Predictor
from fakenews.serving.columns import gaps, read_columns
from fakenews.serving.protocol import Fault


def found(age: Any = 1, lang: Any = "a") -> dict[str, Any] | Fault:
    values = {"text": "Rain", "age": age, "lang": lang, "unknown": [1]}
    return read_columns(values, numeric=["age"], categorical=["lang"])


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (2.5, 2.5), (True, 1), ("4", 4), (" 1e3 ", 1000), ("-.5", -0.5), (10**300, 1e300)],
)
def test_numbers(value: Any, number: float) -> None:
    assert found(age=value) == {"age": number, "lang": "a"}


@pytest.mark.parametrize("value", [None, "", "  ", "NaN", math.nan])
def test_gaps_of_numbers(value: Any) -> None:
    columns = found(age=value)
    assert isinstance(columns, dict)
    assert math.isnan(columns["age"])


@pytest.mark.parametrize(
    "value",
    [
        "old",
        "1_000",
        "١٢",
        "inf",
        "-nan",
        "-Infinity",
        "1,5",
        "0x1f",
        float("inf"),
        1e999,
        10**400,
        [1],
        {"a": 1},
    ],
)
def test_what_is_no_number(value: Any) -> None:
    fault = found(age=value)
    assert isinstance(fault, Fault)
    assert fault.code == "bad_column"
    assert fault.message.startswith("column 'age': ")
    assert fault.message.endswith(" is not a finite number")
    assert len(fault.message) < 120


@pytest.mark.parametrize(
    ("value", "category"), [(" a ", "a"), (3, "3"), (None, None), ("", ""), (False, "False")]
)
def test_categories(value: Any, category: Any) -> None:
    assert found(lang=value) == {"age": 1, "lang": category}


def test_what_is_no_category() -> None:
    for value in (["a"], {"a": "b" * 1000}):
        fault = found(lang=value)
        assert isinstance(fault, Fault)
        assert fault.code == "bad_column"
        assert len(fault.message) < 120


def test_what_is_missing() -> None:
    for values, name in (({"lang": "a"}, "age"), ({"age": 1}, "lang")):
        fault = read_columns(values, numeric=["age"], categorical=["lang"])
        assert fault == Fault("missing_column", f"the model needs the column {name!r} too")
    assert read_columns({}, numeric=[], categorical=[]) == {}


def test_strings_are_read_as_the_predictor_reads_them(columns_bundle: Any) -> None:
    predictor = Predictor.load(columns_bundle)
    values = ["1", " 5 ", "+3", "1.", ".5", "", "nan", "1e5", "12.25"]
    table = pd.DataFrame({"text": "a", "age": values, "lang": "a"})
    read = [found(age=value) for value in values]
    again = table.assign(age=[columns["age"] for columns in read if isinstance(columns, dict)])
    assert predictor.predict(table) == predictor.predict(again)


def test_gaps() -> None:
    columns = gaps(numeric=["age"], categorical=["lang"])
    assert str(columns) == "{'age': nan, 'lang': None}"
    assert str(read_columns(columns, numeric=["age"], categorical=["lang"])) == str(columns)
