"""All that a report tells: a verdict, the windows before it, and what a drift is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fakenews.monitoring.checks import Policy, state_of
from fakenews.monitoring.comparisons import positive_code
from fakenews.monitoring.explain import Example, Mover, Word
from fakenews.monitoring.judge import Judgement
from fakenews.monitoring.performance import estimated, measured
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.thresholds import Finding
from fakenews.monitoring.totals import Totals
from fakenews.monitoring.verdict import Check, Span, State, Verdict
from fakenews.monitoring.wording import SUBJECTS, subject

_LABELLED = "decay.measured."


class Cell(NamedTuple):
    """What a check found in one window."""

    state: State
    p_value: float | None = None
    effect: float | None = None
    unit: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Account:
    """What one run of monitoring found, and what it is read from.

    Attributes:
        verdict: On the newest window.
        reference: That windows were compared with.
        policy: By which.
        spans: Of the windows, oldest first; empty when there was none.
        judgements: One a window.
        totals: One a window.
        rows: A sample of the newest window; None when there was none.
        movers: Of the newest window.
        words: Likewise.
        examples: Likewise.

    Raises:
        ValueError: There are not as many judgements or totals as windows.
    """

    verdict: Verdict
    reference: Reference
    policy: Policy
    spans: Sequence[Span] = ()
    judgements: Sequence[Judgement] = ()
    totals: Sequence[Totals] = ()
    rows: Rows | None = None
    movers: Sequence[Mover] = ()
    words: Sequence[Word] = ()
    examples: Sequence[Example] = ()

    def __post_init__(self) -> None:
        if len({len(self.spans), len(self.judgements), len(self.totals)}) > 1:
            raise ValueError(
                f"{len(self.spans)} windows, {len(self.judgements)} judgements and "
                f"{len(self.totals)} totals: one of each a window"
            )

    def checks(self, *states: State) -> list[Check]:
        """Those in one of some states, in the order in which people ask for them."""
        found = [check for check in self.verdict.checks if check.state in states]
        return sorted(found, key=_weight)

    @property
    def counts(self) -> dict[State, int]:
        """How many checks are in each state."""
        states = [check.state for check in self.verdict.checks]
        return {state: states.count(state) for state in State}

    @cached_property
    def usual(self) -> dict[str, dict[str, float]]:
        """The reference's metrics, `estimated` and `measured`."""
        rows, positive = self.reference.rows, positive_code(self.reference)
        whole = np.ones((1, len(rows)))
        return {
            name: {
                metric: float(values[0])
                for metric, values in of(rows, positive=positive).metrics(whole).items()
            }
            for name, of in (("estimated", estimated), ("measured", measured))
        }

    def history(self) -> dict[str, list[Cell | None]]:
        """What each check found in every window, by its key.

        None where it was not asked: of what is known of the newest window alone, all others.
        """
        asked = {check.key: check for check in self.verdict.checks}
        compared = {key for judgement in self.judgements for key in judgement.findings}
        found: dict[str, list[Cell | None]] = {}
        for key in sorted(asked.keys() | compared):
            if key in compared:
                unit = asked[key].unit if key in asked else ""
                found[key] = [*self._past(key, unit)]
            elif self.spans:
                check = asked[key]
                cell = Cell(check.state, check.p_value, check.effect, check.unit)
                found[key] = [*[None] * (len(self.spans) - 1), cell]
        return found

    def _past(self, key: str, unit: str) -> "list[Cell | None]":
        cells: list[Cell | None] = []
        findings: list[Finding | None] = []
        for judgement in self.judgements:
            if key.startswith(_LABELLED) and not judgement.measured:
                cells.append(None)
                continue
            if not judgement.findings:
                cells.append(Cell(State.UNKNOWN))
                continue
            findings.append(judgement.findings.get(key))
            state, newest = state_of(findings, policy=self.policy), findings[-1]
            cells.append(
                Cell(state)
                if newest is None
                else Cell(state, newest.p_value, newest.effect, unit)
            )
        return cells


def _weight(check: Check) -> tuple[int, float, float, str]:
    p_value = 1.0 if check.p_value is None else check.p_value
    place = list(SUBJECTS).index(subject(check.key))
    return place, p_value, -(check.effect or 0.0), check.key
