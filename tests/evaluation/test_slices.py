import numpy as np
import pandas as pd
import pytest

from fakenews.errors import DataError
from fakenews.evaluation.metrics import classification_metrics
from fakenews.evaluation.slices import slice_masks, slice_metrics

BINARY = ["fake", "real"]


def frame(*texts):
    return pd.DataFrame({"text": list(texts)})


def test_masks_by_hand():
    rows = frame("one", "one two", "1 2 three", "a b c d", "a b c d 5", "a b c d e f")
    artefacts = pd.DataFrame(
        {"url": [1, 0, 0, 0, 0, 0], "stop": [1, 1, 0, 0, 0, 0]}, dtype=bool
    )
    counts = np.array([[0, 0], [1, 0], [0, 2], [0, 0], [0, 0], [0, 0]])
    masks = slice_masks(rows, artefacts=artefacts, entity_counts=counts)
    found = {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
    assert found == {
        "short (up to 2 words)": [0, 1],
        "medium (3 to 4 words)": [2, 3],
        "long (over 4 words)": [4, 5],
        "has digit": [2, 4],
        "no digit": [0, 1, 3, 5],
        "has entity": [1, 2],
        "no entity": [0, 3, 4, 5],
        "artefact: url": [0],
        "artefact: stop": [0, 1],
        "no artefact": [2, 3, 4, 5],
    }
    assert all(mask.dtype == bool for mask in masks.values())


def test_lengths_cover_every_row_once():
    rng = np.random.default_rng(0)
    rows = frame(*(" ".join(["word"] * count) for count in rng.integers(0, 9, 200)))
    lengths = list(slice_masks(rows).values())[:3]
    assert (np.sum(lengths, axis=0) == 1).all()


def test_equal_lengths_leave_slices_empty_but_listed():
    rows = frame(*["three words here"] * 30)
    masks = slice_masks(rows)
    p = np.tile([0.4, 0.6], (30, 1))
    lines = slice_metrics(p, np.arange(30) % 2, masks, classes=BINARY, positive="real")
    lengths = lines.set_index("slice")["rows"].iloc[1:4]
    assert lengths.tolist() == [30, 0, 0]


def test_artefacts_may_be_numbers_and_texts_foreign():
    rows = frame("", "٣ أخبار", "😀")
    masks = slice_masks(rows, artefacts=pd.DataFrame({"caps": [0.0, 0.5, 1.0]}))
    assert masks["has digit"].tolist() == [False, True, False]
    assert masks["artefact: caps"].tolist() == [False, True, True]


def test_no_rows_have_no_lengths():
    assert [mask.tolist() for mask in slice_masks(frame()).values()] == [[], []]


def test_rows_that_do_not_match():
    with pytest.raises(ValueError, match="entity_counts has 1 rows, the frame 2"):
        slice_masks(frame("a", "b"), entity_counts=np.zeros((1, 18)))
    with pytest.raises(ValueError, match="artefacts has 3 rows, the frame 2"):
        slice_masks(frame("a", "b"), artefacts=pd.DataFrame({"url": [True] * 3}))


def test_metrics_of_each_slice():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1)
    p = np.stack([1 - scores, scores], axis=1)
    masks = {
        "first half": np.arange(300) < 150,
        "few": np.arange(300) < 19,
        "one class": y == 1,
        "none": np.zeros(300, dtype=bool),
    }
    lines = slice_metrics(p, y, masks, classes=BINARY, positive="real", threshold=0.4)
    assert lines["slice"].tolist() == ["all", *masks]
    assert lines["rows"].tolist() == [300, 150, 19, y.sum(), 0]
    assert lines["positives"].tolist() == [y.sum(), y[:150].sum(), y[:19].sum(), y.sum(), 0]
    half = classification_metrics(
        p[:150], y[:150], classes=BINARY, positive="real", threshold=0.4
    )
    for name in ("average_precision", "auroc", "macro_f1", "accuracy"):
        assert lines.loc[1, name] == half[name]
    metrics = lines.set_index("slice").drop(columns=["rows", "positives"])
    assert metrics.loc[["few", "none"]].isna().all(axis=None)
    assert metrics.loc["one class"].isna().tolist() == [True, True, True, False]


def test_minimum_rows_and_more_classes():
    p = np.full((3, 3), 1 / 3)
    lines = slice_metrics(
        p,
        [0, 1, 2],
        {"two": np.array([True, True, False])},
        classes=["a", "b", "c"],
        positive="c",
        minimum_rows=2,
    )
    assert lines["positives"].tolist() == [1, 0]
    assert lines["accuracy"].tolist() == pytest.approx([1 / 3, 1 / 2])


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        slice_metrics(np.empty((0, 2)), [], {}, classes=BINARY, positive="real")
