"""Classification metrics, and how far each can be trusted.

One computation serves a single figure and a thousand bootstrap resamples: a resample is
a row of integer weights (how often each row was drawn), and the rows are sorted once.

Shapes: N rows, C classes, R resamples, G groups of rows with equal scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from fakenews.errors import DataError
from fakenews.evaluation.calibration import decide

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CALIBRATION_BINS = 15
_WEIGHTS_AT_ONCE = 1 << 20  # resamples x rows held in memory: 8 MB an array


def classification_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    positive: str,
    threshold: float | None = None,
) -> dict[str, float]:
    """All figures of a set of predictions, under flat names.

    - `average_precision` (AP as the sum of precision over recall steps, no
      interpolation) and `auroc`: of the positive class; with more than two classes the
      mean of each class against the rest.
    - `macro_f1`, `weighted_f1`, `accuracy` and `precision/CLASS`, `recall/CLASS`,
      `f1/CLASS`, `support/CLASS` (rows): of the decision, which is the positive class
      where its probability reaches `threshold`, or without one the most probable class.
    - `log_loss` in nats; `brier`: mean squared error of the positive probability, with
      more than two classes the sum over classes (0..2).
    - `ece`: see `reliability`; lower is better.

    A figure that these rows do not define is NaN: ranking and macro-F1 where all rows
    are of one class, recall of a class with no row, precision of a class never decided.
    A class neither present nor decided takes no part in `macro_f1`, nor an absent one in
    mean AP and AUROC.

    Args:
        probabilities: [N, C], rows sum to 1.
        labels: [N], codes 0..C-1.
        classes: The C class names, in the order of the codes.
        positive: One of them.
        threshold: In 0..1, for two classes only.

    Raises:
        DataError: There is no row, or a probability or label is not valid; all at once.
        ValueError: The shapes contradict each other.
    """
    sample = Sample.of(
        probabilities, labels, classes=classes, positive=positive, threshold=threshold
    )
    figures = sample.metrics(np.ones((1, len(sample.labels))))
    metrics = {name: float(values[0]) for name, values in figures.items()}
    ece = expected_calibration_error(sample.probabilities, sample.labels)
    # The headline figures come first, the classes' after them.
    head = {name: value for name, value in metrics.items() if "/" not in name}
    return head | {"ece": ece} | metrics


def bootstrap_intervals(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    positive: str,
    threshold: float | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals (Efron and Tibshirani, 1993) of the metrics.

    Rows are drawn from the whole, not class by class: the class rate of a test set is as
    much chance as its texts, and average precision depends on it, so a stratified
    resample would give intervals that are too narrow. A resample in which a metric is
    undefined (say, no row of a rare class) does not count for that metric.

    `support/CLASS` and `ece` get none. Calibration error is a sum of absolute values, so
    resampling noise only ever adds to it: its percentile interval would lie above the
    estimate.

    Args:
        probabilities: As for `classification_metrics`, and so the next four.
        labels: See there.
        classes: See there.
        positive: See there.
        threshold: See there; it is held fixed, as it was not chosen on these rows.
        resamples: How many times the rows are drawn again.
        level: The share of resamples within the interval, in 0..1.
        seed: The same seed gives the same intervals.

    Returns:
        For each metric (low, high), NaN where the metric is undefined.

    Raises:
        DataError: As `classification_metrics`.
        ValueError: As `classification_metrics`, or for resamples or level out of range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    sample = Sample.of(
        probabilities, labels, classes=classes, positive=positive, threshold=threshold
    )
    rows = len(sample.labels)
    rng = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _WEIGHTS_AT_ONCE // rows))
    chunks = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * rows).astype(np.float64)
        chunks.append(sample.metrics(weights.reshape(count, rows)))

    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name in chunks[0]:
        if not name.startswith("support/"):
            values = np.concatenate([chunk[name] for chunk in chunks])
            defined = values[~np.isnan(values)]
            low, high = np.quantile(defined, tails) if len(defined) else (np.nan, np.nan)
            intervals[name] = (float(low), float(high))
    return intervals


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence against accuracy in bins, each array [bins]; bins are never empty.

    Args:
        confidence: Mean probability of the most probable class.
        accuracy: Share of rows whose most probable class is right.
        rows: Rows in the bin.
    """

    confidence: Floats
    accuracy: Floats
    rows: Codes


def reliability(
    probabilities: Floats, labels: Codes, *, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Confidence against accuracy in bins of (nearly) equally many rows.

    Equal-mass bins as Nguyen and O'Connor, "Posterior calibration and exploratory
    analysis for natural language processing models", EMNLP 2015, use them: of a confident
    model most rows would share one bin of equal width. Confidence is that of the most
    probable class (Guo et al., 2017), whatever the decision threshold. Rows of equal
    confidence share a bin, so the order of the rows does not matter.

    Args:
        probabilities: [N, C].
        labels: [N], codes.
        bins: At most this many.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    _, group, size = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(size) - size / 2
    _, bin_of = np.unique((middle * bins / len(labels)).astype(int)[group], return_inverse=True)
    rows = np.bincount(bin_of)
    return Reliability(
        confidence=np.bincount(bin_of, confidence) / rows,
        accuracy=np.bincount(bin_of, correct) / rows,
        rows=rows.astype(np.int64),
    )


def expected_calibration_error(
    probabilities: Floats, labels: Codes, *, bins: int = CALIBRATION_BINS
) -> float:
    """Mean distance of confidence and accuracy over the bins of `reliability`, by rows.

    The ECE of Naeini et al., AAAI 2015, and Guo et al., ICML 2017, on equal-mass bins.
    """
    binned = reliability(probabilities, labels, bins=bins)
    gaps = np.abs(binned.confidence - binned.accuracy)
    return float(np.average(gaps, weights=binned.rows))


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """One class against the rest, rows in falling order of its probability."""

    order: NDArray[np.intp]  # [N]
    is_class: Floats  # [N], in that order
    starts: NDArray[np.intp]  # [G], where each group of equal scores begins

    @classmethod
    def of(cls, scores: Floats, is_class: NDArray[np.bool_]) -> "_Ranking":
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
        return cls(order=order, is_class=is_class[order].astype(np.float64), starts=starts)

    def metrics(self, weights: Floats) -> tuple[Floats, Floats]:
        """Average precision and AUROC [R]; NaN where a resample is of one side only."""
        sorted_weights = weights[:, self.order]
        called = sorted_weights
        hits = sorted_weights * self.is_class
        if len(self.starts) < len(self.order):
            called = np.add.reduceat(called, self.starts, axis=1)
            hits = np.add.reduceat(hits, self.starts, axis=1)
        misses = called - hits
        hits_above, misses_above = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
        positives, negatives = hits_above[:, -1], misses_above[:, -1]
        # Groups drawn zero times have no hits, so the floor of 1 never enters a sum.
        precision = hits_above / np.maximum(hits_above + misses_above, 1)
        precision_sum = np.einsum("rg,rg->r", hits, precision)
        # Pairs of a positive and a negative row in the right order; a tie counts half.
        below = negatives[:, None] - misses_above + misses / 2
        pairs = np.einsum("rg,rg->r", hits, below)
        both = (positives > 0) & (negatives > 0)
        return (
            _ratio(precision_sum, np.where(both, positives, 0)),
            _ratio(pairs, positives * negatives),
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Checked predictions, with all that does not depend on the weights.

    `of` makes one, from the arguments of `classification_metrics`.
    """

    probabilities: Floats
    labels: Codes
    classes: Sequence[str]
    positive: str
    threshold: float | None
    rankings: Sequence[_Ranking]
    membership: csr_array  # [N, 3C]: the label's class, the decided class, their agreement
    losses: Floats  # [N, 2]: log loss and Brier score

    @classmethod
    def of(
        cls,
        probabilities: ArrayLike,
        labels: ArrayLike,
        *,
        classes: Sequence[str],
        positive: str,
        threshold: float | None,
    ) -> "Sample":
        """Check predictions; see `classification_metrics`."""
        scores, codes = check_predictions(probabilities, labels, classes=classes)
        if positive not in classes:
            raise ValueError(f"positive {positive!r} is none of the classes {list(classes)}")
        rows, width = scores.shape
        index = list(classes).index(positive)
        decided = decide(scores, positive_index=index, threshold=threshold)
        ranked = [index] if width == 2 else range(width)
        right = np.flatnonzero(decided == codes)
        row = np.arange(rows)
        columns = np.concatenate([codes, width + decided, 2 * width + codes[right]])
        membership = csr_array(
            (np.ones(len(columns)), (np.concatenate([row, row, right]), columns)),
            shape=(rows, 3 * width),
        )
        likelihood = np.clip(scores[row, codes], np.finfo(np.float64).eps, 1)
        squared = (scores - np.eye(width)[codes]) ** 2
        brier = squared[:, index] if width == 2 else squared.sum(axis=1)
        return cls(
            probabilities=scores,
            labels=codes,
            classes=classes,
            positive=positive,
            threshold=threshold,
            rankings=[_Ranking.of(scores[:, c], codes == c) for c in ranked],
            membership=membership,
            losses=np.stack([-np.log(likelihood), brier], axis=1),
        )

    def part(self, mask: NDArray[np.bool_]) -> "Sample":
        """Some of the rows, a mask [N], for `decisions` alone: they are not ranked."""
        return replace(
            self,
            probabilities=self.probabilities[mask],
            labels=self.labels[mask],
            rankings=(),
            membership=self.membership[np.flatnonzero(mask)],
            losses=self.losses[mask],
        )

    def metrics(self, weights: Floats) -> dict[str, Floats]:
        """Every metric but the calibration error, each [R], for weights [R, N]."""
        ranking = np.array([ranking.metrics(weights) for ranking in self.rankings])
        return {
            "average_precision": _mean_defined(ranking[:, 0].T),
            "auroc": _mean_defined(ranking[:, 1].T),
            **self.decisions(weights),
        }

    def decisions(self, weights: Floats) -> dict[str, Floats]:
        """The metrics for which no row is ranked, each [R], for weights [R, N]."""
        rows = weights.sum(axis=1)
        support, decided, hits = np.split(weights @ self.membership, 3, axis=1)
        precision, recall = _ratio(hits, decided), _ratio(hits, support)
        f1 = _ratio(2 * hits, support + decided)
        one_class = (support > 0).sum(axis=1) == 1
        losses = weights @ self.losses / rows[:, None]
        figures = {
            "macro_f1": np.where(one_class, np.nan, _mean_defined(f1)),
            "weighted_f1": np.nansum(f1 * support, axis=1) / rows,
            "accuracy": hits.sum(axis=1) / rows,
            "log_loss": losses[:, 0],
            "brier": losses[:, 1],
        }
        for code, name in enumerate(self.classes):
            figures[f"precision/{name}"] = precision[:, code]
            figures[f"recall/{name}"] = recall[:, code]
            figures[f"f1/{name}"] = f1[:, code]
            figures[f"support/{name}"] = support[:, code]
        return figures


def check_predictions(
    probabilities: ArrayLike, labels: ArrayLike, *, classes: Sequence[str]
) -> tuple[Floats, Codes]:
    """Probabilities float64 [N, C] and labels int64 [N], checked.

    Raises:
        DataError: There is no row, or a probability or label is not valid; all at once.
        ValueError: The shapes contradict each other.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    codes = np.asarray(labels)
    if scores.ndim != 2 or codes.shape != scores.shape[:1] or scores.shape[1] != len(classes):
        raise ValueError(
            f"probabilities must be [N, {len(classes)}] and labels [N], got "
            f"{list(scores.shape)} and {list(codes.shape)}"
        )
    if len(classes) < 2:
        raise ValueError(f"two or more classes are needed, got {list(classes)}")
    if len(codes) == 0:
        raise DataError("no rows to evaluate")
    not_finite = ~np.isfinite(scores).all(axis=1)
    off = ~not_finite & (
        (scores < 0).any(axis=1) | (np.abs(scores.sum(axis=1) - 1) > 1e-3)  # float32 drift
    )
    unknown = ~np.isin(codes, np.arange(len(classes)))
    faults = [
        f"{broken.sum()} of {len(codes)} rows have {what}, first at row {broken.argmax() + 1}"
        for broken, what in (
            (not_finite, "a probability that is not finite (the model has diverged)"),
            (off, "probabilities that are negative or do not sum to 1 (logits?)"),
            (unknown, f"a label that is no code of the {len(classes)} classes"),
        )
        if broken.any()
    ]
    if faults:
        raise DataError(faults)
    return scores, codes.astype(np.int64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where the whole is 0."""
    ratio: Floats = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean_defined(values: Floats) -> Floats:
    """Mean over the last axis without NaN, itself NaN where all are."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))
