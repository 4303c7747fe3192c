"""The whole preparation, in one process."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from fakenews.data.prepared import load
from fakenews.data.shards import read_manifest, verify
from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError
from fakenews.training.reader import Reader

Prepare = Callable[..., Path]
Write = Callable[..., Path]

ROWS = [
    (f"Topic {i} of the day: {i * 37} people", "ab"[i % 3 == 0], i % 7 or "", "xyz"[i % 3])
    for i in range(300)
]
HEADER = "text,label,age,channel"
CSV = ["data=csv", "shards.rows=100", "shards.row_group_rows=16"]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_sample_becomes_a_dataset_that_is_as_its_manifest_says(run_prepare: Prepare):
    out = run_prepare("data.fetch.rows=1000", "shards.rows=300")
    storage = Storage(out)
    manifest = read_manifest(storage)
    verify(storage, manifest, level="hash")
    assert {split: manifest.rows(split) for split in manifest.shards} == {
        split: sum(rows.values()) for split, rows in manifest.counts.items()
    }
    assert sum(map(manifest.rows, manifest.shards)) == 1000
    assert manifest.classes == ["fake", "real"]
    assert [len(shards) for shards in manifest.shards.values()] == [4, 4, 4]
    assert manifest.inputs[0]["rows"] == 1000
    audit = json.loads((out / "audit.json").read_text())
    assert audit["rows"] == 1000
    assert audit["base_rate"] == pytest.approx(0.3, abs=0.05)


def test_columns_become_features_with_their_statistics(
    run_prepare: Prepare, write_csv: Write
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    out = run_prepare(
        *CSV, f"data.path={path}", "data.numeric=[age]", "data.categorical=[channel]"
    )
    manifest = read_manifest(Storage(out))
    train = pd.concat(pq.read_table(p).to_pandas() for p in (out / "train").iterdir())
    assert manifest.statistics["mean"]["age"] == pytest.approx(train["age"].mean())
    assert manifest.statistics["scale"]["age"] == pytest.approx(train["age"].std(ddof=0))
    assert manifest.statistics["missing"] == ["age"]
    counts = train["channel"].value_counts()
    assert set(manifest.statistics["categories"]["channel"]) == set("xyz")
    assert counts[manifest.statistics["categories"]["channel"][0]] == counts.max()


def test_a_training_reads_what_was_prepared(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    out = run_prepare(*CSV, f"data.path={path}", "data.numeric=[age]")
    dataset = load(path=str(out))
    assert dataset.numeric == ["age"]
    assert len(dataset.part("val")) == 30
    assert dataset.audit.rows == 300


def test_the_same_bytes_again_and_with_more_workers(
    run_prepare: Prepare, write_csv: Write
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    once = _files(run_prepare(*CSV, f"data.path={path}"))
    again = _files(run_prepare(*CSV, f"data.path={path}", "prepare.workers=2", out="again"))
    assert once == again
    assert _files(run_prepare(*CSV, f"data.path={path}", "seed=1", out="other")) != once


def test_nothing_is_done_twice(
    run_prepare: Prepare, write_csv: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    out = run_prepare(*CSV, f"data.path={path}")
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.*")}
    with caplog.at_level("INFO"):
        run_prepare(*CSV, f"data.path={path}")
    assert "nothing to do (sizes were compared; action=verify reads every" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.*")} == times
    path.touch()  # another time, the same content
    run_prepare(*CSV, f"data.path={path}")
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.*")} == times


def test_another_dataset_is_replaced_only_when_told(
    run_prepare: Prepare, write_csv: Write
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    out = run_prepare(*CSV, f"data.path={path}")
    before = _files(out)
    with pytest.raises(DataError, match=r"settings \(shards\.rows=200 \(there 100\)\):.*=true"):
        run_prepare(*CSV, f"data.path={path}", "shards.rows=200")
    assert _files(out) == before
    run_prepare(*CSV, f"data.path={path}", "shards.rows=200", "overwrite=true")
    manifest = read_manifest(Storage(out))
    verify(Storage(out), manifest, level="hash")
    assert [len(shards) for shards in manifest.shards.values()] == [2, 2, 2]


def test_shards_without_a_manifest_are_not_mixed_with(
    run_prepare: Prepare, write_csv: Write
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    out = run_prepare(*CSV, f"data.path={path}")
    (out / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"has shards but no manifest\.json: .*overwrite=true"):
        run_prepare(*CSV, f"data.path={path}", "shards.rows=200")
    run_prepare(*CSV, f"data.path={path}", "shards.rows=200", "overwrite=true")
    verify(Storage(out), read_manifest(Storage(out)), level="hash")


def test_a_place_that_cannot_be_written_is_noticed_before_any_reading(
    run_prepare: Prepare, write_csv: Write, tmp_path: Path
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    with pytest.raises(DataError, match=r"a\.csv"):
        run_prepare(*CSV, f"data.path={path}", out="a.csv/prepared")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_rows_that_are_left_out_are_counted(
    run_prepare: Prepare, write_csv: Write, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, ("no label", "", "", "x"), ("none again", "", "", "x")]
    run_prepare(*CSV, f"data.path={write_csv('a.csv', rows, HEADER)}")
    assert "2 rows are left out: missing label, as " in caplog.text
    assert "a.csv: row 301" in caplog.text


def test_buckets_without_rows_do_no_harm(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", ROWS[:60], HEADER)
    out = run_prepare("data=csv", f"data.path={path}", "shards.rows=1")
    manifest = read_manifest(Storage(out))
    assert sum(map(manifest.rows, manifest.shards)) == 60
    assert 30 < sum(map(len, manifest.shards.values())) < 60
    assert len(load(path=str(out)).part("val")) == manifest.rows("val")


def test_bad_rows_stop_it_with_a_report(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", [*ROWS, ("odd", "a", "old", "x")], HEADER)
    with pytest.raises(DataError, match=r"(?s)1 row.*'old' is not a finite number.*quarantine"):
        run_prepare(*CSV, f"data.path={path}", "data.numeric=[age]")
    assert not (path.parent / "prepared").exists()


def test_bad_rows_can_be_set_aside(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", [*ROWS, ("odd", "a", "old", "x")], HEADER)
    aside = path.with_name("aside.csv")
    out = run_prepare(
        *CSV, f"data.path={path}", "data.numeric=[age]", f"validation.quarantine={aside}"
    )
    manifest = read_manifest(Storage(out))
    assert manifest.quarantined == 1
    assert sum(map(manifest.rows, manifest.shards)) == 300
    found = pd.read_csv(aside)
    assert found[["row", "text", "age"]].to_numpy().tolist() == [[301, "odd", "old"]]


def test_a_quarantine_that_cannot_be_written_is_noticed_before_any_reading(
    run_prepare: Prepare, write_csv: Write, tmp_path: Path
) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    for place, why in (
        (path / "aside.csv", "a part of the path is a file"),
        (tmp_path, "it is a folder, not a file"),
        (Path("/proc/none/aside.csv"), "its folder cannot be made"),
    ):
        with pytest.raises(DataError, match=f"{place}: {why}"):
            run_prepare(*CSV, f"data.path={path}", f"validation.quarantine={place}")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_expectations_of_columns(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    with pytest.raises(DataError, match="age"):
        run_prepare(
            *CSV,
            f"data.path={path}",
            "data.numeric=[age]",
            "validation.columns={age: {min: 0, max: 5}}",
        )
    with pytest.raises(
        ConfigError, match=r"age is not read: add it to data\.numeric or data\.c"
    ):
        run_prepare(*CSV, f"data.path={path}", "validation.columns={age: {min: 0}}")
    other = write_csv("b.csv", ROWS, "headline,label,age,channel")
    with pytest.raises(ConfigError, match="column of the text is called text here: write text"):
        run_prepare(
            *CSV,
            f"data.path={other}",
            "data.text=headline",
            "validation.columns={headline: {min_chars: 3}}",
        )


def test_every_fault_of_the_options_is_told(run_prepare: Prepare, write_csv: Write) -> None:
    path = write_csv("a.csv", ROWS, HEADER)
    with pytest.raises(ConfigError, match=r"prepare\.address=x:1 is.*; prepare\.memory=much"):
        run_prepare(*CSV, f"data.path={path}", "prepare.memory=much", "prepare.address=x:1")
    with pytest.raises(DataError, match=r"no column 'verdict'.*; .*'label'"):
        run_prepare(*CSV, f"data.path={path}", "data.label=verdict")
    with pytest.raises(ConfigError, match=r"storage_options\.secret would be recorded"):
        run_prepare(*CSV, f"data.path={path}", "+storage_options.secret=x")
    with pytest.raises(DataError, match="extra column 'id'"):
        run_prepare(
            *CSV,
            f"data.path={write_csv('b.csv', ROWS, 'text,label,id,x')}",
            "data.numeric=[id]",
        )


def test_damage_is_noticed_by_verify(run_prepare: Prepare, write_csv: Write) -> None:
    out = run_prepare(*CSV, f"data.path={write_csv('a.csv', ROWS, HEADER)}")
    shard = out / "train" / "00001.parquet"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"train/00001\.parquet.*again with overwrite=true"):
        run_prepare("action=verify")


def _flip(out: Path) -> None:
    shard = out / "train" / "00001.parquet"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)


def _cut(out: Path) -> None:
    for path in (out / "manifest.json", out / "val" / "00000.parquet"):
        path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip, id="flipped"),
        pytest.param(_cut, id="cut", marks=pytest.mark.slow),
        pytest.param(
            lambda out: (out / "train" / "00001.parquet").unlink(),
            id="shard",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda out: (out / "manifest.json").unlink(), id="manifest"),
        pytest.param(
            lambda out: (out / "audit.json").write_text("{"), id="audit", marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_damaged_is_prepared_again_when_told(
    damage: Callable[[Path], object], run_prepare: Prepare, write_csv: Write
) -> None:
    command = [*CSV, f"data.path={write_csv('a.csv', ROWS, HEADER)}"]
    out = run_prepare(*command)
    before = _files(out)
    damage(out)
    if damage is not _flip:  # which does not show by sizes
        with pytest.raises(DataError, match="overwrite=true"):
            run_prepare(*command)
    run_prepare(*command, "overwrite=true")
    assert _files(out) == before


def test_what_is_whole_is_not_prepared_again(
    run_prepare: Prepare, write_csv: Write, caplog: pytest.LogCaptureFixture
) -> None:
    command = [*CSV, f"data.path={write_csv('a.csv', ROWS, HEADER)}", "overwrite=true"]
    run_prepare(*command)
    with caplog.at_level("INFO"):
        run_prepare(*command)
    assert "nothing to do (every byte was read)" in caplog.text


def test_a_stray_file_is_to_be_removed(run_prepare: Prepare, write_csv: Write) -> None:
    command = [*CSV, f"data.path={write_csv('a.csv', ROWS, HEADER)}"]
    out = run_prepare(*command)
    (out / "train" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"train/notes\.txt is no file of this dataset; remove"):
        run_prepare(*command)
    with pytest.raises(DataError, match=r"train/notes\.txt would stand among the shards"):
        run_prepare(*command, "overwrite=true", "seed=1")
    assert (out / "manifest.json").exists()


def test_weights_are_kept_and_trained_on(run_prepare: Prepare, write_csv: Write) -> None:
    rows = [(*row[:2], ("", "0", "2.5")[n % 3]) for n, row in enumerate(ROWS)]
    path = write_csv("a.csv", rows, "text,label,trust")
    plain = run_prepare(*CSV, f"data.path={path}", out="plain")
    out = run_prepare(*CSV, f"data.path={path}", "data.weight=trust")
    expected = {row[0]: float(row[2] or 1) for row in rows}
    data = load(path=out)
    assert data.prepared.settings["weight"] == "trust"
    reader = Reader(data, None, None)
    for group in range(len(data.group_rows("train"))):
        found = reader.read("train", group).columns.weights
        texts = data.read_group("train", group, ["text"])["text"].to_pylist()
        assert found is not None
        assert found.tolist() == [expected[text] for text in texts]
    assert reader.read("val", 0).columns.weights is None
    blank = reader.blank().weights
    assert blank is not None
    assert blank.tolist() == [0]
    # Without weights all is as before there were any.
    before = load(path=plain)
    assert "weight" not in before.prepared.settings
    assert Reader(before, None, None).read("train", 0).columns.weights is None
    for split in ("train", "val", "test"):
        columns = pq.read_schema(plain / split / "00000.parquet").names
        assert columns == [
            name
            for name in pq.read_schema(out / split / "00000.parquet").names
            if name != "sample_weight"
        ]
        one, other = (
            pq.read_table(folder / split / "00000.parquet", columns=columns)
            for folder in (plain, out)
        )
        assert one.equals(other)


def test_weights_that_are_none(run_prepare: Prepare, write_csv: Write) -> None:
    rows = [(*row[:2], "-1" if n == 4 else "0") for n, row in enumerate(ROWS)]
    path = write_csv("a.csv", rows, "text,label,trust")
    options = [*CSV, f"data.path={path}", "data.weight=trust"]
    with pytest.raises(DataError, match="row 5, column 'trust': '-1' is no finite number of"):
        run_prepare(*options)
    with pytest.raises(
        DataError, match="'trust': all training rows of class 'a' have a weight"
    ):
        run_prepare(*options, "validation.quarantine=" + str(path.parent / "bad.csv"))
    with pytest.raises(DataError, match="no column 'trusty', did you mean 'trust'"):
        run_prepare(*CSV, f"data.path={path}", "data.weight=trusty")


def test_official_splits_need_no_weights(run_prepare: Prepare, write_csv: Write) -> None:
    train = write_csv("a.csv", [(*row[:2], "3") for row in ROWS[:240]], "text,label,trust")
    test = write_csv("b.csv", [row[:2] for row in ROWS[240:]])
    out = run_prepare(*CSV, f"data.path={train}", f"data.test_path={test}", "data.weight=trust")
    weights = {
        split: set(pq.read_table(out / split)["sample_weight"].to_pylist())
        for split in ("train", "test")
    }
    assert weights == {"train": {3.0}, "test": {1.0}}
