import json
import logging
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.errors import BundleError, ConfigError, DataError, FeatureError
from fakenews.features.entities import model_version, spacy_version
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.tabular import HEADLINE_FEATURES

TEXTS = [
    "Angela Merkel met Bill Gates in Berlin",
    "BREAKING: 5G spreads the virus!!",
    "drink hot water",
    "",
    "😷 ماسكات تعمل",
]


def frame_of(texts=TEXTS, **columns) -> pd.DataFrame:
    # Objects: pandas' strings cannot hold half a surrogate pair.
    return pd.DataFrame({"text": pd.Series(list(texts), dtype=object), **columns})


def extras() -> pd.DataFrame:
    return frame_of(
        shares=[1.0, 3.0, np.nan, 5.0, 3.0],
        age=[2.0] * 5,
        source=["blog", "press", "blog", None, "radio"],
    )


def with_extras() -> FeaturePipeline:
    return FeaturePipeline(
        headline=False, numeric=["shares", "age"], categorical=["source"], max_categories=2
    ).fit(extras())


def test_golden_extras():
    pipeline = with_extras()
    assert pipeline.names == [
        "shares",
        "age",
        "shares_missing",
        "source=blog",
        "source=press",
        "source=<other>",
    ]
    low = -math.sqrt(2)  # (1 - 3) / sqrt(2)
    features = pipeline.transform(extras())
    assert features.dtype == np.float32
    assert features.tolist() == [
        pytest.approx([low, 0, 0, 1, 0, 0]),
        [0, 0, 0, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
        pytest.approx([-low, 0, 0, 0, 0, 1]),
        [0, 0, 0, 0, 0, 1],
    ]


def test_unseen_values_at_serving():
    served = frame_of(["new"], shares=[1e9], age=[np.nan], source=["television"])
    assert with_extras().transform(served).tolist() == [[10, 0, 0, 0, 0, 1]]


def test_headline_features_are_standardised_on_training_rows():
    pipeline = FeaturePipeline().fit(frame_of())
    assert pipeline.names == list(HEADLINE_FEATURES)
    assert pipeline.dim == len(HEADLINE_FEATURES)
    features = pipeline.transform(frame_of())
    assert features.mean(axis=0) == pytest.approx(np.zeros(pipeline.dim), abs=1e-6)
    varied = features.std(axis=0) > 0
    assert features.std(axis=0)[varied] == pytest.approx(np.ones(varied.sum()), abs=1e-5)
    assert varied[HEADLINE_FEATURES.index("word_count")]
    assert not varied[HEADLINE_FEATURES.index("url_count")]


def test_word_count_golden():
    pipeline = FeaturePipeline().fit(frame_of(["a", "a b c"]))
    served = pipeline.transform(frame_of(["", "a", "a b c"]))
    # log1p of 1 and 3 words: mean log(2) * 1.5, deviation log(2) / 2
    assert served[:, 0] == pytest.approx([-3, -1, 1], abs=1e-6)


def test_entities_and_slices():
    pipeline = FeaturePipeline(entities="en_core_web_sm").fit(frame_of())
    assert pipeline.dim == len(HEADLINE_FEATURES) + 18
    person = pipeline.transform(frame_of())[:, pipeline.names.index("entity_PERSON")]
    assert person.argmax() == 0
    assert pipeline.entity_counts(frame_of()).shape == (5, 18)
    slices = pipeline.slices(frame_of())
    assert slices["has_num"].tolist() == [False, True, False, False, False]
    assert slices["has_entity"][[0, 2, 3]].tolist() == [True, False, False]
    assert set(FeaturePipeline().slices(frame_of())) == {"has_num"}
    assert FeaturePipeline().entity_counts(frame_of()).shape == (5, 0)


def test_all_features_off():
    pipeline = FeaturePipeline(headline=False).fit(frame_of())
    assert pipeline.dim == 0
    assert pipeline.names == []
    assert pipeline.transform(frame_of()).shape == (5, 0)
    assert FeaturePipeline.from_json(pipeline.to_json()).transform(frame_of()).shape == (5, 0)


@given(st.lists(st.text(st.characters(), max_size=60), min_size=1, max_size=8), st.data())
def test_a_row_alone_equals_the_row_of_a_batch(texts, data):
    number = st.floats(allow_infinity=False)
    frame = frame_of(
        texts,
        value=data.draw(st.lists(number, min_size=len(texts), max_size=len(texts))),
        kind=data.draw(st.lists(st.text(max_size=3), min_size=len(texts), max_size=len(texts))),
    )
    half = frame.iloc[: (len(texts) + 1) // 2]
    pipeline = FeaturePipeline(numeric=["value"], categorical=["kind"]).fit(half)
    together = pipeline.transform(frame)
    assert together.shape == (len(texts), pipeline.dim)
    assert np.isfinite(together).all()
    assert np.abs(together).max() <= 10
    alone = np.concatenate([pipeline.transform(frame.iloc[[row]]) for row in range(len(frame))])
    assert np.array_equal(together, alone)
    served = FeaturePipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert served.names == pipeline.names
    assert np.array_equal(served.transform(frame), together)


def test_a_row_alone_equals_the_row_of_a_long_batch_with_entities():
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]
    pipeline = FeaturePipeline(entities="en_core_web_sm").fit(frame_of(texts[:50]))
    together = pipeline.transform(frame_of(texts))
    for row in range(0, len(texts), 23):
        assert np.array_equal(pipeline.transform(frame_of([texts[row]]))[0], together[row])


def test_huge_text_cannot_leave_the_range():
    pipeline = FeaturePipeline().fit(frame_of())
    features = pipeline.transform(frame_of(["A1!? #x " * 12_500]))
    assert np.abs(features).max() == 10


def test_transform_of_no_rows():
    pipeline = with_extras()
    assert pipeline.transform(extras().iloc[:0]).shape == (0, pipeline.dim)


def test_gaps_only_in_training():
    pipeline = FeaturePipeline(headline=False, numeric=["n"]).fit(frame_of(n=[np.nan] * 5))
    assert pipeline.transform(frame_of(["a", "b"], n=[np.nan, 7.0])).tolist() == [
        [0, 1],
        [0, 0],
    ]


def test_integer_and_nullable_columns():
    frame = frame_of(n=pd.array([1, 2, None, 2, 3], dtype="Int64"), m=[0, 0, 1, 1, 0])
    pipeline = FeaturePipeline(headline=False, numeric=["n", "m"]).fit(frame)
    assert pipeline.names == ["n", "m", "n_missing"]
    assert pipeline.transform(frame)[2].tolist()[::2] == [0, 1]


def test_fit_without_rows():
    with pytest.raises(DataError, match="no training rows"):
        FeaturePipeline().fit(frame_of([]))


@pytest.mark.parametrize(
    "use",
    [
        lambda pipeline: pipeline.transform(frame_of()),
        lambda pipeline: pipeline.names,
        lambda pipeline: pipeline.dim,
        lambda pipeline: pipeline.to_json(),
    ],
)
def test_not_fitted(use):
    with pytest.raises(FeatureError, match="not fitted"):
        use(FeaturePipeline())


def test_missing_columns_are_all_named():
    with pytest.raises(
        DataError, match=r"'shares' is missing; there are text.*'source' is miss"
    ):
        with_extras().transform(frame_of(age=[1.0] * 5))


def test_values_that_cannot_be_used_are_all_named():
    frame = extras()
    frame["shares"] = [1.0, 2.0, np.inf, -np.inf, 0.0]
    frame["age"] = ["1", "old", "2", "3", "4"]
    frame["text"] = frame["text"].astype(object)
    frame.loc[4, "text"] = None
    frame["file"] = "news.csv"
    frame["row"] = [11, 12, 13, 14, 15]
    with pytest.raises(DataError) as caught:
        with_extras().transform(frame)
    assert len(caught.value.faults) == 3
    assert caught.value.faults[0].startswith("news.csv, row 15: text is None")
    assert "news.csv, row 13: column 'shares' is infinite, as in 2 row(s)" in str(caught.value)
    assert "column 'age' is not numeric" in str(caught.value)


def test_bad_text_without_file_and_row():
    with pytest.raises(DataError, match="row 2: text is 5"):
        FeaturePipeline().fit(frame_of(["a", 5]))


def test_arguments_are_checked_together():
    with pytest.raises(ConfigError) as caught:
        FeaturePipeline(numeric=["a", "label"], categorical=["a", "has_num"], max_categories=0)
    assert len(caught.value.faults) == 4


def test_missing_spacy_model():
    with pytest.raises(FeatureError, match="not installed"):
        FeaturePipeline(entities="xx_no_such_model")


def entity_state() -> dict:
    pipeline = FeaturePipeline(headline=False, entities="en_core_web_sm")
    return pipeline.fit(frame_of()).to_json()


def test_same_versions_do_not_warn(caplog):
    state = entity_state()
    assert state["entities"]["spacy_version"] == spacy_version()
    FeaturePipeline.from_json(state)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("field", "installed"),
    [("spacy_version", spacy_version()), ("version", model_version("en_core_web_sm"))],
)
def test_other_version_warns_with_both(caplog, field, installed):
    state = entity_state()
    state["entities"][field] = "3.0.1"
    FeaturePipeline.from_json(state)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "3.0.1" in record.getMessage()
    assert installed in record.getMessage()


def test_other_labels_are_refused():
    state = entity_state()
    state["entities"]["labels"][0] = "OTHER"
    state["names"][0] = "entity_OTHER"
    with pytest.raises(FeatureError, match="other entity labels"):
        FeaturePipeline.from_json(state).transform(frame_of())


def test_damaged_state_is_a_bundle_error():
    with pytest.raises(BundleError, match=r"features\.json: mean"):
        FeaturePipeline.from_json({**with_extras().to_json(), "mean": [1.0]})


def test_import_is_light():
    code = (
        "import sys, fakenews.features.pipeline, fakenews.features.text\n"
        "heavy = {'torch', 'spacy', 'pandas', 'lightning', 'hydra', 'mlflow', 'optuna',"
        " 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
