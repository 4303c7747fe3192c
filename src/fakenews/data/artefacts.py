"""How a text is written, as opposed to what it says: one column per artefact.

A label that these columns predict is predicted by how the data was collected. The audit
measures it, and the evaluation cuts its slices by it.
"""

import pandas as pd

# "Â" or "Ã" before the image of a UTF-8 continuation byte, and "â€": letters of Western
# Europe and typographic punctuation decoded as Windows-1252. Rarer lead bytes also begin
# ordinary words, so they count as repaired text but not as an artefact.
_CONTINUATION = (
    "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e"
    "\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
)

_PATTERNS = {
    "final_stop": r"[.\u3002]\s*$",
    "final_exclamation_or_question": r"[!?\uff01\uff1f]\s*$",
    "line_break": r"[\r\n\u0085\u2028\u2029]",
    "mojibake": f"[\u00c2\u00c3][{_CONTINUATION}]|\u00e2\u20ac",
    "url": r"(?i:https?://|\bwww\.|\bt\.co/|\bbit\.ly/|\bpic\.twitter\.com/)",
    "mention_or_hashtag": r"(?:^|[^\w@#])[@#]\w",
    "quoted": "^\\s*[\"'\u2018\u201c\u00ab]|[\"'\u2019\u201d\u00bb]\\s*$",
    "typographic": "[\u2018-\u201f\u2013\u2014\u2026\u00ab\u00bb]",
    "all_caps_word": r"(?<![/\w])[A-Z]{4,}\b(?!://)",
    "starts_lower": r"^[^A-Za-z]*[a-z]",
}

NAMES = tuple(_PATTERNS)
"""The artefacts, in the order of the columns of `artefacts`."""


def artefacts(raw: pd.Series) -> pd.DataFrame:
    """Which artefacts each text has.

    Args:
        raw: Texts as decoded [N]: cleaning removes some of what is looked for.

    Returns:
        bool [N, len(NAMES)] with the index of ``raw`` and the columns `NAMES`.
    """
    # Python strings: the patterns use look-around, which Arrow's engine does not have.
    texts = raw.astype(object)
    return pd.DataFrame(
        {
            name: texts.str.contains(rx, regex=True).astype(bool)
            for name, rx in _PATTERNS.items()
        },
        index=raw.index,
    )
