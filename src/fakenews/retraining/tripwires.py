"""What refuses a challenger on evidence alone: slices, format, the floor of a recall.

A check here fails when a challenger is significantly worse than the check's own margin. None
makes a good challenger wait for more rows, and none proves that a part of the texts is safe.

Shapes: N rows, R resamples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fakenews.evaluation.metrics import Floats, Sample
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome
from fakenews.retraining.noninferiority import PLACES, one_sided, spread
from fakenews.retraining.paired import Difference, Figures, Pair

Masks = Mapping[str, NDArray[np.bool_]]

LEAN = "artefact_lean"

_SLICE = "slice: "
_SLICE_MINORITY = 10  # rows of the minority without which a slice's macro-F1 is chance


def judged_slices(pair: Pair, masks: Masks, policy: GatePolicy) -> dict[str, Masks]:
    """Slices with enough rows under `judged`, and those without under `small`."""
    minority = pair.labels == pair.minority
    enough = {
        name: mask
        for name, mask in masks.items()
        if mask.sum() >= policy.slice_rows
        and min(minority[mask].sum(), (~minority)[mask].sum()) >= _SLICE_MINORITY
    }
    return {
        "judged": enough,
        "small": {name: mask for name, mask in masks.items() if name not in enough},
    }


def slice_figures(sample: Sample, masks: Masks) -> Figures:
    """Macro-F1 of each slice, of one of the models."""
    parts = {name: (mask, sample.part(mask)) for name, mask in masks.items()}

    def figures(weights: Floats) -> dict[str, Floats]:
        return {
            _SLICE + name: part.decisions(weights[:, mask])["macro_f1"]
            for name, (mask, part) in parts.items()
        }

    return figures


def lean_figure(sample: Sample, format_scores: Floats) -> Figures:
    """How much a model's scores go with format alone, beyond what the label explains.

    The rank correlation (Spearman) of the positive class's probability with that which the
    artefact probe gives, within each class, as a mean over classes: two models that are both
    right agree by the label, and only one that leans on format agrees within it. A model whose
    scores go against format leans on it, too, so the sign is that which makes it positive.

    Args:
        sample: Of one of the models.
        format_scores: Of the probe [N].
    """
    scores = sample.probabilities[:, sample.classes.index(sample.positive)]
    within = []
    for code in np.unique(sample.labels):
        rows = np.flatnonzero(sample.labels == code)
        x, y = (_standard_ranks(values[rows]) for values in (scores, format_scores))
        within.append((rows, np.stack([np.ones(len(rows)), x, y, x * x, y * y, x * y], axis=1)))

    def correlation(weights: Floats) -> Floats:
        found = []
        for rows, moments in within:
            total, x, y, xx, yy, xy = (weights[:, rows] @ moments).T
            with np.errstate(invalid="ignore", divide="ignore"):
                covered = xy / total - x * y / total**2
                spreads = (xx / total - (x / total) ** 2) * (yy / total - (y / total) ** 2)
                found.append(np.where(spreads > 1e-12, covered / np.sqrt(spreads), np.nan))
        defined = np.isfinite(found)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(defined, found, 0).sum(axis=0) / defined.sum(axis=0)
        return mean

    # Of the whole, so that resamples of a weak correlation are spread around 0.
    sign = -1.0 if correlation(np.ones((1, len(scores))))[0] < 0 else 1.0
    return lambda weights: {LEAN: sign * correlation(weights)}


def slice_check(
    place: str,
    found: Mapping[str, Difference],
    pair: Pair,
    slices: Mapping[str, Masks],
    policy: GatePolicy,
) -> Check:
    """Whether a slice is worse than its margin, corrected for how many there are (Bonferroni;
    as one is enough to refuse, Holm's correction would refuse the same).

    Args:
        place: `test` or `window`.
        found: With the figures of `slice_figures`.
        pair: The rows.
        slices: Of `judged_slices`.
        policy: Margin and rates.
    """
    judged = slices["judged"]
    minority = pair.labels == pair.minority
    level = policy.tripwire / max(len(judged), 1)
    lines: list[dict[str, Any]] = []
    for name, mask in judged.items():
        one = found[_SLICE + name]
        groups = len(np.unique(pair.groups[mask & minority]))
        reach = one_sided(level, groups) * spread(one, policy.seed_sd["macro_f1"])
        lines.append(
            {
                "slice": name,
                "rows": int(mask.sum()),
                "minority_rows": int((mask & minority).sum()),
                "champion": one.champion,
                "challenger": one.challenger,
                "gain": one.gain,
                "standard_error": one.error,
                "upper": one.gain + reach,
                "worse": bool(one.gain + reach < -policy.slice_margin),
            }
        )
    worse = [line for line in lines if line["worse"]]
    where = PLACES[place]
    if worse:
        first = min(worse, key=lambda line: line["gain"])
        message = (
            f"macro-F1 of {len(worse)} of {len(lines)} slices of {where} is worse by more than "
            f"{policy.slice_margin:g}, as of {first['slice']!r}: {first['champion']:.3f} to "
            f"{first['challenger']:.3f}"
        )
    elif lines:
        message = (
            f"none of {len(lines)} slices of {where} is significantly worse than "
            f"{policy.slice_margin:g} of macro-F1"
        )
    else:
        message = f"no slice of {where} has {policy.slice_rows} rows and enough of each class"
    outcome = Outcome.FAILED if worse else Outcome.PASSED if lines else Outcome.SKIPPED
    return Check(
        key=f"{place}.slices",
        outcome=outcome,
        message=message,
        numbers={
            "margin": policy.slice_margin,
            "level": level,
            "slices": lines,
            "too_small": sorted(slices["small"]),
        },
    )


def floor_check(recall: Difference, pair: Pair, policy: GatePolicy) -> Check:
    """Whether the minority's recall is surely below the floor, and the champion's is not.

    The bound is that of Clopper and Pearson (Biometrika 1934).

    Args:
        recall: Of the minority on the test set.
        pair: The test set.
        policy: Floor and rates.
    """
    count = pair.minority_groups
    hits = recall.challenger * count
    upper = float(stats.beta.ppf(1 - policy.tripwire, hits + 1, max(count - hits, 1e-9)))
    below = upper < policy.recall_floor and recall.champion >= policy.recall_floor
    name = pair.champion.classes[pair.minority]
    said = f"recall of {name!r} on the test set is {recall.challenger:.3f}"
    if below:
        message = f"{said}, surely below the floor of {policy.recall_floor:g}"
    elif recall.champion < policy.recall_floor:
        message = f"{said}; the champion's {recall.champion:.3f} is below the floor itself"
    else:
        message = f"{said}, not surely below the floor of {policy.recall_floor:g}"
    return Check(
        key="test.recall_floor",
        outcome=Outcome.FAILED if below else Outcome.PASSED,
        message=message,
        numbers={
            "champion": recall.champion,
            "challenger": recall.challenger,
            "upper": upper,
            "floor": policy.recall_floor,
            "level": policy.tripwire,
            "minority_groups": count,
        },
    )


def lean_check(lean: Difference | None, pair: Pair, policy: GatePolicy) -> Check:
    """Whether the challenger leans on format by more than the champion and a margin.

    Args:
        lean: Of `lean_figure`; None where format could not be probed.
        pair: The test set.
        policy: Margin and rates.
    """
    if lean is None or not np.isfinite(lean.gain) or not np.isfinite(lean.error):
        return Check(
            key="test.artefacts",
            outcome=Outcome.SKIPPED,
            message="format alone tells the texts of no class apart, or there are too few",
            numbers={},
        )
    upper = lean.gain + one_sided(policy.tripwire, pair.minority_groups) * lean.error
    more = upper < -policy.artefact_margin
    said = (
        f"correlation of the scores with format alone: {lean.champion:.3f} to "
        f"{lean.challenger:.3f}"
    )
    return Check(
        key="test.artefacts",
        outcome=Outcome.FAILED if more else Outcome.PASSED,
        message=f"{said}, more than {policy.artefact_margin:g} above" if more else said,
        numbers={
            "champion": lean.champion,
            "challenger": lean.challenger,
            "gain": lean.gain,
            "standard_error": lean.error,
            "upper": upper,
            "margin": policy.artefact_margin,
            "level": policy.tripwire,
        },
    )


def _standard_ranks(values: Floats) -> Floats:
    """Ranks with mean 0 and deviation 1; 0 where all are equal."""
    ranks = stats.rankdata(values)
    deviation = ranks.std()
    standard: Floats = (ranks - ranks.mean()) / (deviation if deviation > 0 else 1)
    return standard
