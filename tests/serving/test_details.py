"""What a model saw: from the handler to the prediction log, bit by bit."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from fakenews.predictor import Predictor, Seen
from fakenews.serving.details import DETAILS, decode_details, encode_details
from fakenews.serving.model import Incoming, ServedModel

TEXTS = ["Minister opens 3 hospitals", "🎉 Best   day\tever", "Rain " * 40]
NOTHING = {"tokens": None, "unknown_tokens": None, "tabular": None, "embedding": None}


@pytest.fixture(scope="module")
def model(fusion_bundle: Path) -> ServedModel:
    return ServedModel.load(fusion_bundle, name="news", version="abc", warm_up=False, threads=1)


def ask(model: ServedModel, *contents: Any) -> list[bytes]:
    replies, _ = model.answer(
        [
            Incoming(fields={"body": json.dumps(content)}, content_type="application/json")
            for content in contents
        ]
    )
    return [body for _, body in replies]


def test_what_arrives_is_what_a_reference_would_have(model: ServedModel) -> None:
    (reply,) = ask(model, {"inputs": TEXTS, "details": ["features", "embeddings"]})
    found = [decode_details(item["details"]) for item in json.loads(reply)["predictions"]]
    predictor = model.items.predictor
    frame = pd.DataFrame({"text": predictor.cleaning(TEXTS).texts})
    outputs, tokens = predictor.outputs(frame), predictor.tokens(frame)
    assert predictor.features is not None
    for row, tabular in enumerate(predictor.features.transform(frame)):
        np.testing.assert_array_equal(found[row]["tabular"], tabular)
        embedding = np.frombuffer(base64.b64decode(found[row]["embedding"]), "<f2")
        expected = outputs.embeddings[row].astype(np.float16)
        np.testing.assert_allclose(embedding, expected, rtol=1e-3, atol=1e-3)
    assert [each["tokens"] for each in found] == tokens.lengths.tolist()
    # Of the emoji: the rest are words that the tokenizer knows.
    assert [each["unknown_tokens"] for each in found] == [0, 1, 0]


def test_who_asks_for_none_gets_what_it_got(model: ServedModel) -> None:
    plain = {"inputs": [*TEXTS, ""]}
    # Not even when another request of the batch asks.
    alone = ask(model, plain, plain)
    both = ask(model, plain, plain | {"details": ["embeddings"]})
    assert both[0] == alone[0] == ask(model, plain | {"details": []}, plain)[0]
    assert b"details" not in alone[0]
    with_details = json.loads(both[1])["predictions"]
    assert [list(item.get("details", [])) for item in with_details] == [
        *[["embedding"]] * 3,
        [],
    ]
    for item in with_details:
        item.pop("details", None)
    assert with_details == json.loads(alone[1])["predictions"]


def test_an_explanation_has_them_too(model: ServedModel) -> None:
    content = {"inputs": [TEXTS[0]], "details": ["features"]}
    incoming = Incoming(
        fields={"body": json.dumps(content)}, content_type="application/json", explain=True
    )
    ((_, reply),), _ = model.answer([incoming])
    assert json.loads(reply)["prediction"]["details"]["tokens"] > 2


def test_a_column_of_that_name_asks_for_nothing(model: ServedModel) -> None:
    (reply,) = ask(model, {"text": "Rain", "details": ["embeddings"]})
    assert "details" not in json.loads(reply)


def test_what_a_model_does_not_read(columns_bundle: Path) -> None:
    predictor = Predictor.load(columns_bundle)
    table = pd.DataFrame({"text": ["a", ""], "age": [1, 2], "lang": ["a", "b"]})
    found, empty = predictor.predict(table, seen=True)
    assert empty.seen is None
    assert found.seen is not None
    details = encode_details(found.seen, DETAILS)
    assert (details["tokens"], details["unknown_tokens"]) == (None, None)
    assert len(decode_details(details)["tabular"]) == predictor.features.dim  # type: ignore[union-attr]
    assert predictor.predict(table)[0].seen is None
    nothing = Seen(tokens=None, unknown_tokens=None, tabular=None, embedding=None)
    assert decode_details(encode_details(nothing, DETAILS)) == NOTHING


def test_a_huge_number_is_infinite() -> None:
    seen = Seen(
        tokens=1,
        unknown_tokens=0,
        tabular=None,
        embedding=np.array([1e9, np.nan], dtype=np.float32),
    )
    found = base64.b64decode(encode_details(seen, ["embeddings"])["embedding"])
    np.testing.assert_array_equal(np.frombuffer(found, "<f2"), [np.inf, np.nan])


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "x",
        {},
        {"tokens": -1, "unknown_tokens": True, "tabular": [1, 2], "embedding": 7},
        {"tokens": 1.5, "unknown_tokens": 1 << 40, "tabular": "AAA", "embedding": "é"},
        {"tabular": "AAAA", "embedding": "AA=="},  # of no whole number
    ],
)
def test_what_is_none_is_null(content: Any) -> None:
    assert decode_details(content) == NOTHING


def test_floats_are_written_as_they_are() -> None:
    seen = Seen(
        tokens=1,
        unknown_tokens=0,
        tabular=np.array([0.1, -2, np.nan], dtype=np.float32),
        embedding=None,
    )
    found = decode_details(encode_details(seen, DETAILS))
    line = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
    assert orjson.loads(line)["tabular"] == [0.1, -2.0, None]
