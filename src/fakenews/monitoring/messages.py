"""What people are told: a subject, a text, and the same for programs.

    fakenews: alarm: drift.text.mmd and 1 more; recovered: quality.volume

Nothing of a check's `details` is in it, where texts of users may be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fakenews.monitoring.verdict import Check, State, Verdict

FORMAT = 1

_SUBJECT = 200
_SENTENCE = 500
_CHECKS = 40
_NOTICES = 10


class What(StrEnum):
    """Of a check, since people were told last."""

    NEW = "new"
    WORSE = "worse"
    STILL = "still"
    """Told before, a long time ago."""
    RECOVERED = "recovered"
    GONE = "gone"
    """It is not among the checks any more."""


@dataclass(frozen=True, kw_only=True)
class News:
    """Something that people should know of a check.

    Attributes:
        what: Has happened.
        key: Of the check.
        check: As it is now; None when it is gone.
        since: When it was first not ok.
    """

    what: What
    key: str
    check: Check | None
    since: datetime

    @property
    def heading(self) -> str:
        """In a few words, the same for all that belong together."""
        if self.check is None:
            return "not checked any more"
        if self.what is What.RECOVERED:
            return "recovered"
        if self.what is What.STILL:
            return "still not ok"
        return _HEADINGS[self.check.state]


# From what matters most.
_HEADINGS = {
    State.ALARM: "alarm",
    State.UNKNOWN: "cannot be judged",
    # One that could not be told when it was an alarm.
    State.WARNING: "warning",
}
_ORDER = (*_HEADINGS.values(), "still not ok", "recovered", "not checked any more")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a channel sends.

    Attributes:
        subject: One line.
        text: Plain text.
        content: The same as strict JSON.
    """

    subject: str
    text: str
    content: Mapping[str, Any]


def compose(
    verdict: Verdict, news: Sequence[News], *, others: Sequence[str], notices: Sequence[str]
) -> Message:
    """Write one message about all that is new.

    Args:
        verdict: Says what was looked at.
        news: At least one.
        others: Keys of checks that are not ok and were told before.
        notices: Sentences on the alerts themselves, before those of the verdict.
    """
    grouped = {heading: [one for one in news if one.heading == heading] for heading in _ORDER}
    grouped = {heading: found for heading, found in grouped.items() if found}
    parts = [f"{heading}: {_few(found)}" for heading, found in grouped.items()]
    subject = _line(f"{verdict.model}: {'; '.join(parts)}", _SUBJECT)
    said = [*notices, *verdict.notices]
    paragraphs = [_looked_at(verdict)]
    left = _CHECKS
    for heading, found in grouped.items():
        lines = [_described(one) for one in found[:left]]
        if len(found) > left:
            lines.append(f"- and {len(found) - left} more")
        left -= len(lines[:left])
        paragraphs.append("\n".join([heading.upper(), *lines]))
    if others:
        paragraphs.append(f"Told before and not ok: {_line(', '.join(others), _SENTENCE)}")
    if said:
        lines = [f"- {_line(notice, _SENTENCE)}" for notice in said[:_NOTICES]]
        if len(said) > _NOTICES:
            lines.append(f"- and {len(said) - _NOTICES} more")
        paragraphs.append("\n".join(["Notices", *lines]))
    if verdict.report is not None:
        paragraphs.append(f"Report: {_line(verdict.report, _SENTENCE)}")
    text = "\n\n".join(paragraphs) + "\n"
    return Message(
        subject=subject,
        text=text,
        content={
            "format": FORMAT,
            # Under the name that chat services show.
            "text": f"{subject}\n\n{text}",
            "state": verdict.state,
            "model": verdict.model,
            "model_version": verdict.model_version,
            "checked_at": verdict.checked_at.isoformat(),
            "window": _window(verdict),
            "news": [_plain(one) for one in news],
            "others": list(others),
            "notices": said,
            "report": verdict.report,
        },
    )


def shown_time(moment: datetime) -> str:
    """A time for people, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _few(found: Sequence[News]) -> str:
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].key}{more}"


def _looked_at(verdict: Verdict) -> str:
    first = f"{verdict.model}, version {verdict.model_version}: {verdict.state.value}"
    window = verdict.window
    if window is None:
        second = "There was no window to look at."
    else:
        second = (
            f"Predictions from {shown_time(window.start)} to {shown_time(window.end)}: "
            f"{window.rows}, {window.labelled} of them with a known class."
        )
    return f"{first}\nChecked at {shown_time(verdict.checked_at)}.\n{second}"


def _described(news: News) -> str:
    since = f"since {shown_time(news.since)}"
    check = news.check
    if check is None:
        return f"- {_line(news.key, _SENTENCE)}: was not ok, {since}"
    numbers = [
        f"{name} {number:.4g}{unit}"
        for name, number, unit in (
            ("value", check.value, ""),
            ("threshold", check.threshold, ""),
            ("p", check.p_value, ""),
            ("effect", check.effect, f" {check.unit}".rstrip()),
        )
        if number is not None
    ]
    state = "" if news.what is not What.STILL else f"{check.state.value}: "
    if news.what is What.RECOVERED:
        since = f"was not ok {since}"
    first = f"- {_line(check.key, _SENTENCE)}: {state}{_line(check.message, _SENTENCE)}"
    return f"{first}\n  {_line(', '.join([*numbers, since]), _SENTENCE)}"


def _window(verdict: Verdict) -> dict[str, Any] | None:
    window = verdict.window
    if window is None:
        return None
    return {
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "rows": window.rows,
        "labelled": window.labelled,
    }


def _plain(news: News) -> dict[str, Any]:
    check = news.check
    return {
        "what": news.what,
        "key": news.key,
        "since": news.since.isoformat(),
        "kind": check and check.kind,
        "state": check and check.state,
        "message": check and _line(check.message, _SENTENCE),
        "value": check and _finite(check.value),
        "threshold": check and _finite(check.threshold),
        "p_value": check and _finite(check.p_value),
        "effect": check and _finite(check.effect),
        "unit": check and check.unit,
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _line(text: str, most: int) -> str:
    """The text as one line without control characters, cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
