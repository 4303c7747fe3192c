"""Whether a challenger is worse by no more than a margin, with both error rates kept.

A metric is non-inferior when the one-sided lower bound of its gain is above the margin's loss
(Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2010). Every metric
must be so. One that is worse by its margin is then accepted no more often than its own bound
is wrong, however many there are (intersection-union: Berger, Technometrics 1982).

For a challenger that is equal it is the other way round: each metric is one more chance to be
refused. So what they need to pass *together* is read off their joint resamples (the maximum
statistic of Westfall and Young, Resampling-Based Multiple Testing, 1993), in which trainings
differ by their seeds, too. The margin in force is that, within what the policy bears.

Shapes: K metrics, R resamples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fakenews.evaluation.metrics import Floats
from fakenews.retraining.gate_policy import GatePolicy, Metric
from fakenews.retraining.gate_verdict import Check, Outcome
from fakenews.retraining.paired import Difference

TITLES = {
    "average_precision": "average precision",
    "macro_f1": "macro-F1",
    "minority_recall": "recall of the minority class",
    "brier": "calibration (Brier score)",
}
PLACES = {"test": "the test set", "window": "the newest window"}

_NOISE = 1  # its own stream of random numbers


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A metric on some rows.

    Attributes:
        place: `test` or `window`.
        metric: One of those with margins.
        difference: Of both models.
        rows: How many there are.
        minority: Of the minority class.
        minority_groups: Of near-duplicates among those.
    """

    place: str
    metric: Metric
    difference: Difference
    rows: int
    minority: int
    minority_groups: int

    @property
    def key(self) -> str:
        """Names the check."""
        return f"{self.place}.{self.metric}"

    @property
    def defined(self) -> bool:
        """Whether there is a difference to judge, and an error of it."""
        found = self.difference
        return math.isfinite(found.gain) and math.isfinite(found.error)


def judge(evidence: Sequence[Evidence], policy: GatePolicy) -> list[Check]:
    """A check for each metric, judged together.

    A window's metric that its rows cannot tell within the margin borne is left out, unless it
    is certainly worse; one of the test set is undecided then, unless it passes all the same.

    Args:
        evidence: On the test set, and on the window if there is one.
        policy: Margins and rates.
    """
    known = [one for one in evidence if one.defined]
    required = _required(known, policy)
    while dropped := [
        one for one in known if one.place == "window" and not _told(one, required, policy)
    ]:
        known = [one for one in known if one not in dropped]
        required = _required(known, policy)
    return [_check(one, required.get(one.key), policy) for one in evidence]


def one_sided(level: float, groups: int) -> float:
    """Student's quantile, in standard errors, for bounds from few independent rows.

    Args:
        level: How often the bound may be wrong.
        groups: Of near-duplicates in the rarest class.
    """
    return float(stats.t.ppf(1 - level, max(groups - 1, 1)))


def spread(difference: Difference, seed_sd: float) -> float:
    """Standard deviation of a gain between equal models: of rows, and of two trainings."""
    return math.hypot(difference.error, math.sqrt(2) * seed_sd)


def _required(known: Sequence[Evidence], policy: GatePolicy) -> dict[str, tuple[float, float]]:
    """By key, the narrowest margin that keeps both rates; and the deviations it allows for."""
    if not known:
        return {}
    rng = np.random.default_rng((policy.seed, _NOISE))
    standardised: list[Floats] = []
    for one in known:
        seed_sd = policy.seed_sd[one.metric]
        draws = one.difference.draws
        noise = rng.normal(scale=math.sqrt(2) * seed_sd, size=len(draws))
        deviation = spread(one.difference, seed_sd)
        centred = draws - np.nanmean(draws) + noise
        # Nothing differs in any resample: there is nothing to be refused for.
        standardised.append(centred / deviation if deviation > 0 else np.zeros(len(draws)))
    lowest = np.nanmin(np.stack(standardised), axis=0)
    joint = -float(np.quantile(lowest, policy.together))
    found = {}
    for one in known:
        # Few rows: as much wider as Student's quantile is than the normal one.
        level = policy.together / len(known)
        wider = one_sided(level, one.minority_groups) / float(stats.norm.isf(level))
        deviations = max(0.0, joint) * wider
        seed_sd = policy.seed_sd[one.metric]
        bound = one_sided(policy.wrong_acceptance, one.minority_groups)
        margin = bound * one.difference.error + deviations * spread(one.difference, seed_sd)
        found[one.key] = (margin, deviations)
    return found


def _told(
    one: Evidence, required: Mapping[str, tuple[float, float]], policy: GatePolicy
) -> bool:
    return required[one.key][0] <= policy.margins[one.metric]


def _check(one: Evidence, required: tuple[float, float] | None, policy: GatePolicy) -> Check:
    found = one.difference
    borne = policy.margins[one.metric]
    about = f"{TITLES[one.metric]} on {PLACES[one.place]}"
    if not one.defined:
        return Check(
            key=one.key,
            outcome=Outcome.SKIPPED if one.place == "window" else Outcome.UNDECIDED,
            message=f"{about}: these rows do not define it",
            numbers={"champion": found.champion, "challenger": found.challenger},
        )
    reach = one_sided(policy.wrong_acceptance, one.minority_groups) * found.error
    lower, upper = found.gain - reach, found.gain + reach
    told = required is not None and required[0] <= borne
    margin = borne if required is None else min(borne, required[0])
    margin = max(margin, policy.narrowest * borne)
    numbers: dict[str, Any] = {
        "champion": found.champion,
        "challenger": found.challenger,
        "gain": found.gain,
        "standard_error": found.error,
        "lower": lower,
        "upper": upper,
        "margin": margin,
        "margin_borne": borne,
        "margin_rows_can_tell": None if required is None else required[0],
        "rows": one.rows,
        "minority_rows": one.minority,
        "resamples": len(found.draws),
    }
    said = f"{about}: {found.champion:.3f} to {found.challenger:.3f}"
    if one.place == "window" and not told and upper >= -borne:
        outcome = Outcome.SKIPPED
        message = f"{said}; {one.rows:,} rows, {one.minority:,} of the minority, cannot tell"
    elif lower > -margin:
        outcome = Outcome.PASSED
        message = f"{said}, at worst {_signed(lower)}, within the margin of {margin:.3f}"
    elif not told and upper >= -borne:
        outcome = Outcome.UNDECIDED
        needed = None if required is None else _rows_needed(one, required[1], policy)
        numbers["rows_needed"] = needed
        message = f"{said}, at worst {_signed(lower)}: {_too_few(one, needed, borne)}"
    else:
        outcome = Outcome.FAILED
        message = f"{said}, at worst {_signed(lower)}: worse than the margin of {margin:.3f}"
    return Check(key=one.key, outcome=outcome, message=message, numbers=numbers)


def _rows_needed(one: Evidence, deviations: float, policy: GatePolicy) -> int | None:
    """Rows like these with which the margin borne could be told; None if no number can."""
    borne = policy.margins[one.metric]
    seeds = math.sqrt(2) * policy.seed_sd[one.metric]
    bound = float(stats.norm.isf(policy.wrong_acceptance))
    if deviations * seeds >= borne:
        return None
    low, high = 0.0, 1.0  # share of the error that would be left
    for _ in range(60):
        share = (low + high) / 2
        error = share * one.difference.error
        margin = bound * error + deviations * math.hypot(error, seeds)
        low, high = (share, high) if margin <= borne else (low, share)
    return math.ceil(one.rows / max(low, 1e-6) ** 2)


def _too_few(one: Evidence, needed: int | None, borne: float) -> str:
    if needed is None:
        return (
            f"trainings differ so much by their seeds that no test set can tell a loss of "
            f"{borne:g}; raise policy.margins.{one.metric}"
        )
    minority = math.ceil(needed * one.minority / one.rows)
    return (
        f"{one.rows:,} rows with {one.minority:,} of the minority are too few to tell a loss "
        f"of {borne:g}, {needed:,} with {minority:,} are needed; or raise "
        f"policy.margins.{one.metric}"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"
