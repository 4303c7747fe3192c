"""Opening a prepared dataset, on a disk and in a bucket."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakenews.data.prepared import PreparedDataset, load
from fakenews.data.shards import write_manifest
from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError
from fixtures.commands import Commands

Write = Callable[..., PreparedDataset]


@pytest.fixture
def dataset(write_prepared: Write, tmp_path: Path) -> PreparedDataset:
    return write_prepared(tmp_path / "data")


def test_a_training_on_shards_needs_no_database(command: Commands, tmp_path: Path):
    # DuckDB reports at exit what it did not free, long after the error that is told.
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; import fakenews.training.job, fakenews.data.prepared\n"
        "print('duckdb' in sys.modules)"
    )
    done = subprocess.run([command.python, program], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_it_has_the_surface_of_a_dataset(dataset: PreparedDataset):
    assert dataset.classes == ["fake", "real"]
    assert dataset.positive == "fake"
    assert dataset.cleaning.max_chars == 500
    assert dataset.audit.rows == 169 + 55 + 55
    assert dataset.audit.table()
    assert dataset.class_counts("train") == {"fake": 85, "real": 84}
    assert dataset.manifest["data_hash"] == dataset.prepared.data_hash
    assert json.loads(json.dumps(dataset.manifest, allow_nan=False)) == dataset.manifest


def test_a_part_is_a_frame_of_the_first_rows(
    dataset: PreparedDataset, caplog: pytest.LogCaptureFixture
):
    whole = dataset.part("val")
    assert len(whole) == 55
    assert caplog.text == ""
    assert (whole["raw"] == whole["text"]).all()
    assert (whole["row"] == whole["id"]).all()
    assert {"label", "age", "lang", "group", "file"} <= set(whole.columns)
    assert dataset.codes("val").tolist() == [
        dataset.classes.index(label) for label in whole["label"]
    ]
    with caplog.at_level("INFO"):
        some = load(path=dataset.storage.url, evaluation_rows=40, categorical=[])
        assert some.part("val")["id"].tolist() == whole["id"].tolist()[:40]
    assert "val: the first 40 of 55 rows are evaluated" in caplog.text
    assert "lang" not in some.part("val")


def test_training_rows_are_not_held_together(dataset: PreparedDataset):
    with pytest.raises(DataError, match=r"model=tfidf\) use data=csv"):
        dataset.part("train")


def test_columns_are_chosen_among_those_prepared(dataset: PreparedDataset):
    url = dataset.storage.url
    assert load(path=url).numeric == ["age"]
    assert load(path=url, numeric=[]).numeric == []
    with pytest.raises(ConfigError, match=r"data\.numeric names shares, .* prepared with age"):
        load(path=url, numeric=["age", "shares"])


def test_splits_without_rows(write_prepared: Write, tmp_path: Path):
    with pytest.raises(DataError, match="no rows of val, test: prepare it again"):
        write_prepared(tmp_path, evaluation_groups=())


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"rows": 3}'])
def test_a_damaged_audit(dataset: PreparedDataset, content: str):
    Path(dataset.storage.url, "audit.json").write_text(content)
    with pytest.raises(DataError, match=r"audit\.json is damaged"):
        load(path=dataset.storage.url)


def test_settings_that_say_too_little(dataset: PreparedDataset):
    write_manifest(dataset.storage, replace(dataset.prepared, settings={"normalise": False}))
    with pytest.raises(DataError, match=r"max_chars.*prepare again"):
        load(path=dataset.storage.url)


def test_from_a_bucket(dataset: PreparedDataset, s3_url: tuple[str, dict[str, Any]]):
    url, options = s3_url
    bucket = Storage(url, options=options)
    for path in dataset.storage.list():
        bucket.publish(Path(dataset.storage.url, path), path)
    found = load(path=url, storage_options=options)
    assert found.part("test")["id"].tolist() == dataset.part("test")["id"].tolist()
    columns = ["id", "word_count", "age"]
    for group in range(len(found.group_rows("train"))):
        mine = found.read_group("train", group, columns)
        assert mine.equals(dataset.read_group("train", group, columns))
    bucket.delete("train/00001.parquet")
    with pytest.raises(DataError, match=r"train/00001\.parquet is missing"):
        load(path=url, storage_options=options, verify="size")
