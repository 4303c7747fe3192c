"""What can be wrong with files, columns and cells."""

import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fakenews.data.checks import (
    check_files,
    column_clashes,
    expand_paths,
    missing_columns,
    near,
    number,
    shown,
    some,
)
from fakenews.errors import DataError


def test_paths_folders_and_globs_become_files_each_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.txt", "c.parquet"):
        (tmp_path / name).touch()
    names = [path.name for path in expand_paths(tmp_path)[0]]
    assert names == ["a.csv", "b.csv", "c.parquet"]
    files, faults = expand_paths([tmp_path / "b.csv", f"{tmp_path}/*.csv", tmp_path / "d.csv"])
    assert [path.name for path in files] == ["b.csv", "a.csv", "d.csv"]
    assert not faults


def test_what_matches_nothing_is_told(tmp_path: Path) -> None:
    assert expand_paths([])[1] == ["no data file was given"]
    assert "no file matches" in expand_paths(f"{tmp_path}/*.csv")[1][0]
    assert "the folder has no CSV" in expand_paths(tmp_path)[1][0]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1.0), (" -2.5e3 ", -2500.0), ("", math.nan), ("NaN", math.nan), (".5", 0.5)],
)
def test_numbers(cell: str, value: float) -> None:
    assert number(cell) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("cell", ["old", "1e999", "inf", "1,5", "0x10", "1_000", "\u0661"])
def test_what_is_no_finite_number(cell: str) -> None:
    assert number(cell) is None


def test_clashes_of_columns() -> None:
    faults = column_clashes("text", "text", ["text", "row"], ["x", "x"])
    assert len(faults) == 5
    assert column_clashes("text", "label", ["age"], ["x"]) == []


def test_messages_name_what_was_meant_and_stay_short(tmp_path: Path) -> None:
    (fault,) = missing_columns(tmp_path, ["headline", "label"], ["headlin", "label"])
    assert "no column 'headlin', did you mean 'headline'" in fault
    assert near("xyz", ["headline"]) == ""
    assert some([str(n) for n in range(12)]).endswith("and 2 more")
    assert some([1, "x" * 100]) == f"1, '{'x' * 59}..."
    assert len(shown(tmp_path, [f"fault {n}" for n in range(9)])) == 6


def test_files_that_are_missing_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    options = {
        "path": [f"{tmp_path}/there.csv", f"{tmp_path}/gone.csv"],
        "val_path": f"{tmp_path}/*.tsv",
        "test_path": None,
        "text": "no path",
    }
    with pytest.raises(DataError) as caught:
        check_files(OmegaConf.create(options))
    assert caught.value.faults == [
        f"{tmp_path}/gone.csv: no such file",
        f"{tmp_path}/*.tsv: no file matches",
    ]


@pytest.mark.parametrize("path", [None, 5, ["a.csv", 5], {"a": 1}, ""])
def test_what_is_no_path_is_left_to_the_configuration(path: object) -> None:
    assert check_files({"path": path}) is None
