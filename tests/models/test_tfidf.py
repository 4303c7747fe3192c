"""The TF-IDF baseline."""

import json

import numpy as np
import pytest

from fakenews.errors import DataError
from fakenews.models.tfidf import TfidfClassifier

TEXTS = ["a cure is found", "the cure is a lie", "rates fall again", "rates rise again"] * 3
TWO = np.array([1, 1, 0, 0] * 3)
THREE = np.array([2, 1, 0, 0] * 3)


def test_it_separates_what_words_separate():
    model = TfidfClassifier(min_rows=1).fit(TEXTS, TWO)
    assert (model.logits(TEXTS).argmax(1) == TWO).all()


def test_two_classes_get_two_logits_whose_difference_is_the_log_odds():
    model = TfidfClassifier(min_rows=1).fit(TEXTS, TWO)
    logits = model.logits(["cure", "rates"])
    assert logits.shape == (2, 2)
    np.testing.assert_allclose(logits.sum(1), 0)
    assert logits[0, 1] > logits[0, 0]


def test_several_classes():
    model = TfidfClassifier(min_rows=1).fit(TEXTS, THREE)
    assert model.logits(TEXTS).shape == (12, 3)
    assert (model.logits(TEXTS).argmax(1) == THREE).all()


@pytest.mark.parametrize("codes", [TWO, THREE])
def test_it_is_rebuilt_exactly_from_plain_json_and_arrays(codes: np.ndarray):
    model = TfidfClassifier(min_rows=1, ngrams=3).fit(TEXTS, codes)
    architecture = json.loads(json.dumps(model.architecture()))
    again = TfidfClassifier.build(architecture, model.weights())
    texts = [*TEXTS, "words it has never seen", ""]
    np.testing.assert_array_equal(again.logits(texts), model.logits(texts))


def test_unknown_words_and_the_empty_text_get_the_intercept():
    model = TfidfClassifier(min_rows=1).fit(TEXTS, TWO)
    logits = model.logits(["", "zzz qqq"])
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("texts", "min_rows"), [(["one", "two"] * 2, 3), (["?", "!"] * 2, 1), (["", ""] * 2, 1)]
)
def test_texts_without_a_common_word(texts: list[str], min_rows: int):
    with pytest.raises(DataError, match=r"model\.min_rows"):
        TfidfClassifier(min_rows=min_rows).fit(texts, np.array([0, 1] * 2))


def test_a_row_counts_as_its_weight_says():
    model = TfidfClassifier(min_rows=1, balanced=False)
    repeated = [text for n, text in enumerate(TEXTS) for _ in range(1 + n % 2)]
    codes = np.array([code for n, code in enumerate(TWO) for _ in range(1 + n % 2)])
    codes[::5] = 1 - codes[::5]
    weights = np.arange(1.0, len(codes) + 1)
    one = model.fit(repeated, codes, weights=weights).logits(TEXTS)
    again = model.fit(repeated, codes, weights=1e300 * weights).logits(TEXTS)
    np.testing.assert_allclose(one, again)
    same = model.fit(repeated, codes, weights=np.full(len(codes), 0.25)).logits(TEXTS)
    np.testing.assert_allclose(same, model.fit(repeated, codes).logits(TEXTS))
    assert np.abs(one - same).max() > 0.01


@pytest.mark.parametrize("balanced", [True, False])
def test_labels_of_no_weight_do_not_count(balanced: bool):
    model = TfidfClassifier(min_rows=1, balanced=balanced)
    turned = np.concatenate([TWO, 1 - TWO])
    weights = np.repeat([1.0, 0.0], len(TWO))
    found = model.fit(TEXTS * 2, turned, weights=weights).logits(TEXTS)
    assert (found.argmax(1) == TWO).all()
