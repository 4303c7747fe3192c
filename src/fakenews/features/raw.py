"""What is read off each row alone: the part of the features that takes time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fakenews.features.tabular import HEADLINE_COUNTS, HEADLINE_FEATURES

# N rows, L entity labels, M numeric columns, S features to be standardised

_COUNT_COLUMNS = [name in HEADLINE_COUNTS for name in HEADLINE_FEATURES]


@dataclass(frozen=True, eq=False, kw_only=True)
class RawFeatures:
    """What is read off N rows one by one, before anything learnt from others is applied.

    Attributes:
        headline: float32 [N, `len(HEADLINE_FEATURES)`]; [N, 0] without them.
        entities: int16 [N, L].
        numeric: float64 [N, M], NaN for a gap.
        categories: By column, the N values; a missing one is the empty string.
    """

    headline: NDArray[np.float32]
    entities: NDArray[np.int16]
    numeric: NDArray[np.float64]
    categories: Mapping[str, Sequence[str]]

    @property
    def unscaled(self) -> NDArray[np.float64]:
        """Features to be standardised, [N, S]: of counts the logarithm of 1 + count."""
        headline = self.headline.astype(np.float64)
        if headline.shape[1]:
            headline[:, _COUNT_COLUMNS] = np.log1p(headline[:, _COUNT_COLUMNS])
        entities = np.log1p(self.entities.astype(np.float64))
        return np.concatenate([headline, entities, self.numeric], axis=1)
