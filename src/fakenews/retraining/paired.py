"""Two models on the same rows: how much their figures differ, and how sure that is.

The paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Koehn,
EMNLP 2004, of two systems on one test set): rows are drawn again, both models are measured
on the rows drawn, and the difference is looked at. What makes a row hard for both cancels.

Shapes: N rows, C classes, G groups of near-duplicates, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fakenews.evaluation.metrics import Codes, Floats, Sample

Figures = Callable[[Floats], Mapping[str, Floats]]
"""From weights [R, N] to figures by name, [R] each."""

LOWER_IS_BETTER = ("brier", "artefact_lean")

_WEIGHTS_AT_ONCE = 1 << 20  # resamples x rows held in memory: 8 MB an array
_STREAM = 0x6A7E
_FEW_GROUPS = 30  # of the rarest class; with fewer, each class is drawn for itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Rows that both models have scored.

    Attributes:
        labels: Codes [N].
        groups: Which rows are near-duplicates of each other, [N]; drawn together.
        champion: Its predictions.
        challenger: Its predictions.
        minority: Code of the rarest class of the test set.
    """

    labels: Codes
    groups: Codes
    champion: Sample
    challenger: Sample
    minority: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def minority_groups(self) -> int:
        """Groups with a row of the minority: the independent evidence there is of it."""
        return len(np.unique(self.groups[self.labels == self.minority]))

    def metrics(self, sample: Sample) -> Figures:
        """The metrics that have margins, of one of the models."""
        recall = f"recall/{sample.classes[self.minority]}"

        def figures(weights: Floats) -> Mapping[str, Floats]:
            found = sample.metrics(weights)
            return {
                "average_precision": found["average_precision"],
                "macro_f1": found["macro_f1"],
                "minority_recall": found[recall],
                "brier": found["brier"],
            }

        return figures


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """A figure of both models.

    Attributes:
        champion: Its figure.
        challenger: Its figure.
        gain: By how much the challenger is better; below 0 it is worse.
        draws: The gain in resamples [R], NaN where a resample does not define it.
    """

    champion: float
    challenger: float
    gain: float
    draws: Floats

    @property
    def error(self) -> float:
        """Standard error of the gain; NaN where no resample defines it."""
        known = self.draws[np.isfinite(self.draws)]
        return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def differences(
    pair: Pair, champion: Figures, challenger: Figures, *, resamples: int, seed: int
) -> dict[str, Difference]:
    """Every figure of both models, with the gain in the same resamples.

    Args:
        pair: The rows.
        champion: Measures the champion.
        challenger: Measures the challenger: the same names.
        resamples: R.
        seed: The same seed draws the same rows.
    """
    whole = np.ones((1, len(pair)))
    before, after = champion(whole), challenger(whole)
    sign = {name: -1.0 if name in LOWER_IS_BETTER else 1.0 for name in before}
    drawn: dict[str, list[Floats]] = {name: [] for name in before}
    for weights in resampled(pair, resamples=resamples, seed=seed):
        old, new = champion(weights), challenger(weights)
        for name, draws in drawn.items():
            draws.append(sign[name] * (new[name] - old[name]))
    return {
        name: Difference(
            champion=float(before[name][0]),
            challenger=float(after[name][0]),
            gain=sign[name] * float(after[name][0] - before[name][0]),
            draws=np.concatenate(draws),
        )
        for name, draws in drawn.items()
    }


def resampled(pair: Pair, *, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, in blocks of resamples [r, N].

    Groups are drawn, not rows: near-duplicates are no independent evidence. As class rates of
    a test set are chance like its texts, classes are not held fixed, unless the rarest has so
    few groups that a resample could be without it.
    """
    _, group_of = np.unique(pair.groups, return_inverse=True)
    strata = _strata(pair.labels, group_of)
    count = len(strata)
    # A stream of its own: of rows that were generated from this seed, the values would decide
    # how often they are drawn.
    rng = np.random.default_rng((seed, _STREAM))
    at_once = max(1, _WEIGHTS_AT_ONCE // len(pair))
    for start in range(0, resamples, at_once):
        drawn = np.empty((min(at_once, resamples - start), count))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            equal = np.full(len(members), 1 / len(members))
            drawn[:, members] = rng.multinomial(len(members), equal, size=len(drawn))
        yield drawn[:, group_of]


def _strata(labels: Codes, group_of: Codes) -> Codes:
    """What each group is drawn among [G]: all, or those of its rarest class."""
    rows_of = np.bincount(labels)
    # Of a group with several classes, the one with the fewest rows.
    order = np.argsort(-rows_of[labels], kind="stable")
    class_of = np.empty(group_of.max() + 1, dtype=np.int64)
    class_of[group_of[order]] = labels[order]
    few = np.unique(class_of, return_counts=True)[1].min() < _FEW_GROUPS
    return class_of if few else np.zeros_like(class_of)
