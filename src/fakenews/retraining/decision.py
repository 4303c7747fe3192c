"""Whether to retrain now: what monitoring found, what has been labelled, and how long it is.

A reason for it is any of: an alarm of drift, of estimated or of measured decay, enough new
labels, the champion's age, or somebody who asks. A reason against it is a veto: a cool-down
that is not over, or nothing new to learn from. Only who asks is above them.

An alarm of monitoring is sustained already: it takes as many windows as its own policy says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatch
from typing import Any, Literal

from fakenews.bounds import Count, NonNegative, Positive, PositiveCount
from fakenews.errors import RetrainingError
from fakenews.monitoring.verdict import FORMAT, Kind, State

_SKEW = timedelta(minutes=5)  # between clocks
_NAMED = 3  # checks that a sentence names
_MEASURED = ("decay.measured.", "decay.trend.measured.")

Effect = Literal["for", "veto", "note"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is a reason to retrain.

    Args:
        drift: Whether an alarm of drift is.
        estimated_decay: Whether an alarm of decay that was estimated without labels is.
        measured_decay: Whether an alarm of decay that was measured with labels is.
        ignore: Keys of checks that are none, with wildcards: `drift.tabular.*`.
        new_labels: So many new labels are; None: no number is.
        max_age_days: Such an age of the champion is; None: no age is.
        cool_down_days: After a retraining, so long none begins.
        least_labels: With fewer new labels none begins, as there is nothing to learn.
        max_report_age_hours: A report that is older does not count.
    """

    drift: bool = True
    estimated_decay: bool = True
    measured_decay: bool = True
    ignore: Sequence[str] = ()
    new_labels: PositiveCount | None = 500
    max_age_days: Positive | None = 90
    cool_down_days: NonNegative = 3
    least_labels: Count = 1
    max_report_age_hours: Positive = 48


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What else there is to know.

    Attributes:
        now: With a zone, as all times.
        trained_at: When the champion was; None where that is not known.
        last_retrained_at: When a retraining began last, whatever became of it; None: never.
        new_labels: Labels that no training has seen.
        asked: Whether somebody asks for it.
    """

    now: datetime
    trained_at: datetime | None = None
    last_retrained_at: datetime | None = None
    new_labels: int = 0
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Something that was looked at.

    Attributes:
        key: Names it: `asked`, `drift`, `decay.estimated`, `decay.measured`, `new_labels`,
            `age`, `cool_down`, `least_labels`, `report`, `unknown`.
        effect: `for` a retraining; a `veto` against it; or a `note`, that it is none.
        message: It as a sentence for people.
        details: Its numbers, plain JSON.
    """

    key: str
    effect: Effect
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to retrain, and why.

    Attributes:
        retrain: Whether.
        decided_at: When.
        reasons: All that was looked at.
    """

    retrain: bool
    decided_at: datetime
    reasons: tuple[Reason, ...]

    @property
    def message(self) -> str:
        """The decision as one line for people."""
        wanted = [r.message for r in self.reasons if r.effect == "for"]
        vetoes = [r.message for r in self.reasons if r.effect == "veto"]
        if self.retrain:
            return f"retrain: {'; '.join(wanted)}"
        if wanted:
            return f"do not retrain: {'; '.join(vetoes)}; though {'; '.join(wanted)}"
        return "do not retrain: there is no reason to"

    def to_json(self) -> dict[str, Any]:
        """Strict JSON; times as ISO 8601."""
        return {
            "retrain": self.retrain,
            "message": self.message,
            "decided_at": self.decided_at.isoformat(),
            "reasons": [asdict(reason) for reason in self.reasons],
        }


def decide(report: Mapping[str, Any] | None, policy: Policy, facts: Facts) -> Decision:
    """Decide whether to retrain.

    Args:
        report: The content of monitoring's `verdict.json`; None where there is none. It does
            not count when it is older than the policy allows, from the future, or from before
            the champion was trained, whom it cannot be about. What it could not judge is no
            reason for anything.
        policy: What is a reason.
        facts: Beside the report.

    Raises:
        RetrainingError: The report is none of monitoring's, or a time has no zone.
    """
    _check(facts)
    reasons = [
        *_asked(facts),
        *_of_report(report, policy, facts),
        *_of_labels(policy, facts),
        *_of_age(policy, facts),
        *_vetoes(policy, facts),
    ]
    effects = {reason.effect for reason in reasons}
    retrain = facts.asked or ("for" in effects and "veto" not in effects)
    return Decision(retrain=retrain, decided_at=facts.now, reasons=tuple(reasons))


def _asked(facts: Facts) -> Iterator[Reason]:
    if facts.asked:
        yield Reason(key="asked", effect="for", message="somebody asked for it")


def _of_report(
    report: Mapping[str, Any] | None, policy: Policy, facts: Facts
) -> Iterator[Reason]:
    if report is None:
        yield Reason(key="report", effect="note", message="there is no report of monitoring")
        return
    checked_at, checks = _read(report)
    if (fault := _useless(checked_at, policy, facts)) is not None:
        yield Reason(
            key="report",
            effect="note",
            message=f"the report of monitoring does not count: {fault}",
            details={"checked_at": checked_at.isoformat(), "state": report.get("state")},
        )
        return
    counted = [
        check
        for check in checks
        if not any(fnmatch(check["key"], pattern) for pattern in policy.ignore)
    ]
    for key, wanted, words in (
        ("drift", policy.drift, "drift"),
        ("decay.measured", policy.measured_decay, "decay, measured with labels"),
        ("decay.estimated", policy.estimated_decay, "decay, estimated without labels"),
    ):
        alarms = [c for c in counted if _group(c) == key and c["state"] == State.ALARM]
        if alarms:
            yield Reason(
                key=key,
                effect="for" if wanted else "note",
                message=_of_alarms(words, alarms)
                + ("" if wanted else ", which the policy passes over"),
                details={"alarms": alarms, "checked_at": checked_at.isoformat()},
            )
    unknown = [check["key"] for check in counted if check["state"] == State.UNKNOWN]
    if unknown or not checks:
        yield Reason(
            key="unknown",
            effect="note",
            message=f"monitoring could not judge {_listed(unknown) or 'anything'}, "
            "which is no reason for or against",
            details={"checks": unknown, "notices": list(report.get("notices") or ())},
        )


def _useless(checked_at: datetime, policy: Policy, facts: Facts) -> str | None:
    """Why a report does not count, if it does not."""
    age = facts.now - checked_at
    if age < -_SKEW:
        return f"it was made {_span(-age)} in the future: a clock is wrong"
    if age > timedelta(hours=policy.max_report_age_hours):
        return (
            f"it was made {_span(age)} ago, more than {_span_of_hours(policy)} "
            "(policy.max_report_age_hours)"
        )
    if facts.trained_at is not None and checked_at < facts.trained_at:
        return "it was made before the champion was trained, and is about an earlier model"
    return None


def _of_labels(policy: Policy, facts: Facts) -> Iterator[Reason]:
    if policy.new_labels is not None and facts.new_labels >= policy.new_labels:
        yield Reason(
            key="new_labels",
            effect="for",
            message=f"{_labels(facts)}, and {policy.new_labels:,} are enough "
            "(policy.new_labels)",
            details={"new_labels": facts.new_labels, "enough": policy.new_labels},
        )


def _of_age(policy: Policy, facts: Facts) -> Iterator[Reason]:
    if policy.max_age_days is None:
        return
    if facts.trained_at is None:
        yield Reason(
            key="age",
            effect="note",
            message="when the champion was trained is not known, and so its age is none",
        )
        return
    age = facts.now - facts.trained_at
    if age >= timedelta(days=policy.max_age_days):
        yield Reason(
            key="age",
            effect="for",
            message=f"the champion was trained {_span(age)} ago, and may be "
            f"{policy.max_age_days:g} days old (policy.max_age_days)",
            details={"trained_at": facts.trained_at.isoformat(), "days": _days(age)},
        )


def _vetoes(policy: Policy, facts: Facts) -> Iterator[Reason]:
    """What stops a retraining, unless somebody asks for it."""
    effect: Effect = "note" if facts.asked else "veto"
    if facts.last_retrained_at is not None:
        since = facts.now - facts.last_retrained_at
        # A retraining in the future is one of a wrong clock, and just now.
        if since < timedelta(days=policy.cool_down_days):
            yield Reason(
                key="cool_down",
                effect=effect,
                message=f"the last retraining began {_span(max(since, timedelta()))} ago, less "
                f"than {policy.cool_down_days:g} days (policy.cool_down_days)",
                details={
                    "last_retrained_at": facts.last_retrained_at.isoformat(),
                    "over_at": (
                        facts.last_retrained_at + timedelta(days=policy.cool_down_days)
                    ).isoformat(),
                },
            )
    if facts.new_labels < policy.least_labels:
        yield Reason(
            key="least_labels",
            effect=effect,
            message=f"{_labels(facts)}, and {policy.least_labels:,} are needed to learn "
            "anything (policy.least_labels)",
            details={"new_labels": facts.new_labels, "needed": policy.least_labels},
        )


# --- what monitoring wrote ------------------------------------------------------------------


def _read(report: Mapping[str, Any]) -> tuple[datetime, list[dict[str, Any]]]:
    """When a report was made, and its checks: `key`, `kind`, `state`, `message`, `effect`."""
    if report.get("format") != FORMAT:
        raise RetrainingError(
            f"the report is none of monitoring's: its format is {report.get('format')!r}, not "
            f"{FORMAT}; give the content of a verdict.json of this version"
        )
    try:
        checked_at = datetime.fromisoformat(report["checked_at"])
        checks = [
            {
                "key": str(check["key"]),
                "kind": Kind(check["kind"]).value,
                "state": State(check["state"]).value,
                "message": str(check["message"]),
                "effect": check.get("effect"),
                "unit": check.get("unit", ""),
            }
            for check in report["checks"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RetrainingError(
            f"the report of monitoring is damaged ({reason}): let monitoring write it again"
        ) from error
    if checked_at.utcoffset() is None:
        raise RetrainingError(
            "the report of monitoring is damaged (checked_at has no zone): let monitoring "
            "write it again"
        )
    return checked_at, checks


def _group(check: Mapping[str, Any]) -> str | None:
    """The reason that an alarm of a check is; None of quality, which no training mends."""
    if check["kind"] == Kind.DRIFT:
        return "drift"
    if check["kind"] == Kind.DECAY:
        measured = check["key"].startswith(_MEASURED)
        return "decay.measured" if measured else "decay.estimated"
    return None


def _of_alarms(words: str, alarms: Sequence[Mapping[str, Any]]) -> str:
    named = _listed([alarm["key"] for alarm in alarms])
    return f"alarm of {words} ({named})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


# --- words ----------------------------------------------------------------------------------


def _check(facts: Facts) -> None:
    for name in ("now", "trained_at", "last_retrained_at"):
        when = getattr(facts, name)
        if when is not None and when.utcoffset() is None:
            raise RetrainingError(f"facts.{name}={when.isoformat()} has no zone: add one")


def _labels(facts: Facts) -> str:
    one = facts.new_labels == 1
    return f"there {'is' if one else 'are'} {facts.new_labels:,} new label{'s' * (not one)}"


def _days(span: timedelta) -> float:
    return round(span / timedelta(days=1), 3)


def _span(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    if hours < 1:
        return f"{span / timedelta(minutes=1):.0f} minutes"
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def _span_of_hours(policy: Policy) -> str:
    return f"{policy.max_report_age_hours:g} hours"
