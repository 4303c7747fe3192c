"""Predictions of items as answers have them; an item that fails harms no other."""

import logging
import math
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fakenews.bounds import Probability
from fakenews.predictor import Prediction, Predictor
from fakenews.serving.columns import gaps, read_columns
from fakenews.serving.details import encode_details
from fakenews.serving.protocol import Fault, Item

log = logging.getLogger(__name__)

Result = dict[str, Any] | Fault
"""A prediction as an answer has it, or why there is none."""

_INTERNAL = Fault("internal", "the model failed on this item")
# Calls in which the items that fail are searched. A few among a thousand are found with it;
# where everything fails, nobody waits for each to do so.
_SEARCHES = 100


class Row(NamedTuple):
    """What the model reads of an item, and what is wanted beside its prediction."""

    text: str
    columns: dict[str, Any]
    details: frozenset[str] = frozenset()


class ItemPredictor:
    """Predicts the items of many requests in one call.

    Args:
        predictor: Predicts.
        name: Of the model, as answers have it.
        version: Likewise.
        unsure: Predictions closer than this to another decision are unsure: of two classes
            with a threshold, those whose positive probability is; otherwise those whose two
            highest probabilities are to each other.
    """

    def __init__(
        self, *, predictor: Predictor, name: str, version: str, unsure: Probability
    ) -> None:
        self.predictor = predictor
        self.name = name
        self.version = version
        self.unsure = unsure

    def row(self, item: Item | Fault, details: frozenset[str] = frozenset()) -> Row | Fault:
        """What the model reads of an item; a fault stays, or is that of a column."""
        if isinstance(item, Fault):
            return item
        columns = read_columns(
            item.values,
            numeric=self.predictor.numeric,
            categorical=self.predictor.categorical,
        )
        return columns if isinstance(columns, Fault) else Row(item.text, columns, details)

    def predict(self, rows: Sequence[Row | Fault]) -> list[Result]:
        """A result for each row, in order; faults stay where they are."""
        usable = [row for row in rows if isinstance(row, Row)]
        found = iter(self._search(usable) if usable else [])
        return [
            self._result(next(found), row.details) if isinstance(row, Row) else row  # the fault
            for row in rows
        ]

    def warm_up(self) -> None:
        """Predict texts of 8 words and more, to the longest, alone and in full batches."""
        tokenizer = self.predictor.tokenizer
        truncation: Any = None if tokenizer is None else tokenizer.truncation
        longest = 8 if truncation is None else int(truncation["max_length"])
        lengths = [8 * 2**power for power in range(16) if 8 * 2**power < longest]
        columns = gaps(numeric=self.predictor.numeric, categorical=self.predictor.categorical)
        for length in [*lengths, longest]:
            row = Row(" ".join(["news"] * length), columns)
            full = min(self.predictor.batch_size, self.predictor.batch_tokens // length)
            for count in {1, max(full, 1)}:
                self.predictor.predict(self._table([row] * count))

    def _table(self, rows: Sequence[Row]) -> list[str] | pd.DataFrame:
        texts = [row.text for row in rows]
        if not self.predictor.columns:
            return texts
        columns = {name: [row.columns[name] for row in rows] for name in self.predictor.columns}
        # Objects, as in the predictor: pandas' strings cannot hold half a surrogate pair.
        return pd.DataFrame({"text": texts, **columns}, dtype=object)

    def _search(self, rows: Sequence[Row]) -> list[Prediction | None]:
        """Predict; where that fails, search the rows that make it fail, which get None."""
        calls = 0
        seen = any(row.details for row in rows)
        errors: list[Exception] = []

        def search(part: Sequence[Row]) -> list[Prediction | None]:
            nonlocal calls
            calls += 1
            try:
                return list(self.predictor.predict(self._table(part), seen=seen))
            except Exception as error:  # noqa: BLE001 whatever it is, it is of these rows alone
                errors.append(error)
            if len(part) == 1 or calls >= _SEARCHES:
                return [None] * len(part)
            half = len(part) // 2
            return search(part[:half]) + search(part[half:])

        found = search(rows)
        if errors:
            failed, error = found.count(None), describe(errors[-1])
            log.error("the model failed on %d of %d items: %s", failed, len(rows), error)
        return found

    def _result(self, prediction: Prediction | None, details: frozenset[str]) -> Result:
        if prediction is None:
            return _INTERNAL
        if prediction.error is not None:
            # Of all that the predictor refuses, only this was not found before.
            return Fault("empty_text", prediction.error)
        probabilities = prediction.probabilities
        if not all(math.isfinite(value) for value in probabilities.values()):
            return _INTERNAL
        calibration = self.predictor.calibration
        decision: dict[str, Any] = {}
        if calibration.threshold is None:
            second, first = sorted(probabilities.values())[-2:]
            margin = first - second
        else:
            margin = abs(probabilities[calibration.positive] - calibration.threshold)
            decision = {"threshold": calibration.threshold, "positive": calibration.positive}
        seen: dict[str, Any] = {}
        if details and prediction.seen is not None:
            seen = {"details": encode_details(prediction.seen, details)}
        return {
            "label": prediction.label,
            "probabilities": probabilities,
            "unsure": margin < self.unsure,
            # How wide that is: the page draws it.
            "band": self.unsure,
            "truncated": prediction.truncated,
            **decision,
            "model": self.name,
            "model_version": self.version,
            **seen,
        }


def describe(error: BaseException) -> str:
    """An error's type and where it was raised, without its message, which may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    places = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    return f"{type(error).__name__} in {places}"
