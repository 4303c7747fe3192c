"""What each field of a prepared dataset's manifest must be."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# A test of a value, and what it expects in words.
_Test = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_texts(value: Any) -> bool:
    return (
        isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


def _mapping_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _fits(tests: Mapping[str, _Test]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and not any(object_faults(value, tests, ""))


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


_COUNT: _Test = (_is_count, "a whole number of at least 0")
_TEXT: _Test = (_is_text, "a string")
_TEXTS: _Test = (_is_texts, "a list of different strings")
_HASH: _Test = (_is_hash, "a SHA-256 of 64 hexadecimal digits")
_COUNTS: _Test = (_mapping_of(_is_count), "an object of whole numbers of at least 0")
_NUMBERS: _Test = (_mapping_of(_is_number), "an object of finite numbers")

_SHARD: dict[str, _Test] = {
    "path": _TEXT,
    "rows": _COUNT,
    "row_groups": (_list_of(_is_count), "a list of whole numbers of at least 0"),
    "bytes": _COUNT,
    "sha256": _HASH,
}
_TOKENIZER: dict[str, _Test] = {"sha256": _HASH, "max_length": _COUNT}
_ENTITIES: dict[str, _Test] = {
    "model": _TEXT,
    "version": _TEXT,
    "spacy_version": _TEXT,
    "labels": _TEXTS,
}
_STATISTICS: dict[str, _Test] = {
    "mean": _NUMBERS,
    "scale": _NUMBERS,
    "missing": _TEXTS,
    "categories": (_mapping_of(_is_texts), "an object of lists of different strings"),
}
FIELDS: dict[str, _Test] = {
    "format": _COUNT,
    "fingerprint": _HASH,
    "inputs": (_list_of(_is_object), "a list of objects"),
    "settings": (_is_object, "an object"),
    "classes": _TEXTS,
    "positive": _TEXT,
    "numeric": _TEXTS,
    "categorical": _TEXTS,
    "counts": (
        lambda value: (
            _mapping_of(_mapping_of(_is_count))(value)
            and value.keys() <= {"train", "val", "test"}
        ),
        "an object of train, val and test, each an object of counts",
    ),
    "dropped": _COUNTS,
    "quarantined": _COUNT,
    "repaired": _COUNT,
    "clipped": _COUNT,
    "tokenizer": (_or_none(_fits(_TOKENIZER)), "null, or an object of sha256 and max_length"),
    "entities": (
        _or_none(_fits(_ENTITIES)),
        "null, or an object of model, version, spacy_version and labels",
    ),
    "statistics": (_fits(_STATISTICS), "an object of mean, scale, missing and categories"),
    "shards": (
        lambda value: (
            _mapping_of(_list_of(_fits(_SHARD)))(value)
            and value.keys() <= {"train", "val", "test"}
        ),
        "an object of train, val and test, each a list of shards",
    ),
    "versions": (_mapping_of(_is_text), "an object of strings"),
    "commit": (_or_none(_is_text), "null or a string"),
}
"""Every field of a manifest."""


def object_faults(
    data: Mapping[str, Any], tests: Mapping[str, _Test], path: str
) -> Iterator[str]:
    """What is wrong with the fields of an object: unknown, missing, or of another kind.

    Args:
        data: As read from JSON.
        tests: Field -> what it must be.
        path: Before the names of fields, in messages.
    """
    for name in data:
        if name not in tests:
            yield f"{path}{name}: unknown field"
    for name, (test, expected) in tests.items():
        if name not in data:
            yield f"{path}{name}: missing"
        elif not test(data[name]):
            yield f"{path}{name}: must be {expected}"
