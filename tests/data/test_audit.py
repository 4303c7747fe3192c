"""The audit, and its probe of artefacts."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fakenews.data.audit import Audit, audit, probe, warnings_of
from fakenews.data.duplicates import duplicate_groups
from fakenews.data.sources import classes, read_table

FIXTURE = Path(__file__).parent / "fixtures" / "headlines.csv"


@pytest.fixture(scope="module")
def report() -> Audit:
    return run(
        FIXTURE, text="headlines", label="outcome", label_names={"0": "fake", "1": "real"}
    )


def run(path: Path, *, seed: int = 0, **options: object) -> Audit:
    table = read_table(path, **options)
    names, positive = classes(table.frame)
    groups = duplicate_groups(table.frame["text"].tolist())
    return audit(table, groups, classes=names, positive=positive, seed=seed)


def leaky(path: Path, *, cue: bool) -> Path:
    """Random words; with the cue, rows of the rare class end in a full stop and no others."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(500)])
    labels = np.where(np.arange(400) % 5 == 0, "real", "fake")
    texts = [" ".join(rng.choice(words, 8)) for _ in labels]
    ends = np.where(labels == "real", ".", "") if cue else rng.choice([".", ""], 400)
    texts = [text + end for text, end in zip(texts, ends, strict=True)]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
    return path


def test_counts(report: Audit) -> None:
    assert report.rows == 15
    assert report.rows_per_class == {"fake": 9, "real": 6}
    assert report.positive == "real"
    assert report.base_rate == pytest.approx(0.4)
    assert report.exact_duplicates == 3
    assert report.near_duplicates == 1
    assert report.groups == 11
    assert report.largest_group == 3
    assert report.conflicting_texts == report.conflicting_groups == 2
    assert report.repaired == 2
    assert report.dropped == {"empty text": 1}
    assert report.encodings == {"utf-8": 1}


def test_lengths_are_of_the_cleaned_text(report: Audit) -> None:
    assert report.lengths["fake"]["words"]["0.0"] == 1  # the text "NA"
    assert report.lengths["fake"]["chars"]["0.0"] == 2
    assert report.lengths["real"]["words"]["1.0"] == 10
    assert list(report.lengths["real"]["chars"]) == ["0.0", "0.05", "0.5", "0.95", "1.0"]


def test_artefact_rates_are_of_the_raw_text(report: Audit) -> None:
    rates = report.artefact_rates
    assert rates["final_stop"] == {"fake": pytest.approx(7 / 9), "real": pytest.approx(1 / 6)}
    assert rates["mojibake"] == {"fake": pytest.approx(2 / 9), "real": 0}
    assert rates["line_break"] == {"fake": 0, "real": pytest.approx(1 / 6)}


def test_json_is_strict_and_complete(report: Audit) -> None:
    back = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert back["rows_per_class"] == {"fake": 9, "real": 6}
    assert set(back["probe_raw"]) == {"average_precision", "base_rate", "lift", "folds", "rows"}
    assert back["warnings"] == report.warnings


def test_tables_print_the_figures(report: Audit) -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(*report.table())
    shown = console.export_text()
    for expected in ("exact duplicates", "final_stop", "77.8%", "base rate of real", "40.0%"):
        assert expected in shown


def test_a_cue_is_found_warned_of_and_removed(tmp_path: Path) -> None:
    path = leaky(tmp_path / "a.csv", cue=True)
    raw = run(path, text="text", label="label")
    assert raw.probe_raw is not None
    assert raw.probe_raw.average_precision > 0.99
    assert raw.probe_raw.base_rate == pytest.approx(0.2)
    assert raw.probe_raw.folds == 5
    assert [w for w in raw.warnings if "data.normalise=true" in w]
    normalised = run(path, text="text", label="label", normalise=True)
    assert normalised.probe_raw == raw.probe_raw
    assert normalised.probe_text is not None
    assert normalised.probe_text.lift == pytest.approx(0, abs=0.02)
    assert normalised.warnings == []


def test_no_cue_no_warning(tmp_path: Path) -> None:
    report = run(leaky(tmp_path / "a.csv", cue=False), text="text", label="label")
    assert report.probe_raw is not None
    assert report.probe_raw.lift < 0.1
    assert report.warnings == []


def test_conflicts_and_chains_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    texts = ["the very same text"] * 30 + [
        f"entirely different number{i} words{i}" for i in range(30)
    ]
    pd.DataFrame({"text": texts, "label": ["a", "b"] * 30}).to_csv(path, index=False)
    report = run(path, text="text", label="label")
    assert report.conflicting_texts == 30
    assert any("30 rows repeat a text" in w for w in report.warnings)
    assert any("one duplicate group holds 30 rows" in w for w in report.warnings)


def test_probe_is_seeded_and_needs_two_groups_a_side() -> None:
    found = pd.DataFrame({"final_stop": [True, False] * 20})
    positive = pd.Series([True, False] * 20)
    assert probe(found, positive, np.arange(40)) == probe(found, positive, np.arange(40))
    one_group = np.r_[np.zeros(40, dtype=int)]
    assert probe(found, positive, one_group) is None


def test_classes_that_differ_in_case_only_are_warned_of() -> None:
    found = warnings_of(
        None, classes=["Fake", "fake", "real"], conflicting=0, largest=1, rows=9
    )
    assert found == [
        "the classes 'Fake', 'fake' differ in case only: name them as one with data.label_names"
    ]
