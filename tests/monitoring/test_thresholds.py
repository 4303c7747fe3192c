"""Thresholds: their rate of false alarms is the stated one, and they do alarm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fakenews.monitoring.comparisons import comparisons, measured_drops
from fakenews.monitoring.rows import Reference
from fakenews.monitoring.thresholds import Family, decay_limit, size

Make = Callable[..., Any]


def family(reference: Reference, **changed: object) -> Family:
    arguments = {
        "reference_rows": len(reference.rows),
        "rate": 0.05,
        "confidence": 0.8,
        "floors": {},
        "references": 20,
        "windows": 60,
    }
    return Family(comparisons(reference), **arguments | changed)


def alarms(found: dict) -> set[str]:
    return {key for key, finding in found.items() if finding is not None and finding.exceeded}


@pytest.mark.slow
def test_clean_windows_alarm_as_rarely_as_stated(some_rows: Make, some_reference: Make):
    """Over references as well as windows: five references, thirty windows each."""
    rates = []
    for seed in range(5):
        judged = family(some_reference(400, seed=seed))
        windows = [some_rows(150, seed=1000 * seed + at) for at in range(1, 31)]
        rates.append(np.mean([bool(alarms(judged.judge(rows))) for rows in windows]))
    assert np.mean(rates) <= 0.05
    assert np.mean(np.array(rates) <= 0.05) >= 0.6


@pytest.fixture(scope="module")
def judged(reference: Reference) -> Family:
    return family(reference)


def test_moved_texts_alarm(judged: Family, some_rows: Make):
    found = alarms(judged.judge(some_rows(300, seed=5, shift=0.7)))
    assert {"drift.embedding.mmd", "drift.embedding.classifier", "drift.tabular.words"} <= found
    assert "drift.prediction.label" not in found


def test_another_class_rate_alarms_by_the_predictions(judged: Family, some_rows: Make):
    found = alarms(judged.judge(some_rows(400, seed=6, rate=0.6)))
    assert {"drift.prediction.label", "drift.prediction.score1"} <= found
    assert "drift.tabular.has_num" not in found


def test_small_effects_of_many_rows_do_not_matter(reference: Reference, some_rows: Make):
    rows = some_rows(3000, seed=7, shift=0.2)
    strict = family(reference, floors={"drift": 10.0, "decay": 1.0})
    assert alarms(family(reference).judge(rows))
    assert not alarms(strict.judge(rows))


def test_floors_are_of_the_longest_beginning(reference: Reference):
    found = family(reference, floors={"drift": 0.1, "drift.tabular.words": 0.5, "decay": 0.02})
    assert found.floor("drift.tabular.words") == 0.5
    assert found.floor("drift.text.tokens") == 0.1
    assert found.floor("other") == 0


def test_p_values_and_thresholds_agree(judged: Family):
    thresholds = judged.at(size(150))
    for key in thresholds.values:
        at = thresholds.threshold(key)
        assert thresholds.p_value(key, np.nextafter(at, np.inf)) < thresholds.cut
        assert thresholds.p_value(key, at) >= thresholds.cut


def test_a_count_that_is_rarely_above_0_is_no_category(some_reference: Make, some_rows: Make):
    base = some_reference(300)
    values = np.zeros(300)
    values[:4] = 1
    changed = dict(base.rows.columns) | {"tabular.marks": values}
    judged = family(replace(base, rows=replace(base.rows, columns=changed)))
    rows = some_rows(100, seed=3)
    marks = np.zeros(100)
    marks[:2] = [1, 2]
    window = replace(rows, columns=dict(rows.columns) | {"tabular.marks": marks})
    assert "drift.tabular.marks" not in alarms(judged.judge(window))


def test_what_never_varied_may_not_begin_to(judged: Family, some_rows: Make):
    rows = some_rows(200, seed=1)
    assert "drift.tabular.constant" not in alarms(judged.judge(rows))
    changed = dict(rows.columns) | {"tabular.constant": np.repeat([0.0, 1.0], [150, 50])}
    found = judged.judge(replace(rows, columns=changed))["drift.tabular.constant"]
    assert found.exceeded
    assert found.effect > 0.1
    # One odd row is no change of all.
    changed["tabular.constant"] = np.repeat([0.0, 1.0], [199, 1])
    assert judged.judge(replace(rows, columns=changed))["drift.tabular.constant"].effect < 0.01


def test_what_a_window_lacks_is_not_judged(judged: Family, some_rows: Make):
    rows = some_rows(50, seed=1)
    bare = type(rows)(
        columns={},
        embeddings=None,
        probabilities=rows.probabilities,
        decided=rows.decided,
        labels=rows.labels,
    )
    found = judged.judge(bare)
    assert found["drift.embedding.mmd"] is None
    assert found["drift.tabular.words"] is None
    assert found["drift.prediction.confidence"] is not None


def test_flipped_labels_are_a_measured_drop(reference: Reference, some_rows: Make):
    drops = measured_drops(reference)
    judged = Family(
        drops, reference_rows=len(reference.rows), rate=0.05, confidence=0.8, floors={}
    )
    assert not alarms(judged.judge(some_rows(200, seed=3)))
    found = judged.judge(some_rows(200, seed=4, flipped=0.3))
    assert "decay.measured.average_precision" in alarms(found)
    assert found["decay.measured.average_precision"].value > 0.1


def test_sizes_are_a_grid_from_below():
    for rows in (2, 3, 17, 100, 1000, 123_456):
        assert rows / 1.5 <= size(rows) <= rows
    assert size(1024) == 1024
    assert len({size(rows) for rows in range(100, 200)}) <= 5


def test_limit_of_cumulated_drops_is_kept_by_clean_windows(judged: Family):
    thresholds = judged.at(size(150))
    mean, deviation, limit = decay_limit(
        thresholds, "decay.estimated.accuracy", windows=10, rate=0.05, confidence=0.8
    )
    assert abs(mean) < 0.02
    assert 0.005 < deviation < 0.1
    assert limit > 1


def test_thresholds_repeat(reference: Reference):
    one, other = (family(reference, references=4).at(100) for _ in range(2))
    assert one.cut == other.cut
    for key, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[key])
