"""What a model saw of an item, on its way from the handler to the prediction log.

    {"inputs": [...], "details": ["features", "embeddings"]}     asked of the handler
    {..., "details": {"tokens": 9, "unknown_tokens": 0,          with each of its predictions
                      "tabular": BASE64, "embedding": BASE64}}

Numbers are little-endian: `tabular` float32 [F], `embedding` float16 [H], as a bundle's
reference has them. What a model does not read is null.
"""

import base64
import binascii
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from fakenews.predictor import Seen  # the gateway has no torch

Detail = Literal["features", "embeddings"]
"""`features` are the tokens and the tabular features."""

DETAILS = frozenset(get_args(Detail))

_MOST = (1 << 31) - 1


def encode_details(seen: "Seen", wanted: Collection[str]) -> dict[str, Any]:
    """As they stand in an answer.

    Args:
        seen: By the model.
        wanted: Of `DETAILS`.
    """
    found: dict[str, Any] = {}
    if "features" in wanted:
        found |= {
            "tokens": seen.tokens,
            "unknown_tokens": seen.unknown_tokens,
            "tabular": None if seen.tabular is None else _text(seen.tabular.astype("<f4")),
        }
    if "embeddings" in wanted:
        with np.errstate(over="ignore"):  # what is too large is infinite, as in the reference
            half = None if seen.embedding is None else seen.embedding.astype("<f2")
        found["embedding"] = None if half is None else _text(half)
    return found


def decode_details(content: Any) -> dict[str, Any]:
    """The columns of the prediction log; null for what there is not, or what is none.

    Args:
        content: As it stood in an answer; anything.

    Returns:
        `tokens`, `unknown_tokens`, `tabular` as an array that orjson writes, and `embedding`
        in base64.
    """
    given = content if isinstance(content, dict) else {}
    tabular = _bytes(given.get("tabular"), 4)
    embedding = _bytes(given.get("embedding"), 2)
    return {
        "tokens": _count(given.get("tokens")),
        "unknown_tokens": _count(given.get("unknown_tokens")),
        "tabular": None if tabular is None else np.frombuffer(tabular, "<f4"),
        "embedding": None if embedding is None else given["embedding"],
    }


def _text(numbers: "np.ndarray[Any, Any]") -> str:
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _bytes(value: Any, size: int) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return None if len(found) % size else found


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None
