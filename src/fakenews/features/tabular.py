"""Style features of a text: counts and shares that a reader sees at a glance.

All texts of a call are laid end to end as one array of code points, every code point
is looked up in a table of its Unicode properties, and sums over slices of that array
give the features, so the cost per headline is a few microseconds and no script or
alphabet is a special case.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# N texts, F features, K code points, W words

HEADLINE_FEATURES: tuple[str, ...] = (
    "word_count",
    "has_num",
    "char_count",
    "mean_word_length",
    "capital_share",
    "all_caps_count",
    "all_caps_share",
    "title_case_share",
    "digit_share",
    "punctuation_share",
    "question_count",
    "exclamation_count",
    "quote_count",
    "symbol_count",
    "url_count",
    "hashtag_count",
    "mention_count",
)
"""Names of the columns of `headline_features`, in order."""

HEADLINE_COUNTS: frozenset[str] = frozenset(
    name for name in HEADLINE_FEATURES if name.endswith("_count")
)
"""The headline features without an upper bound; the others are shares, flags or means."""

(
    _KNOWN,
    _LETTER,
    _UPPER,
    _DIGIT,
    _SPACE,
    _PUNCTUATION,
    _SYMBOL,
    _QUESTION,
    _EXCLAMATION,
    _QUOTE,
) = (np.uint16(1 << bit) for bit in range(10))
_QUESTION_MARKS = frozenset("?\uff1f\u061f")  # with the full-width and the Arabic one
_EXCLAMATION_MARKS = frozenset("!\uff01")
# Single quotes are left out: they are apostrophes far more often than quotations.
_QUOTE_MARKS = frozenset('"“”„‟«»「」『』\uff02')
# Filled with code points as they are met: a table of all of Unicode would take half a
# second to build, and real text needs a few hundred entries.
_PROPERTIES: NDArray[np.uint16] = np.zeros(0x110000, dtype=np.uint16)
# Bounds the working memory (about 30 bytes a code point), whatever the number of texts.
_BLOCK_CHARACTERS = 2_000_000


def headline_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Style features of each text.

    A word is a run of non-space characters. Letters, capitals, digits, punctuation and
    symbols are those of the Unicode character database. `capital_share` is relative to
    letters, `digit_share` and `punctuation_share` to non-space characters,
    `all_caps_share` (words of two letters or more, all capitals) and
    `title_case_share` (words whose first letter is a capital) to words with a letter.
    A share of nothing is 0. A URL is a word with `://` in it or `www.` at its start.

    Args:
        texts: Any strings; empty ones and lone surrogates included.

    Returns:
        [N, F], columns as in `HEADLINE_FEATURES`; finite and not negative.
    """
    features = np.zeros((len(texts), len(HEADLINE_FEATURES)), dtype=np.float32)
    for start, stop in _blocks(texts):
        features[start:stop] = _block_features(texts[start:stop])
    return features


def has_number(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each text holds a decimal digit of any script; [N]."""
    return headline_features(texts)[:, HEADLINE_FEATURES.index("has_num")] > 0


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for position, text in enumerate(texts):
        size += len(text)
        if size >= _BLOCK_CHARACTERS:
            yield start, position + 1
            start, size = position + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _block_features(texts: Sequence[str]) -> NDArray[np.float64]:
    # Every text is closed by a line break: no word spans two texts, and no slice is
    # empty, which `reduceat` could not express.
    joined = "\n".join(texts) + "\n"
    codes_K = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    properties_K = _properties(codes_K)
    lengths_N = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts_N = np.cumsum(lengths_N + 1) - (lengths_N + 1)

    def per_text(mask: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.add.reduceat(mask, starts, dtype=np.int64)

    def has(property_: np.uint16) -> NDArray[np.bool_]:
        mask_K: NDArray[np.bool_] = (properties_K & property_) != 0
        return mask_K

    space_K, letter_K, upper_K = has(_SPACE), has(_LETTER), has(_UPPER)
    digits_N = per_text(has(_DIGIT), starts_N)
    visible_N = lengths_N + 1 - per_text(space_K, starts_N)

    first_K = ~space_K
    first_K[1:] &= space_K[:-1]
    starts_W = np.flatnonzero(first_K)
    words_N = per_text(first_K, starts_N)
    letters_W = per_text(letter_K, starts_W)
    capitals_W = per_text(upper_K, starts_W)
    text_W = np.repeat(np.arange(len(texts)), words_N)

    def words(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(text_W[mask], minlength=len(texts))

    lettered_N = words(letters_W > 0)
    all_caps_N = words((letters_W > 1) & (capitals_W == letters_W))
    columns = {
        "word_count": words_N,
        "has_num": digits_N > 0,
        "char_count": lengths_N,
        "mean_word_length": _share(visible_N, words_N),
        "capital_share": _share(per_text(upper_K, starts_N), per_text(letter_K, starts_N)),
        "all_caps_count": all_caps_N,
        "all_caps_share": _share(all_caps_N, lettered_N),
        "title_case_share": _share(
            words(_capitalised(letter_K, upper_K, starts_W, letters_W)), lettered_N
        ),
        "digit_share": _share(digits_N, visible_N),
        "punctuation_share": _share(per_text(has(_PUNCTUATION), starts_N), visible_N),
        "question_count": per_text(has(_QUESTION), starts_N),
        "exclamation_count": per_text(has(_EXCLAMATION), starts_N),
        "quote_count": per_text(has(_QUOTE), starts_N),
        "symbol_count": per_text(has(_SYMBOL), starts_N),
        "url_count": words(_is_url(codes_K, starts_W)),
        "hashtag_count": words(_is_tag(codes_K, space_K, starts_W, "#")),
        "mention_count": words(_is_tag(codes_K, space_K, starts_W, "@")),
    }
    return np.stack([columns[name] for name in HEADLINE_FEATURES], axis=1).astype(np.float64)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return part / np.maximum(whole, 1)


def _properties(codes_K: NDArray[np.uint32]) -> NDArray[np.uint16]:
    properties_K = _PROPERTIES[codes_K]
    unknown = codes_K[properties_K == 0]
    if unknown.size:
        for code in np.unique(unknown).tolist():
            _PROPERTIES[code] = _classify(chr(code))
        properties_K = _PROPERTIES[codes_K]
    return properties_K


def _classify(character: str) -> np.uint16:
    category = unicodedata.category(character)
    tests = (
        (_LETTER, character.isalpha()),
        (_UPPER, category in {"Lu", "Lt"}),
        (_DIGIT, category == "Nd"),
        (_SPACE, character.isspace()),
        (_PUNCTUATION, category[0] == "P"),
        (_SYMBOL, category[0] == "S"),
        (_QUESTION, character in _QUESTION_MARKS),
        (_EXCLAMATION, character in _EXCLAMATION_MARKS),
        (_QUOTE, character in _QUOTE_MARKS),
    )
    properties = _KNOWN
    for property_, holds in tests:
        if holds:
            properties |= property_
    return properties


def _capitalised(
    letter_K: NDArray[np.bool_],
    upper_K: NDArray[np.bool_],
    starts_W: NDArray[np.int64],
    letters_W: NDArray[np.int64],
) -> NDArray[np.bool_]:
    letters = np.flatnonzero(letter_K)
    # The letters of word w begin after all letters of the words before it.
    first_W = np.cumsum(letters_W) - letters_W
    capitalised_W = np.zeros(len(starts_W), dtype=np.bool_)
    lettered_W = letters_W > 0
    capitalised_W[lettered_W] = upper_K[letters[first_W[lettered_W]]]
    return capitalised_W


def _is_url(codes_K: NDArray[np.uint32], starts_W: NDArray[np.int64]) -> NDArray[np.bool_]:
    def at(offset: int, character: str) -> NDArray[np.bool_]:
        # Past the end stands the last code point, the closing line break.
        codes_W = codes_K[np.minimum(starts_W + offset, len(codes_K) - 1)]
        lower_W: NDArray[np.bool_] = codes_W == ord(character)
        upper_W: NDArray[np.bool_] = codes_W == ord(character.upper())
        return lower_W | upper_W

    url_W = at(0, "w") & at(1, "w") & at(2, "w") & at(3, ".")
    slash_K = codes_K == ord("/")
    schemes = np.flatnonzero((codes_K[:-2] == ord(":")) & slash_K[1:-1] & slash_K[2:])
    url_W[np.searchsorted(starts_W, schemes, side="right") - 1] = True
    return url_W


def _is_tag(
    codes_K: NDArray[np.uint32],
    space_K: NDArray[np.bool_],
    starts_W: NDArray[np.int64],
    sign: str,
) -> NDArray[np.bool_]:
    # A word is never the last code point: the closing line break follows it.
    signed_W: NDArray[np.bool_] = codes_K[starts_W] == ord(sign)
    return signed_W & ~space_K[starts_W + 1]
