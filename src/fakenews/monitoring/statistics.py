"""How far two samples are apart, for many weightings of the same points at once.

A weighting says which share of each sample a point is: of the window's own points 1/W, of
the reference's 1/N, or, in a resample of the reference, how often it was drawn. So that what
is measured on a window and what its threshold is taken from are one computation.

Shapes: P points, B weightings, K categories, D embedding size. Shares sum to 1 in each row.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Reals = NDArray[np.float32]
Shares = NDArray[np.floating[Any]]

_BINS = 10
_DIRECT = 500  # rows of which distances are taken at once
_STREAM = 7157  # any number
_ROWS_A_COMPONENT = 30
_CONSTANT = 1e-3  # of the greatest deviation


class Ordered:
    """Points in the order of their values, for the test of Kolmogorov and Smirnov.

    Args:
        values: [P], finite.
    """

    def __init__(self, values: Floats) -> None:
        self._order = np.argsort(values, kind="stable")
        rising = values[self._order]
        # Where a run of equal values ends: between them the functions are not compared.
        self._ends = np.flatnonzero(np.append(rising[1:] != rising[:-1], True))

    def distance(self, difference: Shares) -> Floats:
        """Greatest difference of the two distribution functions, 0..1, [B].

        Args:
            difference: [B, P], share of the window less share of the reference.
        """
        steps = np.cumsum(difference[:, self._order], axis=1)
        return np.asarray(np.abs(steps[:, self._ends]).max(axis=1))


class Binned:
    """Numbers as categories: bins that hold a tenth of the reference each.

    Args:
        reference: [N], finite.
    """

    def __init__(self, reference: Floats) -> None:
        inner = np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1])
        self._edges = np.unique(inner)

    def __len__(self) -> int:
        """How many bins there are."""
        return len(self._edges) + 1

    def codes(self, values: Floats) -> NDArray[np.int64]:
        """The bin of each value."""
        return np.searchsorted(self._edges, values, side="left").astype(np.int64)


def shares(codes: NDArray[np.int64], count: int) -> Floats:
    """The share of each of K categories, [K]."""
    return np.bincount(codes, minlength=count) / max(len(codes), 1)


def chi_squared(window: Shares, reference: Shares, *, rows: int, reference_rows: int) -> Floats:
    """Pearson's statistic of the homogeneity of two samples, [B].

    Args:
        window: Shares [B, K].
        reference: Shares [B, K].
        rows: Of the window.
        reference_rows: Of the reference.
    """
    pooled = rows * window + reference_rows * reference
    squares = rows * reference_rows * (window - reference) ** 2
    return np.asarray(
        np.divide(squares, pooled, out=np.zeros_like(pooled), where=pooled > 0).sum(axis=-1)
    )


def stability_index(
    window: Floats, reference: Floats, *, rows: int, reference_rows: int
) -> float:
    """The population stability index, less what two samples of these sizes have anyway.

    An empty category counts as half a row. Without a change the index is distributed as
    (1/rows + 1/reference_rows) times chi-squared (Yurdakul, "Statistical Properties of
    Population Stability Index", 2018), the mean of which is taken off.

    Args:
        window: Shares [K].
        reference: Shares [K].
        rows: Of the window.
        reference_rows: Of the reference.
    """
    seen = (window > 0) | (reference > 0)
    p = np.maximum(window[seen], 0.5 / rows)
    q = np.maximum(reference[seen], 0.5 / reference_rows)
    expected = (seen.sum() - 1) * (1 / rows + 1 / reference_rows)
    return max(0.0, float(((p - q) * np.log(p / q)).sum() - expected))


class Kernel:
    """The maximum mean discrepancy of embeddings (Gretton et al., JMLR 2012).

    With a Gaussian kernel as wide as the median distance of the reference's points; biased, as
    its square is never below 0 then, which the resamples are as well.

    Args:
        reference: float32 [N, D].
    """

    def __init__(self, reference: Reals) -> None:
        self._reference = reference
        few = reference[:: max(1, len(reference) // _DIRECT)]
        distances = cdist(few, few, "sqeuclidean")
        positive = distances[distances > 0]
        self.width = float(np.median(positive)) if len(positive) else 1.0
        """Of the kernel: of squared distances."""
        self._gram = self._similarity(reference, reference)
        self._whole = float(self._gram.sum(dtype=np.float64))
        rows = len(reference)
        similar = (self._gram.sum() - rows) / max(rows * (rows - 1), 1)
        self._spread = max(1 - float(similar), 1e-9)

    def _similarity(self, a: Reals, b: Reals) -> Reals:
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * (a @ b.T)
        return np.asarray(np.exp(np.maximum(squares, 0) / -self.width), dtype=np.float32)

    def resampled(self, difference: Reals) -> Floats:
        """The squared discrepancy [B] of weightings of the reference's own points.

        Args:
            difference: [B, N], share of the window less share of the reference.
        """
        return np.asarray(
            np.einsum("bn,bn->b", difference @ self._gram, difference), dtype=np.float64
        )

    def measured(self, window: Reals) -> tuple[float, float]:
        """The squared discrepancy of a window, and how far it is.

        The second is the unbiased discrepancy in units of the reference's own spread: what
        Cohen's d is for means.

        Args:
            window: float32 [W, D].
        """
        rows, count = len(window), len(self._reference)
        own, cross = 0.0, 0.0
        for start in range(0, rows, _DIRECT):
            some = window[start : start + _DIRECT]
            own += float(self._similarity(some, window).sum(dtype=np.float64))
            cross += float(self._similarity(some, self._reference).sum(dtype=np.float64))
        value = own / rows**2 - 2 * cross / (rows * count) + self._whole / count**2
        unbiased = value - self._spread * (1 / rows + 1 / count)
        return value, float(np.sqrt(max(0.0, unbiased) / self._spread))


class Discriminant:
    """A classifier that is to tell a window's embeddings from the reference's.

    The two-sample test of Lopez-Paz and Oquab (ICLR 2017) by its scores' means (as Liu et al.,
    ICML 2020, have it) with the linear discriminant: its direction is learnt on one half of
    the rows and judged on the other, and the other way round. In whitened embeddings this is
    the product of the two halves' differences of means.

    The classifier sees the principal components of the reference, one for each thirty rows of
    it: of more, its covariance would be that of these very rows, to which resamples of them
    are nearer than any fresh text.

    Args:
        reference: float32 [N, D].
    """

    def __init__(self, reference: Reals) -> None:
        centred = reference.astype(np.float64) - reference.mean(axis=0)
        _, deviations, vectors = np.linalg.svd(centred, full_matrices=False)
        # A direction in which nothing ever varies tells nothing.
        known = int(np.count_nonzero(deviations > deviations[0] * _CONSTANT))
        kept = slice(0, min(known, max(1, len(reference) // _ROWS_A_COMPONENT)))
        scale = deviations[kept] / np.sqrt(len(reference))
        self._whiten = (vectors[kept].T / scale).astype(np.float32)
        self._centre = reference.mean(axis=0)
        self._points = self._white(reference)

    def _white(self, embeddings: Reals) -> Reals:
        return np.asarray((embeddings - self._centre) @ self._whiten)

    def resampled(self, window: Reals, reference: Reals) -> Floats:
        """The test's statistic [B] of weightings of the reference's own points.

        Args:
            window: Shares [B, N].
            reference: Shares [B or 1, N].
        """
        halves = []
        for half in (slice(0, None, 2), slice(1, None, 2)):
            means = [
                _normed(weights[:, half]) @ self._points[half]
                for weights in (window, reference)
            ]
            halves.append(means[0] - means[1])
        return np.asarray(np.einsum("bd,bd->b", *halves), dtype=np.float64)

    def measured(self, window: Reals) -> tuple[float, float]:
        """The statistic of a window, and how well the classifier tells it: AUROC less a half.

        Args:
            window: float32 [W, D], W at least 2.
        """
        white = self._white(window)
        differences = [
            white[half::2].mean(axis=0) - self._points[half::2].mean(axis=0) for half in (0, 1)
        ]
        value = float(differences[0] @ differences[1])
        areas = []
        for half, direction in zip((1, 0), differences, strict=True):
            scores = [points[half::2] @ direction for points in (white, self._points)]
            truth = np.repeat([1, 0], [len(found) for found in scores])
            areas.append(roc_auc_score(truth, np.concatenate(scores)))
        return value, max(0.0, float(np.mean(areas)) - 0.5)

    def unlike(self, window: Reals) -> Floats:
        """How little each row of a window is like the reference: the classifier's score, [W].

        Args:
            window: float32 [W, D].
        """
        white = self._white(window)
        return np.asarray(white @ white.mean(axis=0), dtype=np.float64)


def _normed(weights: Reals) -> Reals:
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.maximum(total, 1e-12))


def resamples(
    count: int, *, rows: int, references: int, windows: int, seed: int
) -> Iterator[tuple[Reals, Reals]]:
    """Pairs of windows and a reference, drawn with replacement from N reference rows.

    Each resampled reference comes with many windows, so that it can be told how often clean
    windows alarm with one reference: that is a sample as well, and an unlucky one is so in
    every window.

    Args:
        count: N.
        rows: Of a window.
        references: How many.
        windows: How many with each.
        seed: Of the draws.

    Yields:
        Shares [windows, N] and [1, N], float32.
    """
    # A stream of its own: of rows that were generated from this seed, the values would decide
    # how often they are drawn.
    rng = np.random.default_rng((seed, _STREAM))
    equal = np.full(count, 1 / count)
    for _ in range(references):
        reference = rng.multinomial(count, equal, size=1) / count
        window = rng.multinomial(rows, equal, size=windows) / rows
        yield window.astype(np.float32), reference.astype(np.float32)
