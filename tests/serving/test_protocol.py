"""Requests of every shape and every mistake, and answers of the same shape."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.serving.protocol import (
    Fault,
    Item,
    Limits,
    Refused,
    Request,
    answer,
    encode,
    quote,
    read,
    read_json,
)

JSON = "application/json"
PREDICTION = {
    "label": "fake",
    "probabilities": {"fake": 0.9, "real": 0.1},
    "unsure": False,
    "truncated": True,
}
EMPTY = Fault("empty_text", "the text is empty")


def texts(request: Request) -> list[str]:
    return [found.text if isinstance(found, Item) else found.code for found in request.items]


def refusal(fields: dict[str, Any], content_type: str | None = JSON) -> Refused:
    with pytest.raises(Refused) as caught:
        read(fields, content_type=content_type)
    assert "\n" not in str(caught.value)
    return caught.value


def body(content: Any) -> dict[str, Any]:
    return {"body": json.dumps(content).encode()}


# --- shapes ----------------------------------------------------------------------------

TENSOR = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a b", "c"]}


@pytest.mark.parametrize(
    ("content", "shape", "expected"),
    [
        ({"text": "Rain"}, "one", ["Rain"]),
        ({"inputs": ["Rain", {"text": "Snow"}]}, "many", ["Rain", "Snow"]),
        ({"inputs": []}, "many", []),
        ({"instances": ["Rain", {"text": "Snow"}]}, "v1", ["Rain", "Snow"]),
        ({"id": "7", "inputs": [TENSOR]}, "v2", ["a b", "c"]),
        ({"inputs": [TENSOR | {"shape": [2, 1]}]}, "v2", ["a b", "c"]),
        ({"inputs": [TENSOR | {"shape": [2, 1], "data": [["a"], ["b"]]}]}, "v2", ["a", "b"]),
        ({"inputs": [TENSOR | {"shape": [0], "data": []}]}, "v2", []),
        # An item with columns of these names is no tensor.
        ({"inputs": [{"text": "Rain", "name": "x", "data": 1}]}, "many", ["Rain"]),
    ],
)
def test_shapes_in_json(content: Any, shape: str, expected: list[str]) -> None:
    for fields in (body(content), {"data": json.dumps(content)}, {"body": content}):
        request = read(fields, content_type=JSON)
        assert (request.shape, texts(request)) == (shape, expected)
    # Without a content type, too.
    assert texts(read(body(content))) == expected
    odd_type = "application/ld+json; charset=utf-8"
    assert texts(read(body(content), content_type=odd_type)) == expected


def test_details_are_asked_for_beside_a_list() -> None:
    asked = read_json({"inputs": ["a"], "details": ["features", "embeddings"]})
    assert asked.details == {"features", "embeddings"}
    assert read_json({"inputs": ["a"], "details": []}).details == frozenset()
    for other in ({"inputs": ["a"]}, {"instances": ["a"], "details": 3}, {"text": "a"}):
        assert read_json(other).details == frozenset()
    column = read_json({"text": "a", "details": ["features"]})
    assert column.details == frozenset()
    assert isinstance(column.items[0], Item)
    assert column.items[0].values["details"] == ["features"]
    for wrong in (True, "features", ["features", 3], ["all"], {}, None):
        with pytest.raises(Refused, match="details should be a list of embeddings and feat"):
            read_json({"inputs": ["a"], "details": wrong})


def test_columns_stand_beside_the_text() -> None:
    (item,) = read_json({"text": "Rain", "age": 3, "lang": None}).items
    assert isinstance(item, Item)
    assert (item.values["age"], item.values["lang"]) == (3, None)
    ages = {"name": "age", "shape": [2], "datatype": "FP32", "data": [3.5, None]}
    request = read_json({"inputs": [ages, TENSOR], "id": "x"})
    assert [item.values["age"] for item in request.items if isinstance(item, Item)] == [
        3.5,
        None,
    ]
    assert request.id == "x"


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/octet-stream"])
def test_a_raw_text(content_type: str | None) -> None:
    for value in ("Räin [42]".encode(), bytearray("Räin [42]".encode()), "Räin [42]"):
        request = read({"body": value}, content_type=content_type)
        assert (request.shape, texts(request)) == ("one", ["Räin [42]"])
    bom = "\ufeffRain".encode()
    assert texts(read({"body": bom}, content_type=content_type)) == ["Rain"]


def test_what_looks_like_json_is_a_text_where_it_is_said_to_be_one() -> None:
    found = read({"body": b'{"text": "Rain"}'}, content_type="text/plain; charset=utf-8")
    assert texts(found) == ['{"text": "Rain"}']


def test_a_form() -> None:
    request = read({"text": "Räin".encode(), "age": b"3", "data": b"x"})
    (item,) = request.items
    assert isinstance(item, Item)
    assert (request.shape, item.text, item.values["age"]) == ("one", "Räin", "3")
    assert texts(read({"text": "Rain"})) == ["Rain"]


# --- mistakes of one item --------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("", "empty_text"),
        (" \n\t\u2003", "empty_text"),
        ({}, "missing_text"),
        ({"txt": "Rain"}, "missing_text"),
        ({"text": None}, "missing_text"),
        ({"text": 3}, "wrong_type"),
        ({"text": ["Rain"]}, "wrong_type"),
        ({"text": {"text": "Rain"}}, "wrong_type"),
        ({"text": False}, "wrong_type"),
        ({"text": "x" * 100_001}, "text_too_long"),
    ],
)
def test_an_item_that_is_wrong_stops_no_other(item: Any, code: str) -> None:
    assert texts(read(body({"inputs": ["Rain", item, "Snow"]}))) == ["Rain", code, "Snow"]
    alone = item if isinstance(item, dict) else {"text": item}
    request = read(body(alone), content_type=JSON)
    assert texts(request) == [code]
    (fault,) = request.items
    assert isinstance(fault, Fault)
    found = answer(request, [fault], model="m", version="v", classes=[])
    assert found.status == (413 if code == "text_too_long" else 422)
    assert found.content == {"error": {"code": code, "message": fault.message}}


@pytest.mark.parametrize(
    ("item", "what"), [(None, "null"), (3, "a number"), (True, "a boolean"), ([], "a list")]
)
def test_an_item_that_is_none(item: Any, what: str) -> None:
    (fault,) = read_json({"inputs": [item]}).items
    assert fault == Fault(
        "wrong_type", f"the item is {what}, neither a text nor an object that has one"
    )


# --- mistakes of a whole request -------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON: Expecting value"),
        (b"Rain", "not JSON: Expecting value"),
        (b'{"text": "Rain"', "line 1, column 16"),
        (b'{"text": "Rain"} x', "Extra data"),
        (b'{"text": "Rain\nSnow"}', "Invalid control character"),
        (b"{'text': 'Rain'}", "property name"),
        (b'{"text": NaN}', "NaN is no number"),
        (b'{"text": "Rain", "age": -Infinity}', "-Infinity is no number"),
        (b'{"text": "a", "text": "b"}', "has an object with the key 'text' twice"),
        (b'{"inputs": [{"text": "a", "x": 1, "x": 2}]}', "key 'x' twice"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "a number of too many digits"),
        ('{"text": "Rain"}'.encode("utf-16-le"), "not JSON"),
    ],
)
def test_what_is_no_json(content: bytes, reason: str) -> None:
    error = refusal({"body": content})
    assert (error.status, error.fault.code) == (HTTPStatus.BAD_REQUEST, "not_json")
    assert reason in error.fault.message


@pytest.mark.parametrize("content_type", [JSON, "text/plain", None])
def test_what_is_no_utf8(content_type: str | None) -> None:
    for content in (b'{"text": "\xff"}', b"R\xe4in", "\ud800".encode("utf-8", "surrogatepass")):
        error = refusal({"body": content}, content_type)
        assert (error.status, error.fault.code) == (400, "invalid_utf8")
    assert "byte 11" in str(refusal({"body": b'{"text": "\xff"}'}))
    assert refusal({"text": b"\xff"}).fault.code == "invalid_utf8"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (["Rain"], "the body is a list"),
        ("Rain", "the body is a string"),
        (None, "the body is null"),
        (3, "the body is a number"),
        ({"inputs": "Rain"}, "inputs is a string, not a list"),
        ({"instances": {"text": "Rain"}}, "instances is an object, not a list"),
        ({"inputs": ["a"], "text": "b"}, "the body has both text and inputs"),
        ({"id": 3, "inputs": [TENSOR]}, "the id must be a string"),
        ({"id": "x" * 201, "inputs": [TENSOR]}, "the id must be a string"),
        ({"inputs": [TENSOR, "x"]}, "input 2 is no tensor with a name"),
        ({"inputs": [TENSOR | {"name": 3}]}, "input 1 is no tensor with a name"),
        ({"inputs": [TENSOR, TENSOR]}, "input 2 is no tensor with a name of its own"),
        ({"inputs": [TENSOR | {"name": "x"}]}, "there is no input named text"),
        ({"inputs": [TENSOR | {"datatype": "STR"}]}, "input 1 has no datatype"),
        ({"inputs": [TENSOR | {"datatype": None}]}, "input 1 has no datatype"),
        ({"inputs": [TENSOR | {"shape": [2, 2]}]}, "must have the shape"),
        ({"inputs": [TENSOR | {"shape": [True]}]}, "must have the shape"),
        ({"inputs": [TENSOR | {"shape": 2}]}, "must have the shape"),
        ({"inputs": [TENSOR | {"shape": [3]}]}, "not as many as its shape says"),
        ({"inputs": [TENSOR | {"data": "ab"}]}, "not as many as its shape says"),
        (
            {"inputs": [TENSOR, TENSOR | {"name": "x", "shape": [1], "data": [1]}]},
            "differ in their number of items",
        ),
    ],
)
def test_json_of_no_shape_that_is_known(content: Any, reason: str) -> None:
    error = refusal(body(content))
    assert (error.status, error.fault.code) == (HTTPStatus.BAD_REQUEST, "unknown_shape")
    assert reason in error.fault.message
    assert '{"text": "..."}' in error.fault.message


@pytest.mark.parametrize("fields", [{}, {'{"text": "Rain"}': b""}, {' {"a"': "b"}])
def test_nothing_and_json_as_a_form(fields: dict[str, Any]) -> None:
    error = refusal(fields, None)
    assert error.fault.code == "unknown_shape"
    assert "Content-Type: application/json" in error.fault.message


def test_a_form_without_a_text() -> None:
    assert texts(read({"txt": b"Rain"})) == ["missing_text"]


def nested(levels: int) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(levels - 1):
        value = [value]
    return {"text": "Rain", "x": value}


def test_depth() -> None:
    assert texts(read_json(nested(20))) == ["Rain"]
    for deep in (nested(21), {"text": "Rain", "x": [[]] * 2, "y": nested(20)}):
        with pytest.raises(Refused, match="too deeply"):
            read_json(deep)
    for bomb in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500):
        error = refusal({"body": bomb})
        assert (error.status, error.fault.code) == (400, "too_deep")


def test_numbers_of_items_and_characters() -> None:
    tensor = TENSOR | {"shape": [1001], "data": ["a"] * 1001}
    for content in (
        {"inputs": ["a"] * 1001},
        {"instances": ["a"] * 1001},
        {"inputs": [tensor]},
    ):
        error = refusal(body(content))
        assert (error.status, error.fault.code) == (413, "too_many_items")
        assert "1,001 items, at most 1,000" in error.fault.message
    assert len(read(body({"inputs": ["a"] * 1000})).items) == 1000
    small = Limits(items=1, characters=4, depth=2)
    request = read(body({"inputs": ["Rains"]}), limits=small)
    assert texts(request) == ["text_too_long"]
    assert texts(read(body({"inputs": ["Rain"]}), limits=small)) == ["Rain"]
    with pytest.raises(Refused, match="2 items"):
        read(body({"inputs": ["a", "b"]}), limits=small)


# --- texts that must come through ------------------------------------------------------

ODD = [
    "🎉👩\u200d👩\u200d👧",
    "\u202e\u05e1\u05d9\u05e4 ﷺ",
    "\x00\x07\x1b[31m",
    "Rain\n[METRICS]Evil.Count:1|#a:b|#hostname:c,1",
    "<script>alert('x')</script>",
    "\ud800 half a pair",
    "NaN",
    "null",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_texts(text: str) -> None:
    assert texts(read(body({"text": text}), content_type=JSON)) == [text]
    assert texts(read(body({"inputs": [text, "b"]}))) == [text, "b"]
    if not text.startswith("\ud800"):
        assert texts(read({"body": text.encode()}, content_type="text/plain")) == [text]


# --- answers ---------------------------------------------------------------------------


def made(request: Request, *results: Any) -> Any:
    found = answer(request, results, model="news", version="abc", classes=["fake", "real"])
    assert found.status == HTTPStatus.OK
    return json.loads(encode(found.content))


def test_the_answer_has_the_shape_of_the_request() -> None:
    assert made(read_json({"text": "a"}), PREDICTION) == PREDICTION
    several = {
        "predictions": [
            PREDICTION,
            {"error": {"code": "empty_text", "message": EMPTY.message}},
        ],
        "model": "news",
        "model_version": "abc",
    }
    assert made(read_json({"inputs": ["a", ""]}), PREDICTION, EMPTY) == several
    assert made(read_json({"instances": ["a", ""]}), PREDICTION, EMPTY) == several
    assert made(read_json({"inputs": []})) == several | {"predictions": []}


def test_tensors_answer_tensors() -> None:
    request = read_json({"id": "7", "inputs": [TENSOR]})
    found = made(request, PREDICTION, EMPTY)
    assert {name: found[name] for name in ("id", "model_name", "model_version")} == {
        "id": "7",
        "model_name": "news",
        "model_version": "abc",
    }
    assert {output["name"]: tuple(output.values())[1:] for output in found["outputs"]} == {
        "label": ("BYTES", [2], ["fake", ""]),
        "probabilities": ("FP64", [2, 2], [0.9, 0.1, None, None]),
        "unsure": ("BOOL", [2], [False, False]),
        "truncated": ("BOOL", [2], [True, False]),
        "error": ("BYTES", [2], ["", "empty_text: the text is empty"]),
        "classes": ("BYTES", [2], ["fake", "real"]),
    }
    assert "id" not in made(read_json({"inputs": [TENSOR]}), EMPTY, EMPTY)


def test_an_item_that_the_model_failed_on_is_a_500_alone() -> None:
    fault = Fault("internal", "x")
    found = answer(read_json({"text": "a"}), [fault], model="", version="", classes=[])
    assert found.status == HTTPStatus.INTERNAL_SERVER_ERROR


def test_encoding() -> None:
    assert encode({"a": "\ud800\n<é>"}) == b'{"a":"\\ud800\\n<\\u00e9>"}'
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"a": float("nan")})


def test_quotes_are_short_and_of_one_line() -> None:
    assert quote("a\nb") == "'a\\nb'"
    assert quote(10**4000) == "1" + "0" * 59 + "..."
    for value in ("x" * 1000, ["y"] * 1000, {"é" * 100: 1}):
        assert len(quote(value)) <= 63
        assert quote(value).isascii()


# --- anything at all -------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.sampled_from(
    ["text", "inputs", "instances", "name", "shape", "data", "datatype", "id"]
)
ANY_JSON = st.recursive(
    SCALARS | st.sampled_from(["BYTES", "FP32"]),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=20,
)
VALUES = ANY_JSON | ANY_JSON.map(json.dumps) | ANY_JSON.map(lambda v: json.dumps(v).encode())


@given(
    fields=st.dictionaries(
        st.sampled_from(["body", "data", "text", "age"]) | st.text(), VALUES | st.binary()
    ),
    content_type=st.sampled_from([None, JSON, "text/plain", ""]) | st.text(),
)
def test_any_request_is_understood_or_refused(
    fields: dict[str, Any], content_type: str | None
) -> None:
    try:
        request = read(fields, content_type=content_type)
    except Refused as error:
        encode(error.fault.to_json())
        return
    for item in request.items:
        assert isinstance(item, Fault) or item.text.strip()
    results = [item if isinstance(item, Fault) else PREDICTION for item in request.items]
    encode(answer(request, results, model="m", version="v", classes=["fake", "real"]).content)
