"""The questions that monitoring asks of a window: is this still as in the reference?

Each comparison measures one thing, on a window and on weightings of the reference's own rows.

Shapes: N reference rows, B weightings.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol
from zlib import crc32

import numpy as np

from fakenews.monitoring.performance import METRICS, estimated, measured
from fakenews.monitoring.rows import Floats, Reference, Rows
from fakenews.monitoring.statistics import (
    Binned,
    Discriminant,
    Kernel,
    Ordered,
    Reals,
    chi_squared,
    shares,
    stability_index,
)

_TWO = 2  # values of a number that is a category
_USUAL = 10  # rows of each
# Of what no reference row has, a share of so many rows is as unlikely as 1 in 100 to be missed.
_UNSEEN = 5


class Measure(NamedTuple):
    """What a comparison finds in a window: a value that grows with the change, and its size."""

    value: float
    effect: float


class Comparison(Protocol):
    """Compares windows with the reference in one respect.

    Attributes:
        key: As in `verdict.Check`.
        unit: Of the effect.
        title: What is compared, for people.
    """

    key: str
    unit: str
    title: str

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """Values [B] of weightings [B, N] and [1, N]; windows have that many rows."""
        ...

    def measured(self, rows: Rows) -> Measure | None:
        """Of a window; None if it lacks what is compared."""
        ...


class Numbers:
    """Of a number: the test of Kolmogorov and Smirnov, and the stability index.

    In resamples some rows are beyond all others: a reference in which something is rare, or
    never, may have missed more of it, and of windows drawn from it not one would have more.

    Args:
        key: Of the column of `Rows.scored`.
        reference: Its values.
    """

    unit = "PSI"

    def __init__(self, key: str, reference: Floats) -> None:
        self.key = f"drift.{key}"
        self.title = f"distribution of {key}"
        self._column = key
        self._reference = reference
        self._ordered = Ordered(_with_unseen(key, reference))
        self._bins = Binned(reference)

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """See `Comparison`."""
        del rows
        return self._ordered.distance(window - reference)

    def measured(self, rows: Rows) -> Measure | None:
        """See `Comparison`."""
        values = rows.scored.get(self._column)
        if values is None:
            return None
        count, own = len(values), len(self._reference)
        difference = np.repeat([1 / count, -1 / own], [count, own])
        points = Ordered(np.concatenate([values, self._reference]))
        index = stability_index(
            shares(self._bins.codes(values), len(self._bins)),
            shares(self._bins.codes(self._reference), len(self._bins)),
            rows=count,
            reference_rows=own,
        )
        return Measure(float(points.distance(difference[None])[0]), index)


def _with_unseen(key: str, values: Floats) -> Floats:
    # Other rows in each column, as they are rare independently.
    rng = np.random.default_rng(crc32(key.encode()))
    moved = values.copy()
    moved[rng.permutation(len(values))[:_UNSEEN]] = values.max() + 1
    return moved


class Categories:
    """Of a category: Pearson's chi-squared, and the stability index.

    Args:
        key: Of the column of `Rows.scored`, or `prediction.label`.
        reference: Its values.
    """

    unit = "PSI"

    def __init__(self, key: str, reference: Floats) -> None:
        self.key = f"drift.{key}"
        self.title = f"shares of {key}"
        self._column = key
        self._values = np.unique(reference)
        self._reference = self._codes(reference)
        self._onehot = np.eye(len(self._values) + 1, dtype=np.float32)[self._reference]

    def _codes(self, values: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Their categories; the last is for values that the reference has not."""
        at = np.searchsorted(self._values, values).clip(max=len(self._values) - 1)
        known = self._values[at] == values
        return np.where(known, at, len(self._values)).astype(np.int64)

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """See `Comparison`."""
        return chi_squared(
            window @ self._onehot,
            reference @ self._onehot,
            rows=rows,
            reference_rows=len(self._reference),
        )

    def measured(self, rows: Rows) -> Measure | None:
        """See `Comparison`."""
        values = (
            rows.decided.astype(np.float64)
            if self._column == "prediction.label"
            else rows.scored.get(self._column)
        )
        if values is None:
            return None
        count = len(self._values) + 1
        window, reference = shares(self._codes(values), count), shares(self._reference, count)
        sizes = {"rows": len(values), "reference_rows": len(self._reference)}
        return Measure(
            float(chi_squared(window, reference, **sizes)),
            stability_index(window, reference, **sizes),
        )


class Embeddings:
    """Of the texts' embeddings: the maximum mean discrepancy.

    Args:
        reference: float32 [N, D].
    """

    key = "drift.embedding.mmd"
    title = "texts, by the mean discrepancy of their embeddings"
    unit = "standard deviations"

    def __init__(self, reference: Reals) -> None:
        self._kernel = Kernel(reference)

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """See `Comparison`."""
        del rows
        return self._kernel.resampled(window - reference)

    def measured(self, rows: Rows) -> Measure | None:
        """See `Comparison`."""
        if rows.embeddings is None:
            return None
        return Measure(*self._kernel.measured(rows.embeddings))


class Classifier:
    """Of the texts' embeddings: a classifier that tells windows from the reference.

    Args:
        reference: float32 [N, D].
    """

    key = "drift.embedding.classifier"
    title = "texts, by a classifier that tells them from the reference"
    unit = "AUROC above one half"

    def __init__(self, reference: Reals) -> None:
        self.discriminant = Discriminant(reference)

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """See `Comparison`."""
        del rows
        return self.discriminant.resampled(window, reference)

    def measured(self, rows: Rows) -> Measure | None:
        """See `Comparison`."""
        if rows.embeddings is None:
            return None
        return Measure(*self.discriminant.measured(rows.embeddings))


class Drop:
    """Of a metric: how far it is below the reference's.

    Args:
        metric: One of `METRICS`.
        known: Whether it is measured with labels, or estimated without.
        reference: The reference's rows, as that metric sees them.
    """

    unit = "points"

    def __init__(
        self, metric: str, *, known: bool, reference: Rows, positive: int | None
    ) -> None:
        kind = "measured" if known else "estimated"
        self.key = f"decay.{kind}.{metric}"
        self.title = f"{kind} {metric.replace('_', ' ')}"
        self._metric, self._known, self._positive = metric, known, positive
        self._of = measured if known else estimated
        self._performance = self._of(reference, positive=positive)
        whole = np.full((1, len(reference)), 1 / len(reference))
        self.usual = float(self._performance.metrics(whole)[metric][0])

    def resampled(self, window: Reals, reference: Reals, *, rows: int) -> Floats:
        """See `Comparison`."""
        del rows
        found = self._performance.metrics(window)[self._metric]
        return np.asarray(self._performance.metrics(reference)[self._metric] - found)

    def measured(self, rows: Rows) -> Measure | None:
        """See `Comparison`."""
        if self._known:
            rows = rows.take(rows.labels >= 0)
        if not len(rows):
            return None
        found = self._of(rows, positive=self._positive)
        value = float(found.metrics(np.ones((1, len(rows))))[self._metric][0])
        return None if np.isnan(value) else Measure(self.usual - value, self.usual - value)


def comparisons(reference: Reference) -> list[Comparison]:
    """All that need no labels.

    Args:
        reference: What windows are compared with.
    """
    return list(_all(reference))


def _all(reference: Reference) -> Iterator[Comparison]:
    rows = reference.rows
    for key, values in rows.scored.items():
        _, counts = np.unique(values, return_counts=True)
        # A count that is mostly 0 and sometimes 1 is none: a clean window may have a 2.
        is_category = len(counts) == _TWO and counts.min() >= _USUAL
        yield (Categories if is_category else Numbers)(key, values)
    yield Categories("prediction.label", rows.decided.astype(np.float64))
    if rows.embeddings is not None:
        yield Embeddings(rows.embeddings)
        yield Classifier(rows.embeddings)
    for metric in METRICS:
        yield Drop(metric, known=False, reference=rows, positive=positive_code(reference))


def measured_drops(reference: Reference) -> list[Drop]:
    """Those that need labels."""
    return [
        Drop(metric, known=True, reference=reference.rows, positive=positive_code(reference))
        for metric in METRICS
    ]


def positive_code(reference: Reference) -> int | None:
    """The class whose average precision counts: of two, the positive one."""
    if len(reference.classes) != _TWO:
        return None
    return reference.classes.index(reference.calibration.positive)
