"""The report of a gate: JSON for programs, a page for people, lines for a terminal."""

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.errors import RetrainingError
from fakenews.evaluation import plots
from fakenews.retraining.gate_page import render
from fakenews.retraining.gate_policy import METRICS
from fakenews.retraining.gate_verdict import Check, GateVerdict, Outcome, State
from fakenews.retraining.noninferiority import PLACES, TITLES

JSON, PAGE = "gate.json", "gate.html"

_COLOURS = {
    Outcome.PASSED: "green",
    Outcome.SKIPPED: "dim",
    Outcome.UNDECIDED: "yellow",
    Outcome.FAILED: "bold red",
}
_INK = {
    Outcome.PASSED: plots.BLUE,
    Outcome.SKIPPED: plots.GREY,
    Outcome.UNDECIDED: "#855b00",
    Outcome.FAILED: plots.ORANGE,
}
_HEADLINES = {
    State.ACCEPTED: "The challenger may replace the champion",
    State.REFUSED: "The champion stays",
    State.UNDECIDED: "The champion stays: too few rows to tell",
}


def check_folder(folder: Path) -> None:
    """Notice before minutes of work that the verdict has no place.

    Raises:
        RetrainingError: The folder cannot be made, or not be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise RetrainingError(
            f"out={folder}: {there} is no folder that can be written: choose another"
        )


def write(verdict: GateVerdict, folder: Path) -> None:
    """Write `gate.html` and `gate.json`, both whole, the JSON last.

    Args:
        verdict: What was found.
        folder: Made when it is not there.

    Raises:
        RetrainingError: It cannot be written.
    """
    content = json.dumps(verdict.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".gate-") as name:
            draft = Path(name)
            pages = {PAGE: _page(verdict, draft), JSON: content + "\n"}
            for file, text in pages.items():
                # Half of a surrogate pair, which a text may have, is nothing in UTF-8.
                (draft / file).write_bytes(text.encode("utf-8", "replace"))
            # A verdict without its page is better than the page of another verdict.
            (folder / JSON).unlink(missing_ok=True)
            for file in pages:
                (draft / file).replace(folder / file)
    except OSError as error:
        raise RetrainingError(
            f"out={folder}: the verdict cannot be written: {error.strerror or error}; choose a "
            "folder that is writable and has space"
        ) from error


def table(verdict: GateVerdict) -> Group:
    """The verdict in one line, and every check, for the terminal."""
    colour = "green" if verdict.accepted else "bold red"
    lines = Table("Outcome", "Check", "Answer", box=box.SIMPLE)
    for check in verdict.checks:
        # Texts, for class names may look like markup.
        word = Text(str(check.outcome), style=_COLOURS[check.outcome], no_wrap=True)
        lines.add_row(word, Text(check.key), Text(check.message))
    notices = [Text(f"note: {notice}") for notice in verdict.notices]
    return Group(lines, *notices, Text(verdict.reason, style=colour))


def _page(verdict: GateVerdict, draft: Path) -> str:
    by_key = {check.key: check for check in verdict.checks}
    judged = [
        check
        for key, check in by_key.items()
        if key.partition(".")[2] in METRICS and "margin" in check.numbers
    ]
    images = []
    if judged:
        (path,) = plots.save({"intervals": intervals(judged)}, draft)
        images = [base64.b64encode(path.read_bytes()).decode()]
    return render(
        title=_HEADLINES[verdict.state],
        state=str(verdict.state),
        reason=verdict.reason,
        about=list(_about(verdict)),
        why=[
            (str(check.outcome), check.message)
            for check in verdict.checks
            if check.outcome in (Outcome.FAILED, Outcome.UNDECIDED)
        ],
        figures=_figures(judged),
        images=images,
        metrics=[_metric_line(check) for check in judged],
        checks=[(str(one.outcome), one.key, one.message) for one in verdict.checks],
        slices=[
            (PLACES[place], _slice_lines(by_key[f"{place}.slices"]))
            for place in PLACES
            if f"{place}.slices" in by_key and by_key[f"{place}.slices"].numbers["slices"]
        ],
        behaviour=[
            line
            for kind in ("invariance", "directions")
            if (found := by_key.get(f"behaviour.{kind}"))
            for line in _behaviour_lines(found)
        ],
        examples=[
            (test["name"], example)
            for kind in ("invariance", "directions")
            if (found := by_key.get(f"behaviour.{kind}"))
            for test in found.numbers["tests"]
            for example in test["examples"]
        ],
        notices=list(verdict.notices),
        policy=verdict.policy,
    )


def intervals(checks: Sequence[Check]) -> Figure:
    """The gain of each metric with its bounds, and the margin it must stay above.

    Args:
        checks: Of metrics, with their numbers.
    """
    figure, axes = plots.figure_of(
        "Challenger minus champion", size=(8.2, 1.5 + 0.52 * len(checks))
    )
    axes.axvline(0, color=plots.BLACK, linewidth=1)
    for at, check in enumerate(checks):
        numbers = check.numbers
        ink = _INK[check.outcome]
        axes.plot([numbers["lower"], numbers["upper"]], [at, at], color=ink, linewidth=3)
        axes.plot([numbers["gain"]], [at], "o", color=ink, markersize=8)
        margin = -numbers["margin"]
        axes.plot([margin, margin], [at - 0.36, at + 0.36], color=plots.BLACK, linewidth=2.5)
        axes.fill_betweenx(
            [at - 0.36, at + 0.36], margin, -numbers["margin_borne"], color="#dddddd"
        )
    axes.set_yticks(range(len(checks)), [_name(check) for check in checks])
    axes.set_ylim(len(checks) - 0.4, -0.6)
    axes.set_xlabel("worse  ←  gain  →  better  (black bar: the margin; grey: the most borne)")
    axes.grid(visible=False, axis="y")
    return figure


def _name(check: Check) -> str:
    place, _, metric = check.key.partition(".")
    title = TITLES[metric].partition(" (")[0]
    return f"{title}, {place}"


def _about(verdict: GateVerdict) -> Iterator[str]:
    for role, side in (("Champion", verdict.champion), ("Challenger", verdict.challenger)):
        yield f"{role}: {side['bundle']} ({side['sha256'][:12]})"
    for place, name in PLACES.items():
        if found := verdict.rows.get(place):
            counts = ", ".join(
                f"{count:,} {label}" for label, count in found["classes"].items()
            )
            yield f"{name[0].upper()}{name[1:]}: {found['rows']:,} rows ({counts})"
    yield f"Judged {verdict.judged_at:%Y-%m-%d %H:%M %Z}"


def _figures(checks: Sequence[Check]) -> list[tuple[str, str, str]]:
    return [
        (
            _name(check),
            f"{check.numbers['challenger']:.3f}",
            f"champion {check.numbers['champion']:.3f}",
        )
        for check in checks
        if check.key.startswith("test.")
    ]


def _metric_line(check: Check) -> list[str]:
    numbers = check.numbers
    return [
        _name(check),
        f"{numbers['champion']:.3f}",
        f"{numbers['challenger']:.3f}",
        f"{numbers['gain']:+.3f}",
        f"{numbers['lower']:+.3f} to {numbers['upper']:+.3f}",
        f"{-numbers['margin']:+.3f}",
        f"{-numbers['margin_borne']:+.3f}",
        str(check.outcome),
    ]


def _slice_lines(check: Check) -> list[list[str]]:
    lines: Sequence[Mapping[str, Any]] = check.numbers["slices"]
    return [
        [
            line["slice"],
            f"{line['rows']:,}",
            f"{line['minority_rows']:,}",
            f"{line['champion']:.3f}",
            f"{line['challenger']:.3f}",
            f"{line['gain']:+.3f}",
            f"{line['upper']:+.3f}",
            "worse" if line["worse"] else "",
        ]
        for line in sorted(lines, key=lambda line: float(line["gain"]))
    ]


def _behaviour_lines(check: Check) -> list[list[str]]:
    return [
        [
            test["name"],
            f"{test['texts']:,}",
            f"{test['champion']:.1%}",
            f"{test['challenger']:.1%}",
            "worse" if test["worse"] else "",
        ]
        for test in check.numbers["tests"]
    ]
