"""The body of a request -> the texts it asks about, each checked for itself."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.settings import Bounds

Item = dict[str, Any]
"""A text to predict, as it is sent on: `text`, and the columns beside it."""

Answer = dict[str, Any]
"""What is said of an item: a prediction, or an `error`."""

# Longest name of a column, and from where on JSON of others has no integers.
_NAME = 200
_INTEGER = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(body: bytes, *, depth: int) -> Any:
    """Parse a body.

    Args:
        body: UTF-8.
        depth: Of lists and objects within each other, at most.

    Raises:
        Problem: It is no JSON, or nested too deeply.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = _read_strictly(body)
    if _deeper(content, depth):
        raise Problem(400, "too_deep", f"the JSON is nested more than {depth} levels deep")
    return content


def _read_strictly(body: bytes) -> Any:
    """As the standard library does: it takes half surrogate pairs, and says what is wrong."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            400, "invalid_utf8", f"the body is not UTF-8: byte {error.start} cannot be decoded"
        ) from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise Problem(400, "too_deep", "the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(
            400, "not_json", f"the body is not JSON: {error.msg} at {where}"
        ) from None
    except ValueError as error:
        raise Problem(400, "not_json", f"the body is not JSON: {str(error)[:100]}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _deeper(content: Any, depth: int) -> bool:
    level = [content]
    for _ in range(depth + 1):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def requested(content: Any, bounds: Bounds) -> tuple[list[Any], bool]:
    """What a body of `/predict` asks about, unchecked, and whether it is one text alone.

    Raises:
        Problem: It is neither `{"text": ...}` nor `{"inputs": [...]}`, or asks too much.
    """
    if not isinstance(content, dict):
        raise Problem(
            400, "unknown_shape", f'send an object, as in {{"text": "..."}}, {_got(content)}'
        )
    if "inputs" not in content:
        return [content], True
    if "text" in content:
        raise Problem(400, "unknown_shape", "send either text or inputs, not both")
    if len(content) > 1:
        other = next(name for name in content if name != "inputs")
        raise Problem(
            400, "unknown_shape", f"send inputs alone: {_shown(other)} does not go with it"
        )
    inputs = content["inputs"]
    if not isinstance(inputs, list):
        raise Problem(400, "unknown_shape", f"inputs should be a list, {_got(inputs)}")
    if len(inputs) > bounds.items:
        raise Problem(
            413,
            "too_many_items",
            f"{len(inputs):,} items: at most {bounds.items:,} in one request",
        )
    return inputs, False


class BadItem(Exception):
    """An item cannot be asked about.

    Args:
        code: Stable name of the kind.
        message: One line for the person who asked.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


def checked(item: Any, bounds: Bounds) -> Item:
    """The item as it is sent on.

    Args:
        item: A text, or an object with a text and columns.
        bounds: Of requests.

    Raises:
        BadItem: It cannot be.
    """
    if isinstance(item, str):
        text, columns = item, {}
    elif not isinstance(item, dict):
        raise BadItem("wrong_type", f"an item should be a text or an object, {_got(item)}")
    elif item.get("text") is None:
        raise BadItem("missing_text", "the item has no text")
    else:
        text = item["text"]
        columns = item
    if not isinstance(text, str):
        raise BadItem("wrong_type", f"the text should be a string, {_got(text)}")
    if len(text) > bounds.characters:
        raise BadItem(
            "text_too_long",
            f"the text has {len(text):,} characters: at most {bounds.characters:,}",
        )
    if not text or text.isspace():
        raise BadItem("empty_text", "the text is empty")
    if len(columns) > 1:
        fault = _column_fault(columns, bounds)
        if fault is not None:
            raise BadItem("bad_column", fault)
        return {_sound(name): _sound(value) for name, value in columns.items()}
    return {"text": _sound(text)}


def _column_fault(columns: Mapping[str, Any], bounds: Bounds) -> str | None:
    if len(columns) - 1 > bounds.columns:
        return f"{len(columns) - 1:,} columns beside the text: at most {bounds.columns:,}"
    for name, value in columns.items():
        fault = _value_fault(value, bounds) if len(name) <= _NAME else "has too long a name"
        if fault is not None:
            return f"the column {_shown(name)} {fault}"
    return None


def _value_fault(value: Any, bounds: Bounds) -> str | None:
    if not isinstance(value, str | int | float | bool | None):
        return f"should be a string or a number, {_got(value)}"
    if isinstance(value, str) and len(value) > bounds.characters:
        return f"has more than {bounds.characters:,} characters"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int) and abs(value) >= _INTEGER:
        return "is too large a number"
    return None


def _sound(value: Any) -> Any:
    """Without half surrogate pairs, which JSON can spell and nothing can encode."""
    if isinstance(value, str) and not value.isascii():
        return _SURROGATE.sub("\ufffd", value)
    return value


def _got(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return f"not {'null' if value is None else kinds.get(type(value), 'a number')}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")
