"""Versions of the training data, from real runs, logs and tables."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from fakenews.data.cleaning import Cleaning
from fakenews.data.dataset import Dataset, load
from fakenews.data.duplicates import duplicate_groups, sketch
from fakenews.errors import ConfigError, FakeNewsError, MonitoringError, RetrainingError
from fakenews.retraining.dataset import make_dataset
from fakenews.retraining.manifest import DatasetManifest, read_dataset
from fakenews.retraining.new_labels import count_new_labels

Label = Callable[..., dict[str, Path]]
MakeRun = Callable[..., Dataset]

START = datetime(2026, 3, 1, tzinfo=UTC)  # of the log


def read(folder: Path, part: str) -> pd.DataFrame:
    """The rows of a part."""
    paths = sorted((folder / part).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pandas()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def keys(frame: pd.DataFrame) -> set[int]:
    """What is equal of equal texts."""
    return set(sketch(Cleaning()(frame["text"].tolist()).texts, threshold=1)["key"].to_pylist())


@pytest.fixture
def make(tmp_path: Path, run: Path) -> Callable[..., tuple[Path, DatasetManifest]]:
    """Makes a version from the run, without the audit; its folder and manifest."""

    def make(**options: Any) -> tuple[Path, DatasetManifest]:
        out = options.pop("out", tmp_path / "datasets")
        manifest = make_dataset(**{"base": run, "out": out, "audit": "off"} | options)
        return out / manifest.version, manifest

    return make


Make = Callable[..., tuple[Path, DatasetManifest]]


@pytest.fixture
def some(headlines: pd.DataFrame, label: Label) -> dict[str, Path]:
    """A hundred labelled predictions."""
    rows = headlines[300:400]
    return label(rows["text"].tolist(), rows["label"].tolist())


# --- what a version is ----------------------------------------------------------------------


def test_a_first_version(make: Make, some: dict[str, Path], headlines: pd.DataFrame, run: Path):
    folder, manifest = make(**some, window_rows=30)
    columns = ["text", "label", "weight", "source", "id", "time"]
    parts = {part: read(folder, part) for part in ("train", "test", "window")}
    for part, frame in parts.items():
        assert list(frame) == columns
        found = frame.groupby(["source", "label"]).size().to_dict()
        told = manifest.rows[part]
        assert found == {(s, c): n for s, classes in told.items() for c, n in classes.items()}
        assert manifest.count(part) == len(frame)
    # The base is what the run has trained on; its test rows are frozen.
    data = load(
        path=str(run.parent / "news.csv"), text="text", label="label", positive="fake", seed=1
    )
    train = parts["train"]
    base = train[train["source"] == "base"]
    learnt_from = data.frame[data.frame["split"].isin(["train", "val"])]
    left_out = pq.read_table(folder / "left_out.parquet").to_pandas()
    learnt_from = learnt_from.reset_index(drop=True).drop(left_out["_place"])
    assert base["text"].tolist() == learnt_from["raw"].tolist()
    assert set(left_out["_reason"]) == {"near-duplicate of a row of the window"}
    assert manifest.left_out[left_out["_reason"][0]]["base"] == len(left_out) < 10
    assert parts["test"]["text"].tolist() == data.part("test")["raw"].tolist()
    assert parts["test"]["label"].tolist() == data.part("test")["label"].tolist()
    assert base["id"].isna().all()
    assert base["time"].isna().all()
    assert set(base["weight"]) == {1}
    # The newest of the labelled rows are held out, in order.
    assert parts["window"]["id"].tolist() == [f"p{n}" for n in range(70, 100)]
    learnt = train[train["source"] == "feedback"]
    assert set(learnt["id"]) <= {f"p{n}" for n in range(70)}
    assert learnt["time"].is_monotonic_increasing
    assert learnt["time"].iloc[0] == pd.Timestamp(START)
    number = learnt["id"].str[1:].astype(int)
    assert learnt["text"].tolist() == headlines["text"][300 + number].tolist()
    assert learnt["label"].tolist() == headlines["label"][300 + number].tolist()
    # Nothing is lost, and all is told.
    left = sum(rows.get("feedback", 0) for rows in manifest.left_out.values())
    assert len(learnt) + 30 + left == 100
    assert read_dataset(folder) == manifest
    assert manifest.parent is None
    assert manifest.base["kind"] == "run"
    assert manifest.newest == (START + timedelta(hours=99)).isoformat()
    noted = pq.read_table(folder / "feedback.parquet").to_pandas()
    assert noted["_outcome"].value_counts()["window"] == 30
    assert folder.stat().st_mode & 0o777 == 0o755


def test_it_is_trained_on_as_it_says(make: Make, some: dict[str, Path]):
    folder, manifest = make(**some, feedback_weight=2.5)
    data = load(
        path=str(folder / "train"),
        test_path=str(folder / "test"),
        text="text",
        label="label",
        weight="weight",
        positive=manifest.positive,
    )
    assert sum(map(len, map(data.part, ("train", "val")))) == manifest.count("train")
    # A training finds nothing more that would leak.
    assert data.manifest["dropped"] == {}
    assert set(data.frame["sample_weight"]) == {1, 2.5}


def test_the_same_input_is_the_same_version(make: Make, some: dict[str, Path], tmp_path: Path):
    folder, manifest = make(**some)
    before = files_of(tmp_path / "datasets")
    changed = folder.stat().st_mtime_ns
    assert make(**some) == (folder, manifest)
    # Also from itself, with and without what it knows already.
    for sources in (some, {"labels": some["labels"], "log": some["log"]}):
        assert make(base=folder, **sources) == (folder, manifest)
    assert files_of(tmp_path / "datasets") == before
    assert folder.stat().st_mtime_ns == changed
    elsewhere, _ = make(**some, out=tmp_path / "elsewhere")
    assert elsewhere.name == folder.name


def test_versions_grow_and_the_test_set_is_frozen(
    make: Make, headlines: pd.DataFrame, label: Label
):
    frozen = None
    base: dict[str, Any] = {}
    windows = []
    for count in (80, 160, 300):
        rows = headlines[300 : 300 + count]
        # Some of them people have asked about before: rows of the base, of test, too.
        texts = [*rows["text"], *headlines["text"][:120]]
        labels = [*rows["label"], *headlines["label"][:120]]
        folder, manifest = make(**base, **label(texts, labels), window_rows=40)
        content = files_of(folder / "test")
        frozen = frozen or content
        assert content == frozen
        assert manifest.parent == (base["base"].name if base else None)
        train, test, window = (read(folder, part) for part in ("train", "test", "window"))
        assert len(window) == 40
        assert not keys(train) & keys(test)
        assert not keys(train) & keys(window)
        # Nor near-duplicates, as a training would find them.
        texts = Cleaning()([*train["text"], *test["text"], *window["text"]]).texts
        groups = duplicate_groups(texts)
        assert not set(groups[: len(train)]) & set(groups[len(train) :])
        # Rows of the base keep their order, and are what they were.
        kept = train[train["source"] == "base"]["text"].tolist()
        places = {text: n for n, text in enumerate(headlines["text"][:300])}
        assert [places[text] for text in kept] == sorted(places[text] for text in kept)
        windows.append(window)
        base = {"base": folder}
    # What was held out first is learnt from now.
    learnt = set(train["id"].dropna())
    assert (
        learnt >= set(windows[0]["id"]) - {"p79"} - set(windows[-1]["id"])
        or len(learnt & set(windows[0]["id"])) > 30
    )


def test_what_was_labelled_before_is_kept_when_the_log_forgets_it(
    make: Make, headlines: pd.DataFrame, label: Label
):
    rows = headlines[300:400]
    first, _ = make(**label(rows["text"].tolist(), rows["label"].tolist()))
    late = headlines[400:450]
    sources = label(late["text"].tolist(), late["label"].tolist(), first=100)
    folder, manifest = make(base=first, **sources)
    noted = pq.read_table(folder / "feedback.parquet").to_pandas()
    assert len(noted) == 150
    both = label(headlines["text"][300:450].tolist(), headlines["label"][300:450].tolist())
    again, _ = make(**both)
    assert again == folder
    # A label that was corrected counts, and is the only one of its id.
    corrected = late["label"].tolist()
    corrected[0] = "real" if corrected[0] == "fake" else "fake"
    folder, _ = make(base=folder, **label(late["text"].tolist(), corrected, first=100))
    noted = pq.read_table(folder / "feedback.parquet").to_pandas().set_index("id")
    assert len(noted) == 150
    assert noted["label"]["p100"] == corrected[0]
    assert manifest.count("train", "base") == 270


# --- what is read ---------------------------------------------------------------------------


def test_feedback_of_a_deployment_and_labels_that_outrank_it(
    logged: Callable[..., pa.Table], make: Make, headlines: pd.DataFrame, tmp_path: Path
):
    rows = headlines[300:340].reset_index(drop=True)
    place = tmp_path / "deployment"
    (place / "predictions" / "date=2026-03-01").mkdir(parents=True)
    (place / "feedback").mkdir()
    log = logged(rows["text"].tolist()).set_column(3, "label", pa.array(["fake"] * len(rows)))
    pq.write_table(log, place / "predictions" / "date=2026-03-01" / "a.parquet")

    def said(number: int, verdict: str, label: str | None = None) -> str:
        return json.dumps(
            {
                "id": f"p{number}",
                "time": START.isoformat(),
                "verdict": verdict,
                "label": label,
                "predicted": "fake",
            }
        )

    lines = [
        *(said(n, "correct" if n % 2 else "wrong") for n in range(36)),
        said(3, "wrong"),  # thought better of
        said(36, "unsure"),
        said(37, "wrong", "real"),
        said(38, "wrong", "satire"),
        "{torn",
    ]
    (place / "feedback" / "2026-03.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.csv").write_text("id,label\np5,real\np39,fake\nnone,fake\n")
    folder, manifest = make(log=place, labels=tmp_path / "labels.csv", window_rows=0)
    noted = pq.read_table(folder / "feedback.parquet").to_pandas().set_index("id")
    expected = {f"p{n}": "fake" if n % 2 else "real" for n in range(36)}
    expected |= {"p3": "real", "p37": "real", "p5": "real", "p39": "fake"}
    assert noted["label"].to_dict() == expected
    assert noted["_rank"].to_dict() == {name: int(name in ("p5", "p39")) for name in expected}
    told = " ".join(manifest.notices)
    assert "satire" in told
    assert "1 damaged line" in told
    assert "1 true labels are of ids that the log does not have" in told


def test_a_table_of_texts_that_were_labelled_elsewhere(
    make: Make, headlines: pd.DataFrame, tmp_path: Path
):
    rows = headlines[300:340]
    table = pd.DataFrame({"text": rows["text"], "label": rows["label"]})
    table["time"] = [(START + timedelta(days=n)).isoformat() for n in range(40)]
    table["id"] = [f"x{n}" if n % 2 else "" for n in range(40)]
    table.loc[300, "label"] = "satire"
    table.loc[301, "text"] = "   "
    table.to_csv(tmp_path / "table.csv", index=False)
    folder, manifest = make(labels=tmp_path / "table.csv", window_rows=10)
    assert read(folder, "window")["text"].tolist() == rows["text"].tolist()[-10:]
    assert manifest.left_out["a class that is none of the base's"] == {"feedback": 1}
    assert manifest.left_out["no text that can be read"] == {"feedback": 1}
    assert any("fake, real: 'satire'" in notice for notice in manifest.notices)
    assert make(base=folder, labels=tmp_path / "table.csv", window_rows=10)[0] == folder
    # Without times all are as old as each other.
    table[["text", "label"]].to_json(tmp_path / "plain.jsonl", orient="records", lines=True)
    plain, found = make(labels=tmp_path / "plain.jsonl", window_rows=10)
    assert found.newest is None
    assert len(read(plain, "window")) == 10


def test_extra_columns_come_from_the_log(
    make_run: MakeRun, tmp_path: Path, headlines: pd.DataFrame, label: Label
):
    rows = headlines.assign(
        age=np.where(headlines.index % 3, headlines.index / 2, np.nan), channel="web"
    )
    rows[:300].to_csv(tmp_path / "news.csv", index=False)
    make_run(
        tmp_path / "run",
        path=str(tmp_path / "news.csv"),
        numeric=["age"],
        categorical=["channel"],
    )
    given: list[dict[str, Any]] = [
        {"age": 4, "channel": " print "},
        {"age": "5.5"},
        {"age": "much", "channel": None},
        {"age": None, "channel": "web", "other": 1},
    ] * 10
    rows = headlines[300:340]
    manifest = make_dataset(
        base=tmp_path / "run",
        out=tmp_path / "out",
        **label(rows["text"].tolist(), rows["label"].tolist(), columns=given),
        window_rows=4,
        audit="off",
    )
    window = read(tmp_path / "out" / manifest.version, "window")
    assert list(window) == ["text", "label", "age", "channel", "weight", "source", "id", "time"]
    np.testing.assert_array_equal(window["age"], [4, 5.5, np.nan, np.nan])
    assert window["channel"].tolist() == ["print", "", "", "web"]
    train = read(tmp_path / "out" / manifest.version, "train")
    base = train[train["source"] == "base"]
    assert base["age"].isna().mean() == pytest.approx(1 / 3, abs=0.1)
    assert set(base["channel"]) == {"web"}
    assert "data.numeric=['age']" in manifest.overrides("x")


# --- rules ----------------------------------------------------------------------------------


def test_conflicts_go_by_majority_or_go(make: Make, label: Label, headlines: pd.DataFrame):
    new, other = headlines["text"][300], headlines["text"][301]
    texts = [new, new.upper(), f"{new}!", other, other, *headlines["text"][310:330]]
    labels = ["fake", "fake", "real", "fake", "real", *headlines["label"][310:330]]
    sources = label(texts, labels)
    folder, manifest = make(**sources, window_rows=0)
    train = read(folder, "train").set_index("id")
    assert train["text"]["p1"] == new.upper()  # the newest of those that agree
    assert train["label"]["p1"] == "fake"
    assert not {"p0", "p2", "p3", "p4"} & set(train.index)
    assert manifest.left_out["other labels of the same text count more"] == {"feedback": 1}
    assert manifest.left_out["the same text has several classes"] == {"feedback": 2}
    assert manifest.left_out["the same text and class as another labelled row"]["feedback"] == 1
    dropped, manifest = make(**sources, window_rows=0, conflicts="drop")
    assert not {f"p{n}" for n in range(5)} & set(read(dropped, "train")["id"])
    assert manifest.left_out["the same text has several classes"] == {"feedback": 5}


def test_one_user_has_one_vote_a_text(make: Make, label: Label, headlines: pd.DataFrame):
    text = headlines["text"][300]
    texts = [text] * 6 + headlines["text"][310:330].tolist()
    labels = ["fake"] * 4 + ["real"] * 2 + headlines["label"][310:330].tolist()
    users = ["troll"] * 4 + ["anna", "bert"] + [f"u{n}" for n in range(20)]
    folder, _ = make(**label(texts, labels, users=users), window_rows=0)
    train = read(folder, "train").set_index("id")
    assert train["label"]["p5"] == "real"
    assert "p3" not in train.index


@pytest.mark.parametrize("conflicts", ["majority", "drop"])
def test_a_text_of_the_base_with_another_class(
    make: Make, label: Label, headlines: pd.DataFrame, run: Path, conflicts: str
):
    data = load(
        path=str(run.parent / "news.csv"), text="text", label="label", positive="fake", seed=1
    )
    alone = data.frame[~data.frame["group"].duplicated(keep=False)]
    one, two = alone[alone["split"] == "train"][["raw", "label"]].to_numpy()[:2].tolist()
    turned = "real" if one[1] == "fake" else "fake"
    texts = [one[0], two[0], *headlines["text"][310:330]]
    labels = [turned, two[1], *headlines["label"][310:330]]
    folder, manifest = make(**label(texts, labels), window_rows=0, conflicts=conflicts)
    train = read(folder, "train")
    there = train[train["text"] == one[0]]
    if conflicts == "majority":
        assert there[["label", "id"]].to_numpy().tolist() == [[turned, "p0"]]
        assert manifest.left_out["feedback says another class of the same text"] == {"base": 1}
    else:
        assert there.empty
        assert manifest.left_out["the same text has several classes"] == {
            "base": 1,
            "feedback": 1,
        }
    # Who agrees with the base says nothing new.
    assert train[train["text"] == two[0]]["source"].tolist() == ["base"]
    assert manifest.left_out["the same text and class as a row of the base"] == {"feedback": 1}
    # What was left out is not forgotten: the same rules give the same, others others.
    again = {"base": folder, **label(texts, labels), "window_rows": 0}
    assert make(**again, conflicts=conflicts)[0] == folder
    other = "drop" if conflicts == "majority" else "majority"
    fresh, _ = make(**label(texts, labels), window_rows=0, conflicts=other)
    assert make(**again, conflicts=other)[0] == fresh != folder


def test_one_user_cannot_flood(make: Make, label: Label, headlines: pd.DataFrame):
    rows = headlines[300:500]
    users = ["troll"] * 120 + [f"u{n % 8}" for n in range(80)]
    sources = label(rows["text"].tolist(), rows["label"].tolist(), users=users)
    folder, manifest = make(**sources, window_rows=0, max_share=0.25)
    noted = pq.read_table(folder / "feedback.parquet").to_pandas()
    counted = noted[noted["_outcome"] != "too many from one user"]["_user"].value_counts()
    repeated = noted[noted["_outcome"].str.startswith("the same text")]
    total = counted.sum() - len(repeated)
    assert counted["troll"] - (repeated["_user"] == "troll").sum() <= 0.25 * total
    assert manifest.left_out["too many from one user"]["feedback"] > 80
    # The newest of them stay.
    of_troll = noted[noted["_user"] == "troll"]
    kept = of_troll[of_troll["_outcome"] == "train"]["time"]
    assert kept.min() > of_troll[of_troll["_outcome"] == "too many from one user"]["time"].max()
    _, manifest = make(**sources, window_rows=0, max_share=None)
    assert "too many from one user" not in manifest.left_out


def test_old_labels_count_less(make: Make, some: dict[str, Path]):
    folder, _ = make(**some, window_rows=0, feedback_weight=4, half_life_days=1)
    train = read(folder, "train")
    learnt = train[train["source"] == "feedback"]
    hours = learnt["id"].str[1:].astype(int)
    np.testing.assert_allclose(learnt["weight"], 4 * 0.5 ** ((99 - hours) / 24))
    assert set(train[train["source"] == "base"]["weight"]) == {1}


def test_weights_of_the_base_are_kept(
    make_run: MakeRun, tmp_path: Path, headlines: pd.DataFrame, some: Any
):
    rows = headlines[:300].assign(trust=np.where(headlines.index[:300] % 2, 0.5, 3))
    rows.to_csv(tmp_path / "news.csv", index=False)
    make_run(tmp_path / "run", path=str(tmp_path / "news.csv"), weight="trust")
    manifest = make_dataset(base=tmp_path / "run", out=tmp_path / "out", **some, audit="off")
    folder = tmp_path / "out" / manifest.version
    base = read(folder, "train").query("source == 'base'")
    assert set(base["weight"]) == {0.5, 3}
    assert set(read(folder, "test")["weight"]) <= {0.5, 3}


def test_a_window_leaves_something_to_learn(make: Make, some: dict[str, Path]):
    folder, manifest = make(**some, window_rows=1000)
    assert 40 <= manifest.count("window") <= 50
    none, manifest = make(**some, window_rows=0)
    assert not (none / "window").exists()
    assert "window" not in manifest.rows
    assert "window" in read_dataset(folder).rows


# --- the audit ------------------------------------------------------------------------------


def test_labels_are_audited_by_the_bundle(
    make: Make, some: dict[str, Path], fusion_bundle: Path
):
    flagged, manifest = make(**some, audit="flag", bundle=fusion_bundle, window_rows=20)
    issues = pd.read_csv(flagged / "label_issues.csv")
    assert len(issues) == manifest.audit["doubted"] > 0
    assert manifest.audit["labels"] >= 90
    assert set(issues["part"]) <= {"train", "window"}
    assert (issues["label"] != issues["suggested"]).all()
    dropped, manifest = make(**some, audit="drop", bundle=fusion_bundle, window_rows=20)
    doubted = set(issues[issues["part"] == "train"]["id"])
    assert manifest.left_out["the audit doubts the label"] == {"feedback": len(doubted)}
    assert doubted <= set(read(flagged, "train")["id"])
    assert not doubted & set(read(dropped, "train")["id"])
    # A window is what people said.
    assert read(dropped, "window").equals(read(flagged, "window"))


def test_without_a_bundle_it_is_told(make: Make, some: dict[str, Path]):
    folder, manifest = make(**some, audit="flag")
    assert manifest.audit == {"audit": "no bundle"}
    assert any("not audited" in notice for notice in manifest.notices)
    assert not (folder / "label_issues.csv").exists()


def test_a_bundle_of_other_classes(make: Make, some: dict[str, Path], columns_bundle: Path):
    with pytest.raises(RetrainingError, match="has the classes no, unsure, yes, and the base"):
        make(**some, audit="flag", bundle=columns_bundle)


# --- what cannot be -------------------------------------------------------------------------


def untouched(out: Path) -> bool:
    return not [path for path in out.glob("*") if path.name != ".lock"]


def test_a_log_without_texts(make: Make, label: Label, tmp_path: Path, headlines: Any):
    with pytest.raises(
        RetrainingError, match=r"5 predictions have a label and none has a text.*log\.text=true"
    ):
        make(**label([None] * 5, ["fake"] * 5))
    assert untouched(tmp_path / "datasets")
    rows = headlines[300:340]
    sources = label([None, *rows["text"][1:]], rows["label"].tolist())
    _, manifest = make(**sources)
    assert any(
        notice.startswith("1 labelled predictions have no text") for notice in manifest.notices
    )


def test_nothing_was_labelled(make: Make, label: Label, tmp_path: Path):
    with pytest.raises(RetrainingError, match="there are no labelled rows: give a prediction"):
        make()
    with pytest.raises(RetrainingError, match="there are no labelled rows"):
        make(log=label(["A text"], [])["log"])
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(RetrainingError, match="there are no labelled rows"):
        make(labels=tmp_path / "empty.csv")
    assert untouched(tmp_path / "datasets")


def test_nothing_that_was_labelled_can_be_learnt(make: Make, tmp_path: Path):
    table = pd.DataFrame({"text": ["One", "Two", " "], "label": ["satire", "satire", "real"]})
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(RetrainingError) as caught:
        make(labels=tmp_path / "table.csv")
    assert str(caught.value) == (
        "none of 3 labelled rows can be learnt from: 2 x a class that is none of the base's, "
        "1 x no text that can be read; 2 rows are left out, whose label is none of the classes "
        "fake, real: 'satire'"
    )


def test_labels_without_the_log_of_their_ids(make: Make, some: dict[str, Path], tmp_path: Path):
    with pytest.raises(
        RetrainingError, match=r"labels\.csv has no column text, and there is no"
    ):
        make(labels=some["labels"])
    with pytest.raises(MonitoringError, match="no such file"):
        make(labels=tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="memory=much"):
        make(**some, memory="much")


def test_a_base_that_is_none(make: Make, some: dict[str, Path], tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RetrainingError, match="is no run folder, no prepared dataset and no"):
        make(base=tmp_path / "folder", **some)
    (tmp_path / "folder" / "config.yaml").write_text("data: {_target_: os.system}")
    with pytest.raises(
        RetrainingError, match=r"reads its data by os\.system, which retraining"
    ):
        make(base=tmp_path / "folder", **some)
    (tmp_path / "folder" / "config.yaml").write_text("data: [")
    with pytest.raises(RetrainingError, match=r"config\.yaml is damaged, or of no run"):
        make(base=tmp_path / "folder", **some)


def test_a_run_whose_data_have_changed(
    make_run: MakeRun, tmp_path: Path, headlines: pd.DataFrame, some: Any
):
    headlines[:300].to_csv(tmp_path / "news.csv", index=False)
    make_run(tmp_path / "run", path=str(tmp_path / "news.csv"))
    headlines[:299].to_csv(tmp_path / "news.csv", index=False)
    with pytest.raises(RetrainingError, match=r"the data of the run in .* have changed since"):
        make_dataset(base=tmp_path / "run", out=tmp_path / "out", **some)
    (tmp_path / "run" / "data.json").unlink()
    with pytest.raises(RetrainingError, match=r"has no data\.json"):
        make_dataset(base=tmp_path / "run", out=tmp_path / "out", **some)
    assert untouched(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda p: (p / "test" / "00000.parquet").write_bytes(b"x"),
            "test/00000.parquet has 1",
        ),
        (lambda p: (p / "train" / "00000.parquet").unlink(), "train/00000.parquet is missing"),
        (lambda p: (p / "feedback.parquet").unlink(), "feedback.parquet is missing"),
        (
            lambda p: (p / "test" / "more.parquet").write_bytes(b""),
            "more.parquet is no file of",
        ),
        (
            lambda p: (p / "manifest.json").write_text(
                (p / "manifest.json").read_text().replace('"majority"', '"drop"')
            ),
            "manifest.json was changed after it was written",
        ),
        (
            lambda p: (p / "manifest.json").write_text(
                (p / "manifest.json").read_text().replace('"format": 1', '"format": 9')
            ),
            "its format is 9, and this version reads 1",
        ),
    ],
)
def test_an_earlier_version_that_was_changed(
    make: Make, some: dict[str, Path], change: Callable[[Path], object], fault: str
):
    folder, _ = make(**some)
    change(folder)
    with pytest.raises(RetrainingError, match=re.escape(fault)) as caught:
        make(base=folder, **some)
    assert "\n" not in str(caught.value)


def test_an_extra_column_of_a_name_that_is_taken(
    make_run: MakeRun, tmp_path: Path, headlines: pd.DataFrame, some: dict[str, Path]
):
    rows = headlines[:300].assign(source="web")
    rows.to_csv(tmp_path / "news.csv", index=False)
    make_run(tmp_path / "run", path=str(tmp_path / "news.csv"), categorical=["source"])
    with pytest.raises(RetrainingError, match="the extra column source has the name of a"):
        make_dataset(base=tmp_path / "run", out=tmp_path / "out", **some)


def test_two_at_once(make: Make, some: dict[str, Path], tmp_path: Path):
    (tmp_path / "datasets").mkdir()
    with (
        FileLock(tmp_path / "datasets" / ".lock"),
        pytest.raises(RetrainingError, match="another process is making a dataset in"),
    ):
        make(**some)
    left = tmp_path / "datasets" / ".draft-of-one-that-was-killed"
    (left / "train").mkdir(parents=True)
    folder, _ = make(**some)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}


@pytest.mark.parametrize("small_disk", ["40k", "100k", "300k"], indirect=True)
def test_a_full_disk_leaves_nothing(make: Make, some: dict[str, Path], small_disk: Path):
    with pytest.raises(FakeNewsError) as caught:
        make(**some, out=small_disk / "datasets")
    assert "\n" not in str(caught.value)
    assert untouched(small_disk / "datasets")


# --- how many are new -----------------------------------------------------------------------


def test_how_many_labels_are_new(
    make_run: MakeRun, make: Make, run: Path, label: Label, tmp_path: Path
):
    labels = ["fake", "real"] * 25
    texts = [f"Council opens school {n} on {n * 37} street" for n in range(50)]
    sources = label(texts, labels)
    assert count_new_labels(base=run, **sources) == 50
    folder, _ = make(**sources)
    assert count_new_labels(base=folder, **sources) == 0
    # The champion's run folder leads to what it was trained on.
    make_run(
        tmp_path / "next",
        path=str(folder / "train"),
        test_path=str(folder / "test"),
        weight="weight",
    )
    assert count_new_labels(base=tmp_path / "next", **sources) == 0
    corrected = ["real" if labels[0] == "fake" else "fake", *labels[1:]]
    more = label([*texts, "A new one", None], [*corrected, "fake", "fake"])
    assert count_new_labels(base=tmp_path / "next", **more) == 2
    again, manifest = make(base=tmp_path / "next", **sources)
    assert again == folder
    assert manifest.parent is None
