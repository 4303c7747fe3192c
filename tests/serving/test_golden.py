"""Golden predictions: what they are of, and that they are the model's."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from fakenews.errors import BundleError
from fakenews.predictor import Prediction, Predictor
from fakenews.serving.golden import TEXTS, golden_predictions, table


def test_they_are_the_predictors(fusion_bundle: Path) -> None:
    predictor = Predictor.load(fusion_bundle)
    golden = golden_predictions(predictor, atol=0.5)
    assert json.loads(json.dumps(golden)) == golden
    assert (golden["format"], golden["atol"]) == (1, 0.5)
    assert [item["text"] for item in golden["items"]] == list(TEXTS)
    found = predictor.predict(list(TEXTS))
    assert any(prediction.truncated for prediction in found)
    for prediction, expected in zip(found, golden["probabilities"], strict=True):
        assert prediction.probabilities == pytest.approx(expected, abs=1e-5)


def test_columns_have_gaps(columns_bundle: Path) -> None:
    golden = golden_predictions(Predictor.load(columns_bundle), atol=1e-4)
    assert golden["items"][0] == {"text": TEXTS[0], "age": None, "lang": None}
    frame = table([{"text": "a", "age": 3, "lang": None}], ["age", "lang"])
    assert frame.iloc[0].tolist() == ["a", 3, None]


def test_the_number_of_threads_changes_no_digit(fusion_bundle: Path) -> None:
    predictor = Predictor.load(fusion_bundle)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(golden_predictions(predictor, atol=1e-4))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_a_model_that_does_not_predict(
    fusion_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(fusion_bundle)

    def fail(frame: pd.DataFrame) -> Sequence[Prediction]:
        return [Prediction(label=None, probabilities={}, error="too hard")] * len(frame)

    monkeypatch.setattr(predictor, "predict", fail)
    with pytest.raises(BundleError, match=r"it does not predict 'Council approves .*too hard"):
        golden_predictions(predictor, atol=1e-4)
