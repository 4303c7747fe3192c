"""From logits to probabilities one can believe, and from these to a decision.

Both parameters, the temperature and the threshold, are chosen on the validation split
and travel in the bundle as `calibration.json`.

Shapes: N rows, C classes. Integer codes index the sorted list of class names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.optimize import minimize_scalar

from fakenews.errors import BundleError, DataError

TEMPERATURE_BOUNDS = (0.05, 20.0)
_FIELDS = ("temperature", "threshold", "positive")


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Class probabilities [N, C] of logits [N, C], in float64."""
    scores = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # an infinite logit gives NaN, which others report
        return np.asarray(special.softmax(scores, axis=-1), dtype=np.float64)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that makes `softmax(logits / T)` fit the labels best.

    Temperature scaling of Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017: one number, fitted by maximum likelihood, which leaves the ranking of each
    row's classes as it was. The targets are smoothed by one made-up row of every class,
    as Platt (1999) does for his sigmoid: without it a validation set with no mistake
    has no best temperature, and the likelihood drives T to 0 and every probability to
    0 or 1. On thousands of rows the smoothing changes nothing that matters.

    Args:
        logits: [N, C], finite.
        labels: [N], codes 0..C-1.

    Returns:
        T within `TEMPERATURE_BOUNDS`; 1.0 where no temperature fits better than none.

    Raises:
        DataError: There is no row, or a logit is not finite.
    """
    scores = np.asarray(logits, dtype=np.float64)
    codes = np.asarray(labels, dtype=np.int64)
    rows, classes = scores.shape
    if rows == 0:
        raise DataError("no rows to fit a temperature on: the validation split is empty")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {rows} rows have a logit that is not finite, first at row "
            f"{broken[0] + 1}: the model has diverged, train with a lower learning rate"
        )
    targets = np.full(scores.shape, 1 / (rows + classes))
    targets[np.arange(rows), codes] = (rows + 1) / (rows + classes)

    def loss(log_temperature: float) -> float:
        scaled = special.log_softmax(scores / math.exp(log_temperature), axis=1)
        return float(-(targets * scaled).sum() / rows)

    # The loss is convex in 1/T, so it has a single minimum in log T as well.
    bounds = tuple(math.log(bound) for bound in TEMPERATURE_BOUNDS)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # The search never evaluates the ends themselves, where the minimum may lie.
    best = min((0.0, float(found.x), *bounds), key=loss)
    return min(max(math.exp(best), TEMPERATURE_BOUNDS[0]), TEMPERATURE_BOUNDS[1])


def choose_threshold(positive_probabilities: ArrayLike, is_positive: ArrayLike) -> float:
    """The threshold t for which "positive where p >= t" has the highest macro-F1.

    Every cut between two neighbouring scores is tried, and the two that call all rows or
    none positive; t lies midway in the best gap, away from any score seen. Of equally
    good cuts the one nearest to 0.5 wins, then the lower.

    Args:
        positive_probabilities: [N], in 0..1: the probability of the positive class.
        is_positive: [N], whether the row is of the positive class.

    Returns:
        t in 0..1; 0.5 if the rows are all of one class, which tells nothing.

    Raises:
        DataError: A probability is not within 0..1.
    """
    scores = np.asarray(positive_probabilities, dtype=np.float64)
    truth = np.asarray(is_positive, dtype=bool)
    outside = np.flatnonzero(~((scores >= 0) & (scores <= 1)))  # NaN is outside as well
    if len(outside):
        raise DataError(
            f"{len(outside)} of {len(scores)} rows have a probability outside 0..1, first "
            f"{scores[outside[0]]} at row {outside[0] + 1}"
        )
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        return 0.5

    # Cut i calls the rows from distinct score i upwards positive; the last cut calls none.
    distinct, index = np.unique(scores, return_inverse=True)
    rows_at = np.bincount(index, minlength=len(distinct))
    positives_at = np.bincount(index, weights=truth, minlength=len(distinct))
    called = len(scores) - np.concatenate([[0], np.cumsum(rows_at)])
    hits = positives - np.concatenate([[0], np.cumsum(positives_at)])
    correct_negatives = (len(scores) - positives) - (called - hits)
    # F1 = 2 TP / (rows of the class + rows called it); both classes exist, so no 0 / 0.
    macro_f1 = hits / (positives + called) + correct_negatives / (
        2 * len(scores) - positives - called
    )

    lower = np.concatenate([[0.0], distinct])
    upper = np.concatenate([distinct, [1.0]])
    thresholds = lower + (upper - lower) / 2
    # Between neighbouring floats the midpoint rounds to one of them; p >= upper is the cut.
    thresholds = np.where(thresholds > lower, thresholds, upper)
    if distinct[-1] == 1.0:  # no threshold within 0..1 is above a score of 1
        thresholds, macro_f1 = thresholds[:-1], macro_f1[:-1]
    # Rounded so that sums equal in exact arithmetic are ties, whatever order they ran in.
    best = thresholds[np.round(macro_f1, 12) == np.round(macro_f1, 12).max()]
    return float(best[np.lexsort((best, np.abs(best - 0.5)))[0]])


def decide(
    probabilities: NDArray[np.float64], *, positive_index: int, threshold: float | None
) -> NDArray[np.int64]:
    """The class decided for each row, as codes int64 [N].

    Args:
        probabilities: [N, C].
        positive_index: The code of the positive class; used with a threshold only.
        threshold: The positive class is decided where its probability reaches this, of
            two classes; None decides the most probable class.

    Raises:
        ValueError: There is a threshold but there are not two classes.
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    if probabilities.shape[1] != 2:
        raise ValueError(f"a threshold needs 2 classes, got {probabilities.shape[1]}")
    is_positive = probabilities[:, positive_index] >= threshold
    return np.where(is_positive, positive_index, 1 - positive_index).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What turns logits into probabilities and decisions.

    Args:
        temperature: Logits are divided by it, > 0.
        threshold: The positive class is decided where its probability reaches this; None
            (always so with more than two classes) decides the most probable class.
        positive: Name of the positive class.
    """

    temperature: float = 1.0
    threshold: float | None = None
    positive: str

    @classmethod
    def fit(
        cls, logits: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], positive: str
    ) -> Self:
        """Choose the temperature and, of two classes, the threshold on validation rows.

        Args:
            logits: [N, C], finite.
            labels: [N], codes 0..C-1.
            classes: The C sorted class names.
            positive: One of them.

        Raises:
            DataError: There is no row, or a logit is not finite.
        """
        temperature = fit_temperature(logits, labels)
        if len(classes) != 2:
            return cls(temperature=temperature, positive=positive)
        index = list(classes).index(positive)
        scores = softmax(np.asarray(logits, dtype=np.float64) / temperature)[:, index]
        threshold = choose_threshold(scores, np.asarray(labels) == index)
        return cls(temperature=temperature, threshold=threshold, positive=positive)

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities [N, C] of logits [N, C]."""
        return softmax(np.asarray(logits, dtype=np.float64) / self.temperature)

    def decide(
        self, probabilities: NDArray[np.float64], classes: Sequence[str]
    ) -> NDArray[np.int64]:
        """The class decided for each row, as codes int64 [N] into `classes`.

        Args:
            probabilities: [N, C], as `apply` returns them.
            classes: The C sorted class names.

        Raises:
            BundleError: As `check`.
        """
        self.check(classes)
        index = list(classes).index(self.positive)
        return decide(probabilities, positive_index=index, threshold=self.threshold)

    def check(self, classes: Sequence[str]) -> None:
        """Hold the calibration against the class names it is to be used with.

        Raises:
            BundleError: The positive class or the threshold does not fit the classes.
        """
        faults = []
        if self.positive not in classes:
            names = ", ".join(map(repr, classes))
            faults.append(f"positive is {self.positive!r}, which is none of {names}")
        if self.threshold is not None and len(classes) != 2:
            faults.append(
                f"threshold must be null with {len(classes)} classes, got {self.threshold}"
            )
        if faults:
            raise BundleError(f"calibration.json: {'; '.join(faults)}")

    def to_json(self) -> dict[str, float | str | None]:
        """The content of `calibration.json`."""
        return {field: getattr(self, field) for field in _FIELDS}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read the content of `calibration.json`.

        Raises:
            BundleError: Naming the file and every field that is missing, unknown or wrong.
        """
        if not isinstance(content, Mapping):
            raise BundleError(
                f"calibration.json: expected an object, got {type(content).__name__}"
            )
        faults = [f"{name} is missing" for name in _FIELDS if name not in content]
        faults += [f"{name} is no known field" for name in content if name not in _FIELDS]
        values: list[Any] = [content.get(name) for name in _FIELDS]
        temperature, threshold, positive = values
        if "temperature" in content and not (_is_number(temperature) and temperature > 0):
            faults.append(f"temperature must be a number above 0, got {temperature!r}")
        if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
            faults.append(f"threshold must be null or within 0..1, got {threshold!r}")
        if "positive" in content and not (isinstance(positive, str) and positive):
            faults.append(f"positive must be a class name, got {positive!r}")
        if faults:
            raise BundleError(f"calibration.json: {'; '.join(faults)}")
        return cls(
            temperature=float(temperature),
            threshold=None if threshold is None else float(threshold),
            positive=positive,
        )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
