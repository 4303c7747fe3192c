"""The audit of a real file reports what was counted in it by other means."""

import os
from pathlib import Path

import numpy as np
import pytest

from fakenews.data.audit import Audit, audit
from fakenews.data.duplicates import duplicate_groups
from fakenews.data.sources import classes, read_table
from fakenews.data.split import assign_splits

pytestmark = pytest.mark.slow

FILE = Path(os.environ.get("FAKENEWS_SHARED_DATA", "../shared/data")) / "covid_headlines.csv"


def run(*, normalise: bool) -> Audit:
    if not FILE.is_file():
        pytest.skip(f"{FILE} is not here; set FAKENEWS_SHARED_DATA to its folder")
    table = read_table(
        FILE,
        text="headlines",
        label="outcome",
        label_names={"0": "fake", "1": "real"},
        normalise=normalise,
    )
    names, positive = classes(table.frame)
    groups = duplicate_groups(table.frame["text"].tolist())
    split = assign_splits(table.frame["label"], groups)
    assert set(split.groupby(groups).nunique()) == {1}
    real = split[table.frame["label"] == "real"].value_counts(normalize=True)
    assert real["test"] == pytest.approx(0.1, abs=0.005)
    return audit(table, groups, classes=names, positive=positive)


def test_raw() -> None:
    report = run(normalise=False)
    assert report.rows == 10_201
    assert report.rows_per_class == {"fake": 9_727, "real": 474}
    assert report.positive == "real"
    assert report.exact_duplicates == 1_229
    percent = {
        name: {c: round(100 * rate, 1) for c, rate in rates.items()}
        for name, rates in report.artefact_rates.items()
    }
    assert percent["mojibake"] == {"fake": 15.7, "real": 2.1}
    assert percent["final_stop"] == {"fake": 81.5, "real": 10.3}
    assert percent["line_break"] == {"fake": 0.1, "real": 23.6}
    assert report.probe_raw is not None
    assert report.probe_raw.lift > 0.2
    assert "format alone predicts the label" in report.warnings[0]


def test_normalised() -> None:
    report = run(normalise=True)
    assert report.probe_text is not None
    np.testing.assert_allclose(report.probe_text.lift, 0, atol=0.02)
    assert not [w for w in report.warnings if "format alone" in w]
