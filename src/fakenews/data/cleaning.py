"""Text as decoded -> text as a model sees it. Training and serving share this file.

Every function depends on the text alone, so a headline means the same in a training
file, in a request and in a drift report. Only ftfy and the standard library are needed.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import ftfy

# The joiners U+200C and U+200D spell words in some scripts and glue emoji: they stay
# between two characters outside ASCII. Every other character of no width goes.
_ZERO_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_JOINER = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f\u200c\u200d])"
    "|[\u200c\u200d]{2,}"
)
# Control characters, and letters or symbols which render as a space.
_BLANK = re.compile("[\x00-\x1f\x7f-\x9f\u115f\u1160\u2800\u3164\uffa0]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_URL = re.compile(r"(?:https?://|www\.)\S+|\b(?:t\.co|bit\.ly|pic\.twitter\.com)/\S+")
_MENTION = re.compile(r"(?<![\w@])(?:@+\w+:?)+")
# Possessive and only from the first sign on: a run of signs takes linear time.
_HASH = re.compile(r"(?<![#\uff03])[#\uff03]++(?=\w)")
_REPLACEMENT = re.compile("\ufffd+")
_ACCENT = re.compile("(?<=[a-z])[\u0300-\u036f]+")
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "\u2026": "...",
    }
)
_OPENING = "\"' "
_CLOSING = "\"' .,;:!?|-\u3002\uff01\uff1f"


def repair(texts: Iterable[str]) -> tuple[list[str], list[bool]]:
    """Undo wrong decodings (mojibake such as ``donâ€™t``) by ftfy's encoding step.

    Only ``ftfy.fix_encoding`` runs: ftfy's other steps (quotes, ligatures, width, HTML
    entities) change how correct text is written, which is not a repair.

    Returns:
        The texts, and for each whether it was changed.
    """
    repaired: list[str] = []
    changed: list[bool] = []
    for text in texts:
        # Mojibake always has a character above ASCII, and the test costs nothing.
        fixed = text if text.isascii() else ftfy.fix_encoding(text)
        repaired.append(fixed)
        changed.append(fixed != text)
    return repaired, changed


def clean(text: str) -> str:
    """One line of text in Unicode normal form C; idempotent.

    Line breaks, tabs, control characters and all kinds of space become single ASCII
    spaces; the ends are stripped; characters of no width are removed, joiners inside
    words of other scripts excepted; a lone surrogate becomes U+FFFD.
    """
    if text.isascii():
        return " ".join(_BLANK.sub(" ", text).split())
    text = _SURROGATE.sub("\ufffd", text)
    text = _ZERO_WIDTH.sub("", _BLANK.sub(" ", text))
    text = _JOINER.sub("", unicodedata.normalize("NFC", text))
    return " ".join(unicodedata.normalize("NFC", text).split())


def remove_cues(text: str) -> str:
    """Clean a text and remove what its format alone gives away; idempotent.

    How a collector wrote a text down says where it was found, and so predicts its label
    within one data set and nowhere else. Therefore:

    - URLs and mentions are dropped, not replaced: a placeholder would keep the cue.
      A hashtag keeps its word and loses the sign.
    - Case is folded, and accents on Latin letters are dropped: sources differ in both.
    - HTML entities are resolved; typographic quotes, dashes and ellipses become ASCII;
      what is left of a wrong decoding (U+FFFD) is dropped.
    - Quotes around the text and punctuation at its end are stripped.

    A text made of nothing else is returned cleaned and folded, so that a text which is
    not empty never becomes so.
    """
    folded = _fixed_point(_fold, clean(text))
    return _fixed_point(_strip_cues, folded) or folded


def _fold(text: str) -> str:
    text = html.unescape(text).casefold().translate(_TYPOGRAPHY)
    decomposed = unicodedata.normalize("NFD", text)
    return clean(_ACCENT.sub("", decomposed))


def _strip_cues(text: str) -> str:
    for cue in (_URL, _MENTION, _REPLACEMENT):
        text = cue.sub(" ", text)
    text = _HASH.sub("", text)
    return _fold(text).lstrip(_OPENING).rstrip(_CLOSING)


def _fixed_point(step: Callable[[str], str], text: str) -> str:
    # Removing one cue can bring another to an end of the text, so a single pass would
    # not be idempotent. Every step shortens the text, hence this ends.
    while (after := step(text)) != text:
        text = after
    return text


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """How texts are prepared before anything looks at them, in training and serving.

    Attributes:
        normalise: Remove cues of format too.
        max_chars: Characters after which a text is cut.
    """

    normalise: bool = False
    max_chars: int = 5000

    def __call__(self, texts: Sequence[str]) -> "Cleaned":
        """Cut, repair and clean texts; one that had nothing to read becomes empty."""
        # Cut first, so that a huge text costs no more than a long one.
        cut = [text[: self.max_chars] for text in texts]
        repaired, changed = repair(cut)
        cleaned = [clean(text) for text in repaired]
        if self.normalise:
            cleaned = [remove_cues(text) for text in cleaned]
        clipped = [len(text) > self.max_chars for text in texts]
        return Cleaned(texts=cleaned, repaired=changed, clipped=clipped)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """Clean texts; for each, whether a wrong decoding was undone and whether it was cut."""

    texts: list[str]
    repaired: list[bool]
    clipped: list[bool]
