"""What monitoring found, in the form that programs read: states, checks, a verdict."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

FORMAT = 1


class State(StrEnum):
    """Of a check and of a verdict, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    """Found in this window, and not yet in as many as an alarm needs."""
    UNKNOWN = "unknown"
    """It could not be judged, which is no good news."""
    ALARM = "alarm"


class Kind(StrEnum):
    """What a check looks at."""

    QUALITY = "quality"
    DRIFT = "drift"
    DECAY = "decay"


EXIT = {State.OK: 0, State.WARNING: 0, State.ALARM: 2, State.UNKNOWN: 3}
"""Exit status of the command; 1 is an error."""

_ORDER = list(State)


def worst(states: "list[State]") -> State:
    """The worst of some states; `UNKNOWN` of none."""
    return max(states, key=_ORDER.index, default=State.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question about a window, and its answer.

    Attributes:
        key: Names it in every window, as `drift.text.mmd`.
        kind: What it looks at.
        state: The answer.
        message: The answer as a sentence for people.
        value: What was measured; None when it could not be.
        threshold: That an alarm's `value` passes, upwards or downwards.
        p_value: How often a clean window has such a value.
        effect: How much has changed, in `unit`; comparable between windows of any size.
        unit: Of `effect`.
        details: More of it, plain JSON.
    """

    key: str
    kind: Kind
    state: State
    message: str
    value: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    effect: float | None = None
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A window of the prediction log.

    Attributes:
        start: Time of its first moment, with a zone.
        end: Time after its last.
        rows: Predictions in it.
        labelled: Those whose true class is known.
    """

    start: datetime
    end: datetime
    rows: int
    labelled: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one run of monitoring found about the newest window.

    Attributes:
        model: Name of the served model.
        model_version: That answered.
        checked_at: When, with a zone.
        window: What was looked at; None when there was nothing.
        checks: Every question and its answer.
        notices: What was wrong with the log, as sentences.
        report: Path or address of the report for people; None if none was written.
    """

    model: str
    model_version: str
    checked_at: datetime
    window: Span | None
    checks: tuple[Check, ...]
    notices: tuple[str, ...] = ()
    report: str | None = None

    @property
    def state(self) -> State:
        """The worst of all checks."""
        return worst([check.state for check in self.checks])

    def to_json(self) -> dict[str, Any]:
        """The content of `verdict.json`: strict JSON, times as ISO 8601."""
        content = {"format": FORMAT, "state": self.state, **asdict(self)}
        plain: dict[str, Any] = json.loads(json.dumps(content, default=_plain, allow_nan=False))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} is no JSON")
