"""Predictions of items: as the predictor says, and a failing one harms no other."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakenews.engines import Batch, Engine, Outputs
from fakenews.evaluation.calibration import Calibration
from fakenews.predictor import Predictor
from fakenews.serving.items import ItemPredictor, Row, describe
from fakenews.serving.protocol import Fault, Item


class Fragile:
    """An engine that fails on texts with a certain word, and counts its calls.

    `break` raises, `nan` gives no numbers.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.overhead = engine.overhead
        self.calls = 0

    def encode(self, batch: Batch) -> NDArray[Any]:
        self.calls += 1
        for text in batch.texts:
            if "break" in text:
                raise RuntimeError(f"cannot read {text!r}")
        vectors = self.engine.encode(batch).copy()
        for row, text in enumerate(batch.texts):
            if "nan" in text.split():
                vectors[row] = np.nan
        return vectors

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        return self.engine.classify(vectors, tabular)


def served(bundle: Path, unsure: float = 0.1) -> ItemPredictor:
    predictor = Predictor.load(bundle)
    predictor.engine = Fragile(predictor.engine)
    return ItemPredictor(predictor=predictor, name="news", version="abc", unsure=unsure)


@pytest.fixture(scope="module")
def items(fusion_bundle: Path) -> ItemPredictor:
    return served(fusion_bundle)


def ask(items: ItemPredictor, *texts: Any) -> list[Any]:
    rows = [
        items.row(text if isinstance(text, Item | Fault) else Item(text=text)) for text in texts
    ]
    return items.predict(rows)


def codes(results: Sequence[Any]) -> list[str | None]:
    return [found.code if isinstance(found, Fault) else None for found in results]


def test_a_prediction_is_the_predictors(items: ItemPredictor) -> None:
    (expected,) = items.predictor.predict(["Rain in Oslo"])
    assert ask(items, "Rain in Oslo") == [
        {
            "label": expected.label,
            "probabilities": expected.probabilities,
            "unsure": abs(expected.probabilities["fake"] - 0.45) < 0.1,
            "band": 0.1,
            "truncated": False,
            "threshold": 0.45,
            "positive": "fake",
            "model": "news",
            "model_version": "abc",
        }
    ]
    (long,) = ask(items, "Rain " * 100)
    assert long["truncated"] is True


@pytest.mark.parametrize(
    ("probability", "threshold", "unsure"),
    [
        (0.5, 0.45, True),
        (0.36, 0.45, True),
        (0.56, 0.45, False),
        (0.5, None, True),
        (0.6, None, False),
    ],
)
def test_unsure_of_two_classes(
    fusion_bundle: Path, probability: float, threshold: float | None, unsure: bool
) -> None:
    items = served(fusion_bundle)
    items.predictor.calibration = Calibration(positive="fake", threshold=threshold)

    class Certain:
        overhead = 1

        def encode(self, batch: Batch) -> NDArray[Any]:
            return np.log([[probability, 1 - probability]] * len(batch.texts))

        def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
            return Outputs(vectors, np.empty((len(tabular), 0), dtype=np.float32))

    items.predictor.engine = Certain()
    (found,) = ask(items, "Rain")
    assert found["unsure"] is unsure
    assert ("threshold" in found) == ("positive" in found) == (threshold is not None)


def test_unsure_of_more_classes_is_that_two_are_close(columns_bundle: Path) -> None:
    sure, unsure = served(columns_bundle, unsure=0), served(columns_bundle, unsure=0.99)
    item = Item(text="Rain", values={"age": 1, "lang": "a"})
    assert [ask(items, item)[0]["unsure"] for items in (sure, unsure)] == [False, True]
    assert "threshold" not in ask(sure, item)[0]


def test_faults_stay_where_they_are(items: ItemPredictor) -> None:
    found = ask(items, "a", Fault("wrong_type", "x"), "b", "\u200b\u202e", "c")
    assert codes(found) == [None, "wrong_type", None, "empty_text", None]
    assert found[0]["label"] == ask(items, "a")[0]["label"]
    assert ask(items) == []
    assert codes(ask(items, Fault("wrong_type", "x"))) == ["wrong_type"]


def test_columns(columns_bundle: Path) -> None:
    items = served(columns_bundle)
    good = Item(text="Rain", values={"age": "3", "lang": " a "})
    found = ask(
        items,
        good,
        Item(text="Rain"),
        Item(text="Rain", values={"age": "old", "lang": "a"}),
        Item(text="Rain", values={"age": None, "lang": None}),
        Item(text="Rain", values={"age": 10**400, "lang": "a"}),
        good,
    )
    assert codes(found) == [None, "missing_column", "bad_column", None, "bad_column", None]
    for result in (found[0], found[-1]):
        assert result["probabilities"] == pytest.approx(ask(items, good)[0]["probabilities"])


def test_half_a_surrogate_pair_beside_columns(columns_bundle: Path) -> None:
    item = Item(text="\ud800 Rain", values={"age": 1, "lang": "\udfff"})
    assert codes(ask(served(columns_bundle), item)) == [None]


@pytest.mark.parametrize("bad", [[0], [4], [9], [0, 1, 5], list(range(10))])
def test_items_that_fail_harm_no_other(
    items: ItemPredictor, bad: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"secret {number}" for number in range(10)]
    expected = ask(items, *texts)
    broken = [f"break {text}" if n in bad else text for n, text in enumerate(texts)]
    found = ask(items, *broken)
    assert codes(found) == ["internal" if n in bad else None for n in range(10)]
    for number in set(range(10)) - set(bad):
        before, after = expected[number], found[number]
        assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
        assert after["label"] == before["label"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    assert message.startswith(f"the model failed on {len(bad)} of 10 items: RuntimeError in ")
    assert "secret" not in caplog.text


def test_one_bad_item_among_a_thousand_costs_few_calls(items: ItemPredictor) -> None:
    texts = ["Rain in Oslo"] * 1000
    texts[700] = "break"
    found = ask(items, *texts)
    assert codes(found).count(None) == 999
    assert codes(found)[700] == "internal"


def test_where_all_fail_the_search_ends(fusion_bundle: Path) -> None:
    items = served(fusion_bundle)
    assert set(codes(ask(items, *["break"] * 1000))) == {"internal"}
    assert isinstance(items.predictor.engine, Fragile)
    assert items.predictor.engine.calls < 200


def test_no_numbers_are_no_prediction(items: ItemPredictor) -> None:
    assert codes(ask(items, "Rain", "nan", "Snow")) == [None, "internal", None]


def test_warm_up_meets_all_lengths(
    fusion_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(fusion_bundle, batch_size=8, batch_tokens=128)
    shapes = []
    encode = predictor.engine.encode

    def watched(batch: Batch) -> NDArray[Any]:
        shapes.append(batch.input_ids.shape)
        return encode(batch)

    monkeypatch.setattr(predictor.engine, "encode", watched)
    items = ItemPredictor(predictor=predictor, name="", version="", unsure=0)
    items.warm_up()
    # With the two special tokens, cut to 32; alone, and as many as 128 tokens are.
    assert set(shapes) == {(1, 10), (8, 10), (1, 18), (7, 18), (1, 32), (4, 32)}


def test_warm_up_of_a_model_with_columns_and_without_tokens(columns_bundle: Path) -> None:
    items = served(columns_bundle)
    items.warm_up()
    assert isinstance(items.predictor.engine, Fragile)
    assert items.predictor.engine.calls > 0


def test_an_error_is_described_without_its_message() -> None:
    with pytest.raises(ValueError, match="domain") as caught:
        math.sqrt(float("-inf"))
    found = describe(caught.value)
    assert found.startswith("ValueError in test_items.py:")
    assert "domain" not in found


def test_rows_are_plain(items: ItemPredictor) -> None:
    assert items.row(Item(text="a", values={"other": 1})) == Row("a", {})
