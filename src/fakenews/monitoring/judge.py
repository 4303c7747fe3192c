"""Windows are judged one by one, and the newest in the light of those before it."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fakenews.monitoring.checks import Findings, Policy, comparison_check, trend_check
from fakenews.monitoring.comparisons import (
    Comparison,
    Drop,
    comparisons,
    measured_drops,
    positive_code,
)
from fakenews.monitoring.performance import intervals
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.thresholds import Family
from fakenews.monitoring.verdict import Check, Kind, State

Interval = tuple[float, float, float]

_TREND = "decay.estimated.average_precision"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What was found of one window.

    Attributes:
        rows: How many of it were compared.
        labelled: How many with a known label.
        findings: Of each comparison by key; empty when there were too few rows.
        estimated: Metrics without labels: value, lower and upper end of the 95% interval.
        measured: Metrics with labels; empty when there were too few.
    """

    rows: int
    labelled: int
    findings: Findings = field(default_factory=dict)
    estimated: Mapping[str, Interval] = field(default_factory=dict)
    measured: Mapping[str, Interval] = field(default_factory=dict)


class Judge:
    """Compares windows with a bundle's reference.

    Args:
        reference: Of the bundle.
        policy: What differs, and when that is an alarm.
        seed: Of the resamples.
        progress: Whether bars are shown.

    Attributes:
        notices: What of the policy has no effect, as sentences.
    """

    def __init__(
        self, reference: Reference, *, policy: Policy, seed: int = 0, progress: bool = False
    ) -> None:
        self.reference = reference
        self.policy = policy
        self._positive = positive_code(reference)
        self._seed = seed
        common: dict[str, Any] = {
            "reference_rows": len(reference.rows),
            "rate": policy.false_alarms,
            "confidence": policy.confidence,
            "floors": dict(policy.floors),
            "references": policy.references,
            "windows": policy.windows,
            "seed": seed,
            "progress": progress,
        }
        made = comparisons(reference)
        keys = [each.key for each in made]
        skipped = {pattern: fnmatch.filter(keys, pattern) for pattern in policy.skip}
        left_out = set(chain.from_iterable(skipped.values()))
        self.unlabelled = Family([each for each in made if each.key not in left_out], **common)
        self.labelled = Family(measured_drops(reference), **common)
        self.notices = tuple(
            f"policy.skip: no comparison is called {pattern}"
            for pattern, found in skipped.items()
            if not found
        )

    @property
    def comparisons(self) -> list[Comparison]:
        """Those that need no labels."""
        return self.unlabelled.comparisons

    def judge(self, rows: Rows, labelled: Rows | None = None) -> Judgement:
        """What a window is like.

        Args:
            rows: A sample of it.
            labelled: Its rows whose labels are known; None: those of `rows`.
        """
        known = rows if labelled is None else labelled
        known = known.take(known.labels >= 0)
        if len(rows) < self.policy.min_rows:
            return Judgement(rows=len(rows), labelled=len(known))
        findings = self.unlabelled.judge(rows)
        options: dict[str, Any] = {"positive": self._positive, "seed": self._seed}
        measured = {}
        if len(known) >= self.policy.min_labels:
            findings |= self.labelled.judge(known)
            measured = intervals(known, known=True, **options)
        return Judgement(
            rows=len(rows),
            labelled=len(known),
            findings=findings,
            estimated=intervals(rows, known=False, **options),
            measured=measured,
        )

    def checks(self, history: Sequence[Judgement]) -> list[Check]:
        """Questions and answers about the newest window.

        Args:
            history: Of windows in their order; at least one.
        """
        newest = history[-1]
        if not newest.findings:
            return [
                Check(
                    key="drift",
                    kind=Kind.DRIFT,
                    state=State.UNKNOWN,
                    message=f"{newest.rows:,} text{'s' * (newest.rows != 1)} in the newest "
                    f"window: policy.min_rows={self.policy.min_rows} are needed to judge it",
                    value=float(newest.rows),
                    threshold=float(self.policy.min_rows),
                )
            ]
        judged = [judgement for judgement in history if judgement.findings]
        return list(self._checks(judged))

    def _checks(self, judged: Sequence[Judgement]) -> Iterator[Check]:
        findings = [judgement.findings for judgement in judged]
        for comparison in self.comparisons:
            yield comparison_check(
                comparison,
                findings,
                policy=self.policy,
                floor=self.unlabelled.floor(comparison.key),
            )
        for comparison in self.comparisons:
            if isinstance(comparison, Drop) and comparison.key == _TREND:
                yield trend_check(
                    comparison,
                    self.unlabelled,
                    findings,
                    [judgement.rows for judgement in judged],
                    policy=self.policy,
                )
        if not judged[-1].measured:
            return
        labelled = [judgement.findings for judgement in judged if judgement.measured]
        for drop in self.labelled.comparisons:
            yield comparison_check(
                drop, labelled, policy=self.policy, floor=self.labelled.floor(drop.key)
            )
