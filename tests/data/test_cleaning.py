"""Cleaning: repair of wrong decodings, one-line text, removal of cues of format."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.data.cleaning import Cleaning, clean, remove_cues, repair

# Characters that the functions treat specially, next to all others.
_TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from("\u200b\u200d\u0301é #@.!\"'\n\tİß&;"))
)


def test_repair_undoes_mojibake_and_nothing_else() -> None:
    texts = ["It doesnâ€™t exist", "“Curly” QUOTES &amp; ﬁ stay", "plain", "Ã‰cole in MuÃ±iz"]
    repaired, changed = repair(texts)
    assert repaired == ["It doesn\u2019t exist", texts[1], "plain", "École in Muñiz"]
    assert changed == [True, False, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two\nlines\r\n\tand\x0btabs ", "two lines and tabs"),
        ("a\u00a0b\u2003c\u3000d\u2028e\u2800f", "a b c d e f"),
        ("\ufeffzero\u200bwidth\u00ad", "zerowidth"),
        ("nul\x00 bell\x07 del\x7f c1\x9d.", "nul bell del c1 ."),
        ("e\u0301", "é"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),  # noqa: RUF001 - Persian
        ("ab\u200dcd", "abcd"),
        (" \t\n", ""),
        ("", ""),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(_TEXTS)
def test_clean_is_idempotent_and_one_normal_line(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert once == unicodedata.normalize("NFC", " ".join(once.split()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The virus is REAL!!!", "the virus is real"),
        ("Quoted “in full”.", 'quoted "in full'),
        ('"It is over," she said.', 'it is over," she said'),
        ("See https://t.co/abc #StaySafe @WHO: now", "see staysafe now"),
        ("Read it at pic.twitter.com/xyz", "read it at"),
        ("Hospital Muñiz — it\u2019s full…", "hospital muniz - it's full"),
        ("17 tests &amp; 2 deaths", "17 tests & 2 deaths"),
        ("lost \ufffd\ufffd byte", "lost byte"),
        ("mail me@example.org", "mail me@example.org"),
        ("Straße", "strasse"),
        ("मुंबई में।", "मुंबई में।"),
    ],
)
def test_remove_cues(text: str, expected: str) -> None:
    assert remove_cues(text) == expected


@pytest.mark.parametrize("text", ["https://t.co/ABC", "!!!", "@someone", '"."', "\ufffd", "👍"])
def test_remove_cues_never_empties_a_text(text: str) -> None:
    assert remove_cues(text) == clean(text).casefold() != ""


@given(_TEXTS)
def test_remove_cues_is_idempotent_and_keeps_something(text: str) -> None:
    once = remove_cues(text)
    assert remove_cues(once) == once
    assert bool(once) == bool(clean(text))


def test_remove_cues_forgets_how_a_text_was_written() -> None:
    plain = "the vaccine was approved"
    written = [
        '"The vaccine was APPROVED."',
        "The vaccine\nwas approved!",
        "@x " + plain + " ...",
    ]
    assert {remove_cues(text) for text in written} == {plain}


@pytest.mark.parametrize(
    "unit", ["@", "#", ".", "@a", "&amp;", "t.co/", "Ã", "é\u200d", "#a@b"]
)
def test_long_runs_are_handled(unit: str) -> None:
    # A pattern that backtracks would take hours on these.
    text = clean(unit * 100_000)
    assert 0 < len(remove_cues(text)) <= len(text)


def test_cleaning_reports_what_it_did() -> None:
    cleaned = Cleaning(normalise=False, max_chars=8)(["short", "CafÃ© au lait", "\n"])
    assert cleaned.texts == ["short", "Café au", ""]
    assert cleaned.repaired == [False, True, False]
    assert cleaned.clipped == [False, True, False]
    assert Cleaning(normalise=True)(["A STOP."]).texts == ["a stop"]
    assert Cleaning()([]).texts == []
