"""Rows against a declared schema, and the report of those that break it."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fakenews.data.validation import FAILURES, Report, RowSchema, reason
from fakenews.errors import ConfigError, DataError


def frame(**columns: list[object]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({"text": ["a text"] * rows, "label": ["real"] * rows} | columns)


def found(schema: RowSchema, rows: pd.DataFrame) -> list[tuple[object, ...]]:
    failures = schema.check(rows)
    assert tuple(failures) == FAILURES
    return list(failures[["row", "reason"]].itertuples(index=False, name=None))


def test_what_is_always_checked():
    rows = frame(
        text=["fine", "", "fine", "fine", None],
        label=["real", "fake", "", "odd", "fake"],
        age=[1.0, np.nan, np.inf, 3.0, -np.inf],
    )
    schema = RowSchema(numeric=["age"], classes=["fake", "real"])
    assert found(schema, rows) == [
        (1, "the text is empty"),
        (2, "the label is empty"),
        (2, "column 'age': inf is not finite"),
        (3, "the label 'odd' is not one of 'fake', 'real'"),
        (4, "the text is empty"),
        (4, "column 'age': -inf is not finite"),
    ]
    assert found(RowSchema(), rows)[-1] == (4, "the text is empty")


def test_good_rows_have_no_failures():
    failures = RowSchema(numeric=["age"]).check(frame(age=[1.0, np.nan]))
    assert tuple(failures) == FAILURES
    assert failures.empty
    assert failures["row"].dtype == "int64"
    unlabelled = frame(age=[1.0]).drop(columns="label")
    assert RowSchema(numeric=["age"]).check(unlabelled).empty


@pytest.mark.parametrize(
    ("column", "rules", "values", "reasons"),
    [
        (
            "text",
            {"min_chars": 3},
            ["ab", "abc"],
            ["the text 'ab' has fewer than 3 characters"],
        ),
        (
            "text",
            {"max_chars": 3},
            ["abc", "abcd"],
            ["the text 'abcd' has more than 3 characters"],
        ),
        (
            "text",
            {"pattern": "^[A-Z]"},
            ["Ab", "ab"],
            ["the text 'ab' does not match '^[A-Z]'"],
        ),
        (
            "text",
            {"pattern": r"(?<!a)b"},
            ["b", "ab"],
            [r"the text 'ab' does not match '(?<!a)b'"],
        ),
        ("text", {"min_chars": None, "pattern": None}, ["a"], []),
        (
            "label",
            {"one_of": ["a", 1]},
            ["a", "1", "b"],
            ["the label 'b' is not one of 'a', '1'"],
        ),
        ("age", {"min": 0, "max": 120}, [0.0, 120.0, np.nan], []),
        ("age", {"min": 0}, [-0.5], ["column 'age': -0.5 is below 0"]),
        ("age", {"max": 120}, [121.0, np.inf], ["column 'age': 121 is above 120", *2 * [None]]),
        ("age", {"one_of": [1, 2]}, [1.0, np.nan, 3.0], ["column 'age': 3 is not one of 1, 2"]),
        ("age", {"allow_missing": False}, [1.0, np.nan], ["column 'age': is missing"]),
        ("age", {"allow_missing": True}, [np.nan], []),
        (
            "lang",
            {"one_of": ["en", "de"]},
            ["en", "", "xx"],
            ["column 'lang': 'xx' is not one of 'en', 'de'"],
        ),
        ("lang", {"allow_missing": False}, ["en", ""], ["column 'lang': is missing"]),
        ("lang", {"min_chars": 2, "pattern": "n"}, ["en", ""], []),
    ],
)
def test_expectations(
    column: str, rules: dict[str, object], values: list[object], reasons: list[str | None]
):
    schema = RowSchema(numeric=["age"], categorical=["lang"], expectations={column: rules})
    rows = frame(
        **{"age": [1.0] * len(values), "lang": ["en"] * len(values)} | {column: values}
    )
    got = [why for _, why in found(schema, rows)]
    assert len(got) == len(reasons)
    assert all(mine in (None, theirs) for mine, theirs in zip(reasons, got, strict=True))


def test_rows_are_named_by_their_index_in_the_order_of_the_frame():
    rows = frame(text=["x" * 100, "fine", "x" * 3]).set_index(pd.Index([70, 50, 60]))
    failures = RowSchema(expectations={"text": {"pattern": "f"}}).check(rows)
    assert failures["row"].tolist() == [70, 60]
    assert failures["column"].tolist() == ["text", "text"]
    assert failures["check"].tolist() == ["does not match 'f'"] * 2
    assert failures["value"].tolist() == [f"'{'x' * 40}'...", "'xxx'"]


def test_all_faults_of_expectations_are_told():
    with pytest.raises(ConfigError) as caught:
        RowSchema(
            numeric=["age"],
            categorical=["lang"],
            expectations={
                "txt": {},
                "age": {"mx": 3, "min": "0", "max": float("nan"), "one_of": []},
                "lang": {"allow_missing": "no", "min_chars": 0, "pattern": "("},
                "text": {"min_chars": 5, "max_chars": 3},
                "label": ["fake"],
            },
        )
    rules = "rules: min, max, one_of, allow_missing"
    assert caught.value.faults == [
        (
            "validation.columns.txt: txt is not read, did you mean 'text'? add it to "
            "data.numeric or data.categorical"
        ),
        f"validation.columns.age.mx is no rule for this column, did you mean 'max'? {rules}",
        "validation.columns.age.min='0': it must be a finite number",
        "validation.columns.age.max=nan: it must be a finite number",
        "validation.columns.age.one_of=[]: it must be a list of values",
        "validation.columns.lang.allow_missing='no': it must be true or false",
        "validation.columns.lang.min_chars=0: it must be a whole number above 0",
        (
            "validation.columns.lang.pattern='(': it must be a regular expression "
            "(missing ), unterminated subpattern at position 0)"
        ),
        "validation.columns.text: min_chars=5 is above max_chars=3",
        "validation.columns.label=['fake']: write rules, as in {min: 0, max: 120}",
    ]


def test_a_frame_that_is_not_one_of_rows():
    rows = frame(age=["1", "2"])
    with pytest.raises(DataError) as caught:
        RowSchema(numeric=["age", "followers"]).check(rows)
    assert "the rows have no column 'followers'" in caught.value.faults
    assert any("column 'age' has the type" in fault for fault in caught.value.faults)


def test_a_schema_that_was_used_goes_to_another_process():
    schema = RowSchema(expectations={"text": {"min_chars": 3}})
    schema.check(frame(text=["abc"]))
    copy = pickle.loads(pickle.dumps(schema))  # noqa: S301 our own
    assert found(copy, frame(text=["ab"])) == [(0, "the text 'ab' has fewer than 3 characters")]


def test_pandera_is_imported_when_it_is_used():
    program = (
        "import sys; from fakenews.data.validation import *; RowSchema(numeric=['a'])\n"
        "print('pandera' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


# --- the report ----------------------------------------------------------------------


def breaking(rows: int, first: int = 1) -> pd.DataFrame:
    numbers = range(first, first + rows)
    return pd.DataFrame(
        {
            "file": "news.csv",
            "row": numbers,
            "reason": [
                "the text is empty"
                if n % 2
                else reason(column="age", check="is above 120", value=f"{120 + n}")
                for n in numbers
            ],
            "text": [f'say "{n}",\nagain' for n in numbers],
            "label": "fake",
        }
    )


def test_a_report_counts_shows_and_keeps_everything(tmp_path: Path):
    path = tmp_path / "new" / "quarantine.csv"
    breaking(3, first=10_000).to_parquet(tmp_path / "more.parquet")
    with Report(path, examples=2) as report:
        report.add(breaking(5))
        report.add_table(tmp_path / "more.parquet")
        assert not path.exists()
    written = pd.read_csv(path)
    expected = pd.concat([breaking(5), breaking(3, first=10_000)], ignore_index=True)
    pd.testing.assert_frame_equal(written, expected)
    assert report.rows == 8
    assert report.counts == {"the text is empty": 4, "column 'age': is above 120": 4}
    assert report.summary() == (
        "8 rows break the schema (4 x the text is empty, 4 x column 'age': is above 120), as "
        "news.csv: row 1, the text is empty; news.csv: row 2, column 'age': 122 is above 120; "
        f"all are in {path}"
    )
    assert str(report.refusal()).endswith(
        "; mend them, relax validation.columns, or set them aside with "
        "validation.quarantine=FILE"
    )
    assert [each.name for each in path.parent.iterdir()] == ["quarantine.csv"]


def test_reasons_are_counted_without_their_values():
    values = ["'it'", '"it\'s"', r"'a \' is (b); c'", "'(x)'...", "-1.5e+09", "inf", ""]
    columns = ["text", "age"]
    reasons = [
        "; ".join(reason(column=c, check="is odd", value=value) for c in columns)
        for value in values
    ]
    report = Report(None)
    report.add(breaking(len(values)).assign(reason=reasons))
    assert report.counts == {"the text is odd; column 'age': is odd": len(values)}
    assert "all are in" not in report.summary()


def test_a_report_without_rows_replaces_an_older_one(tmp_path: Path):
    path = tmp_path / "quarantine.csv"
    path.write_text("old")
    with Report(path) as report:
        pass
    assert report.rows == 0
    assert path.read_text() == "file,row,reason,text,label\n"


def test_extra_columns_and_a_trial(tmp_path: Path):
    path = tmp_path / "new" / "quarantine.csv"
    report = Report(path, extra=["age"])
    report.try_to_write()
    assert not list(path.parent.iterdir())
    with report:
        report.add(breaking(1).assign(age="old"))
    assert path.read_text().splitlines()[0] == "file,row,reason,text,label,age"
    report.try_to_write()
    assert pd.read_csv(path)["age"].tolist() == ["old"]


def test_a_report_that_is_broken_off_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "quarantine.csv"
    path.write_text("old")

    def work() -> None:
        with Report(path) as report:
            report.add(breaking(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["quarantine.csv"]


def test_a_text_that_has_no_utf8_is_reported_all_the_same(tmp_path: Path):
    with Report(tmp_path / "a.csv") as report:
        text = pd.Series(["half \ud83d"], dtype=object)
        report.add(breaking(1).assign(text=text))
    assert r"half \ud83d" in (tmp_path / "a.csv").read_text()


def test_a_report_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "quarantine.csv"
    with pytest.raises(DataError, match=f"{path}: a part of the path is a file"), Report(path):
        pass


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk(small_disk: Path):
    path = small_disk / "quarantine.csv"

    def work() -> None:
        with Report(path) as report:
            for _ in range(100):
                report.add(breaking(1000))

    with pytest.raises(DataError, match=f"{path}: the disk is full"):
        work()
    assert list(small_disk.iterdir()) == []
