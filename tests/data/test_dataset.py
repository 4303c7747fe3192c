"""The data stage as a whole: files in, an audited and split table out."""

from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.data import sample
from fakenews.data.dataset import load
from fakenews.data.sources import read_table
from fakenews.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def headlines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("headlines")
    return sample.write(folder / "headlines.csv", rows=400, seed=3)


def test_every_row_is_in_one_split_and_no_group_is_in_two(headlines):
    dataset = load(path=headlines, text="text", label="label", positive="fake")
    assert dataset.classes == ["fake", "real"]
    assert sum(len(dataset.part(split)) for split in ("train", "val", "test")) == 400
    assert dataset.frame.groupby("group")["split"].nunique().max() == 1
    for split in ("train", "val", "test"):
        counts = dataset.class_counts(split)
        codes = dataset.codes(split)
        assert counts == {"fake": (codes == 0).sum(), "real": (codes == 1).sum()}
        assert min(counts.values()) > 0


def test_one_seed_is_one_split(headlines):
    load_it = partial(load, path=headlines, text="text", label="label")
    first, again, other = load_it(seed=1), load_it(seed=1), load_it(seed=2)
    assert first.manifest["data_hash"] == again.manifest["data_hash"]
    assert first.manifest["data_hash"] != other.manifest["data_hash"]


def test_the_rarest_class_is_positive_unless_one_is_named(headlines):
    assert load(path=headlines, text="text", label="label").positive == "fake"
    named = load(path=headlines, text="text", label="label", positive="real")
    assert named.positive == "real"


def test_official_splits_are_kept_and_their_repeats_leave_train(tmp_path, headlines):
    rows = pd.read_csv(headlines)
    rows[:300].to_csv(tmp_path / "train.csv", index=False)
    test = pd.concat([rows[300:], rows[:5]])
    test.to_csv(tmp_path / "test.csv", index=False)
    dataset = load(
        path=tmp_path / "train.csv",
        test_path=tmp_path / "test.csv",
        text="text",
        label="label",
    )
    assert len(dataset.part("test")) == len(test)
    assert set(dataset.part("test")["file"]) == {str(tmp_path / "test.csv")}
    held_out = set(dataset.part("test")["group"])
    assert not held_out & set(dataset.part("train")["group"])
    repeats = dataset.manifest["dropped"]["training row repeats a validation or test row"]
    assert repeats >= 5
    assert (dataset.frame["split"] == "dropped").sum() == repeats


@pytest.mark.parametrize(
    ("files", "roles"),
    [(1, {"train": 0}), (2, {"train": 0, "test": 1}), (3, {"train": 0, "val": 1, "test": 2})],
)
def test_fetched_files_take_their_roles_in_order(tmp_path, headlines, files, roles):
    rows = pd.read_csv(headlines).drop_duplicates()
    paths = [tmp_path / f"{number}.csv" for number in range(files)]
    for path, part in zip(paths, np.array_split(np.arange(len(rows)), files), strict=True):
        rows.iloc[part].to_csv(path, index=False)
    dataset = load(
        path=None, fetch=lambda cache_dir: paths, text="text", label="label", cache_dir=tmp_path
    )
    for role, number in roles.items():
        files_of = set(dataset.part(role)["file"])
        if role != "train" or files > 1:
            assert files_of == {str(paths[number])}


def test_folds_cover_every_row_once_as_test(headlines):
    tests = [
        load(path=headlines, text="text", label="label", folds=4, fold=fold).part("test")
        for fold in range(4)
    ]
    rows = pd.concat(tests)["row"]
    assert sorted(rows) == list(range(1, 401))


def test_normalising_changes_the_text_and_silences_the_probe(tmp_path):
    rows = [(f"Report {i} on the river said {i % 7} things.", "fake") for i in range(60)]
    rows += [(f"report {i} on the river said {i % 7} things", "real") for i in range(60)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "cue.csv", index=False)
    load_it = partial(
        load, path=tmp_path / "cue.csv", text="text", label="label", near_duplicates=1.0
    )
    # Apart from the full stop and a capital, the rows of the classes are the same.
    assert load_it(normalise=False).audit.warnings
    normalised = load_it(normalise=True)
    assert not normalised.frame["text"].str.endswith(".").any()
    assert not any("format alone" in warning for warning in normalised.audit.warnings)


def test_extra_columns_are_kept_with_their_types(tmp_path, headlines):
    rows = pd.read_csv(headlines)
    rows["shares"] = range(len(rows))
    rows["channel"] = np.where(rows.index % 3, "web", "print")
    rows.to_csv(tmp_path / "extra.csv", index=False)
    dataset = load(
        path=tmp_path / "extra.csv",
        text="text",
        label="label",
        numeric=["shares"],
        categorical=["channel"],
    )
    assert dataset.frame["shares"].dtype == np.float64
    assert set(dataset.frame["channel"]) == {"web", "print"}


def test_neither_path_nor_fetch_is_a_config_error():
    with pytest.raises(ConfigError, match=r"data\.path"):
        load(path=None, text="text", label="label")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,x\nb,x\nc,x\n", "one class|only class|single class|only"),
        ("text,label\na,x\nb,x\nc,x\nd,y\n", "y"),
        ("text,label\n", "no rows|empty|header"),
        ("", "empty"),
        ("headline,label\na,x\nb,y\n", "text"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load(path=path, text="text", label="label")


@pytest.fixture
def weighted(tmp_path, headlines):
    def write(cells, name="weighted.csv"):
        rows = pd.read_csv(headlines, dtype=str)
        rows["trust"] = [cells[number % len(cells)] for number in range(len(rows))]
        rows.to_csv(tmp_path / name, index=False)
        return partial(load, path=tmp_path / name, text="text", label="label")

    return write


def test_weights_are_read_and_an_empty_cell_is_1(weighted):
    load_it = weighted(["0.5", "", "3e1", " 0 "])
    frame = load_it(weight="trust").frame
    expected = np.tile([0.5, 1, 30, 0], 100)
    assert frame["sample_weight"].dtype == np.float64
    assert (frame["sample_weight"].to_numpy() == expected[frame["row"] - 1]).all()


def test_weights_change_neither_rows_nor_splits_and_without_them_nothing_has_changed(weighted):
    load_it = weighted(["0.5", "2"])
    plain, found = load_it(), load_it(weight="trust")
    columns = ["raw", "text", "label", "file", "row", "group", "split"]
    assert list(plain.frame) == columns
    pd.testing.assert_frame_equal(plain.frame, found.frame[columns])
    # Another training.
    assert plain.manifest["data_hash"] != found.manifest["data_hash"]
    assert plain.audit == found.audit


def test_official_test_files_need_no_weights(weighted, headlines, tmp_path):
    rows = pd.read_csv(headlines)
    rows[300:].to_csv(tmp_path / "test.csv", index=False)
    found = weighted(["3"])(weight="trust", test_path=tmp_path / "test.csv")
    assert set(found.part("train")["sample_weight"]) == {3}
    assert set(found.part("test")["sample_weight"]) == {1}


@pytest.mark.parametrize("cell", ["-1", "nan", "inf", "much", "1e999", "-0.001", "1,5"])
def test_what_is_no_weight_is_told_with_its_row(weighted, cell):
    load_it = weighted(["1", cell, "2"])
    with pytest.raises(DataError) as caught:
        load_it(weight="trust")
    first, *_, last = caught.value.faults
    assert first.endswith(
        f"weighted.csv: row 2, column 'trust': {cell!r} is no finite number of at least 0"
    )
    assert "more rows like these" in last


def test_null_and_not_a_number_of_parquet(tmp_path):
    table = pd.DataFrame({"text": ["a", "b"] * 8, "label": ["x", "y"] * 8})
    for value, count in ((None, 16), (float("nan"), 0)):
        column = pa.array([value, 2.0] * 8, from_pandas=False)
        pq.write_table(pa.table({**table, "w": column}), tmp_path / "rows.parquet")
        read = partial(
            read_table, tmp_path / "rows.parquet", text="text", label="label", weight="w"
        )
        if count:
            assert read().frame["sample_weight"].tolist() == [1.0, 2.0] * 8
        else:
            with pytest.raises(DataError, match="row 1, column 'w': 'nan' is no finite"):
                read()


@pytest.mark.parametrize(
    ("weight", "more", "fault"),
    [
        ("trusted", {}, "no column 'trusted', did you mean 'trust'? columns: 'text', 'label'"),
        ("text", {}, "column 'text' is both the weight and the text"),
        ("label", {}, "column 'label' is both the weight and the label"),
        (
            "trust",
            {"numeric": ["trust"]},
            "column 'trust' is both the weight and an extra column",
        ),
    ],
)
def test_a_column_that_cannot_be_the_weight(weighted, weight, more, fault):
    with pytest.raises(DataError) as caught:
        weighted(["1"])(weight=weight, **more)
    assert any(
        fault.replace("?", ";") in found.replace("?", ";") for found in caught.value.faults
    )


def test_a_class_without_any_weight_cannot_be_learnt(weighted):
    with pytest.raises(DataError) as caught:
        weighted(["0"])(weight="trust")
    assert caught.value.faults == [
        f"column 'trust': all training rows of class '{name}' have a weight of 0, so it cannot "
        "be learnt"
        for name in ("fake", "real")
    ]
    with pytest.raises(DataError, match="'trust': the weights are too large to be added up"):
        weighted(["1e308"])(weight="trust")


def test_a_feature_may_have_any_name_where_there_are_no_weights(tmp_path, headlines):
    rows = pd.read_csv(headlines)
    rows["sample_weight"] = 2.0
    rows["w"] = 1.0
    rows.to_csv(tmp_path / "own.csv", index=False)
    load_it = partial(
        load, path=tmp_path / "own.csv", text="text", label="label", numeric=["sample_weight"]
    )
    assert set(load_it().frame["sample_weight"]) == {2.0}
    with pytest.raises(DataError, match="extra column 'sample_weight' has a name the program"):
        load_it(weight="w")
