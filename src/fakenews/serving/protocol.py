"""Request bodies of every shape to items, and answers back in the shape of the request.

    one    {"text": "...", "age": 3}, a raw text, or the fields of a form
    many   {"inputs": ["...", {"text": "...", "age": 3}]}
           with "details": [...] beside, what the model saw is asked for, too (`details`)
    v1     {"instances": [...]}, KServe's version 1
    v2     {"inputs": [{"name": "text", "shape": [n], "datatype": "BYTES", "data": [...]}]}

What is wrong with one item is a `Fault` in its place, and stops no other; what is wrong with
the request as a whole is `Refused`. Messages may quote the request, so they go to its sender
and into no log.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from fakenews.bounds import PositiveCount
from fakenews.serving.details import DETAILS
from fakenews.serving.kserve import is_v2, read_tensors, v2_answer

Shape = Literal["one", "many", "v1", "v2"]

# The single item of a request decides its status; an item of a list never does.
_STATUS = {"text_too_long": HTTPStatus.REQUEST_ENTITY_TOO_LARGE} | {
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR
}
_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
_QUOTED = 60
_ID_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a request may be.

    Attributes:
        items: Most items of a request.
        characters: Most characters of an item's text.
        depth: Most levels of nested JSON.
    """

    items: PositiveCount = 1000
    characters: PositiveCount = 100_000
    depth: PositiveCount = 20


@dataclass(frozen=True)
class Fault:
    """Why an item has no prediction.

    Attributes:
        code: For programs, as in `empty_text`.
        message: For people.
    """

    code: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"error": {"code": self.code, "message": self.message}}


class Refused(Exception):
    """A request cannot be answered as a whole.

    Args:
        code: See `Fault`.
        message: See `Fault`.
        status: Of the HTTP answer.
    """

    def __init__(
        self, code: str, message: str, *, status: HTTPStatus = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(message)
        self.fault = Fault(code, message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Item:
    """A text to predict, which has characters that show and not too many.

    Attributes:
        text: As it was sent.
        values: What stood beside it, by column; may hold more than a model asks for.
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that was understood.

    Attributes:
        shape: The answer has it too.
        items: In order.
        id: Of a request of KServe's version 2, given back to it.
        details: What is wanted beside predictions, of `DETAILS`.
    """

    shape: Shape
    items: Sequence[Item | Fault]
    id: str | None = None
    details: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back.

    Attributes:
        status: Of the HTTP answer.
        content: Plain values, for `encode`.
    """

    status: HTTPStatus
    content: Mapping[str, Any]


def encode(content: Mapping[str, Any]) -> bytes:
    """JSON in ASCII, which holds any text, halves of surrogate pairs included.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def read(
    fields: Mapping[str, Any], *, content_type: str | None = None, limits: Limits | None = None
) -> Request:
    """Understand a request as TorchServe hands it to a handler.

    Args:
        fields: `body` (or `data`, as some clients call it), or the fields of a form. Bytes,
            text, or JSON that was decoded already.
        content_type: Of the body; without one, what begins with a brace is JSON.
        limits: None: the usual ones.

    Raises:
        Refused: The request is not understood, or too large.
    """
    limits = limits or Limits()
    if "text" not in fields:
        for name in ("body", "data"):
            if name in fields:
                return _read_body(fields[name], content_type or "", limits)
    return _read_form(fields, limits)


def read_json(value: Any, *, limits: Limits | None = None) -> Request:
    """Understand decoded JSON.

    Raises:
        Refused: See `read`.
    """
    limits = limits or Limits()
    check_depth(value, limits.depth)
    if not isinstance(value, dict):
        raise _unknown(f"the body is {_type(value)}")
    given = [name for name in ("text", "inputs", "instances") if name in value]
    if len(given) > 1:
        raise _unknown(f"the body has both {' and '.join(given)}")
    if given in ([], ["text"]):
        return Request(shape="one", items=[_item(value, limits)])
    (name,) = given
    inputs = value[name]
    if not isinstance(inputs, list):
        raise _unknown(f"{name} is {_type(inputs)}, not a list")
    if name == "inputs" and is_v2(inputs):
        return _read_v2(value, limits)
    _check_count(len(inputs), limits)
    return Request(
        shape="many" if name == "inputs" else "v1",
        items=[_item(found, limits) for found in inputs],
        details=_details(value) if name == "inputs" else frozenset(),
    )


def answer(
    request: Request,
    results: Sequence[Mapping[str, Any] | Fault],
    *,
    model: str,
    version: str,
    classes: Sequence[str],
) -> Answer:
    """The answer to a request.

    Args:
        request: As `read` gave it.
        results: A prediction for each item, or why there is none.
        model: Its name.
        version: Of the model.
        classes: Class names, in the order of KServe's probabilities.
    """
    if request.shape == "one":
        (result,) = results
        if isinstance(result, Fault):
            status = _STATUS.get(result.code, HTTPStatus.UNPROCESSABLE_ENTITY)
            return Answer(status=status, content=result.to_json())
        return Answer(status=HTTPStatus.OK, content=result)
    if request.shape == "v2":
        answered = [
            (None, f"{result.code}: {result.message}")
            if isinstance(result, Fault)
            else (result, "")
            for result in results
        ]
        content = v2_answer(
            answered, model=model, version=version, classes=classes, id_=request.id
        )
        return Answer(status=HTTPStatus.OK, content=content)
    predictions = [
        result.to_json() if isinstance(result, Fault) else result for result in results
    ]
    return Answer(
        status=HTTPStatus.OK,
        content={"predictions": predictions, "model": model, "model_version": version},
    )


def quote(value: Any) -> str:
    """A value of a request as a message shows it: on one line, and short."""
    shown = ascii(value[:_QUOTED] if isinstance(value, str) else value)
    return shown if len(shown) <= _QUOTED else f"{shown[:_QUOTED]}..."


def _read_body(value: Any, content_type: str, limits: Limits) -> Request:
    if isinstance(value, bytes | bytearray):
        value = _decode(value, "the body")
    if not isinstance(value, str):
        return read_json(value, limits=limits)
    kind = content_type.partition(";")[0].strip().lower()
    says_json = kind == "application/json" or kind.endswith("+json")
    if says_json or (not kind.startswith("text/") and value.lstrip()[:1] == "{"):
        return read_json(_load(value), limits=limits)
    return Request(shape="one", items=[_item(value, limits)])


def _read_form(fields: Mapping[str, Any], limits: Limits) -> Request:
    if "text" not in fields and all(name.lstrip()[:1] == "{" for name in fields):
        # Nothing at all is what TorchServe makes of `curl -d '{"text": ...}'`.
        raise _unknown(
            "the request is empty, or JSON that was sent as a form (which takes the header "
            "Content-Type: application/json)"
        )
    values = {
        name: _decode(value, f"the field {quote(name)}")
        if isinstance(value, bytes | bytearray)
        else value
        for name, value in fields.items()
    }
    return Request(shape="one", items=[_item(values, limits)])


def _decode(value: bytes | bytearray, what: str) -> str:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(
            "invalid_utf8", f"{what} is not UTF-8, first at byte {error.start + 1}"
        ) from None


def load(body: bytes) -> Any:
    """Decode a JSON body.

    Raises:
        Refused: It is no JSON, or no UTF-8.
    """
    return _load(_decode(body, "the body"))


def _load(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise Refused(
            "not_json",
            f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})",
        ) from None
    except ValueError:  # what Python says of an integer of thousands of digits
        raise Refused("not_json", "the body has a number of too many digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers differ in which of the two they take.
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused("not_json", f"the body has an object with the key {quote(twice)} twice")
    return found


def _no_constant(name: str) -> Any:
    raise Refused("not_json", f"the body is not JSON: {name} is no number there")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def check_depth(value: Any, limit: int) -> None:
    """Refuse JSON of more than `limit` levels.

    Raises:
        Refused: It has more.
    """
    level, depth = [value], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        if depth > limit:
            raise _too_deep()
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
        ]


def _too_deep() -> Refused:
    return Refused("too_deep", "the body is nested too deeply")


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.items:
        raise Refused(
            "too_many_items",
            f"the request has {count:,} items, at most {limits.items:,} are allowed",
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )


def _read_v2(value: Mapping[str, Any], limits: Limits) -> Request:
    id_ = value.get("id")
    if id_ is not None and not (isinstance(id_, str) and len(id_) <= _ID_LENGTH):
        raise _unknown(f"the id must be a string of at most {_ID_LENGTH} characters")
    try:
        columns, count = read_tensors(value["inputs"])
    except ValueError as error:
        raise _unknown(str(error)) from None
    _check_count(count, limits)
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    items = [_item(dict(zip(names, row, strict=True)), limits) for row in rows]
    return Request(shape="v2", items=items, id=id_)


def _details(value: Mapping[str, Any]) -> frozenset[str]:
    given = value.get("details", [])
    if not isinstance(given, list) or not all(
        isinstance(name, str) and name in DETAILS for name in given
    ):
        raise _unknown(f"details should be a list of {' and '.join(sorted(DETAILS))}")
    return frozenset(given)


def _item(value: Any, limits: Limits) -> Item | Fault:
    values: Mapping[str, Any] = {}
    if isinstance(value, dict):
        values, value = value, value.get("text")
        if value is None:
            return Fault("missing_text", 'the item has no text: give it as "text"')
        if not isinstance(value, str):
            return Fault("wrong_type", f"the text is {_type(value)}, not a string")
    if not isinstance(value, str):
        what = f"the item is {_type(value)}, neither a text nor an object that has one"
        return Fault("wrong_type", what)
    if len(value) > limits.characters:
        allowed = f"at most {limits.characters:,} are allowed"
        return Fault("text_too_long", f"the text has {len(value):,} characters, {allowed}")
    if not value.strip():
        return Fault("empty_text", "the text is empty")
    return Item(text=value, values=values)


def _type(value: Any) -> str:
    return "null" if value is None else _TYPES.get(type(value), "a number")


def _unknown(reason: str) -> Refused:
    return Refused(
        "unknown_shape",
        f'{reason}; send {{"text": "..."}} or {{"inputs": ["...", {{"text": "..."}}]}}',
    )
