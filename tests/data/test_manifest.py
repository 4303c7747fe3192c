"""The data manifest, its hash, and atomic JSON."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fakenews.data.manifest import data_hash, manifest, write_json
from fakenews.data.sources import read_table
from fakenews.errors import DataError


def read(path: Path, rows: str) -> pd.DataFrame:
    path.write_text("text,label,n\n" + rows, encoding="utf-8")
    return read_table(path, text="text", label="label", numeric=["n"])


ROWS = "one,a,1\ntwo,b,\nthree,a,2\n,a,3\nfour,b,4\n"
SPLIT = pd.Series(["train", "train", "val", "test"])


def test_manifest_describes_files_rows_and_settings(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", ROWS)
    split = pd.Series(["train", "dropped", "val", "test"])
    found = manifest(
        [table], table.frame, split, classes=["a", "b"], positive="b", settings={"seed": 1}
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["split"]["val"] == {"a": 1, "b": 0}
    assert found["dropped"] == {
        "empty text": 1,
        "training row repeats a validation or test row": 1,
    }
    [file] = found["files"]
    assert file["rows"] == 5
    assert len(file["sha256"]) == 64
    assert found["rows"] == 4
    assert found["settings"] == {"seed": 1}
    assert found["versions"]["pandas"] == pd.__version__


def test_the_hash_knows_every_change_of_content(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", ROWS).frame
    before = data_hash(frame, SPLIT)
    assert before == data_hash(read(tmp_path / "copy.csv", ROWS).frame, SPLIT)
    changed = [
        data_hash(read(tmp_path / "b.csv", ROWS.replace("two", "tw0")).frame, SPLIT),
        data_hash(read(tmp_path / "b.csv", ROWS.replace("two,b", "two,a")).frame, SPLIT),
        data_hash(read(tmp_path / "b.csv", ROWS.replace("a,2", "a,2.5")).frame, SPLIT),
        data_hash(frame, SPLIT[::-1]),
        data_hash(frame[::-1], SPLIT),
    ]
    assert len({before, *changed}) == 6


def test_the_hash_ignores_how_a_text_was_spelt_before_cleaning(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", ROWS).frame
    spaced = read(tmp_path / "b.csv", ROWS.replace("two", " two ")).frame
    assert data_hash(frame, SPLIT) == data_hash(spaced, SPLIT)


def test_write_json_is_strict_and_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"text": "Müller", "n": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "text": "Müller",
        "n": [1, 2.5, None],
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"n": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert "Müller" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_write_json_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"a\.json: cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_json(tmp_path / "folder.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"]
