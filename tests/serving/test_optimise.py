"""Engines are checked against torch, and those that are too far from it are refused."""

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakenews.bundle import BundleContent, read_bundle
from fakenews.engines import Batch, EngineName, Outputs
from fakenews.errors import BundleError, ConfigError, ServingError
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.serving import optimise as module
from fakenews.serving.optimise import Comparison, Rows, Tolerances, compare, optimise

# Exports of networks take a second each, and there are many.
pytestmark = pytest.mark.slow

ANY = Tolerances(
    onnx_max_difference=1,
    int8_mean_difference=1,
    int8_decided_otherwise=1,
    int8_average_precision_drop=1,
    int8_ece_rise=1,
)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, network_onnx: dict[str, bytes]) -> None:
    """The network of the bundle is not exported again for each test."""
    monkeypatch.setattr("fakenews.serving.to_onnx.to_onnx", lambda network: {**network_onnx})


def difference(**values: Any) -> Comparison:
    equal: dict[str, Any] = {
        "rows": 1200,
        "max_difference": 0.0,
        "mean_difference": 0.0,
        "decided_otherwise": 0.0,
        "average_precision": (0.9, 0.9),
        "ece": (0.05, 0.05),
        "speed": (100.0, 200.0),
    }
    return Comparison(**equal | values)


# --- the engine ------------------------------------------------------------------------


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("engine", ["onnx", "onnx-int8"])
def test_a_bundle_gets_an_engine(
    checked_content: BundleContent, engine: EngineName, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content, found = optimise(checked_content, engine, tolerances=Tolerances())
    assert found is not None
    assert content.engine is not None
    assert content.engine["name"] == engine
    assert content.engine["check"] == found.to_json()
    assert content.engine["versions"].keys() > {"torch", "onnx", "onnxruntime"}
    # A quarter of the rows show integers their range.
    assert found.rows == (120 if engine == "onnx" else 90)
    assert found.max_difference < (1e-5 if engine == "onnx" else 0.01)
    assert min(found.speed) > 0
    assert 0 < found.average_precision[0] < 1
    predictors = [Predictor.from_content(content, engine=name) for name in (None, "torch")]
    texts = ["Minister opens 42 schools", "never!"]
    for one, other in zip(*(p.predict(texts) for p in predictors), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.01)
    assert "exporting the network as ONNX" in caplog.text
    assert ("quantising it with 30 of" in caplog.text) == (engine == "onnx-int8")


@pytest.mark.usefixtures("exported")
def test_the_same_bundle_gets_the_same_engine(checked_content: BundleContent) -> None:
    first, second = (
        optimise(checked_content, "onnx-int8", tolerances=ANY)[0] for _ in range(2)
    )
    assert (first.onnx, first.engine) == (second.onnx, second.engine)


def test_torch_takes_another_engine_away(checked_content: BundleContent) -> None:
    content = dataclasses.replace(
        checked_content, engine={"name": "onnx"}, onnx={"head": b"model"}
    )
    found, comparison = optimise(content, "torch", tolerances=Tolerances())
    assert (found.engine, found.onnx, comparison) == (None, {}, None)


@pytest.mark.usefixtures("exported")
def test_an_engine_that_is_too_far_is_refused_with_every_number(
    checked_content: BundleContent,
) -> None:
    strict = dataclasses.replace(ANY, int8_mean_difference=0)
    with pytest.raises(ServingError) as caught:
        optimise(checked_content, "onnx-int8", tolerances=strict)
    message = str(caught.value)
    assert message.startswith("engine=onnx-int8 is refused (int8_mean_difference is ")
    assert "allowed 0): on 90 rows probabilities differ by " in message
    assert "% are decided otherwise, average precision 0." in message
    assert " -> " in message.partition("ECE")[2]
    assert message.endswith(
        "choose engine=onnx or engine=torch, or raise tolerances.int8_mean_difference"
    )
    assert "\n" not in message


# --- what does not go ------------------------------------------------------------------


def test_columns_alone_are_no_text(columns_bundle: Path) -> None:
    content = read_bundle(columns_bundle)
    with pytest.raises(ConfigError, match="onnx-int8 is not for a tabular model"):
        optimise(content, "onnx-int8", tolerances=Tolerances())


def test_the_baseline_has_its_own_engine(checked_content: BundleContent) -> None:
    model = TfidfClassifier(min_rows=1).fit(["good day", "bad night"] * 4, np.array([0, 1] * 4))
    content = dataclasses.replace(
        checked_content,
        model=model.architecture(),
        weights=model.weights(),
        tokenizer=None,
        features={**checked_content.features, "tabular": None},
    )
    with pytest.raises(ConfigError, match="onnx does not go with a tfidf model, which has a"):
        optimise(content, "onnx", tolerances=Tolerances())
    assert optimise(content, "torch", tolerances=Tolerances())[0] == content


@pytest.mark.parametrize("missing", ["labels", "input_ids", "offsets", "tabular"])
def test_a_bundle_of_an_earlier_version(checked_content: BundleContent, missing: str) -> None:
    reference = {k: v for k, v in checked_content.reference.items() if k != missing}
    content = dataclasses.replace(checked_content, reference=reference)
    with pytest.raises(
        BundleError, match=rf"\({missing}\): train again, or choose engine=torch"
    ):
        optimise(content, "onnx", tolerances=Tolerances())


def test_a_package_that_is_missing(
    checked_content: BundleContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util,
        "find_spec",
        lambda name: None if name in ("onnx", "onnxscript") else real(name),
    )
    with pytest.raises(ConfigError, match="engine=onnx needs onnx, onnxscript: install the"):
        optimise(checked_content, "onnx", tolerances=Tolerances())


# --- the comparison --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "values", "beyond"),
    [
        ("onnx", {"max_difference": 0.0011}, ["onnx_max_difference"]),
        ("onnx", {"max_difference": 0.0009, "mean_difference": 0.5}, []),
        ("onnx-int8", {"max_difference": 0.5}, []),
        ("onnx-int8", {"mean_difference": 0.011}, ["int8_mean_difference"]),
        ("onnx-int8", {"decided_otherwise": 0.02}, ["int8_decided_otherwise"]),
        (
            "onnx-int8",
            {"average_precision": (0.9, 0.89), "ece": (0.01, 0.03)},
            ["int8_average_precision_drop", "int8_ece_rise"],
        ),
        # Better is never too far.
        ("onnx-int8", {"average_precision": (0.8, 0.9), "ece": (0.1, 0.01)}, []),
        # All rows of one class.
        ("onnx-int8", {"average_precision": (math.nan, math.nan)}, []),
    ],
)
def test_what_is_beyond(engine: EngineName, values: dict[str, Any], beyond: list[str]) -> None:
    assert list(difference(**values).excess(engine, Tolerances())) == beyond


def test_what_a_bundle_keeps_of_a_comparison() -> None:
    found = difference(mean_difference=0.123456, average_precision=(math.nan, 0.5)).to_json()
    assert found == {
        "rows": 1200,
        "max_difference": 0.0,
        "mean_difference": 0.1235,
        "decided_otherwise": 0.0,
        "average_precision": [None, 0.5],
        "ece": [0.05, 0.05],
    }


class Shifted:
    """Another engine, that is further for long texts."""

    def __init__(self, predictor: Predictor) -> None:
        self.engine = predictor.engine
        self.overhead = self.engine.overhead

    def encode(self, batch: Batch) -> NDArray[Any]:
        lengths = batch.attention_mask.sum(axis=1, keepdims=True)
        return np.concatenate([self.engine.encode(batch), lengths], axis=1, dtype=np.float32)

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        outputs = self.engine.classify(vectors[:, :-1].copy(), tabular)
        outputs.logits[:, 0] -= vectors[:, -1]
        return outputs


def test_rows_are_compared_in_their_order(checked_content: BundleContent) -> None:
    predictor = Predictor.from_content(checked_content)
    rows = Rows.of(checked_content)
    found = compare(predictor, Shifted(predictor), rows)
    # The bundle has the logits of its rows.
    before = checked_content.reference["logits"]
    after = before.copy()
    after[:, 0] -= rows.tokens.lengths
    one, other = (predictor.calibration.apply(logits) for logits in (before, after))
    furthest = np.abs(one - other).max(axis=1)
    assert found.mean_difference == pytest.approx(furthest.mean(), rel=1e-3)
    assert found.max_difference == pytest.approx(furthest.max(), rel=1e-3)
    decided = [predictor.calibration.decide(p, predictor.classes) for p in (one, other)]
    assert found.decided_otherwise == np.mean(decided[0] != decided[1]) > 0
    same = compare(predictor, predictor.engine, rows)
    assert (same.max_difference, same.decided_otherwise) == (0, 0)
    assert same.average_precision[0] == same.average_precision[1]
