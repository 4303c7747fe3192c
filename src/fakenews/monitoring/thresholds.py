"""Thresholds with a known rate of false alarms, for many comparisons together.

Windows and references are drawn from the bundle's reference many times over; what the
comparisons find there is what clean windows look like. A window alarms if its least p-value
is below a cut, chosen so that no more clean windows than stated do (Westfall and Young 1993:
the comparisons are drawn together, so that their dependence counts) - and that with the
unluckier references too, as one reference serves for many windows.

Shapes: B resamples of one reference, J references.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tqdm.auto import tqdm

from fakenews.monitoring.comparisons import Comparison
from fakenews.monitoring.performance import cusum
from fakenews.monitoring.rows import Floats, Rows
from fakenews.monitoring.statistics import resamples

log = logging.getLogger(__name__)

_STEPS = 4  # sizes of windows for which thresholds are made, between a size and its double


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one comparison says of one window.

    Attributes:
        value: As measured.
        threshold: Above which clean windows of this size are too rarely.
        p_value: The share of clean windows with at least that value.
        effect: As measured, in the comparison's unit.
        exceeded: Whether the value is above the threshold, and the effect large enough.
    """

    value: float
    threshold: float
    p_value: float
    effect: float
    exceeded: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """What clean windows of one size look like.

    Attributes:
        values: Of each comparison by key, [J, B].
        cut: Below which a p-value is too small.
    """

    values: dict[str, Floats]
    cut: float

    def p_value(self, key: str, value: float) -> float:
        """The share of clean windows with at least that value."""
        clean = self.values[key]
        return float((1 + np.count_nonzero(clean >= value)) / (1 + clean.size))

    def threshold(self, key: str) -> float:
        """The greatest value that is not yet too rare."""
        clean = np.sort(self.values[key], axis=None)
        # Rounded, as the cut is a multiple of 1 / (1 + size).
        allowed = math.ceil(round(self.cut * (1 + clean.size), 6)) - 2
        return float(clean[clean.size - 1 - min(max(allowed, 0), clean.size - 1)])


class Family:
    """Comparisons that share one rate of false alarms.

    Args:
        comparisons: At least one.
        reference_rows: N.
        rate: Share of clean windows in which any of them may exceed its threshold.
        confidence: Share of references with which that rate is kept.
        floors: By the beginning of a key, the least effect that matters; the longest counts.
        references: How many are drawn.
        windows: How many with each.
        seed: Of the draws.
        progress: Whether a bar is shown.
    """

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        *,
        reference_rows: int,
        rate: float,
        confidence: float,
        floors: dict[str, float],
        references: int = 64,
        windows: int = 256,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.comparisons = list(comparisons)
        self._reference_rows = reference_rows
        self._rate, self._confidence = rate, confidence
        self._floors = floors
        self._references, self._windows, self._seed = references, windows, seed
        self._progress = progress
        self.at = lru_cache(maxsize=16)(self._at)
        """The `Thresholds` for windows of a size, as `size` returns it."""

    def judge(self, rows: Rows) -> dict[str, Finding | None]:
        """What each comparison says of a window, by key; None where the window lacks it.

        Args:
            rows: At least two.
        """
        thresholds = self.at(size(len(rows)))
        found: dict[str, Finding | None] = {}
        for comparison in self.comparisons:
            key = comparison.key
            measure = comparison.measured(rows)
            if measure is None:
                found[key] = None
                continue
            p_value = thresholds.p_value(key, measure.value)
            found[key] = Finding(
                value=measure.value,
                threshold=thresholds.threshold(key),
                p_value=p_value,
                effect=measure.effect,
                exceeded=p_value < thresholds.cut and measure.effect >= self.floor(key),
            )
        return found

    def floor(self, key: str) -> float:
        """The least effect of a comparison that matters."""
        known = [beginning for beginning in self._floors if key.startswith(beginning)]
        return float(self._floors[max(known, key=len)]) if known else 0.0

    def _at(self, rows: int) -> Thresholds:
        values: dict[str, list[Floats]] = {found.key: [] for found in self.comparisons}
        draws = resamples(
            self._reference_rows,
            rows=rows,
            references=self._references,
            windows=self._windows,
            seed=self._seed,
        )
        for window, reference in tqdm(
            draws,
            desc=f"thresholds for {rows:,} rows",
            total=self._references,
            disable=None if self._progress else True,
            leave=False,
        ):
            for comparison in self.comparisons:
                found = comparison.resampled(window, reference, rows=rows)
                # What is not defined is no sign of a change.
                values[comparison.key].append(np.nan_to_num(found, nan=-np.inf))
        clean = {key: np.stack(found) for key, found in values.items()}
        return Thresholds(values=clean, cut=self._cut(clean))

    def _cut(self, clean: dict[str, Floats]) -> float:
        least = np.min([_p_values(values) for values in clean.values()], axis=0)
        allowed = int(self._rate * least.shape[1])
        by_reference = np.sort(least, axis=1)[:, allowed]
        cut = float(np.quantile(by_reference, 1 - self._confidence, method="lower"))
        # No p-value is smaller than one of a window beyond all clean ones, which must alarm.
        return max(cut, 1.5 / (1 + int(least.size)))


def _p_values(values: Floats) -> Floats:
    """Of each of some values among them all."""
    rising = np.sort(values, axis=None)
    above = values.size - np.searchsorted(rising, values, side="left")
    return np.asarray((1 + above) / (1 + values.size))


def size(rows: int) -> int:
    """The size of window whose thresholds serve for one of so many rows: slightly fewer.

    Thresholds fall with the size, so those of a smaller one alarm rather less.
    """
    step = math.floor(_STEPS * math.log2(max(rows, 2)) + 1e-9)
    return int(2 ** (step / _STEPS))


def decay_limit(
    thresholds: Thresholds, key: str, *, windows: int, rate: float, confidence: float
) -> tuple[float, float, float]:
    """How a cumulated sum of drops is to be read: their usual mean, deviation, and its limit.

    Args:
        thresholds: Of a size of window.
        key: Of the drop.
        windows: How many follow each other.
        rate: Share of clean sequences that may reach the limit.
        confidence: Share of references with which that rate is kept.
    """
    clean = thresholds.values[key]
    finite = np.where(np.isfinite(clean), clean, 0)
    mean, deviation = float(finite.mean()), float(finite.std()) or 1.0
    count = clean.shape[1] // windows
    sequences = finite[:, : count * windows].reshape(len(clean), count, windows)
    highest = cusum((sequences - mean) / deviation).max(axis=-1)
    limits = np.quantile(highest, 1 - rate, axis=1)
    return mean, deviation, float(np.quantile(limits, confidence))
