"""Scoring a file: every row, every column, whatever is in them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fakenews.errors import BundleError, ConfigError, DataError
from fakenews.inference.predict import predict, score_file
from fakenews.predictor import Predictor

CSV = """\
id,headline,age,lang
7,"Rain, again",3,a
8,,4,a
9,Snow in 2030!,old,b
10,Wind,,b
11,cut
12,"two
lines",1e3,never
"""
ADDED = ["prediction", "probability_no", "probability_unsure", "probability_yes"]
ADDED += ["truncated", "error"]
ERRORS = [
    None,
    "the text is empty",
    "column 'age': 'old' is not a finite number",
    None,
    "line 6: 2 cells where the header has 4",
    None,
]


@pytest.fixture(scope="module")
def predictor(columns_bundle: Path) -> Predictor:
    return Predictor.load(columns_bundle)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(CSV)
    return path


@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_every_row_in_order_with_its_columns(
    predictor: Predictor, source: Path, tmp_path: Path, chunk_rows: int
) -> None:
    out = tmp_path / "out.csv"
    summary = score_file(predictor, source, out, text="headline", chunk_rows=chunk_rows)
    found = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert found.columns.tolist() == ["id", "headline", "age", "lang", *ADDED]
    assert found["id"].tolist() == ["7", "8", "9", "10", "11", "12"]
    assert found["headline"].tolist()[-1] == "two\nlines"
    assert found["age"].tolist() == ["3", "4", "old", "", "", "1e3"]
    assert found["error"].tolist() == [error or "" for error in ERRORS]
    good = found["error"] == ""
    assert (found.loc[~good, [*ADDED[:4]]] == "").all(axis=None)
    assert found.loc[good, ADDED[1:4]].astype(float).sum(axis=1).tolist() == pytest.approx(
        [1] * 3
    )
    assert (summary.rows, summary.errors) == (6, 3)
    assert summary.first_error == "row 2: the text is empty"
    assert str(summary).startswith("6 rows in ")
    assert str(summary).endswith("3 with an error, the first in row 2: the text is empty")


def test_the_predictions_are_the_predictors(
    predictor: Predictor, source: Path, tmp_path: Path
) -> None:
    score_file(predictor, source, tmp_path / "out.jsonl", text="headline")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    table = pd.DataFrame(
        {"text": ["Rain, again", "two\nlines"], "age": [3, 1000], "lang": ["a", "never"]}
    )
    for row, expected in zip([0, 5], predictor.predict(table), strict=True):
        found = json.loads(lines[row])
        assert found["prediction"] == expected.label
        for name, probability in expected.probabilities.items():
            assert found[f"probability_{name}"] == pytest.approx(probability, abs=1e-5)


def test_any_format_into_any_other(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    formats = ["a.tsv", "b.parquet", "c.ndjson", "d.csv"]
    before, column = source, "headline"
    for number, name in enumerate(formats):
        score_file(predictor, before, tmp_path / name, text=column, prefix=f"{number}_")
        before = tmp_path / name
    found = pd.read_csv(before, dtype=str, keep_default_na=False)
    assert len(found.columns) == 4 + 4 * len(ADDED)
    assert found["id"].tolist() == ["7", "8", "9", "10", "11", "12"]
    whole = found["id"] != "11"  # the cut row is whole once it was written
    for number in range(len(formats)):
        assert found[f"{number}_error"][whole].tolist() == found["0_error"][whole].tolist()
        again = found[f"{number}_prediction"][whole]
        assert again.tolist() == found["0_prediction"][whole].tolist()


def test_names_that_are_taken(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    source.write_text("headline,age,lang,error,prediction\na,1,b,x,y\n")
    with pytest.raises(DataError, match=r"already has the columns prediction, error.*prefix="):
        score_file(predictor, source, tmp_path / "out.csv", text="headline")
    score_file(predictor, source, tmp_path / "out.csv", text="headline", prefix="new_")
    assert pd.read_csv(tmp_path / "out.csv")["error"].tolist() == ["x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"headline,age,lang\n", "a header but no rows"),
        (
            b"headlin,age\na,1\n",
            r"no column 'headline', did you mean 'headlin'.*no column 'lang'",
        ),
        (b"headline,age,lang\n\x00,1,a\n", "NUL byte"),
    ],
)
def test_files_that_cannot_be_scored_leave_nothing(
    predictor: Predictor, source: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    source.write_bytes(content)
    with pytest.raises(DataError, match=message):
        score_file(predictor, source, tmp_path / "out.csv", text="headline")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_bytes_in_no_encoding_are_an_error_of_their_row(
    predictor: Predictor, source: Path, tmp_path: Path
) -> None:
    source.write_bytes("headline,age,lang\nü,1,a\n".encode() + b"\x81\xff,1,a\nfine,1,a\n")
    summary = score_file(predictor, source, tmp_path / "out.csv", text="headline")
    assert (summary.rows, summary.errors) == (3, 1)
    assert "row 2: byte 0x81 is not valid UTF-8" in str(summary)


def test_one_row_and_only_bad_rows(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    source.write_text('headline,age,lang\n" ",1,a\n')
    summary = score_file(predictor, source, tmp_path / "out.parquet", text="headline")
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert (summary.rows, summary.errors) == (1, 1)
    assert found["prediction"].isna().all()
    assert found["probability_no"].dtype == "float64"


# --- the command ---------------------------------------------------------------------


def test_options_that_contradict_each_other(columns_bundle: Path, source: Path) -> None:
    bundle = str(columns_bundle)
    with pytest.raises(ConfigError, match=r"either path=FILE out=FILE, or texts="):
        predict(bundle=bundle)
    with pytest.raises(ConfigError, match="either path="):
        predict(bundle=bundle, path=str(source), out="out.csv", texts=["a"])
    with pytest.raises(ConfigError, match="out is not set"):
        predict(bundle=bundle, path=str(source))


def test_nothing_is_overwritten_unasked(
    columns_bundle: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    options = {"bundle": str(columns_bundle), "path": str(source), "out": str(out)}
    with pytest.raises(DataError, match=r"out\.csv exists"):
        predict(**options)
    assert out.read_text() == "precious"
    predict(**options, overwrite=True)
    assert len(pd.read_csv(out)) == 6


def test_texts_are_shown_as_a_table(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(bundle=str(tiny_run), texts=["Rain [b]in[/b] Oslo", ""])
    shown = capsys.readouterr().out
    assert "Rain [b]in[/b] Oslo" in shown
    assert "error: the text is empty" in shown


def test_a_file_of_which_no_row_could_be_scored_is_written_and_an_error(
    columns_bundle: Path, source: Path, tmp_path: Path
) -> None:
    source.write_text("headline,age,lang\nfine,old,a\n,1,a\n")
    out = tmp_path / "out.csv"
    with pytest.raises(DataError, match=r"none of the 2 rows .*'old' is not a finite number"):
        predict(bundle=str(columns_bundle), path=str(source), out=str(out))
    assert pd.read_csv(out)["error"].notna().tolist() == [True, True]


def test_texts_of_which_none_could_be_scored(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"no text could be scored, .* the text is empty"):
        predict(bundle=str(tiny_run), texts=["", " "])
    assert "error: the text is empty" in capsys.readouterr().out


def test_a_bundle_that_is_none(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        predict(bundle=str(tmp_path / "absent"), path=str(source), out=str(tmp_path / "o.csv"))
