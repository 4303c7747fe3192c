"""What a retraining can start from."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakenews.data.dataset import Dataset
from fakenews.errors import DataError, RetrainingError
from fakenews.retraining import base as bases
from fakenews.retraining.base import Base, classes_of, dataset_of, open_base
from fakenews.retraining.dataset import make_dataset
from fakenews.retraining.rows import Columns, base_table, parquet_writer

First = tuple[Path, dict[str, Path]]
MakeRun = Callable[..., Dataset]


def rows_of(base: Base, part: str) -> pd.DataFrame:
    tables = list(base.batches(part))
    assert all(table.schema == base.columns.schema for table in tables)
    found: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return found


def test_a_run_with_weights_and_extra_columns(
    make_run: MakeRun, headlines: pd.DataFrame, tmp_path: Path
):
    rows = headlines[:80].assign(
        age=[number / 2 if number % 3 else np.nan for number in range(80)],
        channel=["web", ""] * 40,
        trust=[0.5, 3] * 40,
    )
    rows["text"] = "  " + rows["text"]
    rows.to_csv(tmp_path / "news.csv", index=False)
    data = make_run(
        tmp_path / "run",
        path=str(tmp_path / "news.csv"),
        numeric=["age"],
        categorical=["channel"],
        weight="trust",
        normalise=True,
        near_duplicates=0.9,
    )
    (tmp_path / "run" / "bundle").mkdir()
    base = open_base(tmp_path / "run")
    assert base.columns == Columns(numeric=["age"], categorical=["channel"])
    assert base.reading == {"normalise": True, "max_chars": 5000, "near_duplicates": 0.9}
    assert (base.classes, base.positive) == (data.classes, data.positive)
    assert base.bundle == tmp_path / "run" / "bundle"
    found = rows_of(base, "base")
    expected = data.frame[data.frame["split"].isin(["train", "val"])]
    # As they were read: a training cleans them as this one did.
    assert found["text"].tolist() == expected["raw"].tolist()
    assert found["text"].str.startswith("  ").all()
    for name, column in (("age", "age"), ("channel", "channel"), ("weight", "sample_weight")):
        np.testing.assert_array_equal(found[name], expected[column])
    assert len(rows_of(base, "test")) == len(data.part("test"))
    assert set(found["source"]) == {"base"}
    assert classes_of(tmp_path / "run") == data.classes


def test_a_run_whose_data_have_changed(run: Path, headlines: pd.DataFrame, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = str(tmp_path / "news.csv")
    headlines[:199].to_csv(tmp_path / "news.csv", index=False)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RetrainingError, match=r"the data of the run in .* have changed since"):
        open_base(tmp_path / "run")
    (tmp_path / "run" / "data.json").unlink()
    with pytest.raises(RetrainingError, match=r"has no data\.json: the run has not begun"):
        open_base(tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (None, "is no run folder, no prepared dataset and no retraining dataset: give"),
        ("data: {_target_: os.system}", "reads its data by os.system, which retraining cannot"),
        ("data: [", "config.yaml is damaged, or of no run: give another base"),
        ("other: 1", "config.yaml is damaged, or of no run: give another base"),
        ("[]", "config.yaml is damaged, or of no run: give another base"),
    ],
)
def test_what_is_no_base(tmp_path: Path, config: str | None, fault: str):
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(RetrainingError) as caught:
        open_base(tmp_path)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["source", "time", "_user"])
def test_an_extra_column_of_a_name_that_is_taken(name: str):
    with pytest.raises(RetrainingError, match=f"the extra column {name} has the name of a"):
        Columns(categorical=[name])


@pytest.fixture
def prepared(write_prepared: Callable[..., Any], tmp_path: Path) -> tuple[Path, Any]:
    return tmp_path / "prepared", write_prepared(tmp_path / "prepared")


def streamed(folder: Path, path: Path, data_hash: str) -> Path:
    """A run folder of a training on shards."""
    folder.mkdir()
    data = {"_target_": "fakenews.data.prepared.load", "path": str(path)}
    data["storage_options"] = {"endpoint_url": None}  # type: ignore[assignment]
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    (folder / "data.json").write_text(json.dumps({"data_hash": data_hash}))
    return folder


def test_a_prepared_dataset_and_its_run(prepared: tuple[Path, Any], tmp_path: Path):
    path, dataset = prepared
    run = streamed(tmp_path / "run", path, dataset.prepared.data_hash)
    for given_path, kind in ((path, "prepared"), (run, "run")):
        base = open_base(given_path)
        assert base.told["kind"] == kind
        assert base.told["data_hash"] == dataset.prepared.data_hash
        assert base.columns == Columns(numeric=["age"], categorical=["lang"])
        assert len(rows_of(base, "base")) == sum(map(dataset.prepared.rows, ("train", "val")))
        test = rows_of(base, "test")
        assert test["text"].tolist() == dataset.part("test")["text"].tolist()
        assert test["lang"].tolist() == dataset.part("test")["lang"].tolist()
        assert classes_of(given_path) == ["fake", "real"]
        assert dataset_of(given_path) is None
    again = streamed(tmp_path / "other", path, "0" * 64)
    with pytest.raises(RetrainingError, match="have changed since"):
        open_base(again)
    next((path / "train").iterdir()).write_bytes(b"x")
    with pytest.raises(
        RetrainingError, match=r"the base has changed: .* is not the dataset of"
    ):
        open_base(path)


def test_a_version_of_a_prepared_dataset(prepared: tuple[Path, Any], tmp_path: Path):
    table = pd.DataFrame(
        {"text": ["Rain falls on the town", "Sun"] * 2, "label": ["fake", "real"] * 2, "age": 4}
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    manifest = make_dataset(
        base=prepared[0], labels=tmp_path / "table.csv", out=tmp_path / "out", audit="off"
    )
    assert manifest.base["kind"] == "prepared"
    assert (manifest.numeric, manifest.categorical) == (["age"], ["lang"])
    assert manifest.count("train", "base") == 55 + sum(map(sum, ((40, 40, 23), (40, 17), (9,))))
    assert any("has no lang" in notice for notice in manifest.notices)


def test_a_run_leads_to_the_version_it_was_trained_on(first: First, tmp_path: Path):
    folder, _ = first
    for number, name in enumerate(("train", "other")):
        run = tmp_path / str(number)
        run.mkdir()
        data = {"_target_": "fakenews.data.dataset.load", "path": str(folder / name)}
        (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        assert dataset_of(run) == (folder if name == "train" else None)
    (tmp_path / "0" / "bundle").mkdir()
    base = open_base(tmp_path / "0")
    assert base.folder == folder
    assert base.parent is not None
    assert base.parent.version == folder.name
    assert base.bundle == tmp_path / "0" / "bundle"
    assert classes_of(tmp_path / "0") == ["fake", "real"]


def test_data_that_are_gone(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = str(tmp_path / "gone.csv")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match=r"gone\.csv"):
        open_base(tmp_path / "run")


@given(
    rows=st.integers(0, 40),
    left=st.sets(st.integers(0, 39)),
    batch=st.integers(1, 9),
)
def test_rows_that_were_left_out_come_back_in_their_places(
    tmp_path_factory: pytest.TempPathFactory, rows: int, left: set[int], batch: int
):
    columns = Columns()
    texts = [f"row {place}" for place in range(rows)]
    whole = base_table(columns, pa.table({"text": texts, "label": ["real"] * rows}))
    out = sorted(place for place in left if place < rows)
    kept = whole.filter(pa.array([place not in left for place in range(rows)], pa.bool_()))
    path = tmp_path_factory.mktemp("left") / "left_out.parquet"
    if out:
        apart = whole.take(pa.array(out, pa.int64()))
        apart = apart.append_column("_place", pa.array(out, pa.int64()))
        with parquet_writer(path, apart.schema) as writer:
            writer.write_table(apart)

    def batches() -> Iterator[pa.Table]:
        for start in range(0, kept.num_rows, batch):
            yield kept.slice(start, batch)

    found = list(bases._with_left_out(batches(), path, columns))
    assert [text for table in found for text in table["text"].to_pylist()] == texts
    assert not out or pq.read_metadata(path).num_rows == len(out)
