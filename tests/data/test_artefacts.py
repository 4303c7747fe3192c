"""Artefacts: what format gives away."""

import pandas as pd
import pytest

from fakenews.data.artefacts import NAMES, artefacts
from fakenews.data.cleaning import remove_cues


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A plain headline", set()),
        ("It ends. \n", {"final_stop", "line_break"}),
        ("Really?!", {"final_exclamation_or_question"}),
        ("It doesn\u00e2\u20ac\u2122t", {"mojibake"}),
        ("MuÃ±iz", {"mojibake"}),
        ("L\u2019Âge, Ãlterer", {"typographic"}),
        ("See HTTPS://t.co/x", {"url"}),
        ("Thanks @WHO", {"mention_or_hashtag"}),
        ("Mail me@example.org", set()),
        ("#Covid", {"mention_or_hashtag"}),
        ('"Said so', {"quoted"}),
        ("It\u2019s \u2013 so", {"typographic"}),
        ("The WHO and UNICEF", {"all_caps_word"}),
        ("lower case", {"starts_lower"}),
        ("", set()),
    ],
)
def test_each_artefact(text: str, expected: set[str]) -> None:
    found = artefacts(pd.Series([text]))
    assert {name for name in NAMES if found[name][0]} == expected


def test_the_frame_follows_the_index() -> None:
    found = artefacts(pd.Series(["a.", "b"], index=[7, 3]))
    assert list(found.index) == [7, 3]
    assert tuple(found.columns) == NAMES
    assert [dtype.kind for dtype in found.dtypes] == ["b"] * len(NAMES)
    assert artefacts(pd.Series([], dtype="str")).shape == (0, len(NAMES))


def test_nothing_is_left_after_cues_are_removed() -> None:
    written = ["It doesnâ€™t END.", "What\nnow?!", "“See https://t.co/x #Now”", "AFTER @WHO..."]
    found = artefacts(pd.Series([remove_cues(text) for text in written]))
    assert found["starts_lower"].all()
    assert found.drop(columns=["starts_lower", "mojibake"]).to_numpy().sum() == 0
