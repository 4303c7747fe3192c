"""The predictor: one answer through every door, and an answer for every row."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from fakenews.bundle import BundleContent, read_bundle
from fakenews.config import TARGETS
from fakenews.data.cleaning import Cleaning
from fakenews.data.dataset import Dataset
from fakenews.engines import Batch, OnnxEngine, TfidfEngine, TorchEngine
from fakenews.errors import BundleError, ConfigError, DataError, FeatureError
from fakenews.evaluation.calibration import Calibration
from fakenews.inference.predict import score_file
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Prediction, Predictor

ODD = {
    "": "the text is empty",
    " \n\t\u200b": "the text is empty",
    None: "the text is missing",
    float("nan"): "the text is missing",
    pd.NA: "the text is missing",
    7: "the text is of type int, not a string",
    b"bytes": "the text is of type bytes, not a string",
}
HARD = [
    "🎉👩‍👩‍👧",
    "\ud800 half a pair",
    "\x00\x07",
    "ﷺ" * 50,
    "a",
    "<script>[b]",
    "\u202e\u05e1\u05d9\u05e4",
]


def matrix(predictions: list[Prediction], classes: list[str]) -> NDArray[np.float64]:
    return np.array([[found.probabilities[name] for name in classes] for found in predictions])


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle)


@pytest.fixture(scope="module")
def columns(columns_bundle: Path) -> Predictor:
    return Predictor.load(columns_bundle)


@pytest.fixture(scope="module")
def validation(tiny_run: Path) -> pd.DataFrame:
    """The run's validation split, made again."""
    config = OmegaConf.load(tiny_run / "config.yaml")
    dataset: Dataset = instantiate(config.data, _convert_="all", _execution_whitelist_=TARGETS)
    return dataset.part("val")


# --- the same answer through every door ----------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_bundle: Path) -> NDArray[np.float64]:
    """Probabilities of the validation split, from the logits of training's own predictor."""
    content = read_bundle(tiny_bundle)
    in_order = np.argsort(content.reference["rows"])
    calibration = Calibration.from_json(content.calibration)
    return calibration.apply(content.reference["logits"][in_order])


def test_a_bundle_predicts_as_in_training(
    predictor: Predictor, validation: pd.DataFrame, trained: NDArray[np.float64]
) -> None:
    found = predictor.predict(validation["raw"].tolist())
    assert trained.std() > 1e-3, "a model that says one thing of all proves nothing"
    np.testing.assert_allclose(matrix(found, predictor.classes), trained, atol=1e-5)
    decided = predictor.calibration.decide(trained, predictor.classes)
    assert [p.label for p in found] == [predictor.classes[code] for code in decided]


def test_the_reference_rows_are_kept_as_the_model_reads_them(
    tiny_bundle: Path, predictor: Predictor, validation: pd.DataFrame
) -> None:
    reference = read_bundle(tiny_bundle).reference
    rows = validation.iloc[reference["rows"]].reset_index(drop=True)
    tokens = predictor.tokens(rows)
    assert len(tokens) == len(reference["labels"]) > 10
    np.testing.assert_array_equal(reference["input_ids"], tokens.input_ids)
    np.testing.assert_array_equal(reference["offsets"], tokens.offsets)
    assert (reference["input_ids"].dtype, reference["offsets"].dtype) == (np.int32, np.int64)
    assert predictor.features is not None
    np.testing.assert_array_equal(reference["tabular"], predictor.features.transform(rows))


def test_one_at_a_time_is_as_all_at_once(
    predictor: Predictor, validation: pd.DataFrame, trained: NDArray[np.float64]
) -> None:
    found = [predictor.predict([text])[0] for text in validation["raw"]]
    np.testing.assert_allclose(matrix(found, predictor.classes), trained, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "batch_tokens"), [(1, 4096), (7, 64), (1000, 100_000)])
def test_batches_change_nothing(
    tiny_bundle: Path,
    validation: pd.DataFrame,
    trained: NDArray[np.float64],
    batch_size: int,
    batch_tokens: int,
) -> None:
    again = Predictor.load(tiny_bundle, batch_size=batch_size, batch_tokens=batch_tokens)
    found = again.predict(validation["raw"].tolist())
    np.testing.assert_allclose(matrix(found, again.classes), trained, atol=1e-5)


def test_a_table_in_any_order_and_under_any_index(
    predictor: Predictor, validation: pd.DataFrame, trained: NDArray[np.float64]
) -> None:
    order = np.random.default_rng(0).permutation(len(validation))
    table = pd.DataFrame({"other": 1, "text": validation["raw"]}).iloc[order]
    before = table.copy()
    found = predictor.predict(table)
    np.testing.assert_allclose(matrix(found, predictor.classes), trained[order], atol=1e-5)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("name", ["scored.csv", "scored.jsonl", "scored.parquet"])
def test_a_scored_file(
    predictor: Predictor,
    validation: pd.DataFrame,
    trained: NDArray[np.float64],
    tmp_path: Path,
    name: str,
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / name
    validation[["raw"]].to_csv(source, index=False)
    score_file(predictor, source, out, text="raw", chunk_rows=7)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get(
        out.suffix, lambda path: pd.read_json(path, lines=True)
    )
    found = read(out)[["probability_fake", "probability_real"]].to_numpy()
    np.testing.assert_allclose(found, trained, atol=1e-5)


# --- no training library -------------------------------------------------------------

_WITHOUT = """
import sys
hidden = set("lightning hydra omegaconf mlflow optuna matplotlib datasketch rich".split())

class Hide:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Hide(finder) for finder in sys.meta_path]
try:
    import hydra
except ModuleNotFoundError:
    from fakenews.predictor import Predictor
    found = Predictor.load(sys.argv[1]).predict(["Minister opens 3 hospitals in Oslo"])
    import json
    print(json.dumps([found[0].probabilities, sorted(hidden & set(sys.modules))]))
"""


def test_it_needs_no_training_library(tiny_bundle: Path, predictor: Predictor) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tiny_bundle)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probabilities, imported = json.loads(done.stdout)
    (expected,) = predictor.predict(["Minister opens 3 hospitals in Oslo"])
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert imported == []


# --- two things at a time ------------------------------------------------------------


def test_features_are_made_while_texts_are_encoded(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(tiny_bundle)
    expected = predictor.predict(["Rain", "Snow"])
    both = Barrier(2, timeout=30)  # broken if one waits for the other's end

    def beside(function: Callable[..., Any]) -> Callable[..., Any]:
        def begun(*arguments: Any, **options: Any) -> Any:
            both.wait()
            return function(*arguments, **options)

        return begun

    assert predictor.features is not None
    engine, features = predictor.engine, predictor.features
    monkeypatch.setattr(engine, "encode", beside(engine.encode))
    monkeypatch.setattr(features, "transform", beside(features.transform))
    assert predictor.predict(["Rain", "Snow"]) == expected


@pytest.mark.parametrize("error", [FeatureError("gone"), KeyboardInterrupt()])
def test_nothing_is_encoded_once_features_cannot_be_made(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    predictor = Predictor.load(tiny_bundle, batch_size=1)
    encode, began, failed = predictor.engine.encode, Event(), Event()
    batches = []

    def watched(batch: Batch) -> NDArray[Any]:
        batches.append(batch)
        began.set()
        failed.wait(30)
        return encode(batch)

    def fail(*_: object, **__: object) -> None:
        began.wait(30)
        failed.set()
        raise error

    monkeypatch.setattr(predictor.engine, "encode", watched)
    monkeypatch.setattr(predictor.features, "transform", fail)
    with pytest.raises(type(error)):
        predictor.predict([f"Rain on day {day}" for day in range(300)])
    assert len(batches) < 100


def test_an_engine_that_fails_is_heard(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(tiny_bundle)

    def fail(batch: Batch) -> None:
        raise RuntimeError(f"no memory for {len(batch.texts)} texts")

    monkeypatch.setattr(predictor.engine, "encode", fail)
    with pytest.raises(RuntimeError, match="no memory for 2 texts"):
        predictor.predict(["Rain", "Snow"])


# --- whatever comes ------------------------------------------------------------------


def test_a_text_that_cannot_be_used_says_why_and_stops_no_other(predictor: Predictor) -> None:
    found = predictor.predict(["Rain in Oslo", *ODD, "Rain in Oslo"])
    assert [p.error for p in found] == [None, *ODD.values(), None]
    assert all(p.label is None and p.probabilities == {} for p in found[1:-1])
    assert found[0].probabilities == pytest.approx(found[-1].probabilities, abs=1e-6)


def test_hard_texts_get_probabilities(predictor: Predictor) -> None:
    found = predictor.predict(HARD[:2] + HARD[3:])
    assert [p.error for p in found] == [None] * 6
    totals = matrix(found, predictor.classes).sum(axis=1)
    np.testing.assert_allclose(totals, 1, atol=1e-9)
    assert predictor.predict([HARD[2]])[0].error == "the text is empty"


@pytest.mark.parametrize("nothing", [[], (), pd.DataFrame({"text": []}), np.array([], object)])
def test_nothing_gives_nothing(predictor: Predictor, nothing: object) -> None:
    assert predictor.predict(nothing) == []


def test_only_unusable_texts(predictor: Predictor) -> None:
    assert [p.error for p in predictor.predict([None, ""])] == [
        "the text is missing",
        "the text is empty",
    ]


def test_one_string_is_refused(predictor: Predictor) -> None:
    with pytest.raises(TypeError, match=r"predict\(\[text\]\)"):
        predictor.predict("Rain in Oslo")


def test_a_megabyte_is_cut_and_says_so(predictor: Predictor) -> None:
    long, short = predictor.predict(["Rain in Oslo. " * 75_000, "Rain in Oslo."])
    assert long.truncated
    assert long.label in predictor.classes
    assert not short.truncated


def test_a_text_cut_before_the_model_is_truncated_for_any_model() -> None:
    model = TfidfClassifier(min_rows=1).fit(["good day", "bad night"] * 4, np.array([0, 1] * 4))
    predictor = Predictor(
        engine=TfidfEngine(model),
        tokenizer=None,
        pad_id=0,
        features=None,
        cleaning=Cleaning(max_chars=20),
        classes=["a", "b"],
        calibration=Calibration(positive="a"),
    )
    found = predictor.predict(["bad night", "good day " * 9])
    assert [(p.label, p.truncated) for p in found] == [("b", False), ("a", True)]
    assert predictor.outputs(pd.DataFrame({"text": []})).logits.shape == (0, 2)


# --- extra columns -------------------------------------------------------------------


def test_columns_that_are_missing_are_all_named(columns: Predictor) -> None:
    assert columns.columns == ["age", "lang"]
    with pytest.raises(DataError, match="the model needs the columns age, lang"):
        columns.predict(["Rain"])
    with pytest.raises(DataError, match="needs the columns text, lang"):
        columns.predict(pd.DataFrame({"age": [1]}))


@pytest.mark.parametrize(
    "ages",
    [
        pd.array([1, None, 5], dtype="Int64"),
        pd.array([1, None, 5], dtype="Float32"),
        pd.array(["1", None, " 5 "], dtype="string"),
        np.array(["1", "", "5.0"], dtype=object),
        np.array([1, "nan", 5.0], dtype=object),
    ],
)
def test_numbers_of_any_kind_of_column(columns: Predictor, ages: object) -> None:
    plain = {"text": ["a b", "c", "D!"], "age": [1.0, np.nan, 5.0], "lang": ["a", "b", "z"]}
    expected = columns.predict(pd.DataFrame(plain))
    table = pd.DataFrame(plain | {"age": ages, "lang": pd.array([" a", "b ", "z"], "string")})
    assert [p.error for p in expected] == [None] * 3
    assert columns.predict(table) == expected


def test_a_number_that_is_none_is_an_error_of_its_row(columns: Predictor) -> None:
    table = pd.DataFrame(
        {"text": ["a", "b", "c", None], "age": [1, "old", float("inf"), "old"], "lang": "a"}
    )
    assert [p.error for p in columns.predict(table)] == [
        None,
        "column 'age': 'old' is not a finite number",
        "column 'age': inf is not a finite number",
        "the text is missing",
    ]


def test_a_missing_category_is_another_one(columns: Predictor) -> None:
    table = pd.DataFrame({"text": "a", "age": 1, "lang": [None, "never seen", pd.NA]})
    first, *others = columns.predict(table)
    assert first.error is None
    for other in others:
        assert other.probabilities == pytest.approx(first.probabilities, abs=1e-6)


# --- bundles that do not fit ---------------------------------------------------------


def changed(bundle: Path, **changes: object) -> BundleContent:
    return BundleContent(**(vars(read_bundle(bundle)) | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {}}, "KeyError"),
        ({"model": {"network": "quantum", "encoder": None, "arguments": {}}}, "quantum"),
        ({"weights": {}}, "Missing key"),
        ({"features": {"pad_id": 0}}, "tabular"),
        ({"calibration": {}}, "calibration.json: temperature is missing"),
        ({"labels": {"classes": ["a", "b"]}}, "positive is 'yes', which is none of 'a', 'b'"),
        ({"tokenizer": "{"}, "tokenizer.json is not a readable tokenizer"),
    ],
)
def test_content_that_does_not_fit(
    columns_bundle: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        Predictor.from_content(changed(columns_bundle, **changes))


def test_a_tokenizer_without_a_longest_text(tiny_bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_bundle / "tokenizer.json"))
    tokenizer.no_truncation()
    with pytest.raises(BundleError, match="sets no truncation"):
        Predictor.from_content(changed(tiny_bundle, tokenizer=tokenizer.to_str()))


def test_the_bundle_and_the_device_are_named(columns_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path} is no bundle"):
        Predictor.load(tmp_path)
    with pytest.raises(ConfigError, match="device=abacus cannot be used"):
        Predictor.load(columns_bundle, device="abacus")


# --- engines ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(columns_bundle: Path) -> BundleContent:
    """A bundle whose exported engine is sure that it is always `unsure`."""
    features = read_bundle(columns_bundle).model["arguments"]["tabular_dim"]
    weight = np.zeros((features, 3), dtype=np.float32)
    bias = np.array([0, 50, 0], dtype=np.float32)
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("tabular", features), ("logits", 3), ("embeddings", features))
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["tabular", "weight", "bias"], ["logits"]),
            helper.make_node("Identity", ["tabular"], ["embeddings"]),
        ],
        "g",
        [values["tabular"]],
        [values["logits"], values["embeddings"]],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    parts = {"head": bytes(model.SerializeToString())}
    return changed(columns_bundle, engine={"name": "onnx"}, onnx=parts)


ROW = pd.DataFrame({"text": ["a"], "age": [1.0], "lang": ["a"]})


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({}, OnnxEngine),
        ({"engine": "onnx", "threads": 2}, OnnxEngine),
        ({"engine": "torch"}, TorchEngine),
        # It runs on CPUs only.
        ({"device": "meta"}, TorchEngine),
    ],
)
def test_an_exported_bundle_brings_its_engine(
    exported: BundleContent, options: dict[str, Any], engine: type
) -> None:
    predictor = Predictor.from_content(exported, **options)
    assert type(predictor.engine) is engine
    if "device" not in options:
        (found,) = predictor.predict(ROW)
        assert (found.probabilities["unsure"] > 0.999) == (engine is OnnxEngine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "onnx-int8"},
            "it has no engine onnx-int8: export it with engine=onnx-int8",
        ),
        ({"engine": "abacus"}, "engine=abacus: choose torch, onnx or onnx-int8"),
        ({"engine": "onnx", "device": "meta"}, "engine=onnx is for device=cpu: choose engine="),
    ],
)
def test_engines_that_are_not_there(
    exported: BundleContent, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((BundleError, ConfigError), match=message):
        Predictor.from_content(exported, **options)


def test_a_bundle_without_an_engine(columns_bundle: Path, exported: BundleContent) -> None:
    with pytest.raises(BundleError, match=f"{columns_bundle}: it has no engine onnx: export"):
        Predictor.load(columns_bundle, engine="onnx")
    with pytest.raises(BundleError, match=r"engine/head\.onnx is missing, .* export it again"):
        Predictor.from_content(dataclasses.replace(exported, onnx={"model": b"older"}))
    with pytest.raises(BundleError, match=r"engine/head\.onnx cannot be loaded"):
        Predictor.from_content(dataclasses.replace(exported, onnx={"head": b"damaged"}))
