"""Texts whose predictions an archive brings along, so that a server can be asked for them.

They are of no training data: an archive gives nothing away.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd

from fakenews.errors import BundleError
from fakenews.predictor import Predictor

FORMAT = 1
# Far below any tolerance; further ones depend on the machine.
_DIGITS = 6

TEXTS = (
    "Council approves budget for 12 new schools",
    "You will NOT believe what this one weird trick does to your phone!!!",
    "Rain.",
    "Minister Anna Keller meets 300 farmers in Brussels on Tuesday to talk about 2,5% tariffs",
    "Study of 48,000 patients finds no link, researchers say " * 40,
    "😀 Best day ever 🎉🎉 #win @friend https://example.org/a?b=c",
    "خبر عاجل: افتتاح مدرسة جديدة",
    "Caf\u00e9 owners say they don\u00e2\u20ac\u2122t want the new rules",  # decoded wrongly
    "東京で新しい橋が開通",
    "1234567890 100% $5m 3-2",
)
"""Short and long, of several scripts, with what cleaning has to mend."""


def golden_predictions(predictor: Predictor, *, atol: float) -> dict[str, Any]:
    """The content of `golden.json`.

    Args:
        predictor: Of the exported bundle, with the engine that will serve, on one thread.
        atol: By how much a served probability may differ.

    Raises:
        BundleError: The model cannot predict one of them.
    """
    # Gaps, which any model takes.
    items: list[dict[str, Any]] = [
        {"text": text, **dict.fromkeys(predictor.columns)} for text in TEXTS
    ]
    with _one_thread():
        found = predictor.predict(table(items, predictor.columns))
    for item, prediction in zip(items, found, strict=True):
        if prediction.error is not None:
            raise BundleError(f"it does not predict {item['text'][:40]!r}: {prediction.error}")
    return {
        "format": FORMAT,
        "atol": atol,
        "items": items,
        "probabilities": [
            {name: round(value, _DIGITS) for name, value in prediction.probabilities.items()}
            for prediction in found
        ],
    }


def table(items: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Items as the table that a predictor takes."""
    return pd.DataFrame(items, columns=["text", *columns], dtype=object)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch sum in one order, however many threads this process has."""
    import torch  # takes a second, and what only reads options needs none

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
