"""From findings of windows to checks: an alarm needs several windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from fakenews.bounds import NonNegative, PositiveCount, Probability
from fakenews.errors import ConfigError
from fakenews.monitoring.comparisons import Comparison, Drop
from fakenews.monitoring.performance import cusum
from fakenews.monitoring.thresholds import Family, Finding, decay_limit, size
from fakenews.monitoring.verdict import Check, Kind, State

Findings = Mapping[str, Finding | None]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When windows that differ become an alarm.

    Args:
        false_alarms: Share of clean windows in which any comparison may differ.
        confidence: Share of references, which are samples too, with which that rate is kept.
        needed: Windows that must differ, of the last `of`.
        of: How many windows are looked at.
        min_rows: Predictions that a window must have to be judged.
        min_labels: Known labels that it must have for its performance to be measured.
        floors: By the beginning of a check's key, the least effect that matters.
        skip: Keys of comparisons that are left out, with wildcards: `drift.tabular.*`.
        references: That are drawn from the bundle's for the thresholds; more are steadier.
        windows: That are drawn with each of them.
    """

    false_alarms: Probability = 0.01
    confidence: Probability = 0.9
    needed: PositiveCount = 2
    of: PositiveCount = 3
    min_rows: Annotated[int, Ge(2)] = 50
    min_labels: Annotated[int, Ge(2)] = 50
    floors: Mapping[str, NonNegative] = field(default_factory=dict)
    skip: Sequence[str] = ()
    references: PositiveCount = 64
    windows: Annotated[int, Ge(20)] = 256

    def __post_init__(self) -> None:
        if self.needed > self.of:
            raise ConfigError(
                f"policy.needed={self.needed} is more than policy.of={self.of}: of so many "
                "windows not more can differ"
            )


def comparison_check(
    comparison: Comparison, history: Sequence[Findings], *, policy: Policy, floor: float
) -> Check:
    """What one comparison says of the newest window.

    Args:
        comparison: Which.
        history: What windows were found to be, the newest last; at least one.
        policy: What an alarm needs.
        floor: The least effect that matters.
    """
    key = comparison.key
    kind = Kind.DECAY if isinstance(comparison, Drop) else Kind.DRIFT
    newest = history[-1].get(key)
    if newest is None:
        return Check(
            key=key,
            kind=kind,
            state=State.UNKNOWN,
            message=f"{comparison.title}: the log does not say",
        )
    looked_at = [findings.get(key) for findings in history[-policy.of :]]
    return Check(
        key=key,
        kind=kind,
        state=state_of(looked_at, policy=policy),
        message=_sentence(comparison, newest, _differing(looked_at), len(looked_at), floor),
        value=newest.value,
        threshold=newest.threshold,
        p_value=newest.p_value,
        effect=newest.effect,
        unit=comparison.unit,
        details={
            "windows_differing": _differing(looked_at),
            "windows": len(looked_at),
            "floor": floor,
        },
    )


def state_of(found: Sequence[Finding | None], *, policy: Policy) -> State:
    """Of the last of some windows, by what one comparison finds in them.

    Args:
        found: At least one, the newest last; None where the window lacks what is compared.
        policy: What an alarm needs.
    """
    newest = found[-1]
    if newest is None:
        return State.UNKNOWN
    if _differing(found[-policy.of :]) >= policy.needed:
        return State.ALARM
    return State.WARNING if newest.exceeded else State.OK


def _differing(found: Sequence[Finding | None]) -> int:
    return sum(each is not None and each.exceeded for each in found)


def _sentence(
    comparison: Comparison, found: Finding, differing: int, windows: int, floor: float
) -> str:
    if isinstance(comparison, Drop):
        now = comparison.usual - found.value
        return (
            f"{comparison.title} {now:.3f}, of the reference {comparison.usual:.3f}: a drop of "
            f"{found.value:.3f}, of clean windows at most {found.threshold:.3f}"
            + _windows(differing, windows)
        )
    small = (
        ", too little to matter" if found.value > found.threshold and not found.exceeded else ""
    )
    return (
        f"{comparison.title}: {found.value:.3g}, of clean windows at most "
        f"{found.threshold:.3g}; {found.effect:.3g} {comparison.unit} (from {floor:g} on it "
        f"matters{small})" + _windows(differing, windows)
    )


def _windows(differing: int, windows: int) -> str:
    return f"; {differing} of the last {windows} windows differ" if differing else ""


def trend_check(
    drop: Drop,
    family: Family,
    history: Sequence[Findings],
    sizes: Sequence[int],
    *,
    policy: Policy,
) -> Check:
    """Whether small drops of a metric last: cumulated sums over all windows.

    Args:
        drop: Of the metric.
        family: It was judged in.
        history: What windows were found to be, the newest last.
        sizes: How many rows each had.
        policy: The rate of false alarms is that of all windows together.
    """
    key = drop.key.replace("decay.", "decay.trend.", 1)
    judged = [
        (found, rows)
        for findings, rows in zip(history, sizes, strict=True)
        if (found := findings.get(drop.key)) is not None
    ]
    if not judged:
        return Check(
            key=key,
            kind=Kind.DECAY,
            state=State.UNKNOWN,
            message=f"{drop.title}, over time: the log does not say",
        )
    limits = {
        rows: decay_limit(
            family.at(size(rows)),
            drop.key,
            windows=len(judged),
            rate=policy.false_alarms,
            confidence=policy.confidence,
        )
        for rows in {rows for _, rows in judged}
    }
    sums = cusum([(found.value - limits[r][0]) / limits[r][1] for found, r in judged])
    limit = max(found[2] for found in limits.values())
    mean = sum(found.value for found, _ in judged) / len(judged)
    reached = float(sums[-1]) > limit and mean >= family.floor(drop.key)
    alarm = State.ALARM if len(judged) >= policy.needed else State.WARNING
    state = alarm if reached else State.OK
    return Check(
        key=key,
        kind=Kind.DECAY,
        state=state,
        message=(
            f"{drop.title}, over {len(judged)} window{'s' * (len(judged) != 1)}: {mean:.3f} "
            f"below the reference at the mean; the cumulated sum is {sums[-1]:.1f}, of clean "
            f"windows at most {limit:.1f}"
        ),
        value=float(sums[-1]),
        threshold=limit,
        effect=mean,
        unit=drop.unit,
    )
