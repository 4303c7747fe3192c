"""A served model: requests of any kind in one batch, each answered as if it were alone."""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fakenews.engines import Engine
from fakenews.errors import BundleError
from fakenews.predictor import Predictor
from fakenews.serving import model as module
from fakenews.serving.model import Incoming, ServedModel, Tally

GOOD = {"text": "Minister confirms 3 new hospitals by 2030"}


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave threads as they were."""
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load(bundle: Path, **settings: Any) -> ServedModel:
    arguments: dict[str, Any] = {"name": "news", "version": "abc", "warm_up": False}
    return ServedModel.load(bundle, **(arguments | settings))


@pytest.fixture(scope="module")
def model(fusion_bundle: Path) -> ServedModel:
    return load(fusion_bundle, threads=1)


def json_request(content: Any, *, explain: bool = False) -> Incoming:
    return Incoming(
        fields={"body": json.dumps(content).encode()},
        content_type="application/json",
        explain=explain,
    )


def ask(model: ServedModel, *requests: Incoming) -> tuple[list[tuple[int, Any]], Tally]:
    replies, tally = model.answer(requests)
    assert len(replies) == len(requests)
    return [(int(status), json.loads(body)) for status, body in replies], tally


def test_mixed_requests_of_one_batch(model: ServedModel) -> None:
    (found, tally) = ask(
        model,
        json_request(GOOD),
        json_request({"inputs": [GOOD, "", GOOD["text"], {"text": 3}]}),
        Incoming(fields={"body": b"{"}, content_type="application/json"),
        json_request({"text": " "}),
        json_request(GOOD, explain=True),
        json_request({"instances": [GOOD]}),
        Incoming(fields={"text": GOOD["text"].encode()}),
        json_request({"inputs": ["a"] * 1001}),
    )
    assert [status for status, _ in found] == [200, 200, 400, 422, 200, 200, 200, 413]
    one = found[0][1]
    (expected,) = model.items.predictor.predict([GOOD["text"]])
    assert one["label"] == expected.label
    assert one["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert (one["model"], one["model_version"]) == ("news", "abc")
    predictions = found[1][1]["predictions"]
    assert [item.get("error", {}).get("code") for item in predictions] == [
        None,
        "empty_text",
        None,
        "wrong_type",
    ]
    same = [predictions[0], predictions[2], found[4][1]["prediction"], found[6][1]]
    for other in [*same, *found[5][1]["predictions"]]:
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)
    assert found[2][1]["error"]["code"] == "not_json"
    assert found[3][1]["error"]["code"] == "empty_text"
    assert tally.items == 9
    assert tally.errors == Counter(empty_text=2, wrong_type=1, not_json=1, too_many_items=1)
    assert tally.unsure == 6 * one["unsure"]
    assert tally.truncated == 0
    assert tally.predict_seconds > 0
    assert len(tally.explain_seconds) == 1


def test_nothing_to_answer(model: ServedModel) -> None:
    assert ask(model) == ([], Tally(predict_seconds=pytest.approx(0, abs=1)))
    ((status, content),), _ = ask(model, json_request({"inputs": []}))
    assert (status, content["predictions"]) == (200, [])


def test_an_explanation(model: ServedModel) -> None:
    text = "  Minister\tconfirms 3 new\u200b hospitals  "
    ((status, found),), tally = ask(model, json_request({"text": text}, explain=True))
    assert status == 200
    assert found["text"] == "Minister confirms 3 new hospitals"
    assert found["target"] == found["prediction"]["label"]
    assert [word["text"] for word in found["words"]] == found["text"].split()
    assert math.isfinite(found["completeness_error"])
    assert tally.items == 1
    for shape in ({"inputs": [text]}, {"instances": [{"text": text}]}):
        ((_, again),), _ = ask(model, json_request(shape, explain=True))
        assert again["words"] == found["words"]


def test_explanations_that_cannot_be(model: ServedModel, columns_bundle: Path) -> None:
    for content in ({"inputs": ["a", "b"]}, {"instances": []}):
        ((status, found),), _ = ask(model, json_request(content, explain=True))
        assert (status, found["error"]["code"]) == (400, "not_one_item")
    ((status, found),), _ = ask(model, json_request({"text": ""}, explain=True))
    assert (status, found["error"]["code"]) == (422, "empty_text")
    item = {"text": "a", "age": 1, "lang": "a"}
    other = load(columns_bundle)
    for name, reason in (("lazy", "not its words"), ("off", "turned off")):
        other = load(columns_bundle, explain=name)
        ((status, found),), tally = ask(other, json_request(item, explain=True))
        assert (status, found["error"]["code"]) == (400, "not_explainable")
        assert reason in found["error"]["message"]
        assert tally.errors == Counter(not_explainable=1)


def test_limits_and_band_are_settings(fusion_bundle: Path) -> None:
    model = load(fusion_bundle, max_items=1, max_characters=5, max_depth=3, unsure=0.99)
    for content, status, code in (
        ({"inputs": ["a", "b"]}, 413, "too_many_items"),
        ({"text": "Rains!"}, 413, "text_too_long"),
        ({"text": "a", "x": [[[]]]}, 400, "too_deep"),
    ):
        ((found, reply),), _ = ask(model, json_request(content))
        assert (found, reply["error"]["code"]) == (status, code)
    ((_, reply),), tally = ask(model, json_request({"text": "Rain"}))
    assert reply["unsure"] is True
    assert tally.unsure == 1


def test_loading_warms_up(fusion_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    predict = Predictor.predict

    def watched(self: Predictor, texts: Any, **options: Any) -> Any:
        calls.append(len(texts))
        return predict(self, texts, **options)

    monkeypatch.setattr(Predictor, "predict", watched)
    load(fusion_bundle, warm_up=True, batch_size=4)
    assert set(calls) == {1, 4}
    model = load(fusion_bundle, explain="warm")
    assert "_explaining" in vars(model)


def test_an_explaining_warm_up_with_columns(columns_bundle: Path) -> None:
    # It finds that nothing can be explained, and goes on.
    load(columns_bundle, warm_up=True, explain="warm")


def test_threads_are_a_share_of_the_cores(
    fusion_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda: 4)
    for settings, threads in (
        ({"workers": 2}, 2),
        ({"workers": 9}, 1),
        ({"workers": 2, "threads": 3}, 3),
    ):
        load(fusion_bundle, **settings)
        assert torch.get_num_threads() == threads
        assert os.environ["RAYON_NUM_THREADS"] == str(threads)


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        load(tmp_path)


# --- what fails inside -----------------------------------------------------------------


@pytest.mark.parametrize("broken", ["read", "answer", "encode", "ItemPredictor.row"])
def test_what_fails_inside_is_one_requests_alone(
    model: ServedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    owner, _, name = broken.rpartition(".")
    place = getattr(module, owner) if owner else module
    real = getattr(place, name)

    def fragile(*args: Any, **kwargs: Any) -> Any:
        if "secret" in str(args) and "internal" not in str(args):
            raise ValueError(f"what is {args}")
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, fragile)
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["secret"]}
    bad = json_request({"id": "secret", "inputs": [tensor]})
    found, tally = ask(model, json_request(GOOD), bad, json_request(GOOD))
    assert [status for status, _ in found] == [200, 500, 200]
    assert found[0][1]["label"] == found[2][1]["label"]
    assert found[1][1]["error"]["code"] == "internal"
    assert tally.errors == Counter(internal=1)
    assert tally.items == 2
    assert tally.predict_seconds > 0
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "ValueError in" in record.getMessage()
    assert "secret" not in caplog.text


def test_an_explanation_that_fails(
    fusion_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def explainer() -> Predictor:
        raise OSError("no secret weights")

    predictor = Predictor.load(fusion_bundle)
    model = ServedModel(predictor=predictor, name="m", version="v", explainer=explainer)
    found, _ = ask(model, json_request(GOOD, explain=True), json_request(GOOD))
    assert [status for status, _ in found] == [500, 200]
    assert "a request could not be answered: OSError in " in caplog.text
    assert "secret" not in caplog.text


def test_beside_an_exported_engine_the_network_is_loaded_to_explain(
    fusion_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exported:
        def __init__(self, engine: Engine) -> None:
            self.encode, self.classify = engine.encode, engine.classify
            self.overhead = engine.overhead

    real = Predictor.load
    engines = []

    def load_predictor(bundle: Path, **settings: Any) -> Predictor:
        engines.append(settings["engine"])
        predictor = real(bundle, **settings)
        if settings["engine"] is None:
            predictor.engine = Exported(predictor.engine)
        return predictor

    monkeypatch.setattr(Predictor, "load", load_predictor)
    model = load(fusion_bundle)
    ask(model, json_request(GOOD))
    assert engines == [None]
    for _ in range(2):
        ((status, found),), _ = ask(model, json_request(GOOD, explain=True))
        assert (status, found["text"]) == (200, GOOD["text"])
        assert engines == [None, "torch"]


def test_the_explainer_is_loaded_once(fusion_bundle: Path) -> None:
    loaded = []

    def explainer() -> Predictor:
        loaded.append(Predictor.load(fusion_bundle))
        return loaded[-1]

    model = ServedModel(
        predictor=Predictor.load(fusion_bundle), name="m", version="v", explainer=explainer
    )
    assert loaded == []
    for _ in range(2):
        ((status, _),), _ = ask(model, json_request(GOOD, explain=True))
        assert status == 200
    assert len(loaded) == 1
