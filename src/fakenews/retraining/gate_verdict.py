"""What the gate found, in the form that programs read: checks and a verdict."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

FORMAT = 1


class Outcome(StrEnum):
    """Of a check."""

    PASSED = "passed"
    SKIPPED = "skipped"
    """It does not apply here, or there are too few rows for it: it decides nothing."""
    UNDECIDED = "undecided"
    """The test set is too small to tell, which refuses."""
    FAILED = "failed"


class State(StrEnum):
    """Of a verdict."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    """Refused, for want of rows and not of quality."""


_PASSED = {Outcome.PASSED: True, Outcome.SKIPPED: None}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question about a challenger, and its answer.

    Attributes:
        key: Names it, as `test.average_precision`.
        outcome: The answer.
        message: The answer as a sentence.
        numbers: All that it was taken from, plain JSON.
    """

    key: str
    outcome: Outcome
    message: str
    numbers: Mapping[str, Any]

    @property
    def passed(self) -> bool | None:
        """None for what was skipped."""
        return _PASSED.get(self.outcome, False)


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """Whether a challenger may replace a champion, and why.

    Attributes:
        checks: Every question and its answer, in the order asked.
        champion: Its bundle, plain JSON: `bundle`, `sha256`, `run_id`.
        challenger: The same.
        rows: Of `test` and `window`: files with their hashes, counts; plain JSON.
        policy: As `GatePolicy` has it, plain JSON.
        notices: What else is worth to know, as sentences.
        judged_at: When, with a zone.
    """

    checks: tuple[Check, ...]
    champion: Mapping[str, Any]
    challenger: Mapping[str, Any]
    rows: Mapping[str, Any]
    policy: Mapping[str, Any]
    notices: tuple[str, ...]
    judged_at: datetime

    @property
    def state(self) -> State:
        """Accepted when nothing failed and nothing is undecided."""
        outcomes = {check.outcome for check in self.checks}
        if Outcome.FAILED in outcomes:
            return State.REFUSED
        return State.UNDECIDED if Outcome.UNDECIDED in outcomes else State.ACCEPTED

    @property
    def accepted(self) -> bool:
        """Whether the challenger may replace the champion."""
        return self.state is State.ACCEPTED

    @property
    def reason(self) -> str:
        """Why, in one line."""
        if self.accepted:
            judged = sum(check.outcome is Outcome.PASSED for check in self.checks)
            return f"accepted: {judged} checks passed"
        outcome = Outcome.FAILED if self.state is State.REFUSED else Outcome.UNDECIDED
        found = [check.message for check in self.checks if check.outcome is outcome]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{self.state}: {found[0]}{more}"

    @property
    def exit_status(self) -> int:
        """Of the command: 0 accepted, 2 refused; 1 is an error."""
        return 0 if self.accepted else 2

    def to_json(self) -> dict[str, Any]:
        """The content of `gate.json`: strict JSON, a number that is none being null."""
        content = {
            "format": FORMAT,
            "accepted": self.accepted,
            "state": self.state,
            "reason": self.reason,
            **asdict(self),
            "checks": [{**asdict(one), "passed": one.passed} for one in self.checks],
            "judged_at": self.judged_at.isoformat(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(_finite(content), allow_nan=False))
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
