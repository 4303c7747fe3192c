"""Texts changed so that what they say stays the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenews.retraining.perturbations import entity, names_in, perturbations

TEXT = "The minister Angela Merkel met 42 doctors in Berlin."


def changed(name: str, text: str = TEXT, seed: int = 0) -> str:
    others = ["He saw Paris", "then Joe Biden left"]
    return perturbations(others)[name](text, np.random.default_rng(seed))


def names(text: str) -> list[str]:
    return [text[start:end] for start, end in names_in(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TEXT, ["Angela Merkel", "Berlin"]),
        ("Angela Merkel left. Then Joe came, and O'Brien too", ["Merkel", "Joe", "O'Brien"]),
        ("no names here", []),
        ("", []),
        ("он сказал: Анна", []),
        ("вот Анна Иванова", ["Анна Иванова"]),
    ],
)
def test_names_are_capitalised_words_that_begin_no_sentence(
    text: str, found: list[str]
) -> None:
    assert names(text) == found


def test_what_each_changes() -> None:
    assert changed("punctuation") == TEXT.rstrip(".")
    assert changed("punctuation", "Rain") == "Rain."
    assert changed("punctuation", "Rain!") == "Rain!"
    assert changed("whitespace").split() == TEXT.split()
    assert changed("whitespace") != TEXT
    assert changed("casing") in (
        TEXT.replace("Berlin", "BERLIN"),
        TEXT.replace("Angela Merkel", "ANGELA MERKEL"),
    )
    assert changed("number") != TEXT
    assert {changed("entity", seed=seed) for seed in range(20)} == {
        TEXT.replace("Berlin", "Paris"),
        TEXT.replace("Angela Merkel", "Joe Biden"),
    }


def test_a_number_keeps_its_digits() -> None:
    found = {changed("number", "007 of 42", seed=seed) for seed in range(50)}
    assert all([len(part) for part in text.split(" of ")] == [3, 2] for text in found)
    assert not any(text.split(" of ")[1].startswith("0") for text in found)


@settings(max_examples=30)
@given(text=st.text(), seed=st.integers(0, 5))
def test_any_text_can_be_changed_and_the_same_way_again(text: str, seed: int) -> None:
    for name in perturbations([TEXT]):
        one, two = (
            perturbations([TEXT])[name](text, np.random.default_rng(seed)) for _ in range(2)
        )
        assert one == two
        assert len(one) <= len(text) + len(TEXT) + 2 * (name == "casing") * len(text)


def test_a_text_without_what_is_changed_stays() -> None:
    for name in ("casing", "number", "entity"):
        assert changed(name, "no such thing") == "no such thing"
    assert entity([])(TEXT, np.random.default_rng(0)) == TEXT


def test_a_long_text_takes_no_long_time() -> None:
    assert changed("casing", "in " + "A" * 200_000).startswith("in A")
    assert len(names("a " + "B b " * 50_000)) == 50_000
