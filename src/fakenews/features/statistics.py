"""Means and scales of columns, in one piece or merged from the pieces of a large table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# N rows, S columns, P pieces


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistics:
    """What is known of S columns; gaps (NaN) are left out of each column's figures.

    Attributes:
        count: Values that are no gap, int64 [S].
        mean: [S].
        scale: Population standard deviation [S]; 0 for a constant.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, values_NS: NDArray[np.float64]) -> Self:
        """The statistics of these rows."""
        known = ~np.isnan(values_NS)
        # Relative to the largest value, whose square could overflow.
        peak_S = np.abs(values_NS).max(axis=0, where=known, initial=0)
        peak_S[peak_S == 0] = 1
        relative_NS = np.where(known, values_NS, 0) / peak_S
        count_S = known.sum(axis=0)
        rows_S = np.maximum(count_S, 1)
        mean_S = relative_NS.sum(axis=0) / rows_S
        deviation_NS = np.where(known, relative_NS - mean_S, 0)
        scale_S = _no_noise(np.sqrt((deviation_NS**2).sum(axis=0) / rows_S))
        return cls(count=count_S, mean=mean_S * peak_S, scale=scale_S * peak_S)

    @classmethod
    def merge(cls, pieces: Sequence[Self]) -> Self:
        """The statistics of all rows of some pieces; their order may change the last bit.

        The parallel algorithm of Chan, Golub and LeVeque (1979), "Updating formulae and a
        pairwise algorithm for computing sample variances".
        """
        count_PS, mean_PS, scale_PS = (
            np.stack([getattr(piece, name) for piece in pieces])
            for name in ("count", "mean", "scale")
        )
        peak_S = (np.abs(mean_PS) + scale_PS).max(axis=0)
        peak_S[peak_S == 0] = 1
        rows_S = np.maximum(count_PS.sum(axis=0), 1)
        share_PS = count_PS / rows_S
        mean_S = (share_PS * (mean_PS / peak_S)).sum(axis=0)
        apart_PS = mean_PS / peak_S - mean_S
        variance_S = (share_PS * ((scale_PS / peak_S) ** 2 + apart_PS**2)).sum(axis=0)
        return cls(
            count=count_PS.sum(axis=0),
            mean=mean_S * peak_S,
            scale=_no_noise(np.sqrt(variance_S)) * peak_S,
        )


def _no_noise(scale_S: NDArray[np.float64]) -> NDArray[np.float64]:
    # Rounding leaves a constant column a deviation of about 1e-16.
    return np.where(scale_S < 1e-12, 0.0, scale_S)
