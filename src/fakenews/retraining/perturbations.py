"""Texts changed so that what they say stays the same: whatever a model decides must stay, too.

A perturbation gives another text, or the same where it does not apply. None needs a language
model: a name is a run of capitalised words that does not begin the text.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(
    r"(?<=[\w,;:] )[^\W\d_a-z][\w'-]*[a-z][\w'-]*(?: [^\W\d_a-z][\w'-]*[a-z][\w'-]*)*"
)
_STOPS = ".!?"

Perturbation = Callable[[str, np.random.Generator], str]


def whitespace(text: str, rng: np.random.Generator) -> str:
    """Another space between two words, and one behind the last."""
    words = text.split(" ")
    if len(words) < 2:
        return text + " "
    at = int(rng.integers(1, len(words)))
    return " ".join([*words[:at], "", *words[at:]]) + " "


def punctuation(text: str, _rng: np.random.Generator) -> str:
    """A final stop more, or one less."""
    bare = text.rstrip()
    return (
        bare.rstrip(".") if bare.endswith(".") else bare if bare[-1:] in _STOPS else bare + "."
    )


def casing(text: str, rng: np.random.Generator) -> str:
    """One name in capitals."""
    found = list(_NAME.finditer(text))
    if not found:
        return text
    one = found[int(rng.integers(len(found)))]
    return text[: one.start()] + one[0].upper() + text[one.end() :]


def number(text: str, rng: np.random.Generator) -> str:
    """Another number of as many digits."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    one = found[int(rng.integers(len(found)))]
    digits = str(rng.integers(1, 10)) + "".join(map(str, rng.integers(0, 10, len(one[0]) - 1)))
    return text[: one.start()] + digits + text[one.end() :]


def names_of(texts: Sequence[str]) -> list[str]:
    """The names in texts, each once, sorted."""
    return sorted({found for text in texts for found in _NAME.findall(text)})


def entity(names: Sequence[str]) -> Perturbation:
    """A perturbation that puts another name in the place of one.

    Args:
        names: Those of other texts.
    """
    by_words: dict[int, list[str]] = {}
    for name in names:
        by_words.setdefault(len(name.split()), []).append(name)

    def perturb(text: str, rng: np.random.Generator) -> str:
        found = list(_NAME.finditer(text))
        if not found:
            return text
        one = found[int(rng.integers(len(found)))]
        others = [name for name in by_words.get(len(one[0].split()), ()) if name != one[0]]
        if not others:
            return text
        return text[: one.start()] + others[int(rng.integers(len(others)))] + text[one.end() :]

    return perturb


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
        "entity": entity(names_of(texts)),
    }
