"""What the page of a report says in words and figures, section by section."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from fakenews.monitoring.account import Account
from fakenews.monitoring.explain import Example, Word
from fakenews.monitoring.plots import MOVED, far
from fakenews.monitoring.totals import Totals
from fakenews.monitoring.verdict import Span, State, Verdict
from fakenews.monitoring.wording import STATES, answer, capital, sentence, title

_SAID = 8  # checks that are answered in sentences
_EXAMPLES = 5
_TEXT = 400  # characters
_BAR = 3.0  # longest, in rem: that of one standard deviation and more
_HEADINGS = {
    State.ALARM: "Alarms",
    State.WARNING: "Warnings",
    State.UNKNOWN: "Could not be judged",
}


def top(account: Account) -> dict[str, Any]:
    """The verdict in a sentence, what it is about, and the few numbers to know first."""
    verdict = account.verdict
    return {
        "state": str(verdict.state),
        "word": STATES[verdict.state],
        "about": about(verdict),
        "headline": list(_headline(account)),
        "answers": list(_answers(account)),
    }


def about(verdict: Verdict) -> list[str]:
    """The verdict in a sentence, then what it is about, line by line."""
    return [
        sentence(verdict),
        _window(verdict.window),
        f"Model {verdict.model}, version {verdict.model_version}.",
        f"Checked at {moment(verdict.checked_at)} UTC.",
    ]


def moment(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def _window(window: Span | None) -> str:
    if window is None:
        return "There is no window."
    labelled = f"{window.labelled:,}" if window.labelled else "none"
    return (
        f"Newest window: {moment(window.start)} to {moment(window.end)} UTC, "
        f"{window.rows:,} predictions, {labelled} with a known label."
    )


def counted(account: Account, *, ok: bool = True) -> str:
    """How many checks are in which state, the worst first."""
    names = {State.ALARM: "alarm", State.WARNING: "warning"}
    parts = []
    for state in reversed(State):
        count = account.counts[state]
        if count and (ok or state is not State.OK):
            name = names.get(state)
            plural = f"{name}{'s' * (count != 1)}" if name else STATES[state].lower()
            parts.append(f"{count:,} {'ok' if state is State.OK else plural}")
    return ", ".join(parts)


def _headline(account: Account) -> Iterator[tuple[str, str, str]]:
    count = len(account.verdict.checks)
    differing = account.counts[State.ALARM] + account.counts[State.WARNING]
    if count:
        yield "Checks that differ", f"{differing} of {count}", counted(account)
    for kind in ("estimated", "measured"):
        yield from _performance(account, kind)
    if account.totals:
        totals = account.totals[-1]
        different = "" if totals.unique is None else f"{totals.unique:,} different texts"
        yield "Predictions", f"{totals.rows:,}", different
        latency = (totals.latency_ms or {}).get("p95")
        remark = "" if latency is None else f"95% of answers within {latency:,.0f} ms"
        rate = totals.error_rate
        yield "Refused or failed", "n/a" if rate is None else f"{rate:.2%}", remark


def _performance(account: Account, kind: str) -> Iterator[tuple[str, str, str]]:
    """The newest that is known: labels come late."""
    for span, judgement in reversed([*zip(account.spans, account.judgements, strict=True)]):
        interval = getattr(judgement, kind).get("average_precision")
        if interval is not None:
            value, low, high = interval
            usual = account.usual[kind]["average_precision"]
            remark = f"95%: {number(low)} to {number(high)}; reference {number(usual)}"
            if span is not account.spans[-1]:
                remark += f"; window of {moment(span.start)}"
            yield f"Average precision, {kind}", number(value), remark
            return


def _answers(account: Account) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
    for state, heading in _HEADINGS.items():
        checks = account.checks(state)
        if checks:
            rest = [title(check.key, account.reference.classes) for check in checks[_SAID:]]
            more = f"And {len(rest)} more: {', '.join(rest)}." if rest else ""
            said = [answer(check, account.reference.classes) for check in checks[:_SAID]]
            yield heading, said, more
    if account.verdict.notices:
        notices = [("", notice) for notice in account.verdict.notices]
        yield "What was wrong with the log", notices, ""


def moves(account: Account, images: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a drift is made of: features, words, texts.

    Args:
        account: With a window, for there to be any.
        images: Alternative text and PNG of each feature's plot.
    """
    movers = far(account)
    words = [
        ("Words that are more usual", [word for word in account.words if word.score > 0]),
        ("Words that are rarer", [word for word in account.words if word.score < 0]),
    ]
    notes = []
    if not movers and account.movers:
        notes.append(f"No mean has moved by {MOVED} standard deviations.")
    if any(mover.key.startswith("tabular.") for mover in movers):
        notes.append("Features are as the model reads them, most of them standardised.")
    if account.examples and not any(example.text for example in account.examples):
        notes.append("The log has no texts, so none are shown.")
    return {
        "show": bool(account.rows is not None or account.words or account.examples),
        "images": images,
        "movers": [
            (
                title(f"drift.{mover.key}", account.reference.classes),
                number(mover.before),
                number(mover.now),
                signed(mover.shift),
                f"{min(abs(mover.shift), 1) * _BAR:.2f}",
                "less" if mover.shift < 0 else "",
            )
            for mover in movers
        ],
        "words": [(heading, [_word(word) for word in some]) for heading, some in words if some],
        "examples": [_example(found) for found in account.examples if found.text][:_EXAMPLES],
        "notes": notes,
    }


def _word(word: Word) -> tuple[str, str, str]:
    return word.word, f"{word.before:.2f}", f"{word.now:.2f}"


def _example(example: Example) -> tuple[str, str, str, str]:
    text = " ".join((example.text or "").split())
    short = text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
    return short, example.label, signed(example.score), example.id


def counts(account: Account) -> list[list[str]]:
    """What was counted in the newest window, and in those before."""
    if not account.totals:
        return []
    kinds = sorted({kind for totals in account.totals for kind in totals.errors or {}})
    versions = sorted({version for totals in account.totals for version in totals.versions})
    *earlier, newest = (_counts(totals, kinds, versions) for totals in account.totals)
    lines = []
    for name, (value, shown) in newest.items():
        known = [found[name][0] for found in earlier if name in found]
        lines.append([name, shown(value), shown(median(known)) if known else ""])
    return lines


def _counts(
    totals: Totals, kinds: Sequence[str], versions: Sequence[str]
) -> dict[str, tuple[float, Any]]:
    whole, share, time = "{:,.0f}".format, "{:.2%}".format, "{:,.1f} ms".format
    found: dict[str, tuple[float, Any]] = {"Predictions": (totals.rows, whole)}
    if totals.unique is not None:
        found["Different texts"] = (totals.unique, whole)
    if totals.error_rate is not None:
        found["Requests refused or failed"] = (totals.error_rate, share)
    if totals.errors is not None:
        for kind in kinds:
            found[f"Refused or failed: {kind}"] = (totals.errors.get(kind, 0), whole)
    for name, value in (totals.latency_ms or {}).items():
        found[f"Latency, {name}"] = (value, time)
    for name, known in (("Truncated", totals.truncated), ("Unsure", totals.unsure)):
        if known is not None:
            found[name] = (known, share)
    for version in versions:
        found[f"By version {version}"] = (totals.versions.get(version, 0), whole)
    return found


def checks(account: Account) -> list[tuple[str, str, str, str, list[str]]]:
    """The table of all checks, the worst first."""
    return [
        (
            str(check.state),
            STATES[check.state],
            check.key,
            capital(check.message),
            [
                number(check.value),
                number(check.threshold),
                "" if check.p_value is None else f"{check.p_value:.2g}",
                f"{number(check.effect)} {check.unit}".strip(),
            ],
        )
        for state in reversed(State)
        for check in account.checks(state)
    ]


def number(value: float | None) -> str:
    """A number as people read it; empty if there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "n/a"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
