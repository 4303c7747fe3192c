"""The body of a request -> the texts it asks about, as the handler understands them too.

What is sent on is what was asked about: nothing is cleaned here but what no JSON can hold.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fakenews.serving import protocol
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.settings import Bounds
from fakenews.serving.protocol import Fault, quote

Item = dict[str, Any]
"""A text to predict, as it is sent on: `text`, and the columns beside it."""

Answer = dict[str, Any]
"""What is said of an item: a prediction, with `details` if asked for, or an `error`."""

# Longest name of a column, and from where on the JSON of others has no integers.
_NAME = 200
_INTEGER = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        Problem: It is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _read_strictly(body)


def _read_strictly(body: bytes) -> Any:
    """As the handler does: it takes half surrogate pairs, and says what is wrong."""
    try:
        return protocol.load(body)
    except protocol.Refused as refused:
        raise refused_problem(refused) from None


def requested(content: Any, bounds: Bounds) -> protocol.Request:
    """What a body asks about.

    Args:
        content: Decoded JSON.
        bounds: Of requests.

    Raises:
        Problem: It has no shape that is known, or asks too much.
    """
    limits = protocol.Limits(
        items=bounds.items, characters=bounds.characters, depth=bounds.depth
    )
    try:
        request = protocol.read_json(content, limits=limits)
    except protocol.Refused as refused:
        raise refused_problem(refused) from None
    if request.shape == "v2":
        raise Problem(
            400, "unknown_shape", 'send {"text": "..."} or {"inputs": ["...", {"text": "..."}]}'
        )
    return request


def refused_problem(refused: protocol.Refused) -> Problem:
    """A request that the protocol refuses, as the gateway answers it."""
    return Problem(int(refused.status), refused.fault.code, refused.fault.message)


def sendable(
    items: Sequence[protocol.Item | Fault], bounds: Bounds
) -> tuple[dict[int, Item], dict[int, Fault]]:
    """What is sent on, and what is wrong with the other items, each by its place."""
    sound: dict[int, Item] = {}
    faults: dict[int, Fault] = {}
    for place, item in enumerate(items):
        found = item if isinstance(item, Fault) else _sendable(item, bounds)
        if isinstance(found, Fault):
            faults[place] = found
        else:
            sound[place] = found
    return sound, faults


def _sendable(item: protocol.Item, bounds: Bounds) -> Item | Fault:
    if len(item.values) <= 1:  # the text alone
        return {"text": _sound(item.text)}
    fault = _column_fault(item.values, bounds)
    if fault is not None:
        return Fault("bad_column", fault)
    return {_sound(name): _sound(value) for name, value in item.values.items()}


def _column_fault(columns: Mapping[str, Any], bounds: Bounds) -> str | None:
    if len(columns) - 1 > bounds.columns:
        return f"{len(columns) - 1:,} columns beside the text: at most {bounds.columns:,}"
    for name, value in columns.items():
        fault = _value_fault(value, bounds) if len(name) <= _NAME else "has too long a name"
        if fault is not None:
            return f"the column {quote(name)} {fault}"
    return None


def _value_fault(value: Any, bounds: Bounds) -> str | None:
    if not isinstance(value, str | int | float | bool | None):
        return "should be a string or a number"
    if isinstance(value, str) and len(value) > bounds.characters:
        return f"has more than {bounds.characters:,} characters"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int) and abs(value) >= _INTEGER:
        return "is too large a number"
    return None


def public(answer: Answer) -> Answer:
    """An answer as clients get it: without what the model saw."""
    return {name: value for name, value in answer.items() if name != "details"}


def _sound(value: Any) -> Any:
    """Without half surrogate pairs, which JSON can spell and nothing can encode."""
    if isinstance(value, str) and not value.isascii():
        return _SURROGATE.sub("\ufffd", value)
    return value
