import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.features.tabular import (
    HEADLINE_COUNTS,
    HEADLINE_FEATURES,
    has_number,
    headline_features,
)

ANY_TEXT = st.text(st.characters(), max_size=80)  # lone surrogates included


def features_of(text: str) -> dict[str, float]:
    return dict(zip(HEADLINE_FEATURES, headline_features([text])[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "BREAKING: WHO says 5G 'kills'?!",
            {
                "word_count": 5,
                "has_num": 1,
                "char_count": 31,
                "mean_word_length": 27 / 5,
                "capital_share": 12 / 21,
                "all_caps_count": 2,
                "all_caps_share": 2 / 5,
                "title_case_share": 3 / 5,
                "digit_share": 1 / 27,
                "punctuation_share": 5 / 27,
                "question_count": 1,
                "exclamation_count": 1,
                "quote_count": 0,
                "symbol_count": 0,
                "url_count": 0,
                "hashtag_count": 0,
                "mention_count": 0,
            },
        ),
        (
            "“Cure” found, @WHO denies #covid19 https://x.co/a WWW.b.org 😷",
            {
                "word_count": 8,
                "quote_count": 2,
                "mention_count": 1,
                "hashtag_count": 1,
                "url_count": 2,
                "symbol_count": 1,
                "all_caps_count": 1,
                "title_case_share": 3 / 7,
            },
        ),
        ("هل اللقاح آمن؟ ٣ أسئلة", {"word_count": 5, "question_count": 1, "has_num": 1}),
        ("Ärzte ÖSTERREICHS", {"capital_share": 12 / 16, "all_caps_share": 0.5}),
        ("# @ a#b", {"hashtag_count": 0, "mention_count": 0, "word_count": 3}),
        ("5² ½", {"has_num": 1, "digit_share": 1 / 3}),
    ],
)
def test_golden_values(text, expected):
    features = features_of(text)
    assert {name: features[name] for name in expected} == pytest.approx(expected)


def test_empty_and_blank_texts_are_all_zero():
    features = headline_features(["", "a", " \t\n\u3000"])
    assert not features[0].any()
    assert features[2].sum() == features[2, HEADLINE_FEATURES.index("char_count")] == 4


def test_no_texts():
    assert headline_features([]).shape == (0, len(HEADLINE_FEATURES))
    assert has_number([]).shape == (0,)


def test_has_number():
    assert has_number(["no", "is 5", "", "٣"]).tolist() == [False, True, False, True]


def test_huge_text_and_several_blocks():
    huge = "A1! " * 600_000  # more than one block holds
    features = headline_features(["x", huge, "y z", huge, "5"])
    assert np.array_equal(features[1], features[3])
    assert features[:, 0].tolist() == [1, 600_000, 2, 600_000, 1]
    assert np.array_equal(features[4], headline_features(["5"])[0])


@given(st.lists(ANY_TEXT, max_size=6))
def test_arbitrary_unicode_is_finite_and_independent_of_the_batch(texts):
    together = headline_features(texts)
    assert together.shape == (len(texts), len(HEADLINE_FEATURES))
    assert np.isfinite(together).all()
    assert (together >= 0).all()
    alone = [headline_features([text])[0] for text in texts]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    shares = [HEADLINE_FEATURES.index(n) for n in HEADLINE_FEATURES if n.endswith("_share")]
    assert (together[:, shares] <= 1).all()


@given(ANY_TEXT)
def test_agrees_with_plain_python(text):
    features = features_of(text)
    words = text.split()
    firsts = [next((c for c in word if c.isalpha()), None) for word in words]
    initials = [unicodedata.category(first) for first in firsts if first]
    assert features["char_count"] == len(text)
    assert features["question_count"] == sum(text.count(mark) for mark in "?？؟")  # noqa: RUF001
    assert features["has_num"] == any(c.isdecimal() for c in text)
    assert features["word_count"] == len(words)
    capitals = sum(category in {"Lu", "Lt"} for category in initials)
    assert features["title_case_share"] == pytest.approx(capitals / max(len(initials), 1))


def test_counts_are_features():
    assert set(HEADLINE_FEATURES) > HEADLINE_COUNTS
    assert "word_count" in HEADLINE_COUNTS
    assert "digit_share" not in HEADLINE_COUNTS
