"""Texts changed so that what they say stays the same: whatever a model decides must stay, too.

A perturbation gives another text, or the same where it does not apply. None needs a language
model: a name is a run of capitalised words that does not begin a sentence.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_][\w'-]*")
_BEFORE_NAMES = re.compile(r"[\w,;] \Z")
_STOPS = ("!", "?", "\u2026")

Perturbation = Callable[[str, np.random.Generator], str]


def perturbations(texts: Sequence[str]) -> dict[str, Perturbation]:
    """All of them, by name.

    Args:
        texts: Whose names are exchanged.
    """
    return {
        "whitespace": whitespace,
        "punctuation": punctuation,
        "casing": casing,
        "number": number,
        "entity": entity(texts),
    }


def whitespace(text: str, rng: np.random.Generator) -> str:
    """Another space between two words, and one behind the last."""
    words = text.split(" ")
    at = int(rng.integers(len(words))) + 1
    return " ".join([*words[:at], "", *words[at:]]) + " "


def punctuation(text: str, _rng: np.random.Generator) -> str:
    """A final stop more, or one less."""
    bare = text.rstrip()
    if bare.endswith("."):
        return bare.rstrip(".")
    return text if bare.endswith(_STOPS) else f"{bare}."


def casing(text: str, rng: np.random.Generator) -> str:
    """One name in capitals."""
    found = names_in(text)
    if not found:
        return text
    start, end = found[int(rng.integers(len(found)))]
    return text[:start] + text[start:end].upper() + text[end:]


def number(text: str, rng: np.random.Generator) -> str:
    """Another number of as many digits."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    one = found[int(rng.integers(len(found)))]
    first, *others = rng.integers(0, 10, len(one[0]))
    digits = "".join(map(str, [max(first, 1), *others]))
    return text[: one.start()] + digits + text[one.end() :]


def entity(texts: Sequence[str]) -> Perturbation:
    """A perturbation that puts another name of as many words in the place of one.

    Args:
        texts: Whose names are taken.
    """
    names = {text[start:end] for text in texts for start, end in names_in(text)}
    by_words: dict[int, list[str]] = {}
    for name in sorted(names):
        by_words.setdefault(len(name.split()), []).append(name)

    def perturb(text: str, rng: np.random.Generator) -> str:
        found = names_in(text)
        if not found:
            return text
        start, end = found[int(rng.integers(len(found)))]
        others = by_words.get(len(text[start:end].split()), [text[start:end]])
        return text[:start] + others[int(rng.integers(len(others)))] + text[end:]

    return perturb


def names_in(text: str) -> list[tuple[int, int]]:
    """Where each name begins and ends."""
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        start, end = word.span()
        if not word[0][0].isupper():
            continue
        if found and found[-1][1] + 1 == start and text[start - 1] == " ":
            found[-1] = (found[-1][0], end)
        elif _BEFORE_NAMES.search(text[max(start - 2, 0) : start]):
            found.append((start, end))
    return found
