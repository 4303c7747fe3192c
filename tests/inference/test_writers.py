"""Tables written piece by piece, whole or not at all."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fakenews.errors import DataError
from fakenews.inference.writers import check_output, table_writer

PIECES = [
    pd.DataFrame(
        {
            "text": pd.Series(['one, "two"\nthree', "ü 🎉/"], dtype="str"),
            "score": [0.1234567890123456, 1.0],
            "flag": [True, False],
            "error": pd.Series([None, None], dtype="str"),
        }
    ),
    pd.DataFrame(
        {
            "text": pd.Series([" spaces ", ""], dtype="str"),
            "score": [float("nan"), 1e-9],
            "flag": [False, False],
            "error": pd.Series(["bad", None], dtype="str"),
        }
    ),
]


def write(out: Path, pieces: Iterable[pd.DataFrame] = PIECES) -> Path:
    with table_writer(out) as append:
        for piece in pieces:
            append(piece)
    return out


def broken() -> Iterator[pd.DataFrame]:
    yield PIECES[0]
    raise RuntimeError("stop")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV"])
def test_delimited(tmp_path: Path, name: str) -> None:
    out = write(tmp_path / "new" / name)
    found = pd.read_csv(out, sep="\t" if name.endswith("tsv") else ",", keep_default_na=False)
    assert found.columns.tolist() == ["text", "score", "flag", "error"]
    assert found["text"].tolist() == ['one, "two"\nthree', "ü 🎉/", " spaces ", ""]
    assert found["score"].tolist() == ["0.1234567890123456", "1.0", "", "1e-09"]
    assert [path.name for path in out.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    lines = write(tmp_path / name).read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["text"] for row in found] == ['one, "two"\nthree', "ü 🎉/", " spaces ", ""]
    assert [row["error"] for row in found] == [None, None, "bad", None]
    assert found[0]["score"] == pytest.approx(0.1234567890123456, abs=1e-14)
    assert found[2]["score"] is None


@pytest.mark.parametrize("name", ["a.parquet", "a.pq"])
def test_parquet_keeps_types_though_a_column_starts_empty(tmp_path: Path, name: str) -> None:
    found = pd.read_parquet(write(tmp_path / name))
    pd.testing.assert_frame_equal(found, pd.concat(PIECES, ignore_index=True))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_work_that_fails_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write(out, broken())
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"out=.*cannot be written"):
        write(tmp_path / "file" / "a.csv")


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.touch()
    (tmp_path / "old.csv").touch()
    (tmp_path / "folder.doc").mkdir()

    def refusal(name: str, *, overwrite: bool = False) -> list[str]:
        with pytest.raises(DataError) as caught:
            check_output(tmp_path / name, source=source, overwrite=overwrite)
        return caught.value.faults

    assert "give another, or overwrite=true" in refusal("old.csv")[0]
    assert "is the file that is read" in refusal("in.csv", overwrite=True)[0]
    assert "must end in one of .csv, .tsv" in refusal("new.xlsx")[0]
    ending, folder = refusal("folder.doc")
    assert "must end in one of" in ending
    assert "is a folder" in folder
    check_output(tmp_path / "old.csv", source=source, overwrite=True)
    check_output(tmp_path / "new.csv", source=tmp_path / "absent.csv", overwrite=False)
