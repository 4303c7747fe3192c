"""The report on a window: a verdict for programs, a page for people, lines for a terminal."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.errors import MonitoringError
from fakenews.evaluation import plots
from fakenews.evaluation.page import publish
from fakenews.monitoring import sections
from fakenews.monitoring.account import Account
from fakenews.monitoring.page import render
from fakenews.monitoring.performance import METRICS
from fakenews.monitoring.plots import figures
from fakenews.monitoring.strip import strip
from fakenews.monitoring.verdict import State, Verdict
from fakenews.monitoring.wording import STATES, answer
from fakenews.serving.gateway.segments import MODE

_PAGE, _VERDICT = "report.html", "verdict.json"
_SECTIONS = (
    (
        "Performance over time",
        "Bars and band: 95% intervals. Dotted: the reference.",
        METRICS,
    ),
    ("Predictions", "", ("class_rates", "scores", "class_rates_over_time")),
    ("Volume, errors and latency", "", ("volume", "errors", "latency")),
)
_COLOURS = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.UNKNOWN: "magenta",
    State.ALARM: "bold red",
}


def write(account: Account, folder: Path) -> list[Path]:
    """Write `plots/NAME.png`, `report.html` and `verdict.json`.

    The page holds its plots within itself, so it can be sent alone. All files are made in a
    temporary folder first and then moved, the verdict last; a file of the same name is
    replaced, and plots of an earlier report are removed. The same account gives the same bytes.

    Args:
        account: What to write.
        folder: Made when it is not there.

    Returns:
        The paths written, `verdict.json` last.

    Raises:
        MonitoringError: The folder cannot be written.
    """
    return publish(
        lambda draft: _write_files(account, draft),
        folder,
        what="the report on the window",
        error=MonitoringError,
        obsolete="plots/*.png",
    )


def _write_files(account: Account, folder: Path) -> list[Path]:
    drawn = figures(account)
    drafts = plots.save(drawn, folder / "plots")
    images = {
        path.stem: (
            _alternative(drawn[path.stem]),
            base64.b64encode(path.read_bytes()).decode(),
        )
        for path in drafts
    }
    content = _finite(account.verdict).to_json()
    for name, text in (
        (_PAGE, _page(account, images)),
        (_VERDICT, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"),
    ):
        # Half of a surrogate pair, which a text may have, is nothing that UTF-8 can say.
        (folder / name).write_bytes(text.encode("utf-8", "replace"))
        # There are texts in it, if they are logged.
        (folder / name).chmod(MODE)
        drafts.append(folder / name)
    return drafts


def _finite(verdict: Verdict) -> Verdict:
    """The same, in which a number that is none is missing."""

    def known(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return replace(
        verdict,
        checks=tuple(
            replace(
                check,
                value=known(check.value),
                threshold=known(check.threshold),
                p_value=known(check.p_value),
                effect=known(check.effect),
            )
            for check in verdict.checks
        ),
    )


def _alternative(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left").replace(r"\$", "$")


def _page(account: Account, images: dict[str, tuple[str, str]]) -> str:
    def of(names: Sequence[str]) -> list[tuple[str, str]]:
        return [images[name] for name in names if name in images]

    return render(
        model=account.verdict.model,
        **sections.top(account),
        strip=strip(account),
        moved=sections.moves(account, of([name for name in images if "feature_" in name])),
        sections=[(name, note, of(some)) for name, note, some in _SECTIONS if of(some)],
        counts=sections.counts(account),
        checks=sections.checks(account),
        policy=account.policy,
        reference_rows=len(account.reference.rows),
    )


def table(account: Account) -> Group:
    """The verdict, what is not ok, and how many checks are, for the terminal."""
    verdict = account.verdict
    about = sections.about(verdict)
    parts: list[Text | Table] = [
        Text.assemble((STATES[verdict.state].upper(), _COLOURS[verdict.state]), "  ", about[0]),
        *(Text(line) for line in about[1:]),
    ]
    lines = Table("State", "Check", "Answer", box=box.SIMPLE)
    for state in (State.ALARM, State.WARNING, State.UNKNOWN):
        for check in account.checks(state):
            word = Text(STATES[state], style=_COLOURS[state], no_wrap=True)
            # Texts, for what people write may look like markup.
            name, said = answer(check, account.reference.classes)
            lines.add_row(word, Text(check.key), Text(f"{name}: {said}" if name else said))
    if lines.rows:
        parts.append(lines)
    parts += [Text(notice) for notice in verdict.notices]
    if counted := sections.counted(account):
        parts.append(Text(f"Checks: {counted}."))
    return Group(*parts)
