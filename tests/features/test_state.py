import json

import pytest

from fakenews.errors import BundleError
from fakenews.features.state import EntityState, FeatureState

STATE = FeatureState(
    headline=False,
    entities=EntityState(
        model="en_core_web_sm", version="3.8.0", spacy_version="3.8.1", labels=("GPE", "ORG")
    ),
    numeric=("age", "shares"),
    numeric_missing=("shares",),
    categories={"source": ("blog", "press"), "country": ()},
    mean=(0.5, 1.0, -2.0, 3.25),
    scale=(1.0, 0.0, 2.0, 1e-9),
)


def test_names():
    assert STATE.names == [
        "entity_GPE",
        "entity_ORG",
        "age",
        "shares",
        "shares_missing",
        "source=blog",
        "source=press",
        "source=<other>",
        "country=<other>",
    ]


def test_round_trip_through_a_json_file():
    assert FeatureState.from_json(json.loads(json.dumps(STATE.to_json()))) == STATE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("headline", 1),
        ("headline", True),  # does not fit the names
        ("entities", "en_core_web_sm"),
        ("entities", {"model": "en_core_web_sm"}),
        ("entities", {**STATE.to_json()["entities"], "labels": ["GPE", "GPE"]}),
        ("numeric", ["age", 5]),
        ("numeric", "age"),
        ("numeric", ["age"]),
        ("numeric_missing", ["other"]),
        ("categorical", {"source": ["blog"]}),
        ("categorical", [{"name": "source"}]),
        ("categorical", [{"name": "source", "categories": []}] * 2),
        ("names", ["age"]),
        ("names", None),
        ("mean", [0.5, 1.0]),
        ("mean", [0.5, 1.0, "x", 0.0]),
        ("mean", [0.5, 1.0, float("nan"), 0.0]),
        ("mean", [True, 1.0, 0.0, 0.0]),
        ("scale", [1.0, 0.0, -2.0, 1.0]),
        ("scale", None),
        ("format_version", 2),
        ("format_version", "1"),
    ],
)
def test_wrong_field_is_named(field, value):
    with pytest.raises(BundleError, match=rf"features\.json: .*{field}|features\.json: names"):
        FeatureState.from_json({**STATE.to_json(), field: value})


@pytest.mark.parametrize("field", sorted(STATE.to_json()))
def test_missing_field_is_named(field):
    data = STATE.to_json()
    del data[field]
    with pytest.raises(BundleError, match=rf"features\.json: {field}: "):
        FeatureState.from_json(data)


def test_all_faults_are_reported_at_once():
    data = {**STATE.to_json(), "headline": "yes", "mean": None, "extra": 1}
    with pytest.raises(BundleError) as caught:
        FeatureState.from_json(data)
    for part in ("headline: must be true or false", "mean: must be a list", "extra: unknown"):
        assert part in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "text", 5, {}])
def test_not_a_state(data):
    with pytest.raises(BundleError, match=r"features\.json"):
        FeatureState.from_json(data)
