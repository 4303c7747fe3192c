"""The promotion gate: whether a challenger may replace a champion.

    rows -> both bundles score them -> paired resamples -> checks -> verdict

Refusing is a normal outcome: what cannot be shown to be no worse does not replace what serves.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fakenews.evaluation.metrics import Floats, Sample
from fakenews.retraining import behaviour
from fakenews.retraining.contestants import Contestant, Rows, match, read_rows
from fakenews.retraining.gate_policy import METRICS, GatePolicy
from fakenews.retraining.gate_report import check_folder, table, write
from fakenews.retraining.gate_verdict import Check, GateVerdict, Outcome
from fakenews.retraining.noninferiority import PLACES, Evidence, judge
from fakenews.retraining.paired import Figures, Pair, differences
from fakenews.retraining.seen import seen_check
from fakenews.retraining.speed import latency_check
from fakenews.retraining.tripwires import (
    LEAN,
    Masks,
    floor_check,
    judged_slices,
    lean_check,
    lean_figure,
    slice_check,
    slice_figures,
)
from fakenews.terminal import show

_log = logging.getLogger(__name__)


def gate(
    *,
    champion: str | Path,
    challenger: str | Path,
    test: str | Path,
    window: str | Path | None = None,
    policy: GatePolicy,
    out: str | Path = "gate",
) -> GateVerdict:
    """Judge a challenger beside a champion, write why, and say so.

    Args:
        champion: Folder of the bundle that serves, or of its run.
        challenger: Folder of the one that might.
        test: Labelled rows that neither has learnt from: a file, folder or glob. Columns
            `text`, `label` and those of the models; or else named as in the training.
        window: The newest labelled rows, likewise.
        policy: Margins and error rates.
        out: Folder of `gate.json` and `gate.html`; those that are there are replaced.

    Raises:
        BundleError: A bundle is damaged.
        ConfigError: The policy does not fit the bundles.
        DataError: Rows cannot be read.
        RetrainingError: The bundles cannot be compared, or `out` cannot be written.
    """
    check_folder(Path(out))
    sides = Contestant.load(champion), Contestant.load(challenger)
    match(*sides)
    behaviour.direction_faults(policy, sides[0].predictor.classes)
    tested = read_rows(test, champion=sides[0], challenger=sides[1], name="test")
    newest = None
    if window is not None:
        newest = read_rows(
            window,
            champion=sides[0],
            challenger=sides[1],
            minority=tested.pair.minority,
            name="window",
        )
    checks, notices = _checks(sides, tested, newest, policy)
    verdict = GateVerdict(
        checks=tuple(checks),
        champion=sides[0].describe(),
        challenger=sides[1].describe(),
        rows={
            "test": tested.describe(),
            "window": None if newest is None else newest.describe(),
        },
        policy=asdict(policy),
        notices=tuple(notices),
        judged_at=datetime.now(UTC),
    )
    write(verdict, Path(out))
    show(table(verdict))
    _log.info("report: %s", Path(out) / "gate.html")
    return verdict


def _checks(
    sides: tuple[Contestant, Contestant], tested: Rows, newest: Rows | None, policy: GatePolicy
) -> tuple[list[Check], list[str]]:
    places = {"test": tested} | ({} if newest is None else {"window": newest})
    checks: list[Check] = []
    notices = []
    for place, rows in places.items():
        if rows.unread:
            notices.append(
                f"{place}: {rows.unread:,} rows that a bundle cannot read are left out"
            )
    sizes = {place: size_check(place, rows.pair, policy) for place, rows in places.items()}
    checks += sizes.values()
    if sizes["test"].outcome is not Outcome.PASSED:
        return checks, notices
    enough = {
        place: rows for place, rows in places.items() if sizes[place].outcome is Outcome.PASSED
    }
    for place, rows in enough.items():
        check, told = seen_check(place, rows, *sides, policy)
        checks.append(check)
        notices += told
    checks += statistical_checks(
        {
            place: Scored(pair=rows.pair, masks=rows.masks, format_scores=rows.format_scores)
            for place, rows in enough.items()
        },
        policy,
    )
    checks += [
        behaviour.behaviour_check(
            "invariance",
            behaviour.invariance(tested, *sides, policy),
            policy,
            otherwise="no test changes enough of the texts",
        ),
        behaviour.behaviour_check(
            "directions",
            behaviour.directions(tested, *sides, policy),
            policy,
            otherwise="policy.directions has none",
        ),
        latency_check(tested, *sides, policy),
    ]
    return checks, notices


def size_check(place: str, pair: Pair, policy: GatePolicy) -> Check:
    """Whether there are rows enough to look at all.

    Args:
        place: `test`, which is undecided without, or `window`, which is left out.
        pair: The rows.
        policy: How many are enough.
    """
    sample = pair.champion
    counts = np.bincount(pair.labels, minlength=len(sample.classes))
    rarest = sample.classes[pair.minority]
    minority = int(counts[pair.minority])
    said = f"{PLACES[place]} has {len(pair):,} rows, {minority:,} of class {rarest!r}"
    few = len(pair) < policy.min_rows or minority < policy.min_minority
    # Of a window, the class that is rare may be another than of the test set.
    one_class = bool((counts > 0).sum() < 2)
    if one_class:
        said += "; all are of one class"
    elif few:
        said += f": {policy.min_rows:,} and {policy.min_minority:,} are needed"
    outcome = Outcome.SKIPPED if place == "window" else Outcome.UNDECIDED
    return Check(
        key=f"{place}.rows",
        outcome=outcome if few or one_class else Outcome.PASSED,
        message=said,
        numbers={
            "rows": len(pair),
            "minority_rows": minority,
            "rows_needed": policy.min_rows,
            "minority_needed": policy.min_minority,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What the statistical checks look at.

    Attributes:
        pair: Labels and predictions.
        masks: Slices by name, [N] each.
        format_scores: Of the artefact probe [N]; None without any.
    """

    pair: Pair
    masks: Masks
    format_scores: Floats | None


def statistical_checks(places: Mapping[str, Scored], policy: GatePolicy) -> list[Check]:
    """The checks whose error rates are known: metrics, recall's floor, slices, format.

    Args:
        places: `test`, and `window` if there is one with enough rows.
        policy: Margins and rates.
    """
    evidence: list[Evidence] = []
    others: list[Check] = []
    for number, (place, scored) in enumerate(places.items()):
        pair = scored.pair
        slices = judged_slices(pair, scored.masks, policy)
        lean = scored.format_scores if place == "test" else None
        found = differences(
            pair,
            *(
                _figures(pair, sample, slices["judged"], lean)
                for sample in (pair.champion, pair.challenger)
            ),
            resamples=policy.resamples,
            seed=policy.seed + number,
        )
        evidence += [
            Evidence(
                place=place,
                metric=metric,
                difference=found[metric],
                rows=len(pair),
                minority=int((pair.labels == pair.minority).sum()),
                minority_groups=pair.minority_groups,
            )
            for metric in METRICS
        ]
        if place == "test":
            others.append(floor_check(found["minority_recall"], pair, policy))
        others.append(slice_check(place, found, pair, slices, policy))
        if place == "test":
            others.append(lean_check(found.get(LEAN), pair, policy))
    return judge(evidence, policy) + others


def _figures(pair: Pair, sample: Sample, slices: Masks, lean: Floats | None) -> Figures:
    parts: list[Figures] = [pair.metrics(sample), slice_figures(sample, slices)]
    if lean is not None:
        parts.append(lean_figure(sample, lean))

    def figures(weights: Floats) -> dict[str, Floats]:
        return {name: values for part in parts for name, values in part(weights).items()}

    return figures
