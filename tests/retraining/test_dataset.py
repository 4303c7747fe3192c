"""Versions of the training data, from a real run and logs of what was labelled since."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from fakenews.data.cleaning import Cleaning
from fakenews.data.dataset import Dataset, load
from fakenews.data.duplicates import duplicate_groups, sketch
from fakenews.errors import ConfigError, FakeNewsError, MonitoringError, RetrainingError
from fakenews.retraining.dataset import make_dataset
from fakenews.retraining.manifest import DatasetManifest, read_dataset

Label = Callable[..., dict[str, Path]]
Read = Callable[[Path, str], pd.DataFrame]
First = tuple[Path, dict[str, Path]]
Make = Callable[..., tuple[Path, DatasetManifest]]

START = datetime(2026, 3, 1, tzinfo=UTC)  # of the log


@pytest.fixture
def make(tmp_path: Path, first: First) -> Make:
    """Makes a version, unless it is said otherwise from the first one; without an audit."""

    def make(**options: Any) -> tuple[Path, DatasetManifest]:
        out = options.pop("out", tmp_path / "datasets")
        given = {"base": first[0], "out": out, "window_rows": 30, "audit": "off"} | options
        manifest = make_dataset(**given)
        return out / manifest.version, manifest

    return make


def keys(frame: pd.DataFrame) -> set[int]:
    """What is equal of equal texts."""
    texts = Cleaning()(frame["text"].tolist()).texts
    return set(sketch(texts, threshold=1)["key"].to_pylist())


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_a_version_is(
    first: First, trained: tuple[Path, Dataset], headlines: pd.DataFrame, read_part: Read
):
    folder, data = first[0], trained[1]
    manifest = read_dataset(folder)
    parts = {part: read_part(folder, part) for part in ("train", "test", "window")}
    for part, frame in parts.items():
        assert list(frame) == ["text", "label", "weight", "source", "id", "time"]
        found = frame.groupby(["source", "label"]).size().to_dict()
        told = manifest.rows[part]
        assert found == {(s, c): n for s, classes in told.items() for c, n in classes.items()}
        assert manifest.count(part) == len(frame)
    # The base is what the run has trained on; its test rows are frozen.
    train, test, window = parts["train"], parts["test"], parts["window"]
    assert test["text"].tolist() == data.part("test")["raw"].tolist()
    assert test["label"].tolist() == data.part("test")["label"].tolist()
    left_out = pd.DataFrame({"_place": [], "_reason": []})
    if (folder / "left_out.parquet").exists():
        left_out = pq.read_table(folder / "left_out.parquet").to_pandas()
    learnt_from = data.frame[data.frame["split"].isin(["train", "val"])]
    learnt_from = learnt_from.reset_index(drop=True).drop(left_out["_place"])
    base = train[train["source"] == "base"]
    assert base["text"].tolist() == learnt_from["raw"].tolist()
    assert base["label"].tolist() == learnt_from["label"].tolist()
    assert set(base["weight"]) == {1}
    assert base["id"].isna().all()
    assert base["time"].isna().all()
    # The newest of the labelled rows are held out.
    assert set(window["id"]) == {f"p{number}" for number in range(70, 100)}
    learnt = train[train["source"] == "feedback"]
    assert set(learnt["id"]) <= {f"p{number}" for number in range(70)}
    number = learnt["id"].str[1:].astype(int)
    assert number.is_monotonic_increasing
    assert (learnt["time"] == START + pd.to_timedelta(number, unit="h")).all()
    assert learnt["text"].tolist() == headlines["text"][200 + number].tolist()
    assert learnt["label"].tolist() == headlines["label"][200 + number].tolist()
    # Nothing is lost, and all is told.
    noted = pq.read_table(folder / "feedback.parquet").to_pandas()
    assert len(noted) == 100
    for reason, sources in manifest.left_out.items():
        assert sources.get("feedback", 0) == (noted["_outcome"] == reason).sum()
        assert sources.get("base", 0) == (left_out["_reason"] == reason).sum()
    assert (manifest.parent, manifest.base["kind"]) == (None, "run")
    assert manifest.base["data_hash"] == data.manifest["data_hash"]
    assert manifest.newest == (START + timedelta(hours=99)).isoformat()
    assert manifest.notices == []
    assert folder.stat().st_mode & 0o777 == 0o755


def test_it_is_trained_on_as_it_says(first: First):
    folder, _ = first
    manifest = read_dataset(folder)
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
    assert set(data.frame["sample_weight"]) == {1}


def test_the_same_input_is_the_same_version(make: Make, run: Path, first: First):
    folder, sources = first
    before, changed = files_of(folder.parent), folder.stat().st_mtime_ns
    # From the run, and from itself with nothing new: nothing is done.
    for base in (run, folder):
        found, manifest = make(base=base, **sources, out=folder.parent)
        assert (found, manifest) == (folder, read_dataset(folder))
    assert files_of(folder.parent) == before
    assert folder.stat().st_mtime_ns == changed
    # Elsewhere it has the same bytes.
    again, _ = make(base=folder, **sources)
    parts = {path for path in before if path.startswith(f"{folder.name}/")}
    assert {path for path in files_of(again.parent) if path.startswith(again.name)} == parts
    for path in parts - {f"{folder.name}/manifest.json"}:
        assert files_of(again.parent)[path] == before[path], path


def test_versions_grow_and_the_test_set_is_frozen(
    make: Make, first: First, headlines: pd.DataFrame, label: Label, read_part: Read
):
    base = first[0]
    frozen = files_of(base / "test")
    windows = [read_part(base, "window")]
    for start, stop in ((300, 340), (340, 500)):
        # Some of them were asked about before: rows of the base, and of test.
        rows = pd.concat([headlines[:60], headlines[start:stop]])
        sources = label(rows["text"].tolist(), rows["label"].tolist(), start=10 * start)
        folder, manifest = make(base=base, **sources)
        assert files_of(folder / "test") == frozen
        assert manifest.parent == base.name
        train, test, window = (read_part(folder, p) for p in ("train", "test", "window"))
        assert len(window) == 30
        assert not keys(train) & (keys(test) | keys(window))
        # Nor near-duplicates, as a training would find them.
        texts = Cleaning()([*train["text"], *test["text"], *window["text"]]).texts
        groups = duplicate_groups(texts)
        assert not set(groups[: len(train)]) & set(groups[len(train) :])
        assert manifest.left_out["near-duplicate of a frozen test row"]["feedback"] > 0
        assert manifest.left_out["the same text and class as a row of the base"]
        # Rows of the base keep their order.
        places = {text: place for place, text in enumerate(headlines["text"])}
        kept = [places[text] for text in train[train["source"] == "base"]["text"]]
        assert kept == sorted(kept)
        windows.append(window)
        base = folder
    # What was held out first is learnt from now.
    assert len(set(windows[0]["id"]) & set(train["id"])) > 25
    assert len(set(windows[1]["id"]) & set(train["id"])) > 0


def test_labels_that_the_log_has_forgotten_are_kept_and_corrected_ones_count(
    make: Make, run: Path, first: First, headlines: pd.DataFrame, label: Label
):
    late = headlines[300:340]
    labels = late["label"].tolist()
    folder, _ = make(**label(late["text"].tolist(), labels, start=100))
    noted = pq.read_table(folder / "feedback.parquet").to_pandas()
    assert len(noted) == 140
    # As if all had been there at once.
    whole = headlines[200:340]
    at_once, _ = make(base=run, **label(whole["text"].tolist(), whole["label"].tolist()))
    assert at_once == folder
    corrected = ["real" if labels[0] == "fake" else "fake", *labels[1:]]
    after, _ = make(base=folder, **label(late["text"].tolist(), corrected, start=100))
    noted = pq.read_table(after / "feedback.parquet").to_pandas().set_index("id")
    assert len(noted) == 140
    assert noted["label"]["p100"] == corrected[0]
    assert first[0].name not in (folder.name, after.name)


def test_rules_are_taken_back_with_what_they_left_out(
    make: Make, first: First, trained: tuple[Path, Dataset], label: Label
):
    # People say another class of some rows of the base.
    frame = trained[1].frame
    alone = frame[~frame["group"].duplicated(keep=False) & (frame["split"] == "train")][:8]
    turned = alone["label"].map({"fake": "real", "real": "fake"}).tolist()
    sources = label(alone["raw"].tolist(), turned, start=100)
    won, manifest = make(**sources, window_rows=0)
    told = {"feedback says another class of the same text": {"base": 8}}
    assert manifest.left_out.items() >= told.items()
    lost, manifest = make(**sources, window_rows=0, conflicts="drop")
    told = {"the same text has several classes": {"base": 8, "feedback": 8}}
    assert manifest.left_out.items() >= told.items()
    assert make(base=won, **sources, window_rows=0)[0] == won
    assert make(base=won, **sources, window_rows=0, conflicts="drop")[0] == lost
    assert make(base=lost, **sources, window_rows=0)[0] == won
    assert not (won / "window").exists()
    assert read_dataset(won).settings["conflicts"] == "majority"
    assert first[0] != won


def test_weights_and_a_user_who_floods(
    make: Make, headlines: pd.DataFrame, tmp_path: Path, read_part: Read
):
    rows = headlines[300:400].reset_index(drop=True)
    rows["user"] = ["troll"] * 60 + [f"u{number % 8}" for number in range(40)]
    times = [START + timedelta(days=100, hours=number) for number in range(100)]
    rows.assign(time=[when.isoformat() for when in times]).to_csv(tmp_path / "t.csv")
    folder, manifest = make(
        labels=tmp_path / "t.csv",
        window_rows=0,
        max_share=0.2,
        feedback_weight=4,
        half_life_days=1,
    )
    flood = manifest.left_out["too many from one user"]["feedback"]
    assert 60 - flood <= 0.2 * (200 - flood)
    train = read_part(folder, "train")
    learnt = train[train["source"] == "feedback"]
    days = (times[-1] - learnt["time"]) / timedelta(days=1)
    expected = 4 * 0.5 ** days.to_numpy(dtype=float)
    assert learnt["weight"].to_numpy() == pytest.approx(expected)
    assert set(train[train["source"] == "base"]["weight"]) == {1}


# --- what cannot be -------------------------------------------------------------------------


def untouched(out: Path) -> bool:
    return not [path for path in out.glob("*") if path.name != ".lock"]


def test_nothing_was_labelled(make: Make, run: Path, tmp_path: Path, label: Label):
    with pytest.raises(RetrainingError, match="there are no labelled rows: give a prediction"):
        make(base=run)
    table = pd.DataFrame({"text": ["One", "Two", " "], "label": ["satire", "satire", "real"]})
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(RetrainingError) as caught:
        make(base=run, labels=tmp_path / "table.csv")
    assert str(caught.value) == (
        "none of 3 labelled rows can be learnt from: 2 x a class that is none of the base's, "
        "1 x no text that can be read; 2 rows are left out, whose label is none of the classes "
        "fake, real: 'satire'"
    )
    with pytest.raises(RetrainingError, match=r"none has a text.*serve\.gateway\.log\.text"):
        make(**label([None] * 5, ["fake"] * 5))
    assert untouched(tmp_path / "datasets")


def test_input_that_cannot_be_used(make: Make, first: First, tmp_path: Path):
    labels = first[1]["labels"]
    with pytest.raises(RetrainingError, match="no column text, and there is no log that its"):
        make(labels=labels)
    with pytest.raises(MonitoringError, match="no such file"):
        make(labels=tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="memory=much"):
        make(**first[1], memory="much")
    assert untouched(tmp_path / "datasets")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p: (p / "test/00000.parquet").write_bytes(b"x"), "test/00000.parquet has 1"),
        (lambda p: (p / "train/00000.parquet").unlink(), "train/00000.parquet is missing"),
        (lambda p: (p / "feedback.parquet").unlink(), "feedback.parquet is missing"),
        (lambda p: (p / "test/more.parquet").write_bytes(b""), "more.parquet is no file of it"),
    ],
)
def test_an_earlier_version_that_was_changed(
    make: Make, first: First, tmp_path: Path, change: Callable[[Path], object], fault: str
):
    shutil.copytree(first[0], tmp_path / "copy")
    change(tmp_path / "copy")
    with pytest.raises(RetrainingError, match=re.escape(fault)) as caught:
        make(base=tmp_path / "copy", **first[1])
    assert "\n" not in str(caught.value)
    assert untouched(tmp_path / "datasets")


def test_two_at_once_and_what_a_killed_one_left(make: Make, first: First, tmp_path: Path):
    out = tmp_path / "datasets"
    out.mkdir()
    with (
        FileLock(out / ".lock"),
        pytest.raises(RetrainingError, match="another process is making a dataset in"),
    ):
        make(**first[1])
    (out / ".draft-of-one-that-was-killed" / "train").mkdir(parents=True)
    folder, _ = make(**first[1])
    assert {path.name for path in out.iterdir()} == {".lock", folder.name}


@pytest.mark.parametrize("small_disk", ["40k", "80k"], indirect=True)
def test_a_full_disk_leaves_nothing(make: Make, first: First, small_disk: Path):
    with pytest.raises(FakeNewsError) as caught:
        make(**first[1], out=small_disk / "datasets")
    assert "\n" not in str(caught.value)
    assert untouched(small_disk / "datasets")
