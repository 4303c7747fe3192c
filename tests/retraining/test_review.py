"""Labels that a model doubts."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fakenews.bundle import BundleContent, write_bundle
from fakenews.errors import RetrainingError
from fakenews.models.tfidf import TfidfClassifier
from fakenews.retraining.dataset import make_dataset
from fakenews.retraining.manifest import DatasetManifest
from fakenews.retraining.review import find_issues, write_issues
from fakenews.retraining.rows import Columns

SCHEMA = Columns().feedback_schema


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that knows what is said of rain and of rates."""
    generator = np.random.default_rng(0)
    texts, codes = zip(*(sentence(generator, code) for code in [0, 1] * 100), strict=True)
    model = TfidfClassifier(min_rows=1).fit(list(texts), np.array(codes))
    content = BundleContent(
        model=model.architecture(),
        weights=model.weights(),
        tokenizer=None,
        features={
            "cleaning": {"normalise": False, "max_chars": 500},
            "pad_id": 0,
            "tabular": None,
        },
        labels={"classes": ["fake", "real"], "positive": "fake"},
        calibration={"temperature": 1.0, "threshold": 0.5, "positive": "fake"},
        reference={"logits": np.zeros((1, 2))},
        metrics={},
        provenance={},
    )
    return write_bundle(content, tmp_path_factory.mktemp("tfidf") / "bundle")


def sentence(generator: np.random.Generator, code: int) -> tuple[str, int]:
    words = (["miracle", "shock", "secret"], ["budget", "council", "rates"])[code]
    others = generator.integers(0, 40, 4).astype(str)
    return " ".join([*generator.choice(words, 2), *others]), code


def labelled(rows: int, *, wrong: set[int]) -> pa.Table:
    generator = np.random.default_rng(1)
    names = ["fake", "real"]
    found = [sentence(generator, row % 2) for row in range(rows)]
    return pa.Table.from_pylist(
        [
            dict.fromkeys(SCHEMA.names)
            | {
                "id": f"p{row}",
                "text": text,
                "label": names[code if row not in wrong else 1 - code],
                "time": pd.Timestamp("2026-03-01", tz="UTC"),
                "_user": "anna",
            }
            for row, (text, code) in enumerate(found)
        ],
        SCHEMA,
    )


def test_labels_that_are_wrong_are_found_in_any_batch(bundle: Path, tmp_path: Path):
    wrong = {8, 60, 61, 121}
    table = labelled(150, wrong=wrong)
    places = {row: "window" if row > 100 else "train" for row in range(150) if row != 3}
    batches = [table.slice(start, 40) for start in range(0, 150, 40)]
    issues, looked_at = find_issues(batches, places, bundle=bundle, classes=["fake", "real"])
    assert looked_at == 149
    found = {issue.place for issue in issues}
    assert found <= wrong
    assert found >= {60, 121}
    for issue in issues:
        assert issue.label != issue.suggested
        assert issue.given < 0.5 < issue.likely
    assert [issue.given for issue in issues] == sorted(issue.given for issue in issues)
    write_issues(tmp_path / "issues.csv", issues, batches, places)
    with (tmp_path / "issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"p{issue.place}" for issue in issues]
    of = {row["id"]: row for row in rows}
    assert of["p121"]["part"] == "window"
    assert of["p60"]["part"] == "train"
    assert of["p60"]["text"] == table["text"][60].as_py()
    assert of["p60"]["user"] == "anna"


def test_few_labels_or_one_class_say_nothing(bundle: Path):
    table = labelled(150, wrong={1})
    for places in (range(10), range(0, 150, 2), ()):
        chosen = dict.fromkeys(places, "train")
        issues, looked_at = find_issues(
            [table], chosen, bundle=bundle, classes=["fake", "real"]
        )
        assert issues == []
        assert looked_at == len(chosen)


def test_a_bundle_of_other_classes(bundle: Path):
    with pytest.raises(
        RetrainingError, match="has the classes fake, real, and the base no, yes"
    ):
        find_issues([], {}, bundle=bundle, classes=["no", "yes"])


def test_without_cleanlab(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RetrainingError, match="the audit of labels needs the package cleanlab"):
        find_issues([], {}, bundle=bundle, classes=["fake", "real"])


def test_a_version_without_doubted_labels(
    first: tuple[Path, dict[str, Path]],
    fusion_bundle: Path,
    read_part: Callable[[Path, str], pd.DataFrame],
    tmp_path: Path,
):
    def make(**options: Any) -> tuple[Path, DatasetManifest]:
        given = {"base": first[0], "window_rows": 30, **first[1], **options}
        manifest = make_dataset(out=tmp_path, **given)
        return tmp_path / manifest.version, manifest

    flagged, manifest = make(audit="flag", bundle=fusion_bundle)
    assert flagged.name == first[0].name  # nothing is left out
    issues = pd.read_csv(flagged / "label_issues.csv")
    assert len(issues) == manifest.audit["doubted"] > 0
    assert manifest.audit["labels"] > 80
    assert set(issues["part"]) <= {"train", "window"}
    assert (issues["label"] != issues["suggested"]).all()
    assert "label_issues.csv" in manifest.files
    dropped, manifest = make(audit="drop", bundle=fusion_bundle)
    doubted = set(issues[issues["part"] == "train"]["id"])
    assert manifest.left_out["the audit doubts the label"] == {"feedback": len(doubted)}
    assert doubted <= set(read_part(flagged, "train")["id"])
    assert not doubted & set(read_part(dropped, "train")["id"])
    # A window is what people said.
    assert read_part(dropped, "window").equals(read_part(flagged, "window"))
    _, manifest = make(audit="flag", window_rows=20)
    assert manifest.audit == {"audit": "no bundle"}
    assert any("not audited" in notice for notice in manifest.notices)
