"""How good predictions are: measured where labels are known, estimated where they are not.

Shapes: P rows, C classes, B weightings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fakenews.monitoring.rows import Codes, Floats, Rows
from fakenews.monitoring.statistics import Shares

METRICS = ("average_precision", "macro_f1", "accuracy")


class Performance:
    """Metrics of rows whose labels may be probabilities, for many weightings at once.

    Where the probabilities are calibrated and the labels are those probabilities, these are
    the metrics that are to be expected: confidence-based performance estimation. With labels
    0 and 1 they are what was measured.

    Args:
        probabilities: [P, C], by which rows are ranked.
        truth: [P, C], the chance of each class to be the true one.
        decided: Codes [P].
        positive: Code of the class whose average precision counts, of two; None: the mean of
            all classes'.
    """

    def __init__(
        self, probabilities: Floats, truth: Floats, decided: Codes, *, positive: int | None
    ) -> None:
        width = probabilities.shape[1]
        self._rankings = [
            _Ranking(probabilities[:, code], truth[:, code])
            for code in (range(width) if positive is None else [positive])
        ]
        self._truth = truth
        self._decided = np.eye(width)[decided]
        self._hits = truth * self._decided

    def metrics(self, weights: Shares) -> dict[str, Floats]:
        """Each of `METRICS`, [B]; NaN where it is not defined.

        Args:
            weights: [B, P], not negative.
        """
        true, called = weights @ self._truth, weights @ self._decided
        hits = weights @ self._hits
        precisions = [ranking.average_precision(weights) for ranking in self._rankings]
        return {
            "average_precision": np.mean(precisions, axis=0),
            # A class that nothing belongs to, and that nothing is said to be, has no F1.
            "macro_f1": np.nanmean(_ratio(2 * hits, true + called), axis=1),
            "accuracy": _ratio(hits.sum(axis=1), weights.sum(axis=1)),
        }


class _Ranking:
    """Rows in falling order of a score."""

    def __init__(self, scores: Floats, truth: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        falling = scores[self._order]
        self._ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        self._truth = truth[self._order]

    def average_precision(self, weights: Shares) -> Floats:
        ordered = weights[:, self._order]
        hits = np.cumsum(ordered * self._truth, axis=1)[:, self._ends]
        called = np.cumsum(ordered, axis=1)[:, self._ends]
        gained = np.diff(hits, axis=1, prepend=0)
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        return _ratio((gained * precision).sum(axis=1), hits[:, -1])


def estimated(rows: Rows, *, positive: int | None) -> Performance:
    """What is to be expected of rows, by their calibrated probabilities."""
    return Performance(rows.probabilities, rows.probabilities, rows.decided, positive=positive)


def measured(rows: Rows, *, positive: int | None) -> Performance:
    """What was measured on rows whose labels are all known."""
    truth = np.eye(rows.probabilities.shape[1])[rows.labels]
    return Performance(rows.probabilities, truth, rows.decided, positive=positive)


def intervals(
    rows: Rows,
    *,
    positive: int | None,
    known: bool,
    resamples: int = 200,
    most: int = 5000,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Each metric with its 95% interval: value, lower and upper end.

    The interval of an estimate holds what could be measured were the labels known: labels are
    drawn by their probabilities, and rows with replacement.

    Args:
        rows: At least one.
        positive: See `Performance`.
        known: Whether labels are measured with, which all rows must have then.
        resamples: How many.
        most: Rows that are resampled; the interval of more is narrowed accordingly.
        seed: Of the draws.
    """
    whole = (measured if known else estimated)(rows, positive=positive)
    values = whole.metrics(np.ones((1, len(rows))))
    rng = np.random.default_rng(seed)
    some = rows
    if len(rows) > most:
        some = rows.take(rng.choice(len(rows), most, replace=False))
    count = len(some)
    equal = np.full(count, 1 / count)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in METRICS}
    if known:
        weights: Shares = rng.multinomial(count, equal, size=resamples) * 1.0
        for name, found in measured(some, positive=positive).metrics(weights).items():
            drawn[name].append(found)
    else:
        cumulated = some.probabilities.cumsum(axis=1)
        width = cumulated.shape[1]
        for _ in range(resamples):
            draw = rng.random((count, 1))
            labels = np.minimum((draw > cumulated).sum(axis=1), width - 1)
            weights = rng.multinomial(count, equal, size=1) * 1.0
            performance = Performance(
                some.probabilities, np.eye(width)[labels], some.decided, positive=positive
            )
            for name, found in performance.metrics(weights).items():
                drawn[name].append(found)
    narrowed = np.sqrt(count / len(rows))
    return {
        name: _around(float(values[name][0]), np.concatenate(drawn[name]), narrowed)
        for name in METRICS
    }


def _around(value: float, drawn: Floats, narrowed: float) -> tuple[float, float, float]:
    defined = drawn[~np.isnan(drawn)]
    if not len(defined) or np.isnan(value):
        return (value, float("nan"), float("nan"))
    lower, upper = np.quantile(defined, (0.025, 0.975)) - np.median(defined)
    return (value, value + float(lower) * narrowed, value + float(upper) * narrowed)


def cusum(drops: Sequence[float] | Floats, *, slack: float = 0.5) -> Floats:
    """The cumulated sums of Page (Biometrika 1954) of standardised drops, one-sided.

    Args:
        drops: In standard deviations, oldest first; the last axis is time.
        slack: That a drop must exceed to count.
    """
    values = np.asarray(drops, dtype=np.float64)
    sums = np.zeros(values.shape)
    total = np.zeros(values.shape[:-1])
    for at in range(values.shape[-1]):
        total = np.maximum(0.0, total + values[..., at] - slack)
        sums[..., at] = total
    return sums


def _ratio(part: Shares, whole: Shares) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))
