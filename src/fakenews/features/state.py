"""What the features learnt from the training split: the content of `features.json`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fakenews.errors import BundleError
from fakenews.features.tabular import HEADLINE_FEATURES

OTHER = "<other>"
"""Stands for the categories without a column of their own, and for a missing one."""

_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EntityState:
    """The spaCy model in use at training, its version, spaCy's, and the model's labels."""

    model: str
    version: str
    spacy_version: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureState:
    """Fitted state of a `FeaturePipeline`.

    Attributes:
        headline: Whether headline features come first.
        entities: The model whose entity counts follow, or None.
        numeric: Numeric columns, after these.
        numeric_missing: Those of them that had gaps in training.
        categories: For each categorical column, the categories with a column.
        mean: Training mean of each standardised feature: headline, entities, numeric.
        scale: Population standard deviation of each; 0 for a constant.
    """

    headline: bool
    entities: EntityState | None
    numeric: tuple[str, ...]
    numeric_missing: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def standardised(self) -> list[str]:
        """Names of the features that have a mean and a scale."""
        labels = self.entities.labels if self.entities else ()
        return [
            *(HEADLINE_FEATURES if self.headline else ()),
            *(f"entity_{label}" for label in labels),
            *self.numeric,
        ]

    @property
    def names(self) -> list[str]:
        """Names of all features, in the order of the columns."""
        return [
            *self.standardised,
            *(f"{name}_missing" for name in self.numeric_missing),
            *(
                f"{name}={category}"
                for name, categories in self.categories.items()
                for category in (*categories, OTHER)
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` gives an equal state."""
        entities = self.entities and {
            **vars(self.entities),
            "labels": list(self.entities.labels),
        }
        return {
            "format_version": _FORMAT_VERSION,
            "headline": self.headline,
            "entities": entities,
            "numeric": list(self.numeric),
            "numeric_missing": list(self.numeric_missing),
            "categorical": [
                {"name": name, "categories": list(categories)}
                for name, categories in self.categories.items()
            ],
            "names": self.names,
            "mean": list(self.mean),
            "scale": list(self.scale),
        }

    @classmethod
    def from_json(cls, data: object) -> "FeatureState":
        """The state that `to_json` gave.

        Raises:
            BundleError: A field is missing, unknown, of the wrong type, or does not fit
                the others or this version; all such fields are named.
        """
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != _FORMAT_VERSION:
            _fail(
                [f"format_version: {version!r} is not {_FORMAT_VERSION}"]
                if isinstance(data, dict)
                else ["not a JSON object"]
            )
        assert isinstance(data, dict)  # noqa: S101 - narrows the type
        _fail(_faults(data, _FIELDS))
        entities = data["entities"]
        state = cls(
            headline=data["headline"],
            entities=entities
            and EntityState(**{**entities, "labels": tuple(entities["labels"])}),
            numeric=tuple(data["numeric"]),
            numeric_missing=tuple(data["numeric_missing"]),
            categories={
                column["name"]: tuple(column["categories"]) for column in data["categorical"]
            },
            mean=tuple(map(float, data["mean"])),
            scale=tuple(map(float, data["scale"])),
        )
        _fail(_contradictions(state, data["names"]))
        return state


def _fail(faults: list[str]) -> None:
    if faults:
        raise BundleError(
            "; ".join(f"features.json: {fault}" for fault in faults)
            + "; restore the bundle, or export it again with this version"
        )


def _contradictions(state: FeatureState, names: list[str]) -> list[str]:
    width = len(state.standardised)
    faults = [
        f"{field}: {len(values)} values for {width} features"
        for field, values in (("mean", state.mean), ("scale", state.scale))
        if len(values) != width
    ]
    if any(scale < 0 for scale in state.scale):
        faults.append("scale: a value is negative")
    if not set(state.numeric_missing) <= set(state.numeric):
        faults.append("numeric_missing: names a column that `numeric` does not")
    if names != state.names:
        faults.append(f"names: {names} but this version computes {state.names}")
    return faults


_Test = Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(item, str) for item in value)
        and len(set(value)) == len(value)
    )


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
        for item in value
    )


def _is_columns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(item, dict) and not _faults(item, _COLUMN_FIELDS) for item in value)
        and _is_texts([item["name"] for item in value])
    )


def _is_entities(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not _faults(value, _ENTITY_FIELDS))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TEXTS = (_is_texts, "a list of different strings")
_NUMBERS = (_is_numbers, "a list of finite numbers")
_TEXT = (_is_text, "a string")
_COLUMN_FIELDS: dict[str, tuple[_Test, str]] = {"name": _TEXT, "categories": _TEXTS}
_ENTITY_FIELDS: dict[str, tuple[_Test, str]] = {
    "model": _TEXT,
    "version": _TEXT,
    "spacy_version": _TEXT,
    "labels": _TEXTS,
}
_FIELDS: dict[str, tuple[_Test, str]] = {
    "format_version": (lambda value: type(value) is int, "a whole number"),
    "headline": (lambda value: isinstance(value, bool), "true or false"),
    "entities": (_is_entities, "null or an object of model, version, spacy_version, labels"),
    "numeric": _TEXTS,
    "numeric_missing": _TEXTS,
    "categorical": (_is_columns, "a list of objects of name and categories"),
    "names": (lambda value: isinstance(value, list), "a list of strings"),
    "mean": _NUMBERS,
    "scale": _NUMBERS,
}


def _faults(data: dict[str, Any], fields: dict[str, tuple[_Test, str]]) -> list[str]:
    faults = [f"{name}: unknown field" for name in data if name not in fields]
    for name, (test, expected) in fields.items():
        if name not in data:
            faults.append(f"{name}: missing")
        elif not test(data[name]):
            faults.append(f"{name}: must be {expected}")
    return faults
